"""Python's search for objects that only hold each other, made rare where a command makes few of them.

    with collected_rarely():
        report = build_report(runs)

What is read and drawn is many objects and hardly ever a cycle: looking through all of them again and again
took a fifth of a large report's time, and a quarter of a small one's, which is mostly imports.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OBJECTS: Final = 100_000
"""Made and not yet freed, after which the youngest are looked through; Python's own is 700."""


@contextmanager
def collected_rarely() -> Iterator[None]:
    """Collect cycles a hundred times as rarely as usual for as long as the block runs."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
