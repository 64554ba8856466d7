"""One bar over all the work on stderr; where stderr is no terminal, a line a minute.

with progress(total=1000, label="zeroshot") as bar:
    bar.stage("mamba-130m  piqa")
    bar.advance(64)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_BETWEEN_LINES = 60.0
_UNIT = "requests"
_FRAMES_PER_S = 10
# Where others are measured, drawing must not take their time.
_QUIET_FRAMES_PER_S = 0.5


class Progress(Protocol):
    """Told of work as it is done."""

    def stage(self, text: str) -> None:
        """Say what is being worked on."""
        ...

    def advance(self, n: int) -> None:
        """Add `n` finished units."""
        ...

    def note(self, text: str) -> None:
        """Show a sentence that stays on the screen."""
        ...


class LinePerMinute:
    """A line of text a minute, for logs.

    Args:
        total: units of the whole work.
        label: begins every line.
        stream: where the lines go.
        clock: seconds, monotonic; replaced in tests.
        unit: what is counted.
        left: seconds that the rest takes; by the count where it is not given.
    """

    def __init__(
        self,
        total: int,
        label: str,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        unit: str = _UNIT,
        left: Callable[[], float] | None = None,
    ) -> None:
        self._unit = unit
        self._left = left
        self._total = total
        self._label = label
        self._stream = stream
        self._clock = clock
        self._done = 0
        self._text = ""
        self._began_s = self._line_at_s = clock()

    def stage(self, text: str) -> None:
        """Say what is being worked on in the next line."""
        self._text = text

    def advance(self, n: int) -> None:
        """Add finished units; write a line when the last is a minute old."""
        self._done += n
        now_s = self._clock()
        if now_s - self._line_at_s < _SECONDS_BETWEEN_LINES:
            return
        self._line_at_s = now_s
        elapsed_s = now_s - self._began_s
        left_s = elapsed_s * (self._total - self._done) / self._done if self._done else 0.0
        if self._left is not None:
            left_s = self._left()
        share = 100 * self._done / max(self._total, 1)
        self._write(
            f"{self._label}: {self._done}/{self._total} {self._unit} ({share:.0f}%), "
            f"{_duration(elapsed_s)} gone, about {_duration(left_s)} left; {self._text}"
        )

    def note(self, text: str) -> None:
        """Write the sentence at once."""
        self._write(f"{self._label}: {text}")

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class _Bar:
    """A live bar drawn by rich."""

    def __init__(self, total: int, unit: str, left: Callable[[], float] | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn() if left is None else TextColumn("{task.fields[left]}"),
            refresh_per_second=_FRAMES_PER_S if left is None else _QUIET_FRAMES_PER_S,
            console=Console(stderr=True),
            transient=True,
        )
        self._left = left
        self._task = self._progress.add_task("", total=total, left="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        self._progress.update(self._task, description=text, left=self._rest())

    def advance(self, n: int) -> None:
        self._progress.update(self._task, advance=n, left=self._rest())

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)

    def _rest(self) -> str:
        return "" if self._left is None else f"about {_duration(self._left())}"


@contextmanager
def progress(
    total: int, label: str, *, unit: str = _UNIT, left: Callable[[], float] | None = None
) -> Iterator[Progress]:
    """Show progress on stderr for as long as the block runs.

    Args:
        total: units of the whole work.
        label: names the work in lines of a log.
        unit: what is counted.
        left: seconds that the rest takes, asked whenever something has ended; given by work that is
            measured, so that the bar is then drawn seldom. By the count where it is not given.
    """
    if sys.stderr.isatty():
        with _Bar(total, unit, left) as bar:
            yield bar
    else:
        yield LinePerMinute(total, label, sys.stderr, unit=unit, left=left)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
