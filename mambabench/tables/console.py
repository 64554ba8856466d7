"""What tables in a terminal share: the console they are printed on, and leaving out what has no room.

console = console_on(sys.stdout, width_of_files=120)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_C = TypeVar("_C")
_ANY_WIDTH = 10_000


def console_on(out: TextIO, width_of_files: int) -> Console:
    """Return a console that prints words as they are: names and texts of files and models are no markup."""
    from rich.console import Console

    width = None if out.isatty() else width_of_files
    return Console(file=out, width=width, highlight=False, markup=False, emoji=False)


def fitting(
    console: Console,
    columns: Sequence[tuple[str, _C]],
    dropped_first: Sequence[str],
    draw: Callable[[Sequence[tuple[str, _C]], bool], Table],
) -> tuple[Table, list[str], list[str]]:
    """Return a table with as many columns as there is room for, their names, and those of the ones left out.

    Lines are broken here rather than by rich, which would narrow columns by letters.

    Args:
        console: to be printed on.
        columns: (name, whatever `draw` makes cells with), in order.
        dropped_first: names of columns that can be left out.
        draw: makes the table, narrow or not; all is drawn narrow before anything is left out.
    """
    from rich.measure import Measurement

    kept, left_out = list(columns), []
    drawn = draw(kept, False)
    for name in ("", *dropped_first):
        if Measurement.get(console, console.options.update(width=_ANY_WIDTH), drawn).maximum <= console.width:
            break
        if any(name == other for other, _ in kept):
            left_out.append(name.replace("\n", " "))
            kept = [column for column in kept if column[0] != name]
        drawn = draw(kept, True)
    return drawn, [name for name, _ in kept], left_out


def no_room(left_out: Sequence[str]) -> str:
    """Say what `fitting` left out; empty where that is nothing."""
    return f"No room for {', '.join(left_out)}: a wider terminal shows more." if left_out else ""
