"""Every frame and every column: its type, its unit and what it says.

Frames are made by `frame`, which lays rows out in exactly these columns, so that what is documented is what
is there. Values are those of the records and tables, not rounded. Percentages are in percent where a column
`unit` or the name says so; times are seconds, sizes bytes. Intervals are of 95%.

>>> [column.name for column in columns_of("averages")][:3]
['run', 'label', 'model']
>>> frame("averages", []).dtypes["value"].name
'float64'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mambabench.frames import joined_columns, long_columns, quality_columns, speed_columns
from mambabench.frames.column import Column, ColumnType

if TYPE_CHECKING:
    import pandas as pd

DTYPES: Final[dict[ColumnType, str]] = {
    "text": "object",
    "number": "float64",
    "integer": "Int64",
    "flag": "boolean",
}
FRAMES: Final[dict[str, tuple[str, tuple[Column, ...]]]] = (
    quality_columns.FRAMES | speed_columns.FRAMES | long_columns.FRAMES | joined_columns.FRAMES
)
"""What each frame holds a row for, and its columns, by name."""


def columns_of(name: str) -> tuple[Column, ...]:
    """Return the columns of a frame in order.

    Raises:
        KeyError: there is no such frame.
    """
    return FRAMES[name][1]


def frame(name: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Lay rows out in a frame's columns, with their types.

    Args:
        name: of the frame.
        rows: by column; what a row leaves out is missing.

    Raises:
        KeyError: there is no such frame, or a row has a column that the frame does not have.
    """
    import pandas as pd

    columns = columns_of(name)
    known = {column.name for column in columns}
    kept = list(rows)
    for row in kept:
        if unknown := row.keys() - known:
            raise KeyError(f"frame {name} has no column {sorted(unknown)[0]}")
    return pd.DataFrame(
        {
            column.name: pd.Series([row.get(column.name) for row in kept], dtype=DTYPES[column.type])
            for column in columns
        }
    )
