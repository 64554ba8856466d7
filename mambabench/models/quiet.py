"""Keep third-party libraries silent while they work for us: progress and warnings are ours to show."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars, its logger and Python warnings; whatever it was set to is restored."""
    from transformers.utils import logging as their_logging

    control: Any = their_logging
    level = control.get_verbosity()
    bars = control.is_progress_bar_enabled()
    control.set_verbosity(logging.CRITICAL)
    control.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        control.set_verbosity(level)
        if bars:
            control.enable_progress_bar()


@contextmanager
def download_bars() -> Iterator[None]:
    """Show huggingface_hub's download bars on a terminal only, and not each of its attempts."""
    from huggingface_hub import utils
    from huggingface_hub.utils import logging as their_logging

    control: Any = utils
    log: Any = their_logging
    level = log.get_verbosity()
    log.set_verbosity_error()
    was_disabled = control.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        control.disable_progress_bars()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if not was_disabled:
            control.enable_progress_bars()
