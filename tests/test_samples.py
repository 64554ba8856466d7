"""Scored items as Parquet: columns, exactness, and values of every kind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from stored import sample

from mambabench.store.samples import json_text, read_samples, write_samples


def test_samples_have_the_documented_columns(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    # word_perplexity is a pair: no number, so its column holds JSON.
    odd = {"metrics": ["acc", "wp", "perplexity"], "wp": (-3.5, 7)}
    write_samples(path, [sample(0, **odd), sample(1, **odd)])
    table = pq.read_table(path)
    assert table.schema.names == [
        "doc_id",
        "doc_hash",
        "prompt_hash",
        "target_hash",
        "filter",
        "target",
        "doc",
        "arguments",
        "resps",
        "filtered_resps",
        "metric.acc",
        "metric.perplexity",
        "metric.wp",
    ]
    assert str(table.schema.field("metric.acc").type) == "double"
    assert table["metric.wp"].to_pylist() == ["[-3.5,7]"] * 2
    assert table["doc"].to_pylist()[1] == '{"n":1,"text":"a “b”"}'


def test_samples_come_back(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    given_samples = [
        sample(0, acc=True, perplexity=float("-inf"), doc={"x": float("nan")}),
        sample(1, acc=np.float32(0.5), perplexity=np.int64(2), target=None),
        sample(2, metrics=["perplexity"], perplexity=None, lm="note"),
    ]
    write_samples(path, given_samples)
    back = read_samples(path)
    assert [s.get("acc") for s in back] == [1.0, 0.5, 1.0]
    assert back[0]["perplexity"] == -math.inf
    assert math.isnan(back[0]["doc"]["x"])
    assert "perplexity" not in back[2]
    assert back[1]["target"] is None
    assert back[2]["lm"] == "note"
    assert back[0]["arguments"] == [["a", " b"]]
    assert back[0]["metrics"] == ["acc", "perplexity"]


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    one = sample(0, doc={"b": 1, "a": {"y", "x", "z"}})
    other = dict(reversed(sample(0, doc={"a": {"z", "y", "x"}, "b": 1}).items()))
    write_samples(tmp_path / "1.parquet", [one, sample(1)])
    write_samples(tmp_path / "2.parquet", [other, sample(1)])
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values)
def test_json_text_round_trips_and_is_utf8(value: Any) -> None:
    text = json_text(value)
    text.encode()
    assert json.loads(text) == value


def test_json_text_takes_what_lm_eval_stores() -> None:
    assert json_text({"a": np.bool_(True), 3: np.array([1.5]), "s": "\ud800"}) == (
        '{"3":[1.5],"a":true,"s":"\\ud800"}'
    )
    assert json_text(Path("x")) == '"x"'
