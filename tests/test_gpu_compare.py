"""The GPU script's comparison of two devices' samples, on a CPU."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from gpu import drive
from gpu.compare_samples import compare
from gpu.sample_errors import errors

from mambabench.kernels.packed import CpuKernels

RUN_SH = Path(drive.__file__).parent / "run.sh"


def sample(doc_id: int, resps: Any, **metrics: Any) -> dict[str, Any]:
    return {"doc_id": doc_id, "filter": "none", "resps": resps, "metrics": list(metrics), **metrics}


def test_equal_samples_agree_whatever_their_order() -> None:
    a, b = sample(0, [[[-1.5, True]], [[-2.5, False]]], acc=1.0), sample(1, [[-700.0]], ppl=[-700.0, 12.0])
    found = compare([a, b], [b, a])
    assert found.agrees
    assert (found.n_samples, found.n_numbers, found.largest_difference_nats) == (2, 3, 0.0)


def test_differences_are_counted() -> None:
    ours = [sample(0, [[[-1.0, True]]], acc=1.0), sample(1, [[["one"]]], exact=1.0)]
    theirs = [sample(0, [[[-1.0005, False]]], acc=0.0), sample(1, [[["two"]]], exact=0.0)]
    found = compare(ours, theirs)
    assert found.agrees
    assert found.largest_difference_nats == pytest.approx(5e-4)
    assert found.n_other_answers == 2
    assert found.documents_with_other_metrics == [0, 1]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([sample(0, [[[-1.0, True]]])], [sample(0, [[[-1.002, True]]])]),
        ([sample(0, [[[-1.0, True]]])], [sample(0, [[[float("nan"), True]]])]),
        ([sample(0, [[[-1.0, True]]])], [sample(1, [[[-1.0, True]]])]),
        ([sample(0, [[[-1.0, True]]])], [sample(0, [[[-1.0, True]], [[-1.0, True]]])]),
        ([], []),
    ],
)
def test_disagreement_is_seen(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert not compare(ours, theirs).agrees


def test_long_sums_may_differ_by_a_float_step() -> None:
    ours, theirs = [sample(0, [[-22000.0]])], [sample(0, [[-22000.02]])]
    assert compare(ours, theirs).agrees
    assert not compare(ours, [sample(0, [[-22000.03]])]).agrees


def scored(*answers: list[tuple[float, bool]]) -> dict[str, list[dict[str, Any]]]:
    return {"task": [{"doc_id": i, "filter": "none", "resps": row} for i, row in enumerate(answers)]}


def test_errors_are_held_against_those_of_the_other_program() -> None:
    exact = scored([(-1.0, True), (-2.0, False)], [(-3.0, False), (-4.0, False)])
    theirs = scored([(-1.1, True), (-2.1, False)], [(-3.1, False), (-3.9, False)])
    ours = scored([(-1.14, True), (-1.86, False)], [(-3.14, False), (-4.14, True)])
    found = errors(ours=ours, theirs=theirs, exact=exact)
    assert found["agrees"]
    assert found["their_rms_error_nats"] == pytest.approx(0.1)
    assert found["our_rms_error_nats"] == pytest.approx(0.14)
    assert found["largest_difference_nats"] == pytest.approx(0.24)
    # Beyond twice their largest error lie -1.86 and -2.1, -4.14 and -3.9.
    assert (found["n_log_likelihoods"], found["n_beyond"], found["n_other_greedy"]) == (4, 2, 1)
    assert found["same_choice_share"] == 1.0
    worse = scored([(-1.2, True), (-1.8, False)], [(-3.2, False), (-4.2, False)])
    assert not errors(ours=worse, theirs=theirs, exact=exact)["agrees"]
    other = scored([(-2.1, True), (-1.1, False)], [(-3.1, False), (-3.9, False)])
    assert errors(ours=other, theirs=theirs, exact=exact)["n_other_choice"] == 1


def test_a_part_held_against_float32_is_enough_but_no_document_may_lack() -> None:
    exact = scored([(-1.0, True)])
    both = scored([(-1.0, True)], [(-2.0, False)])
    found = errors(ours=both, theirs=both, exact=exact)
    assert (found["agrees"], found["n_documents"], found["n_held_against_float32"]) == (True, 2, 1)
    assert not errors(ours=exact, theirs=both, exact=exact)["agrees"]
    assert not errors(ours=scored([(float("nan"), True)]), theirs=exact, exact=exact)["agrees"]
    # Sums of other order in float32 differ as well, and lm-eval's error in float32 is zero.
    near = scored([(-1.0005, True)])
    assert errors(ours=near, theirs=exact, exact=exact)["agrees"]
    assert not errors(ours=scored([(-1.002, True)]), theirs=exact, exact=exact)["agrees"]


@pytest.mark.slow
def test_the_parity_check_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One device against itself says nothing of parity, but that commands, stores and records still fit.
    from gpu import check_parity, checks
    from tasks.rows import write_rows

    monkeypatch.setenv("PYTHONPATH", str(RUN_SH.parent.parent))
    checkpoint = checks.write_checkpoint(tmp_path / "checkpoint", hidden_size=32, n_layers=1)
    figures = checks.Figures(tmp_path / "found.json")
    given = argparse.Namespace(check="parity", work=tmp_path, limit=3, rehearse=True)
    arguments = ["--task", "piqa", "--data-dir", str(write_rows(tmp_path / "data", n=3)), "--no-verify"]
    check_parity._compare_devices(figures, given, [str(checkpoint)], arguments)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["agree"] is True
    assert found["checkpoint on piqa"]["n_samples"] == 3
    assert found["checkpoint on piqa"]["n_numbers"] == 6
    assert set(found["cuda_kernels"].values()) == {CpuKernels.name}
