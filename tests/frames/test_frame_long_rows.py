"""Rows of long-context runs: percent where the columns say so, and every figure of the command's table."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from long_records import CASES, CORPUS, TRAINED, Run, falling, recalls

from mambabench.frames import longcontext
from mambabench.frames.columns import frame
from mambabench.frames.load import LoadedRun
from mambabench.long_schema import ContextRecord, PerplexityRecord, PositionRecord
from mambabench.schema import MetricRecord
from mambabench.tables.longcontext.perplexity import build_perplexity_table
from mambabench.tables.longcontext.table import LongTable, measured


def loaded(table: LongTable) -> LoadedRun:
    return LoadedRun("a run", Path("a run"), None, labels={"mamba-130m": "M"}, long=table)


def framed(name: str, *runs: LoadedRun) -> pd.DataFrame:
    return frame(name, getattr(longcontext, f"rows_of_{name}")(runs))


@pytest.fixture(scope="module", params=["small", "usual", "wide"])
def table(request: pytest.FixtureRequest) -> LongTable:
    return CASES[request.param]()


def test_recall_has_every_cell_of_the_table(table: LongTable) -> None:
    found = framed("recall", loaded(table))
    keys = ["model", "length_tokens", "task", "metric"]
    assert not found.duplicated(keys).any()
    by_key = found.set_index(keys)
    n = 0
    for row in table.rows:
        for task, record in row.recall.items():
            if record.status != "ok":
                got = by_key.loc[(row.model, row.length_tokens, task, "")]
                assert (got.status, got.detail, got.unit) == (record.status, record.detail, "")
                assert math.isnan(got.value)
                n += 1
                continue
            for metric in record.metrics:
                got = by_key.loc[(row.model, row.length_tokens, task, metric.metric)]
                figure = measured(record, metric.metric)
                assert figure is not None
                assert got.value == 100 * figure.value
                assert got.unit == "%"
                low = math.nan if figure.low is None else 100 * figure.low
                assert got.interval_low == pytest.approx(low, rel=1e-15, nan_ok=True)
                assert got.chance == 25
                assert got.past_training_length == (row.length_tokens > TRAINED.get(row.model, math.inf))
                n += 1
    assert n == len(found)


def test_means_and_costs_are_those_of_the_table(table: LongTable) -> None:
    found = framed("recall_means", loaded(table))
    assert len(found) == len(table.rows)
    for (_, got), row in zip(found.iterrows(), table.rows, strict=True):
        assert (got.model, got.length_tokens) == (row.model, row.length_tokens)
        if row.recall_mean is None:
            assert math.isnan(got.accuracy)
            assert got.n_tasks is pd.NA
        else:
            assert got.accuracy == 100 * row.recall_mean.value
            assert (got.n, got.n_tasks) == (row.recall_mean.n, len(table.mean_tasks))
        for name in ("ttft_s", "tpot_s", "peak_bytes"):
            estimate = getattr(row, name)
            assert math.isnan(got[name]) if estimate is None else got[name] == estimate.value
        assert got["flags"] == "; ".join(row.flags)
    assert found.label[0] == "M"


def test_depths_add_up_to_the_accuracy(table: LongTable) -> None:
    found = framed("recall_depths", loaded(table))
    for row in table.rows:
        for task, record in row.recall.items():
            of = found[(found.model == row.model) & (found.length_tokens == row.length_tokens)]
            of = of[of.task == task]
            assert len(of) == len(record.depths)
            if record.depths:
                accuracy = row.accuracy(task)
                assert accuracy is not None
                mean = (of.accuracy * of.n_questions.astype(float)).sum() / record.n_questions
                assert mean == pytest.approx(100 * accuracy.value)
                assert (of.interval_low <= of.accuracy + 1e-9).all()
                assert (of.accuracy <= of.interval_high + 1e-9).all()


def test_effective_contexts_have_both_rules_and_one_headline(table: LongTable) -> None:
    found = framed("effective_contexts", loaded(table))
    assert len(found) == 2 * len(table.effective)
    assert (found.groupby(["model", "task"]).headline.sum() == 1).all()
    for one in table.effective:
        of = found[(found.model == one.model) & (found.task == (one.task or "mean")) & found.headline]
        length = one.headline.length_tokens
        assert of.length_tokens.iloc[0] is pd.NA if length is None else of.length_tokens.iloc[0] == length
        assert one.headline.is_open == (of.length_high_tokens.iloc[0] is pd.NA) or length is None


def test_losses_are_in_nats_and_bits(table: LongTable) -> None:
    found = framed("context_losses", loaded(table))
    losses = [row for row in table.rows if row.loss is not None]
    assert len(found) == len(losses)
    for (_, got), row in zip(found.iterrows(), losses, strict=True):
        assert row.loss is not None
        assert (got.corpus, got.context_tokens) == ("book.txt", row.length_tokens)
        assert got.status == row.loss.status
        if row.loss_nats is None:
            assert math.isnan(got.loss_nats)
        else:
            assert (got.loss_nats, got.loss_nats_low) == (row.loss_nats.value, row.loss_nats.low)
            # 64 tokens of 4 bytes each.
            assert got.bits_per_byte == pytest.approx(got.loss_nats / 4 / math.log(2))


def test_a_length_beyond_all_has_no_upper_end() -> None:
    run = Run((256, 512, 1024), tasks={"needle": falling(100_000)}, n_samples=200)
    found = framed("effective_contexts", loaded(run.table()))
    assert set(found.length_tokens) == {1024}
    assert found.length_high_tokens.isna().all()
    guessing = framed(
        "effective_contexts", loaded(Run(tasks={"needle": recalls({256: 0.25, 512: 0.25})}).table())
    )
    assert guessing.length_tokens.isna().all()
    assert not guessing.ever_above_chance.any()


def perplexity(model: str, **more: object) -> PerplexityRecord:
    def metric(name: str, unit: str, value: float) -> MetricRecord:
        ends = {"interval_low": value - 0.1, "interval_high": value + 0.1}
        return MetricRecord.model_validate({"metric": name, "unit": unit, "value": value, "n": 8, **ends})

    fields = {
        "fingerprint": model,
        "checkpoint_fingerprint": model,
        "model": model,
        "corpus": CORPUS.model_copy(update={"name": "a: b.txt", "part": "test"}),
        "context": ContextRecord(mode="sliding", window_tokens=128, stride_tokens=64),
        "status": "ok",
        "metrics": (
            metric("bits_per_byte", "bits_per_byte", 1.2),
            metric("token_perplexity", "perplexity", 9.5),
        ),
        "positions": tuple(
            PositionRecord(first_token=a, end_token=b, n_tokens=b - a, n_documents=1, loss_nats=3.0 + a / 100)
            for a, b in ((0, 16), (16, 32))
        ),
        "n_documents": 8,
        "n_bytes": 1000,
        "n_tokens": 32,
        "longest_document_tokens": 30,
    }
    return PerplexityRecord.model_validate({**fields, **more})


def test_perplexities_and_positions() -> None:
    records = [
        perplexity("mamba-130m"),
        perplexity("other", status="failed", detail="why", metrics=(), positions=()),
        perplexity("broken", metrics=(
            MetricRecord(metric="bits_per_byte", value=math.nan, unit="bits_per_byte", n=1),
            MetricRecord(metric="byte_perplexity", value=math.inf, unit="perplexity", n=1),
        )),
    ]  # fmt: skip
    run = LoadedRun(
        "r", Path("r"), None, labels={"mamba-130m": "M"}, perplexity=build_perplexity_table(records)
    )
    found = framed("perplexities", run)
    assert list(zip(found.label, found.metric, strict=True)) == [
        ("M", "bits_per_byte"), ("M", "token_perplexity"), ("other", ""), ("broken", "bits_per_byte"),
        ("broken", "byte_perplexity"),
    ]  # fmt: skip
    assert list(found.value[:2]) == [1.2, 9.5]
    assert (found.interval_low[0], found.interval_high[0]) == (1.2 - 0.1, 1.2 + 0.1)
    assert (found.status[2], found.detail[2]) == ("failed", "why")
    assert math.isinf(found.value[4])
    assert set(found.corpus) == {"a: b.txt, test"}
    assert found.context[0] == "sliding window of 128, stride 64"
    places = framed("position_losses", run)
    assert list(places[places.label == "M"].end_token) == [16, 30]
    assert list(places[places.label == "M"].loss_nats) == [3.0, 3.16]
    assert places.loss_nats_low.isna().all()


def test_runs_without_such_tables_have_no_rows() -> None:
    empty = LoadedRun("r", Path("r"), None)
    names = [n.removeprefix("rows_of_") for n in vars(longcontext) if n.startswith("rows_of_")]
    assert len(names) == 7
    for name in names:
        assert len(framed(name, empty)) == 0
