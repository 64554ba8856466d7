"""Gaps between models split into factors that multiply to them, and no factor that was not measured."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from speed_records import MAMBA, PYTHIA, sweep

from mambabench.speed_schema import RepeatRecord, ReplicateRecord
from mambabench.tables.speed.contenders import Field
from mambabench.tables.speed.table import build_speed_table
from mambabench.tables.speed.words_pairs import gap_words

EXACT = {"process_noise": 0.0, "repeat_noise": 0.0}


def said(records: Sequence[ReplicateRecord], begins: str) -> list[str]:
    table = build_speed_table(records[0].kind, "a sweep", records, [], {}, expected=())
    return [s for s in gap_words(Field(table)) if s.startswith(begins)]


def the(found: list[str]) -> str:
    (sentence,) = found
    return sentence


def test_factors_multiply_to_the_gap() -> None:
    def arms(shipped: float, graph: float) -> tuple[tuple[str, float], ...]:
        return (("shipped", shipped), ("graph", graph))

    a = replace(MAMBA, arm_factors=arms(3.0, 0.4))
    b = replace(PYTHIA, arm_factors=arms(1.5, 0.5), token_s_per_depth=0.0)
    records = sweep(
        models=[a, b], prompt_lens=(128,), arms=("shipped", "eager", "graph"), device="cuda:0", **EXACT
    )
    sentence = the(said(records, "Gap in time per token"))
    found = re.search(
        r"mamba-130m takes ([\d.]+) .* times pythia-160m's in the shipped arm, made of "
        r"([\d.]+) kernel path x ([\d.]+) CUDA graph, where launch overhead shows x "
        r"([\d.]+) architecture and all else\.$",
        sentence,
    )
    assert found is not None
    whole, kernel, graph, rest = map(float, found.groups())
    # 3.0 over 1.5; 1 / 0.4 over 1 / 0.5.
    assert (kernel, graph) == (2.0, 1.25)
    assert rest == pytest.approx(30 / 25 * 0.4 / 0.5)
    assert whole == pytest.approx(30 * 3.0 / (25 * 1.5), rel=0.01)


def test_time_outside_the_devices_events_is_no_factor() -> None:
    records = sweep(prompt_lens=(128,), arms=("shipped", "eager"), device="cuda:0", **EXACT)
    # The host of the second waits for its device alone.
    records = [with_host(r, 1.0) if r.point.model == PYTHIA.name else r for r in records]
    sentence = the(said(records, "Gap in time per token"))
    assert "host" not in sentence
    assert " architecture and all else. What `--arm graph` would split off" in sentence


def with_host(record: ReplicateRecord, factor: float) -> ReplicateRecord:
    def slower(repeat: RepeatRecord) -> RepeatRecord:
        return repeat.model_copy(update={"decode_host_s": factor * math.fsum(repeat.itl_s)})

    return record.model_copy(update={"repeats": tuple(map(slower, record.repeats))})


def test_arms_not_measured_are_named() -> None:
    on_gpu = sweep(prompt_lens=(128,), device="cuda:0")
    assert the(said(on_gpu, "Gaps")).endswith("that takes `--arm shipped` and `--arm graph` as well.")
    on_cpu = the(said(sweep(prompt_lens=(128,)), "Gaps"))
    assert "`--arm shipped`" in on_cpu
    assert "graph" not in on_cpu


def test_the_slower_model_comes_first_in_a_gap() -> None:
    records = sweep(prompt_lens=(128, 4096), arms=("shipped", "eager"), **EXACT)
    sentence = the(said(records, "Gap in time per token at prompt 4,096"))
    assert "pythia-160m takes 1.93 " in sentence
    assert "1.00 kernel path x 1.93 architecture and all else." in sentence
