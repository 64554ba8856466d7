"""Stored sweeps compared: which points meet, pairs and samples, verdicts, failures, what differs beside."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speed_records import MAMBA, PYTHIA, failed, point, replicate, sweep
from stored_sweeps import ENVIRONMENT, conversation, side_of, store_sweep, stored_side

from mambabench import medians
from mambabench.compare.result import CompareOptions, Side
from mambabench.compare.speed import compare_speed
from mambabench.compare.speed_result import Outcome, SpeedComparison, SpeedContrast
from mambabench.errors import StoreError, UsageError
from mambabench.speed_schema import Arm, ReplicateRecord

OPTIONS = CompareOptions(replicates=500)
SLOWER = replace(MAMBA, token_s=MAMBA.token_s * 1.1)


def compared(*sides: Side, options: CompareOptions = OPTIONS) -> SpeedComparison:
    return compare_speed(sides, sides[0], options)


def figure(found: SpeedComparison, name: str, prompt_len: int = 128, candidate: str = "") -> SpeedContrast:
    (one,) = [
        c
        for c in found.contrasts
        if c.figure == name
        and c.match.place.prompt_len_tokens == prompt_len
        and candidate in ("", c.match.candidate)
    ]
    return one


def test_models_of_one_run_are_paired(tmp_path: Path) -> None:
    # All processes of a number share what the machine did at that time.
    shared = np.exp(0.2 * np.random.default_rng(0).standard_normal(6)).tolist()
    records = [
        replicate(replace(s, token_s=s.token_s * f, prefill_s=s.prefill_s * f), point(s), number)
        for number, f in enumerate(shared)
        for s in (MAMBA, PYTHIA)
    ]
    run = store_sweep(tmp_path / "run", records)
    found = compared(side_of(run, "m", MAMBA.name), side_of(run, "p", PYTHIA.name))
    tpot = figure(found, "tpot")
    ratios = [
        math.log((medians.tpot_s(b) or 0) / (medians.tpot_s(a) or 0))
        for a, b in zip(records[::2], records[1::2], strict=True)
    ]
    assert (tpot.paired, tpot.method, tpot.n_candidate) == (True, "t on log", 6)
    assert math.log(tpot.ratio) == pytest.approx(np.mean(ratios))
    half = 2.570582 * np.std(ratios, ddof=1) / math.sqrt(6)
    assert math.log(tpot.high / tpot.ratio) == pytest.approx(half, rel=1e-5)
    # The numbers as they stand beside the ratio are those of the same processes.
    assert tpot.candidate_value / tpot.baseline_value == pytest.approx(tpot.ratio)
    assert tpot.verdict == "faster"
    assert "Sides of one run are compared by pairs of processes." in found.remarks


def test_decoding_is_the_inverse_and_no_test_of_its_own(tmp_path: Path) -> None:
    run = store_sweep(tmp_path / "run", sweep(prompt_lens=(128,)))
    found = compared(side_of(run, "m", MAMBA.name), side_of(run, "p", PYTHIA.name))
    tpot, decode = figure(found, "tpot"), figure(found, "decode")
    assert decode.ratio == pytest.approx(1 / tpot.ratio)
    assert (decode.p_adjusted, decode.verdict) == (tpot.p_adjusted, tpot.verdict)
    assert decode.baseline_value == pytest.approx(1 / tpot.baseline_value)
    (family,) = found.families
    tested = [c for c in found.contrasts if c.p_value is not None]
    assert (family.name, family.n_tests) == ("speed", len(tested) - 1)
    # Holm multiplies the smallest p-value by the number of tests.
    first = min(tested, key=lambda c: c.p_value or 0)
    assert first.p_adjusted == pytest.approx(min(1, family.n_tests * (first.p_value or 0)))


@pytest.mark.parametrize(
    ("processes", "method"),
    [(1, "single"), (5, "range"), (6, "Welch t on log"), (10, "bootstrap t on log")],
)
def test_two_runs_are_two_samples(tmp_path: Path, processes: int, method: str) -> None:
    options: dict[str, Any] = {"prompt_lens": (128,), "processes": processes}
    base = stored_side(tmp_path / "a", sweep(models=[MAMBA], **options), "base")
    other = stored_side(tmp_path / "b", sweep(models=[SLOWER], seed=1, **options), "new")
    found = compared(base, other)
    tpot = figure(found, "tpot")
    assert (tpot.paired, tpot.method, tpot.n_baseline) == (False, method, processes)
    if processes >= 6:
        assert 1.07 < tpot.low < tpot.ratio < tpot.high < 1.13
        assert tpot.verdict == "slower"
        assert figure(found, "ttft").verdict in ("not distinguishable", "no difference")
    else:
        assert (tpot.verdict, tpot.p_value, tpot.has_interval) == ("not tested", None, False)
    assert any(remark.startswith("Sides of separate runs") for remark in found.remarks)


def test_memory_that_never_varies_is_exact(tmp_path: Path) -> None:
    base = stored_side(tmp_path / "a", sweep("memory", [MAMBA], processes=2), "base")
    more = replace(MAMBA, weights_bytes=MAMBA.weights_bytes + 1)
    other = stored_side(tmp_path / "b", sweep("memory", [more], processes=2), "new")
    found = compared(base, other)
    peak, state = figure(found, "peak"), figure(found, "state")
    assert (peak.method, peak.low, peak.high) == ("exact", peak.ratio, peak.ratio)
    assert (peak.verdict, peak.within_margin, peak.p_value) == ("more", True, None)
    assert peak.candidate_value == peak.baseline_value + 1
    assert (state.ratio, state.verdict) == (1.0, "no difference")
    # One process shows nothing of a peak's spread, while a state follows from its specification.
    alone = compared(base, stored_side(tmp_path / "c", sweep("memory", [MAMBA], processes=1), "one"))
    assert figure(alone, "peak").method == "range"
    assert figure(alone, "state").method == "exact"


def test_times_that_never_vary_are_not_tested(tmp_path: Path) -> None:
    exact = {"process_noise": 0.0, "repeat_noise": 0.0}
    base = stored_side(tmp_path / "a", sweep(models=[MAMBA], **exact), "base")
    other = stored_side(tmp_path / "b", sweep(models=[SLOWER], **exact), "new")
    tpot = figure(compared(base, other), "tpot")
    assert (tpot.method, tpot.verdict, tpot.p_value) == ("exact", "not tested", None)
    assert "nothing is tested" in tpot.remarks[0]


def test_equals_are_no_different_only_where_that_is_shown(tmp_path: Path) -> None:
    for noise, word in ((0.002, "no difference"), (0.05, "not distinguishable")):
        sides = [
            stored_side(
                tmp_path / f"{noise}{label}",
                sweep(models=[MAMBA], prompt_lens=(128,), process_noise=noise, processes=12, seed=seed),
                label,
            )
            for seed, label in enumerate(("base", "new"))
        ]
        assert figure(compared(*sides), "tpot").verdict == word


def test_oom_on_one_side_is_a_finding(tmp_path: Path) -> None:
    fine, full = point(MAMBA, 128), point(MAMBA, 4096)
    base = [replicate(MAMBA, at, n) for n in range(6) for at in (fine, full)]
    other = [replicate(MAMBA, fine, n, seed=1) for n in range(6)] + [failed(full)]
    found = compared(stored_side(tmp_path / "a", base, "base"), stored_side(tmp_path / "b", other, "new"))
    assert {c.match.place.prompt_len_tokens for c in found.contrasts} == {128}
    (outcome,) = found.outcomes
    assert (outcome.baseline_status, outcome.candidate_status) == ("ok", "oom")
    assert outcome.words == "base ran; new ran out of memory (wanted 6.7 GB)"
    assert found.where(outcome.match) == "prompt 4,096"


def test_processes_that_failed_are_in_no_figure(tmp_path: Path) -> None:
    at = point(MAMBA)
    base = [replicate(MAMBA, at, n) for n in range(6)]
    broken = replicate(SLOWER, at, 6).model_copy(update={"status": "killed"})
    other = [replicate(MAMBA, at, n, seed=1) for n in range(6)] + [broken]
    found = compared(stored_side(tmp_path / "a", base, "base"), stored_side(tmp_path / "b", other, "new"))
    assert figure(found, "tpot").n_candidate == 6
    (outcome,) = found.outcomes
    assert outcome.words == "base ran; new was killed in 1 of 7 processes and ran in 6 of 7 processes"


def runs(tmp_path: Path, base: list[ReplicateRecord], other: list[ReplicateRecord]) -> SpeedComparison:
    return compared(stored_side(tmp_path / "a", base, "base"), stored_side(tmp_path / "b", other, "new"))


@pytest.mark.parametrize(
    ("base", "other", "pairs"),
    [
        (["eager"], ["graph"], [("eager", "graph")]),
        (["eager", "graph"], ["graph"], [("graph", "graph")]),
        (["eager", "graph"], ["graph", "eager"], [("eager", "eager"), ("graph", "graph")]),
        # Neither has the other's: the fastest of each, drawn ids last.
        (["eager", "shipped"], ["graph"], [("eager", "graph")]),
        (["sampled", "shipped"], ["eager"], [("shipped", "eager")]),
    ],
)
def test_arms(tmp_path: Path, base: list[Arm], other: list[Arm], pairs: list[tuple[str, str]]) -> None:
    one, two = (sweep(models=[MAMBA], prompt_lens=(128,), arms=a, processes=2) for a in (base, other))
    found = runs(tmp_path, one, two)
    assert sorted((m.baseline_way.arm, m.candidate_way.arm) for m in found.matches) == pairs
    differ = [d.describe() for d in found.differences if d.what == "arm"]
    assert differ == [f"arm: {a} -> {b}" for a, b in pairs if a != b]
    if len(pairs) > 1:
        assert {found.where(m) for m in found.matches} == {
            f"prompt 128, {arm} arm, float32 on cpu" for arm in ("eager", "graph")
        }


def test_attention_is_matched_where_equal_and_the_fastest_otherwise(tmp_path: Path) -> None:
    slow, fast = point(PYTHIA, attention="eager"), point(PYTHIA, attention="flash")
    quicker = replace(PYTHIA, token_s=PYTHIA.token_s / 2)
    both = [r for n in range(2) for r in (replicate(PYTHIA, slow, n), replicate(quicker, fast, n))]
    found = runs(tmp_path, both, [replicate(PYTHIA, slow, n) for n in range(2)])
    assert [m.baseline_way.attention for m in found.matches] == ["eager"]
    assert any("without the like" in remark for remark in found.remarks)
    mamba = [replicate(MAMBA, point(MAMBA), n) for n in range(2)]
    run = store_sweep(tmp_path / "c", [*both, *mamba])
    across = compared(side_of(run, "m", MAMBA.name), side_of(run, "p", PYTHIA.name))
    assert [m.candidate_way.attention for m in across.matches] == ["flash"]
    assert not [d for d in across.differences if d.what == "attention"]


def test_another_dtype_or_device_is_compared_and_said_loudly(tmp_path: Path) -> None:
    half = point().model_copy(update={"dtype": "bfloat16"})
    found = runs(tmp_path, [replicate(MAMBA, point())], [replicate(MAMBA, half)])
    assert [(d.describe(), d.loud) for d in found.differences] == [("dtype: float32 -> bfloat16", True)]


def test_what_differs_between_runs_is_listed(tmp_path: Path) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128,), processes=2)
    base = stored_side(tmp_path / "a", records, "base")
    changed = {
        "packages": {"torch": "2.13.0", "numpy": "2.0.0", "triton": "3.0"},
        "gpus": [{"name": "a GPU", "memory_bytes": 1}],
        "processor": {**ENVIRONMENT["processor"], "name": "another"},
        "git": {"commit": "0123456789abcdef", "modified": True},
        "variables": {"OMP_NUM_THREADS": "1"},
    }
    other_records = [r.model_copy(update={"threads": 1, "load_average": 3.0}) for r in records]
    records = [r.model_copy(update={"threads": 2}) for r in records]
    base = stored_side(tmp_path / "c", records, "base")
    other = stored_side(
        tmp_path / "b", other_records, "new", environment=changed, settings={"budget_bytes": 24 * 10**9}
    )
    found = compared(base, other)
    loud = [d.describe() for d in found.differences if d.loud]
    quiet = [d.describe() for d in found.differences if not d.loud]
    assert loud == [
        "threads: 2 -> 1",
        "processor: a processor, 4 cores -> another, 4 cores",
        "GPU: none -> a GPU",
    ]
    assert quiet == [
        "load average: 1.2 -> 3.0",
        "commit: 0123456789 -> 0123456789 with changes",
        "torch: 2.12.0 -> 2.13.0",
        "triton: none -> 3.0",
        "OMP_NUM_THREADS: none -> 1",
        "emulated memory: all there is -> 24 GB",
    ]
    same = compared(base, stored_side(tmp_path / "d", records, "same"))
    assert same.differences == ()


def test_a_machine_that_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128,), processes=2)
    base = stored_side(tmp_path / "a", records, "base")
    damaged = dict.fromkeys(("packages", "variables", "gpus", "processor", "git", "memory_bytes"), "x")
    other = stored_side(tmp_path / "b", records, "new", environment=damaged)
    assert {d.candidate_value for d in compared(base, other).differences} == {""}


def test_models_of_one_run_share_the_machine(tmp_path: Path) -> None:
    run = store_sweep(tmp_path / "run", sweep(prompt_lens=(128,), processes=2))
    found = compared(side_of(run, "m", MAMBA.name), side_of(run, "p", PYTHIA.name))
    assert [d.what for d in found.differences] == ["run by"]


def test_only_common_places_are_compared(tmp_path: Path) -> None:
    found = runs(
        tmp_path,
        sweep(models=[MAMBA], prompt_lens=(128, 512), processes=2),
        sweep(models=[MAMBA], prompt_lens=(512, 1024, 2048), processes=2),
    )
    assert [m.place.prompt_len_tokens for m in found.matches] == [512]
    assert "2 points of new without the like of base; the first is prompt 1,024, batch 1, 64 generated." in (
        found.remarks
    )
    assert "1 point of base without the like of new; the first is prompt 128, batch 1, 64 generated." in (
        found.remarks
    )


def test_conversations(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(1, 0.01, 6).tolist()
    base = [conversation(point(), n, resume_s=0.01 * f) for n, f in enumerate(noise)]
    other = [conversation(point(), n, resume_s=0.02 * f, state_bytes=3000) for n, f in enumerate(noise[::-1])]
    found = runs(tmp_path, base, other)
    resume = figure(found, "resume")
    assert (resume.ratio, resume.verdict) == (pytest.approx(2, rel=0.02), "slower")
    assert figure(found, "state").ratio == figure(found, "forks").ratio == 3.0
    # A clock that saw nothing of an operation has no ratio of it.
    assert {c.figure for c in found.contrasts} == {"resume", "prefill_again", "state", "forks"}
    longer = stored_side(tmp_path / "c", other, "longer", settings={"turn_len_tokens": 128})
    with pytest.raises(UsageError, match="no point in common"):
        compared(side_of(tmp_path / "a", "base", MAMBA.name, "conversation"), longer)


def test_several_candidates_are_one_family(tmp_path: Path) -> None:
    sides = [
        stored_side(tmp_path / label, sweep(models=[MAMBA], prompt_lens=(128,), seed=seed), label)
        for seed, label in enumerate(("base", "b", "c"))
    ]
    found = compared(*sides)
    assert [s.label for s in found.candidates] == ["b", "c"]
    per_candidate = sum(c.p_value is not None and c.figure != "decode" for c in found.contrasts) // 2
    assert found.families[0].n_tests == 2 * per_candidate
    assert figure(found, "tpot", candidate="b") != figure(found, "tpot", candidate="c")


def test_everything_is_json(tmp_path: Path) -> None:
    at = point(MAMBA, 4096)
    run = store_sweep(tmp_path / "run", [*sweep(processes=2), failed(at)])
    found = compared(side_of(run, "m", MAMBA.name), side_of(run, "p", PYTHIA.name))
    again = json.loads(json.dumps(found.as_json()))
    assert len(again["contrasts"]) == len(found.contrasts)
    assert again["baseline"]["run"] == str(run)


def test_bad_sides(tmp_path: Path) -> None:
    base = stored_side(tmp_path / "a", sweep(models=[MAMBA], prompt_lens=(128,), processes=1), "base")
    memory = stored_side(tmp_path / "b", sweep("memory", [MAMBA], processes=1), "memory")
    with pytest.raises(UsageError, match="runs of latency and memory cannot be compared"):
        compared(base, memory)
    with pytest.raises(UsageError, match="zeroshot"):
        compared(replace(base, kind="zeroshot"), replace(base, kind="zeroshot", label="x"))
    with pytest.raises(UsageError, match="holds no measurement of nobody"):
        compared(base, replace(base, model="nobody", label="x"))
    elsewhere = stored_side(tmp_path / "c", sweep(models=[MAMBA], prompt_lens=(7,), processes=1), "c")
    with pytest.raises(UsageError, match=r"no point in common: prompt 7.*; prompt 128") as caught:
        compared(base, elsewhere)
    assert caught.value.exit_code == 2
    (tmp_path / "c" / "replicates" / "00000.json").write_text("{", "utf-8")
    with pytest.raises(StoreError):
        compared(base, elsewhere)


def test_partial_sweeps_say_so(tmp_path: Path) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128,), processes=2)
    base = stored_side(tmp_path / "a", records, "base")
    other = replace(stored_side(tmp_path / "b", records, "new"), partial=True)
    assert "new is partial: its sweep is not finished." in compared(base, other).remarks


def test_outcomes_name_everyone(tmp_path: Path) -> None:
    at = point(MAMBA, 512)
    ok = [replicate(MAMBA, point(), 0)]
    found = runs(
        tmp_path,
        [*ok, failed(at, status="skipped_after_oom")],
        [*ok, failed(at, status="unsupported")],
    )
    assert found.outcomes == (
        Outcome(
            found.outcomes[0].match, "skipped_after_oom", "unsupported",
            "base was not tried, as less ran out of memory; new cannot run there",
        ),
    )  # fmt: skip
