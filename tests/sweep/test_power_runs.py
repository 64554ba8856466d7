"""Power in a sweep against stand-in processes, planned as if there were a GPU."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mambabench.bench import devices
from mambabench.bench.points import Block
from mambabench.cli import _run
from mambabench.errors import DeviceError
from mambabench.sweep.options import SpeedOptions, SpeedOutcome
from mambabench.sweep.run import run_sweep

A, B = "fake:token_ms=2", "fake:token_ms=4"
BLOCK = Block((A, B), prompt_len_tokens=(128, 256), gen_len_tokens=(4,), batch_size=(1,))
STANDIN = Path(__file__).parent.with_name("standin_child.py")


class Desk:
    """Runs sweeps in a directory of their own and reads what they started."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "jobs.jsonl"
        self.options = SpeedOptions("latency", (BLOCK,), processes=2, ceilings=False, out=folder / "results")

    def run(self, *rules: tuple[dict[str, Any], str], **how: Any) -> SpeedOutcome:
        self.log.unlink(missing_ok=True)
        child = (sys.executable, "-S", "-E", str(STANDIN), str(self.log), json.dumps(rules))
        return run_sweep(replace(self.options, **how), child=child)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "seen_device", lambda text: "cuda:0")
    monkeypatch.setattr(devices, "seen_name", lambda device: "a card")
    monkeypatch.setattr(devices, "capacity_bytes", lambda device: 10**11)


@pytest.mark.usefixtures("on_a_card")
def test_power_is_measured_after_all_times_once_a_point(desk: Desk) -> None:
    blocks = (replace(BLOCK, arms=("eager", "graph")),)
    oom = ({"prompt_len_tokens": 256, "model": B, "task": "measure"}, "oom")
    timed = desk.run(oom, blocks=blocks)
    assert {j["task"] for j in desk.jobs} == {"measure"}
    assert all(r.power is None for r in timed.replicates)
    # The energy is added to the run whose times are there.
    outcome = desk.run(oom, blocks=blocks, power=True, ceilings=True)
    assert outcome.path == timed.path
    assert [j["task"] for j in desk.jobs] == ["ceilings", "ceilings", *["power"] * 6]
    of = [(j["point"]["model"], j["point"]["prompt_len_tokens"], j["point"]["arm"]) for j in desk.jobs[2:]]
    assert of == [
        (A, 128, "eager"), (A, 128, "graph"), (B, 128, "eager"), (B, 128, "graph"),
        (A, 256, "eager"), (A, 256, "graph"),
    ]  # fmt: skip
    known = [r for r in outcome.replicates if r.power is not None]
    assert len(known) == 6
    assert {r.replicate for r in known} == {0}
    # All else is as it was.
    assert [r.model_copy(update={"power": None}) for r in outcome.replicates] == list(timed.replicates)
    row = outcome.table.rows[0]
    assert row.gross_j_per_token is not None
    assert row.net_j_per_token is not None
    assert (row.gross_j_per_token.value, row.net_j_per_token.value) == (2.0, pytest.approx(1.6))
    again = desk.run(oom, blocks=blocks, power=True, ceilings=True)
    assert desk.jobs == []
    assert again.replicates == outcome.replicates


@pytest.mark.usefixtures("on_a_card")
def test_power_that_cannot_be_measured_is_a_note_and_tried_again(desk: Desk) -> None:
    outcome = desk.run(({"task": "power"}, "failed"), power=True)
    (note,) = [note for note in outcome.notes if "power" in note]
    assert note == f"power was not measured of {A} 128+4 eager and 7 more: failed: a reason"
    outcome.raise_for_failures()
    desk.run(power=True)
    assert [j["task"] for j in desk.jobs] == ["power"] * 8


@pytest.mark.usefixtures("on_a_card")
def test_without_steps_there_is_no_power_to_measure(desk: Desk) -> None:
    desk.run(blocks=(replace(BLOCK, gen_len_tokens=(1,)),), power=True)
    assert {j["task"] for j in desk.jobs} == {"measure"}


def test_power_of_a_cpu_is_refused_before_anything(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
        desk.run(power=True)
    assert desk.jobs == []
    assert _run(["latency", "--power", "--device", "cpu", "--out", str(tmp_path)]) == DeviceError.exit_code
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("error: `--power` needs an NVIDIA GPU, and the device is cpu. Leave it out")
