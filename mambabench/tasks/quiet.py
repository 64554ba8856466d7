"""Keep progress bars and remarks of lm-eval and `datasets` off the terminal."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence bars and remarks of `datasets` and lm-eval's remarks about its own YAML; all are restored."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level = logger.level
    bars = datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    logger.setLevel(logging.ERROR)
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def remarks(note: Callable[[str], None]) -> Iterator[None]:
    """Collect lm-eval's warnings instead of letting it print them.

    Args:
        note: called at the end with each warning's first line, repeated ones once with their number.
    """
    logger = logging.getLogger("lm_eval")
    heard: Counter[str] = Counter()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
            heard[lines[0] if lines else record.levelname] += 1

    listener = Listener(logging.WARNING)
    propagates = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(listener)
        for line, times in heard.items():
            note(line if times == 1 else f"{line} ({times} times)")
