"""What tests want listed at the end of a run, whether they passed or not."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    lines = [f"{r.nodeid}: {text}" for r in reports for key, text in r.user_properties if key == "listed"]
    if lines:
        terminalreporter.section("listed by tests")
        for line in dict.fromkeys(lines):
            terminalreporter.line(line)
