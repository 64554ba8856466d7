"""A model that computes something else than the one that was shipped is not timed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mambabench.bench.points import Block
from mambabench.errors import CellsFailedError
from mambabench.speed import SpeedOptions
from mambabench.sweep import run_sweep

BROKEN = (sys.executable, str(Path(__file__).with_name("broken_child.py")))


def test_a_model_patched_to_be_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the certificate of the model as it is would be found.
    monkeypatch.setenv("MAMBABENCH_CACHE", str(tmp_path / "cache"))
    options = SpeedOptions(
        "latency",
        (Block(("mamba-tiny", "pythia-tiny"), (32,), (4,), (1,)),),
        repeats=1,
        processes=1,
        max_time_s=1,
        ceilings=False,
        out=tmp_path / "results",
    )
    outcome = run_sweep(options, child=BROKEN)
    wrong, right = outcome.table.rows
    assert wrong.point.model == "mamba-tiny"
    assert wrong.status == "failed"
    assert wrong.n_repeats == 0
    assert "certificate" in wrong.detail
    assert right.status == "ok"
    with pytest.raises(CellsFailedError, match="mamba-tiny"):
        outcome.raise_for_failures()

    insisting = run_sweep(
        SpeedOptions(**{**options.__dict__, "verify": False, "out": tmp_path / "insisting"}), child=BROKEN
    )
    assert [row.status for row in insisting.table.rows] == ["ok", "ok"]
