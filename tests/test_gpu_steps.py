"""The GPU script's steps on a CPU: each fails alone, and what was found is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from driven import options
from gpu import drive
from gpu.drive import COMMANDS, Run, Step, StepError

from mambabench.cli import _run
from mambabench.store import StoredRun


def python(code: str) -> Any:
    """Return a step's act that runs Python code."""

    def act(run: Run, step: Step) -> dict[str, Any]:
        run.call(step, [sys.executable, "-c", code])
        return {"done": True}

    return act


@pytest.mark.parametrize("usable", [True, False])
def test_the_doctor_says_which_path_is_not_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    paths = [
        {"path": "official", "asked": True, "usable": usable, "reason": "no nvcc"},
        {"path": "flash", "asked": False, "usable": False, "reason": "never mind"},
    ]
    said = json.dumps({"paths": paths, "kernels": []}, indent=2)
    code = f"import sys; print('looking {{1 of 2}}', file=sys.stderr); print({said!r}); "
    code += f"sys.exit({0 if usable else 4})"
    run = Run(options(tmp_path))
    step = next(step for step in drive.STEPS if step.name == "doctor")
    asked: list[list[str]] = []

    def call(step: Step, command: list[str]) -> None:
        asked.append(command)
        real(step, [sys.executable, "-c", code])

    real = run.call
    monkeypatch.setattr(run, "call", call)
    run.out.mkdir(exist_ok=True)
    if usable:
        assert step.act(run, step) == json.loads(said)
    else:
        with pytest.raises(StepError, match=r"exit code 4; official: no nvcc$"):
            step.act(run, step)
        assert run.figures == json.loads(said)
    assert asked[0][1:] == ["-m", "mambabench", "doctor", "--path", "official", "--path", "triton", "--json"]


def test_a_failing_step_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(run: Run, step: Step) -> dict[str, Any]:
        raise KeyError("x")

    steps = (
        Step("good", 30, "", python("print('fine')")),
        Step("bad", 30, "", python("import sys; print('why'); sys.exit(7)")),
        Step("hung", 1, "", python("import time; time.sleep(60)")),
        Step("odd", 30, "", surprise),
        Step("after_bad", 30, "", python(""), needs=("bad",)),
        Step("after_that", 30, "", python(""), needs=("after_bad",)),
        Step("last", 30, "", python("")),
    )
    monkeypatch.setattr(drive, "STEPS", steps)
    given = options(tmp_path)
    began_s = time.perf_counter()
    code = drive.main(["--wheels", str(given.wheels), "--out", str(given.out)])
    assert time.perf_counter() - began_s < 30
    assert code == 3
    records = [json.loads(line) for line in (given.out / "steps.jsonl").read_text().splitlines()]
    assert {r["step"]: r["status"] for r in records} == {
        "good": "ok",
        "bad": "failed",
        "hung": "failed",
        "odd": "failed",
        "after_bad": "skipped",
        "after_that": "skipped",
        "last": "ok",
    }
    why = {r["step"]: r.get("why") for r in records}
    assert why["bad"] == "exit code 7: why"
    assert why["hung"] == "ran past its limit of 1 s"
    assert why["odd"] == "KeyError: 'x'"
    assert why["after_bad"] == "bad did not pass"
    assert "fine" in (given.out / "good.log").read_text()
    assert json.loads((given.out / "last.json").read_text())["found"] == {"done": True}


def test_a_timeout_ends_what_the_step_started(tmp_path: Path) -> None:
    run = Run(options(tmp_path))
    run.out.mkdir()
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with pytest.raises(StepError, match="limit"):
        run.call(Step("hung", 2, "", python("")), [sys.executable, "-c", code])
    child = int((run.out / "hung.log").read_text().splitlines()[-1])
    for _ in range(50):
        if not _runs(child):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child still runs")


def test_what_is_ended_from_outside_is_written_down(tmp_path: Path) -> None:
    given = options(tmp_path)
    folder = Path(drive.__file__).parent
    act = "lambda run, step: run.call(step, [sys.executable, '-c', 'import time; time.sleep(60)'])"
    code = (
        f"import signal, sys; sys.path.insert(0, {str(folder)!r}); import drive\n"
        f"drive.STEPS = (drive.Step('endless', 50, '', {act}),)\n"
        "signal.signal(signal.SIGTERM, drive._stop)\n"
        f"drive.main(['--wheels', {str(given.wheels)!r}, '--out', {str(given.out)!r}])\n"
    )
    for number, status, why in (
        (signal.SIGTERM, "failed", "stopped from outside"),
        (signal.SIGKILL, "begun", ""),
    ):
        began = subprocess.Popen([sys.executable, "-c", code])
        child = None
        for _ in range(300):
            children = Path(f"/proc/{began.pid}/task/{began.pid}/children").read_text().split()
            log = given.out / "endless.log"
            if (
                children
                and log.exists()
                and Path(f"/proc/{children[0]}/cmdline").read_bytes().count(b"sleep")
            ):
                child = int(children[0])
                break
            time.sleep(0.05)
        assert child is not None
        began.send_signal(number)
        assert began.wait(20) in (128 + number, -number)
        for _ in range(100):
            if not _runs(child):
                break
            time.sleep(0.05)
        assert not _runs(child)
        summary = (given.out / "SUMMARY.md").read_text()
        assert [line for line in summary.splitlines() if line.startswith(f"| endless | {status} |")]
        assert why in summary


def _runs(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_figures_found_before_a_failure_are_kept(tmp_path: Path) -> None:
    # Without a GPU the first check describes the machine, then says what is missing.
    import torch

    if torch.cuda.is_available():
        pytest.skip("tells nothing where there is a GPU")
    given = options(tmp_path)
    code = drive.main(["--wheels", str(given.wheels), "--out", str(given.out), "--steps", "environment"])
    assert code == 3
    record = json.loads((given.out / "environment.json").read_text())
    assert record["why"] == "exit code 1: torch sees no CUDA device"
    assert record["found"]["torch"] == torch.__version__


def test_the_first_check_needs_torch_alone(tmp_path: Path) -> None:
    # On the machine it runs before anything is installed.
    missing = ("psutil", "pydantic", "yaml", "lm_eval", "transformers", "mambabench", "pytest")
    script = Path(drive.__file__).with_name("checks.py")
    found = tmp_path / "found.json"
    arguments = ["checks.py", "environment", "--found", str(found), "--rehearse"]
    code = (
        f"import runpy, sys; sys.modules |= dict.fromkeys({missing!r}); sys.argv = {arguments!r}; "
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert "torch" in json.loads(found.read_text())["packages"]


# --- sweeps


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_sweeps_plan_what_they_say(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Here there is no card, and no power of one.
    words = [word for word in COMMANDS[name] if word != "--power"]
    code = _run([*words, "--device", "cpu", "--out", str(tmp_path), "--dry-run", "--json"])
    assert code == 0
    document = json.loads(capsys.readouterr().out)
    assert name in [step.name for step in drive.STEPS]
    if name == "longcontext":
        assert {cell["model"] for cell in document["cells"]} == {"mamba-tiny", "pythia-tiny"}
        return
    points = document["points"]
    assert all(p["obstacle"] == "" or p["arm"] == "graph" or p["attention"] == "flash" for p in points)
    assert len({p["model"] for p in points}) >= 2


def test_a_sweep_leaves_its_run_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        COMMANDS,
        "latency",
        ("latency", "--model", "fake:token_ms=1", "--model", "fake:token_ms=2,weights_mb=1",
         "--prompt-len", "8", "--gen-len", "3", "--processes", "1", "--repeats", "2", "--no-ceilings"),
    )  # fmt: skip
    call = Run.call

    def on_the_cpu(run: Run, step: Step, command: list[str], **environment: str) -> None:
        call(run, step, ["cpu" if word == "cuda" else word for word in command], **environment)

    monkeypatch.setattr(Run, "call", on_the_cpu)
    run = Run(options(tmp_path))
    run.out.mkdir()
    (step,) = [step for step in drive.STEPS if step.name == "latency"]
    found = step.act(run, step)
    (stored,) = found["runs"]
    assert len(StoredRun(run.out / "runs" / "latency" / stored).replicates()) == 2
    assert found["processes"] == {"ok": 2}
    figures = found["points"][0]
    assert (figures["model"], figures["prompt_len_tokens"]) == ("fake:token_ms=1", 8)
    assert 0 < figures["least_tpot_s"] < 1
    assert figures["decode_tokens_per_s"] == pytest.approx(1 / figures["least_tpot_s"])
    assert 0 < figures["e2e_tokens_per_s"] <= 3 / (figures["least_ttft_s"] + 2 * figures["least_tpot_s"])
    assert figures["peak_bytes"] >= 0
    # What a step that failed had measured is kept as well.
    monkeypatch.setitem(COMMANDS, "latency", (*COMMANDS["latency"], "--no-such-option"))
    with pytest.raises(StepError, match="exit code 2"):
        step.act(run, step)
    assert run.figures == found
