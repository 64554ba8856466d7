"""A model that computes something else than the one that was shipped is not timed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mambabench.bench.points import Block
from mambabench.errors import CellsFailedError
from mambabench.sweep.options import SpeedOptions
from mambabench.sweep.run import run_sweep

BROKEN = (sys.executable, str(Path(__file__).parent.with_name("broken_child.py")))


@pytest.mark.slow
def test_a_model_patched_to_be_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the certificate of the model as it is would be found.
    monkeypatch.setenv("MAMBABENCH_CACHE", str(tmp_path / "cache"))
    options = SpeedOptions(
        "latency",
        (Block(("mamba-tiny",), (32,), (4,), (1,)),),
        repeats=1,
        processes=1,
        max_time_s=1,
        ceilings=False,
        out=tmp_path / "results",
    )
    outcome = run_sweep(options, child=BROKEN)
    (wrong,) = outcome.table.rows
    assert wrong.status == "failed"
    assert wrong.n_repeats == 0
    assert "certificate" in wrong.detail
    with pytest.raises(CellsFailedError, match="mamba-tiny"):
        outcome.raise_for_failures()

    insisting = replace(options, verify=False, out=tmp_path / "insisting")
    assert [row.status for row in run_sweep(insisting, child=BROKEN).table.rows] == ["ok"]
