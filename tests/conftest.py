"""What holds for all tests, and what they want listed at the end of a run, whether they passed or not."""

from __future__ import annotations

import gc
import os
import signal

import pytest
from hypothesis import settings

# Fewer examples than hypothesis draws by itself: there are many tests, and every run draws others.
settings.register_profile("quick", max_examples=40)
settings.load_profile("quick")

# As the command does, and in time for torch: OpenMP's threads spin between two products otherwise, and on a
# machine that does other things, too, a small product then waits for a whole turn of the scheduler.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell without job control starts background jobs with interrupts ignored, and they stay so in the
# processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # What libraries made when they were imported lives as long as the tests, and each full collection of
    # garbage, of which every measurement starts with one, would look through all of it.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Else libraries that count their objects at the end of a process take them for leaks.
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    lines = [f"{r.nodeid}: {text}" for r in reports for key, text in r.user_properties if key == "listed"]
    if lines:
        terminalreporter.section("listed by tests")
        for line in dict.fromkeys(lines):
            terminalreporter.line(line)
