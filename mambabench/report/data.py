r"""A report for programs: frames as CSV and Parquet, and the report itself as JSON.

    write_frames(runs, Path("tables"))
    text = render_json(report)

Of each frame that has rows, `NAME.csv` and `NAME.parquet` are written.

CSV is UTF-8 with `\n` between rows. Headers are the columns' names, with the unit in brackets where the name
does not say it. What is missing is empty; infinite values are `inf` and `-inf`, numbers have all their
digits. A text that a spreadsheet would take for a formula has an apostrophe before it; characters that no
file of text can hold are written as Python writes them. Parquet has names and texts without either, and the
unit and meaning of each column in the field's metadata.

JSON has the report's parts in their order, each block with its `type`; figures of a cell are its `numbers`.
JSON knows no infinite numbers: they are the strings "Infinity" and "-Infinity", and what is not a number is
"NaN", all of which `float` reads in Python and `Number` in JavaScript. Drawings are left out, not their
descriptions.

    >>> header(Column("ttft_s", "number", "", "s")), header(Column("accuracy", "number", "", "%"))
    ('ttft_s', 'accuracy [%]')
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.frames.column import Column, ColumnType
from mambabench.frames.columns import FRAMES
from mambabench.report.document import Browser, Code, Picture, Table, Words
from mambabench.store.files import make_directory, replace_file, write_bytes

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mambabench.frames.api import Runs
    from mambabench.report.document import Report

_SAID_AS: Final = {
    "%": "percent", "J": "j", "tokens/s": "tokens_per_s", "bytes/s": "bytes_per_s",
    "operations/s": "flops_per_s",
}  # fmt: skip
"""How names of columns say units whose own words cannot stand in a name."""
_FORMULA: Final = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
_UNWRITABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BLOCKS: Final = {Table: "table", Picture: "picture", Words: "words", Code: "code", Browser: "items"}


def write_frames(runs: Runs, folder: Path) -> list[Path]:
    """Write every frame that has rows as CSV and Parquet; each file is whole or not there.

    Args:
        runs: that the frames are of.
        folder: is made if it is not there.

    Returns:
        The files, in the order of the catalogue.

    Raises:
        StoreError: a file or the folder cannot be written.
    """
    import pyarrow.parquet as pq

    make_directory(folder, [])
    written = []
    for name, frame in runs.frames().items():
        if frame.empty:
            continue
        columns = FRAMES[name][1]
        path = folder / f"{name}.csv"
        write_bytes(path, csv_text(frame, columns).encode())
        table = parquet_table(frame, columns, name)
        replace_file(path.with_suffix(".parquet"), partial(pq.write_table, table, compression="zstd"))
        written += [path, path.with_suffix(".parquet")]
    return written


def header(column: Column) -> str:
    """Return a column's name, with its unit where the name does not say it."""
    said = f"_{_SAID_AS.get(column.unit, column.unit)}_"
    return column.name if not column.unit or said in f"_{column.name}_" else f"{column.name} [{column.unit}]"


def csv_text(frame: pd.DataFrame, columns: tuple[Column, ...]) -> str:
    """Return a frame as CSV.

    Args:
        frame: with these columns.
        columns: in their order.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([header(column) for column in columns])
    values = [[_field(value, column.type) for value in frame[column.name]] for column in columns]
    writer.writerows(zip(*values, strict=True))
    return out.getvalue()


def _field(value: Any, kind: ColumnType) -> str:
    if _is_missing(value):
        return ""
    if kind != "text":
        return repr(float(value)) if kind == "number" else str(value)
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    text = _UNWRITABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
    return f"'{text}" if _FORMULA.match(text) else text


def _is_missing(value: Any) -> bool:
    # pandas' own mark of what is missing has no truth value.
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)


def parquet_table(frame: pd.DataFrame, columns: tuple[Column, ...], name: str) -> pa.Table:
    """Return a frame as a table whose fields say what they are.

    Args:
        frame: with these columns.
        columns: in their order.
        name: of the frame.
    """
    import pyarrow as pa

    types = {"text": pa.large_string(), "number": pa.float64(), "integer": pa.int64(), "flag": pa.bool_()}
    arrays, found = [], []
    for column in columns:
        values = [None if _is_missing(value) else value for value in frame[column.name]]
        if column.type == "text":
            values = [
                None if v is None else str(v).encode("utf-8", "backslashreplace").decode() for v in values
            ]
        arrays.append(pa.array(values, types[column.type]))
        metadata = {"description": column.text, **({"unit": column.unit} if column.unit else {})}
        found.append(pa.field(column.name, types[column.type], metadata=metadata))
    about = {"frame": name, "description": FRAMES[name][0]}
    return pa.table(arrays, schema=pa.schema(found, metadata=about))


def render_json(report: Report) -> str:
    """Return the report as JSON, without its drawings."""
    text = json.dumps(_plain(report), indent=1, ensure_ascii=False, allow_nan=False)
    # Halves of surrogate pairs, which byte-level tokenizers produce, cannot be written otherwise.
    return re.sub(r"[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"type": _BLOCKS[type(value)]} if type(value) in _BLOCKS else {}
        return kind | {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name != "draw"}
    return value
