"""Peaks and speeds side by side, where a memory sweep timed as well."""

from __future__ import annotations

from collections.abc import Sequence

from speed_records import MAMBA, PYTHIA, failed, point, replicate, sweep

from mambabench.speed_schema import ReplicateRecord
from mambabench.tables.speed.contenders import Field
from mambabench.tables.speed.table import build_speed_table
from mambabench.tables.speed.words import answers
from mambabench.tables.speed.words_cost import cost_words

EXACT = {"process_noise": 0.0, "repeat_noise": 0.0}


def said(records: Sequence[ReplicateRecord]) -> list[str]:
    table = build_speed_table(records[0].kind, "a sweep", records, [], {}, expected=())
    found = cost_words(table, Field(table))
    assert answers(table, budget_bytes=None)[: len(found)] == found
    return found


def test_peak_and_speed_stand_side_by_side_with_what_ran_out() -> None:
    at = point(MAMBA, 10_000, gen_len=100)
    fused, eager = (point(PYTHIA, 10_000, gen_len=100, attention=a) for a in ("sdpa", "eager"))
    records = [
        replicate(MAMBA, at, kind="memory", **EXACT),
        replicate(PYTHIA, fused, kind="memory", **EXACT),
        failed(eager, kind="memory"),
    ]
    # Steps of the second: 25 ms and 8 us a token at depths of 10,001 to 10,099, 105.4 ms on average.
    assert said(records) == [
        "Memory and speed at prompt 10,000: mamba-130m: 719 MB peak, 33.3 tokens/s (one "
        "process); pythia-160m with sdpa attention: 1.59 GB peak, 9.49 tokens/s (one process); "
        "pythia-160m with eager attention: out of memory."
    ]


def test_of_many_settings_the_ends_are_said() -> None:
    found = said(sweep("memory", [MAMBA], processes=3))
    assert [s.partition(":")[0] for s in found] == [
        "Memory and speed at prompt 128", "Memory and speed at prompt 2,048",
    ]  # fmt: skip
    assert all("tokens/s (range" in s for s in found)


def test_nothing_is_said_where_memory_alone_or_time_was_asked_for() -> None:
    assert said(sweep("memory", repeats=0)) == []
    assert said(sweep("latency")) == []
