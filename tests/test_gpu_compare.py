"""The GPU script's comparison of two devices' samples, on a CPU."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from gpu import drive
from gpu.compare_samples import compare

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


@pytest.mark.slow
def test_the_parity_check_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One device against itself says nothing of parity, but that commands, stores and records still fit.
    from gpu import checks
    from tasks.rows import write_rows

    monkeypatch.setattr(checks, "DEVICES", ("cpu", "cpu"))
    monkeypatch.setenv("PYTHONPATH", str(RUN_SH.parent.parent))
    checkpoint = checks.write_checkpoint(tmp_path / "checkpoint")
    figures = checks.Figures(tmp_path / "found.json")
    given = argparse.Namespace(work=tmp_path, limit=3)
    arguments = ["--task", "piqa", "--data-dir", str(write_rows(tmp_path / "data", n=3))]
    checks._compare_devices(figures, given, [str(checkpoint)], arguments)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["agree"] is True
    assert found["checkpoint on piqa"]["n_samples"] == 3
    assert found["checkpoint on piqa"]["n_numbers"] == 6
    assert set(found["cuda_kernels"].values()) == {CpuKernels.name}
