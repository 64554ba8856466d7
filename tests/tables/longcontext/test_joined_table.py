"""The long-context table joins what belongs together, and its figures are those of the records."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from long_records import (
    ENDS,
    MAMBA,
    PYTHIA,
    Run,
    falling,
    loss_record,
    recall_record,
    recalls,
    small,
    unsupported_recall,
    usual,
)
from speed_records import failed, point, replicate, sizes_by_name

from mambabench.stats.intervals import wilson
from mambabench.tables.longcontext.depths import thirds, uneven
from mambabench.tables.longcontext.flags import (
    COST_FAILED,
    FAILED,
    FEW_PROCESSES,
    FEW_SAMPLES,
    MISSING,
    PAST_TRAINING,
    UNSUPPORTED,
)
from mambabench.tables.longcontext.table import LongTable, build_long_table
from mambabench.tables.speed.table import build_speed_table


def of(*made: tuple[Any, Any], **more: Any) -> LongTable:
    """Return the table of recall records with their rows."""
    return build_long_table(
        "a run", [r for r, _ in made], [], rows={r.fingerprint: q for r, q in made}, **more
    )


def test_a_row_holds_recall_loss_and_cost_of_one_length() -> None:
    table = usual()
    assert table.models == ("mamba-130m", "pythia-160m")
    assert table.tasks == table.mean_tasks == ("needle", "passkey", "copying")
    assert table.lengths == (256, 512, 1024, 2048, 4096)
    row = table.row("pythia-160m", 1024)
    accuracies = [row.accuracy(task) for task in table.tasks]
    assert row.recall_mean is not None
    assert row.recall_mean.value == pytest.approx(sum(a.value for a in accuracies if a) / 3)
    record, _ = loss_record("pythia-160m", 1024, 3.1 - 0.08 * 2)
    assert row.loss == record
    assert row.loss_nats is not None
    assert row.loss_nats.value == pytest.approx(2.94)
    assert row.bits_per_byte is not None
    # Four bytes a token.
    assert row.bits_per_byte.value == pytest.approx(2.94 / 4 / math.log(2))
    assert row.cost is not None
    assert row.cost.point.prompt_len_tokens == 1024
    assert row.ttft_s == row.cost.ttft_s
    assert row.peak_bytes == row.cost.peak_bytes
    # The last of 64 generated ids is never forwarded.
    assert row.state_bytes == (1024 + 63) * PYTHIA.kv_bytes_per_token
    assert [r.state_bytes for r in table.rows_of("mamba-130m")] == [MAMBA.state_bytes] * 5
    assert table.training_lengths == {"mamba-130m": 2048, "pythia-160m": 2048}
    with pytest.raises(KeyError):
        table.row("mamba-130m", 300)


def test_the_mean_over_tasks_adds_noise_in_squares() -> None:
    made = [recall_record("m", task, 256, 0.5, given=[1.0] * k + [0.0] * (40 - k))
            for task, k in (("a", 36), ("b", 12))]  # fmt: skip
    found = of(*made).row("m", 256).recall_mean
    assert found is not None
    singles = [of(one).row("m", 256).recall_mean for one in made]
    below = math.hypot(*(s.value - s.low for s in singles if s and s.low is not None)) / 2
    above = math.hypot(*(s.high - s.value for s in singles if s and s.high is not None)) / 2
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(0.6 - below), pytest.approx(0.6 + above))


def test_means_are_over_the_tasks_that_most_have() -> None:
    made = [recall_record("m", task, n, 0.9) for task in ("a", "b", "c") for n in (256, 512, 1024)
            if (task, n) != ("c", 1024)]  # fmt: skip
    table = of(*made)
    # Three tasks at two lengths are as much as two at three, and more tasks are worth more.
    assert table.mean_tasks == ("a", "b", "c")
    assert table.row("m", 1024).recall_mean is None
    assert table.row("m", 1024).flags == (MISSING,)
    assert table.partial
    effective = table.effective_of("m")
    assert effective is not None
    assert effective.found.longest_tokens == 512
    more = of(*made, *(recall_record("m", task, 2048, 0.9) for task in ("a", "b")))
    assert more.mean_tasks == ("a", "b")


def test_of_one_task_the_mean_is_the_task() -> None:
    table = small()
    assert [(e.model, e.task) for e in table.effective] == [("mamba-130m", "needle")]
    assert table.effective_of("mamba-130m") is table.effective[0]
    assert [(e.model, e.task) for e in usual().effective][:2] == [
        ("mamba-130m", None),
        ("mamba-130m", "needle"),
    ]


def test_unsupported_failed_and_missing_cells_are_flagged_with_their_words() -> None:
    record, rows = recall_record("m", "a", 256, 0.9, n_samples=12)
    broken = record.model_copy(update={"status": "failed", "detail": "out of\nmemory", "fingerprint": "x"})
    other = unsupported_recall("m", "b", 256, ENDS)
    table = build_long_table(
        "a run", [record, other, unsupported_recall("m", "b", 512, ENDS)], [], rows={record.fingerprint: rows}
    )
    assert table.row("m", 256).flags == (UNSUPPORTED, FEW_SAMPLES)
    assert table.row("m", 512).flags == (UNSUPPORTED, MISSING)
    assert table.row("m", 256).details == (f"b unsupported: {ENDS}",)
    loss, _ = loss_record("m", 256, 3.0)
    gone = loss.model_copy(update={"status": "unsupported", "detail": ENDS, "metrics": ()})
    both = build_long_table("a run", [other, broken], [gone], rows={})
    assert both.row("m", 256).details == (f"b, loss unsupported: {ENDS}", "a failed: out of memory")
    assert FAILED in both.row("m", 256).flags
    assert both.row("m", 256).loss_nats is None
    assert both.effective == both.trends == ()
    same = build_long_table("a run", [other, other.model_copy(update={"task": "a"})], [gone], rows={})
    assert same.row("m", 256).details == (f"recall, loss unsupported: {ENDS}",)


def test_cells_past_the_training_length_are_labelled() -> None:
    table = usual()
    assert {r.length_tokens for r in table.rows if PAST_TRAINING in r.flags} == {4096}
    for what in ("recall", "loss", "cost"):
        assert {r.length_tokens for r in table.rows if r.past_training_length(what)} == {4096}
    assert all(FEW_PROCESSES in r.flags for r in table.rows)
    # Only the targets after a context of the training length lie past it.
    recall, _ = recall_record("mamba-130m", "a", 2048, 0.9)
    loss, _ = loss_record("mamba-130m", 2048, 3.0, past_training_length=True)
    row = build_long_table("a run", [recall], [loss], rows={}).row("mamba-130m", 2048)
    assert PAST_TRAINING in row.flags
    assert [row.past_training_length(what) for what in ("recall", "loss", "cost")] == [False, True, False]


def test_what_failed_lies_past_no_training_length() -> None:
    recall, _ = recall_record("mamba-130m", "a", 4096, 0.9)
    loss, _ = loss_record("mamba-130m", 4096, 3.0)
    assert recall.past_training_length
    assert loss.past_training_length
    gone = {"status": "failed", "detail": "out of memory", "metrics": ()}
    row = build_long_table(
        "a run", [recall.model_copy(update=gone)], [loss.model_copy(update=gone)], rows={}
    ).row("mamba-130m", 4096)
    assert PAST_TRAINING not in row.flags
    assert not any(row.past_training_length(what) for what in ("recall", "loss", "cost"))
    half = build_long_table("a run", [recall.model_copy(update=gone)], [loss], rows={})
    assert PAST_TRAINING in half.row("mamba-130m", 4096).flags
    costly = Run(lengths=(256, 4096), speeds=(MAMBA,), out_of_memory={MAMBA.name: 256}).table()
    assert PAST_TRAINING not in costly.row(MAMBA.name, 4096).flags


def test_a_length_that_its_cost_failed_at_keeps_its_recall() -> None:
    run = Run(tasks={"needle": recalls({256: 0.9, 512: 0.9})}, speeds=(MAMBA,), processes=6,
              out_of_memory={"mamba-130m": 256})  # fmt: skip
    table = run.table()
    assert table.row("mamba-130m", 256).flags == ()
    row = table.row("mamba-130m", 512)
    assert row.flags == (COST_FAILED,)
    assert row.details == ("cost oom: CUDA out of memory",)
    assert row.ttft_s is row.peak_bytes is row.state_bytes is None
    assert row.recall_mean is not None


def test_cost_is_of_the_fastest_arm_and_the_smallest_batch() -> None:
    records = [
        replicate(MAMBA, point(MAMBA, 256, arm=arm, batch_size=size), repeat_noise=0, process_noise=0)
        for size in (4, 1)
        for arm in ("shipped", "eager")
    ]
    speed = build_speed_table("latency", "s", records, [], sizes_by_name("mamba-130m"), expected=())
    table = build_long_table("a run", [], [], speed, rows={})
    row = table.row("mamba-130m", 256)
    assert row.cost is not None
    assert (row.cost.point.arm, row.cost.point.batch_size) == ("eager", 1)
    assert row.state_bytes == MAMBA.state_bytes
    assert not row.recall
    four = build_speed_table("latency", "s", records[:2], [], sizes_by_name("mamba-130m"), expected=())
    batch = build_long_table("a run", [], [], four, rows={}).row("mamba-130m", 256)
    assert batch.cost is not None
    assert batch.cost.point.batch_size == 4
    assert batch.state_bytes == MAMBA.state_bytes
    broken = build_speed_table("latency", "s", [failed(point(MAMBA, 512))], [], {}, expected=())
    assert build_long_table("a run", [], [], broken, rows={}).row("mamba-130m", 512).flags == (COST_FAILED,)


def test_a_trend_is_by_document_where_there_are_enough() -> None:
    for n_documents, by_document, n in ((8, True, 8), (5, False, 32)):
        made = [
            loss_record("m", length, 3.0 - length / 5120, n_documents=n_documents) for length in (256, 512)
        ]
        table = build_long_table("a run", [], [r for r, _ in made], rows={r.fingerprint: q for r, q in made})
        (trend,) = table.trends
        assert (trend.by_document, trend.found.n_clusters) == (by_document, n)
        assert trend.found.losses_nats == pytest.approx((2.95, 2.9))
        assert trend.found.outcome == "still falling"


def test_a_trend_is_over_the_blocks_that_all_lengths_have() -> None:
    made = [loss_record("m", length, 3.0) for length in (256, 512)]
    rows = {r.fingerprint: q for r, q in made}
    rows[made[1][0].fingerprint] = made[1][1][4:]
    table = build_long_table("a run", [], [r for r, _ in made], rows=rows)
    (trend,) = table.trends
    first = np.array([-q["logprob"] / q["n_tokens"] for q in made[0][1][4:]])
    assert trend.found.losses_nats[0] == pytest.approx(first.mean())


def test_a_length_whose_loss_overflowed_is_not_compared() -> None:
    made = [loss_record("m", length, 3.0 - length / 5120) for length in (256, 512, 1024)]
    made[1][1][0]["logprob"] = -math.inf
    table = build_long_table("a run", [], [r for r, _ in made], rows={r.fingerprint: q for r, q in made})
    assert table.trends[0].found.lengths == (256, 1024)


def test_chance_is_forgotten_by_none_of_many_lengths_at_chance() -> None:
    lengths = tuple(2**i for i in range(6, 16))
    table = Run(lengths=lengths, tasks={"a": lambda m, n: 0.25}).table()
    (effective,) = table.effective
    assert effective.found.outcome == "none"
    assert not effective.ever_above_chance


def test_one_lucky_length_of_eight_is_still_chance() -> None:
    given = {i: [1.0] * (34 if i == 10 else 25) + [0.0] * (66 if i == 10 else 75) for i in range(8, 16)}
    made = [recall_record("m", "a", 2**i, 0.5, given=values) for i, values in given.items()]
    assert wilson(34, 100).low > 0.25
    assert not of(*made).effective[0].ever_above_chance
    assert of(made[2]).effective[0].ever_above_chance


def test_depth_is_told_by_thirds_where_they_differ() -> None:
    given = [1.0 if i % 5 != 2 else 0.0 for i in range(100)]
    record, rows = recall_record("m", "a", 256, 0.5, given=given)
    found = thirds(record)
    assert [(t.name, t.accuracy, t.n) for t in found] == [
        ("first", 1.0, 40),
        ("middle", 0.0, 20),
        ("last", 1.0, 40),
    ]
    (one,) = uneven(of((record, rows)))
    assert one.words == (
        "m, a at 256 tokens: 0.0% in the middle third of the context that holds answers, 100% in the first."
    )
    # The same of four questions a sample are a quarter of the items.
    clustered, _ = recall_record("m", "a", 256, 0.5, given=given, n_questions=4)
    assert sum(t.n for t in thirds(clustered)) == pytest.approx(25)
    even, rows = recall_record("m", "a", 256, 0.5, given=[1.0, 0.0] * 50)
    assert uneven(of((even, rows))) == []
    assert thirds(unsupported_recall("m", "a", 256, ENDS)) == ()
    assert thirds(record.model_copy(update={"depths": record.depths[:2]})) == ()


def test_json_holds_every_figure() -> None:
    table = usual()
    read = json.loads(json.dumps(table.as_json(), allow_nan=False))
    assert read["lengths_tokens"] == [256, 512, 1024, 2048, 4096]
    row = next(r for r in read["rows"] if (r["model"], r["length_tokens"]) == ("mamba-130m", 512))
    made = table.row("mamba-130m", 512)
    assert made.recall_mean is not None
    assert made.ttft_s is not None
    assert row["recall_mean"]["low"] == made.recall_mean.low
    assert row["ttft_s"]["value"] == made.ttft_s.value
    assert row["recall"]["needle"]["accuracy"]["value"] == pytest.approx(0.96)
    assert len(row["recall"]["needle"]["depths"]) == 5
    (mean, *_) = read["effective_context"]
    assert (mean["task"], mean["found"]["length_tokens"]) == (None, 512)
    assert read["loss_trend"][0]["found"]["stops_at_tokens"] == 2048


def test_a_table_of_nothing_has_no_rows() -> None:
    table = build_long_table("a run", [], [], rows={}, models=("m",))
    assert (table.models, table.rows, table.mean_tasks, table.partial) == (("m",), (), (), False)
    assert build_long_table("a run", [], [], rows={}, partial=True).partial


def test_truths_of_the_helpers_are_as_asked() -> None:
    values = [recall_record("m", "a", n, 0.8, n_samples=2000)[0].metrics[0].value for n in (256, 512)]
    assert values == [pytest.approx(0.8, abs=0.03)] * 2
    assert falling(512)("m", 512) == pytest.approx(0.98)
