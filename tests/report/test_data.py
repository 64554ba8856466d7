"""Files for programs are read back by pandas, pyarrow and the json module."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nasty_report import NASTY, made_report

from mambabench.errors import StoreError
from mambabench.frames.columns import FRAMES, columns_of, frame
from mambabench.report.data import csv_text, header, parquet_table, render_json, write_frames

RUN = {
    "run": "a", "label": "mamba", "model": "mamba", "suite": "s", "value": 0.1 + 0.2, "reference": math.inf,
    "n_tasks": 3,
}  # fmt: skip


class Stored:
    """What `write_frames` takes of runs."""

    def __init__(self, **rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def frames(self) -> dict[str, pd.DataFrame]:
        return {name: frame(name, self.rows.get(name, [])) for name in FRAMES}


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])


def test_numbers_are_read_back_exactly_and_headers_have_units() -> None:
    rows = [RUN, RUN | {"value": -1e-300, "reference": -math.inf}, RUN | {"value": math.nan, "n_tasks": None}]
    given = frame("averages", rows)
    text = csv_text(given, columns_of("averages"))
    assert text.splitlines()[0] == "run,label,model,suite,value [%],reference [%],n_tasks"
    assert text.splitlines()[2] == "a,mamba,mamba,s,-1e-300,-inf,3"
    assert text.splitlines()[3] == "a,mamba,mamba,s,,inf,"
    seen = read(text)
    assert seen["value [%]"].tolist()[:2] == [0.1 + 0.2, -1e-300]
    assert seen["value [%]"].isna().tolist() == [False, False, True]
    assert seen["reference [%]"].tolist() == [math.inf, -math.inf, math.inf]


def test_every_unit_is_said_once() -> None:
    for name, (_, columns) in FRAMES.items():
        for column in columns:
            words = header(column).replace("_", " ").split()
            assert len(words) == len(set(words)), (name, column)
            if column.unit == "s":
                assert "s" in words
    assert [header(c) for c in columns_of("speed") if c.name == "gross_j_per_token"] == ["gross_j_per_token"]
    assert [header(c) for c in columns_of("recall_means") if c.name == "accuracy"] == ["accuracy [%]"]


@given(st.text())
@example(NASTY)
@example("=1+1")
@example("\t@x")
@example('a,"b"\r\nc\rd')
@example("＝1")
@example("\ud800 \x00")
def test_any_text_is_one_field_and_no_formula(text: str) -> None:
    given = frame("averages", [RUN | {"label": text}, RUN])
    written = csv_text(given, columns_of("averages"))
    written.encode()
    assert "\r" not in written
    seen = read(written)
    assert seen.shape == (2, 7)
    assert seen["run"].tolist() == ["a", "a"]
    label = "" if pd.isna(seen["label"][0]) else seen["label"][0]
    assert label.lstrip()[:1] not in ("=", "+", "-", "@", "＝", "＋", "－", "＠") or not label
    if text.isascii() and text.isprintable():
        assert label in (text, f"'{text}")


def test_parquet_keeps_texts_and_says_what_columns_are(tmp_path: Path) -> None:
    written = write_frames(
        Stored(averages=[RUN | {"label": "=1+1"}, RUN | {"value": None}]), tmp_path / "a" / "b"
    )  # type: ignore[arg-type]
    assert [path.name for path in written] == ["averages.csv", "averages.parquet"]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(p.name for p in written)
    table = pq.read_table(written[1])
    assert table.column("label").to_pylist() == ["=1+1", "mamba"]
    assert table.column("value").to_pylist() == [0.1 + 0.2, None]
    field = table.schema.field("value")
    assert field.metadata == {b"description": b"mean accuracy", b"unit": b"%"}
    assert table.schema.metadata[b"frame"] == b"averages"
    assert read(written[0].read_text(encoding="utf-8"))["label"].tolist() == ["'=1+1", "mamba"]
    pd.testing.assert_frame_equal(
        pd.read_parquet(written[1]).astype({"n_tasks": "Int64"}),
        frame("averages", [RUN | {"label": "=1+1"}, RUN | {"value": None}]),
        check_dtype=False,
    )


def test_equal_frames_give_equal_files(tmp_path: Path) -> None:
    shuffled = dict(reversed(RUN.items()))
    first = write_frames(Stored(averages=[RUN]), tmp_path / "1")  # type: ignore[arg-type]
    second = write_frames(Stored(averages=[shuffled]), tmp_path / "2")  # type: ignore[arg-type]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        write_frames(Stored(averages=[RUN]), tmp_path / "file")  # type: ignore[arg-type]
    assert (tmp_path / "file").read_text() == "x"


def test_every_frame_can_be_written() -> None:
    for name in FRAMES:
        empty = frame(name, [{}])
        assert csv_text(empty, columns_of(name)).count("\n") == 2
        assert parquet_table(empty, columns_of(name), name).num_rows == 1


def test_json_has_everything_but_drawings_and_says_what_is_not_finite() -> None:
    text = render_json(made_report())
    assert text == render_json(made_report())
    whole = json.loads(text, parse_constant=pytest.fail)
    assert whole["answers"][0] == {
        "type": "words", "sentences": ["mamba is better."], "tone": "good",
    }  # fmt: skip
    quality, cost, made = whole["sections"]
    assert [block["type"] for block in quality["blocks"]] == ["table", "picture", "items"]
    assert quality["blocks"][1]["description"] == "All tasks.\nmamba leads."
    assert "draw" not in quality["blocks"][1]
    rows = cost["blocks"][0]["rows"]
    assert rows[0][1]["numbers"] == [0.0123, 0.0121, 0.0125]
    assert [float(row[1]["numbers"][0]) for row in rows[1:]] == pytest.approx(
        [math.inf, math.nan], nan_ok=True
    )
    assert quality["blocks"][2]["tasks"][0]["items"][1]["answers"][1] == {
        "text": "sings.", "right": False, "log_likelihood": "-Infinity",
    }  # fmt: skip
    assert made["blocks"][0] == {"type": "code", "label": "Command", "text": "mambabench zeroshot  -o x\n"}


def test_json_keeps_every_text() -> None:
    text = render_json(made_report(lambda text: NASTY + text))
    text.encode()
    assert json.loads(text)["title"] == NASTY + "Two models"
