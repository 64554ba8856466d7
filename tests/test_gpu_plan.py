"""The GPU script's plan, deadline, continuation, summary and publishing, and all of it rehearsed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gpu import drive, publish
from gpu.drive import GROUPS, LOAN_S, Run, Step
from gpu.plan import group_s

from mambabench.store import StoredRun

RUN_SH = Path(drive.__file__).parent / "run.sh"


def act(run: Run, step: Step) -> dict[str, Any]:
    return {"seen_limit_s": step.limit_s}


def done(out: Path) -> dict[str, dict[str, Any]]:
    """Return the last record of every step."""
    return {r["step"]: r for r in map(json.loads, (out / "steps.jsonl").read_text().splitlines())}


def driven(tmp_path: Path, *arguments: str) -> int:
    (tmp_path / "wheels").mkdir(exist_ok=True)
    return drive.main(["--wheels", str(tmp_path / "wheels"), "--out", str(tmp_path / "out"), *arguments])


# --- plan


def test_steps_are_of_one_name_each_and_need_what_comes_before() -> None:
    names = [step.name for step in drive.STEPS]
    assert len(set(names)) == len(names)
    for i, step in enumerate(drive.STEPS):
        assert set(step.needs) <= set(names[:i])
        assert step.least_s <= step.limit_s
        assert len(step.what) < 80


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_fits_one_loan(group: str) -> None:
    steps = {step.name: step for step in drive.STEPS}
    assert set(GROUPS[group]) <= set(steps)
    assert group_s(group) <= LOAN_S
    for name, limit_s in GROUPS[group].items():
        assert steps[name].least_s <= limit_s <= steps[name].limit_s
    # A machine is bare each time: what is installed there comes first.
    assert {"environment", "install", "install_built"} <= set(GROUPS[group])


def test_every_step_is_in_a_group() -> None:
    assert {name for limits in GROUPS.values() for name in limits} == {step.name for step in drive.STEPS}


def test_help_names_steps_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        drive.main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(step.name in text for step in drive.STEPS)
    for name, limits in GROUPS.items():
        assert f"{name} {group_s(name)} s: {', '.join(limits)}" in text


def test_a_group_brings_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (Step("environment", 100, "", act, least_s=1), Step("install", 99, "", act))
    monkeypatch.setattr(drive, "STEPS", steps)
    monkeypatch.setitem(GROUPS, "build", {"environment": 7})
    assert driven(tmp_path, "--group", "build") == 0
    assert {n: r["found"] for n, r in done(tmp_path / "out").items()} == {"environment": {"seen_limit_s": 7}}
    with pytest.raises(SystemExit) as ended:
        driven(tmp_path, "--group", "build", "--steps", "install")
    assert ended.value.code == 2


def test_wheels_are_needed_but_for_a_rehearsal(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        drive.main(["--out", str(tmp_path), "--dry-run"])
    assert ended.value.code == 2
    assert drive.main(["--out", str(tmp_path), "--dry-run", "--rehearse"]) == 0


# --- deadline


def test_a_step_gets_what_is_left_and_is_not_begun_with_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(run: Run, step: Step) -> dict[str, Any]:
        run.call(step, [sys.executable, "-c", "import time; time.sleep(60)"])
        return {}

    steps = (
        Step("cut", 100, "", act, least_s=1),
        Step("long", 100, "", act, least_s=50),
        Step("asleep", 100, "", sleep, least_s=1),
        Step("after", 100, "", act, needs=("long",), least_s=1),
        Step("late", 100, "", act, least_s=1),
    )
    monkeypatch.setattr(drive, "STEPS", steps)
    began_s = time.monotonic()
    assert driven(tmp_path, "--deadline", "4") == 3
    assert time.monotonic() - began_s < 8
    found = done(tmp_path / "out")
    assert 2 <= found["cut"]["found"]["seen_limit_s"] <= 4
    assert (found["long"]["status"], found["long"]["why"]) == ("skipped", "deadline")
    assert "ran past its limit" in found["asleep"]["why"]
    assert found["after"]["why"] == "long did not pass"
    assert found["late"]["why"] == "deadline"


def test_a_step_of_several_processes_has_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(run: Run, step: Step) -> dict[str, Any]:
        for _ in range(2):
            run.call(step, [sys.executable, "-c", "import time; time.sleep(1.2)"])
        return {}

    monkeypatch.setattr(drive, "STEPS", (Step("twice", 2, "", twice),))
    assert driven(tmp_path) == 3
    assert done(tmp_path / "out")["twice"]["why"] == "ran past its limit of 2 s"


# --- going on


def test_what_passed_is_left_out_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: dict[str, int] = {}

    def count(run: Run, step: Step) -> dict[str, Any]:
        times[step.name] = times.get(step.name, 0) + 1
        if step.name == "bad" and times["bad"] == 1:
            raise drive.StepError("not yet")
        return {}

    steps = (
        Step("prepare", 9, "", count, again=True),
        Step("good", 9, "", count),
        Step("bad", 9, "", count),
        Step("rest", 9, "", count, needs=("bad",)),
    )
    monkeypatch.setattr(drive, "STEPS", steps)
    assert driven(tmp_path) == 3
    assert driven(tmp_path, "--continue") == 0
    assert times == {"prepare": 2, "good": 1, "bad": 2, "rest": 1}
    assert [r["status"] for r in done(tmp_path / "out").values()] == ["ok"] * 4
    # Without it everything is done anew, and what was rehearsed has not been done.
    assert driven(tmp_path) == 0
    assert driven(tmp_path, "--continue", "--rehearse") == 0
    assert times == {"prepare": 4, "good": 3, "bad": 4, "rest": 3}


# --- summary and publishing


def engine(ratio: float, *, agrees: bool = True) -> dict[str, Any]:
    times = {"times_as_fast": ratio, "range": [1.0, 9.0], "lm_eval_s": [3.0, 3.0], "ours_s": [1.0, 1.0]}
    agreement = {
        "our_rms_error_nats": 0.012, "their_rms_error_nats": 0.01, "n_held_against_float32": 800,
        "same_choice_share": 0.995, "agrees": agrees,
    }  # fmt: skip
    return {
        "at_least": 2.0, "aim": 2.5, "documents_per_task": 1000, "backend": "mamba_ssm", "dtype": "bfloat16",
        "together": times, "by_unit": {"piqa": times, "arc_easy": times}, "agreement": agreement,
        "with_loading": times, "batch_sizes": [64, 32],
    }  # fmt: skip


def decode(ratio: float, share: float) -> dict[str, Any]:
    arm = {"tokens_per_s": 400.0, "ceiling_share": share, "status": "ok", "detail": ""}
    lost = {"tokens_per_s": None, "ceiling_share": None, "status": "unsupported", "detail": "no graph"}
    model = {
        "arms": {"graph": arm, "eager": lost}, "best_arm": "graph", "ceiling_share": share,
        "times_as_fast": ratio, "official": {"tokens_per_s": [200.0, 202.0]}, "official_ceiling_share": 0.3,
    }  # fmt: skip
    return {"at_least": 1.0, "share_aim": 0.7, "mamba-1.4b": model, "mamba-2.8b": {"why": "no time was left"}}


def record(step: str, found: Any = None, **more: Any) -> str:
    status = {"status": "ok", "found": found} if found is not None else {"status": "skipped"}
    return json.dumps({"step": step, **status, "wall_s": 1.0, **more}) + "\n"


def rows_of(text: str, begins: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {begins}")]


def test_the_summary_holds_figures_against_their_targets(tmp_path: Path) -> None:
    environment = {"card": "NVIDIA H100", "driver": "580.1", "memory_bytes": 80e9, "capability": "9.0"}
    point = {
        "model": "mamba-1.4b", "arm": "graph", "attention": "none", "batch_size": 8,
        "prompt_len_tokens": 2048, "status": "ok", "peak_bytes": 5.5e9, "least_ttft_s": 0.25,
        "decode_tokens_per_s": 1234.5,
    }  # fmt: skip
    larger = {**point, "batch_size": 16, "e2e_tokens_per_s": 900.0}
    slower = {**point, "model": "pythia-1.4b", "e2e_tokens_per_s": 200.0}
    point["e2e_tokens_per_s"] = 600.0
    lost = {**slower, "status": "oom", "why": "a | b", "e2e_tokens_per_s": None}
    lines = [
        record("environment", environment),
        # Of a step that was done twice the last counts.
        record("engine_vs_lm_eval", engine(1.5)),
        record("engine_vs_lm_eval", engine(2.3)),
        record("mmlu_vs_lm_eval", engine(9.0, agrees=False)),
        record("decode_vs_official", decode(1.98, 0.65)),
        record("figure8_right", {"points": [point, larger, slower, {**lost, "batch_size": 16}]}),
        record("scan_crossover", {"crossover_tokens": {"mamba-1.4b, one row": 2048, "a batch": None}}),
        record("power", why="deadline"),
    ]
    (tmp_path / "steps.jsonl").write_text("".join(lines))
    drive.summary.write(tmp_path)
    text = (tmp_path / "SUMMARY.md").read_text()
    assert "NVIDIA H100, 80 GB, compute capability 9.0" in text
    assert "rehearsal" not in text
    four, mmlu = rows_of(text, "engine against")
    assert "four tasks, up to 1000 documents each | at least 2 times, aim 2.5 | 2.30 times" in four
    assert four.endswith("| yes |")
    assert "| ... arc_easy by itself, lm-eval's batch 32 |" in text
    assert mmlu.endswith("| aim |")
    assert [row.split(" | ")[-1] for row in rows_of(text, "... its error")] == ["yes |", "no |"]
    speed, share = rows_of(text, "mamba-1.4b, batch 1")
    assert "1.98 times | yes |" in speed
    assert "aim 70% | 65.0% | no |" in share
    assert "| mamba-1.4b | eager | unsupported: no graph |  |" in text
    assert "| mamba-1.4b | graph | none | 8 | 2,048 | 5.50 | 250.00 ms | 1234.5 | 600.0 | ok |" in text
    (throughput,) = rows_of(text, "throughput of mamba-1.4b against pythia-1.4b")
    assert "4.50 times at the best batch of each; by batch 8: 3.00 |" in throughput
    assert "oom: a / b |" in text
    assert "| mamba-1.4b, one row | 2,048 |\n| a batch | never |" in text
    assert "| power | skipped | 1 s | deadline |" in text


def test_a_summary_of_nothing_measured_lists_the_steps(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text(record("environment", {}, rehearsed=True))
    drive.summary.write(tmp_path)
    text = (tmp_path / "SUMMARY.md").read_text()
    assert "A rehearsal" in text
    assert "Headline" not in text


def test_nothing_of_the_machine_is_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, dest = tmp_path / "out", tmp_path / "published"
    run = out / "runs" / "engine_vs_lm_eval" / "ours" / "zeroshot-x"
    for name in ("samples", "answers", "cells"):
        (run / name).mkdir(parents=True)
        (run / name / "one.json").write_text("{}")
    (run / "manifest.json").write_text(json.dumps({"command": ["--out", f"{out}/runs", "/opt/x/nvcc"]}))
    (run / ".lock").write_text("")
    (out / "environment.log").write_text("secret")
    (out / "wheels").mkdir()
    (out / "wheels" / "mamba_ssm.whl").write_text("")
    (out / "places.json").write_text(json.dumps({str(out): "OUT", str(tmp_path): "HOME"}))
    (out / "steps.jsonl").write_text(record("environment", {"nvcc": "/usr/local/cuda/bin/nvcc"}))
    assert publish.main([str(out), str(dest)]) == 0
    there = sorted(str(path.relative_to(dest)) for path in dest.rglob("*") if path.is_file())
    inside = "runs/engine_vs_lm_eval/ours/zeroshot-x"
    assert there == ["SUMMARY.md", f"{inside}/cells/one.json", f"{inside}/manifest.json", "steps.jsonl"]
    command = json.loads((dest / inside / "manifest.json").read_text())["command"]
    assert command == ["--out", "OUT/runs", ".../nvcc"]
    assert "cuda" not in (dest / "steps.jsonl").read_text()
    assert str(tmp_path) not in "".join(p.read_text() for p in dest.rglob("*") if p.is_file())
    # Made anew, but nothing else is overwritten.
    (dest / "old").write_text("")
    assert publish.main([str(out), str(dest)]) == 0
    assert not (dest / "old").exists()
    with pytest.raises(SystemExit) as ended:
        publish.main([str(out), str(out / "wheels")])
    assert ended.value.code == 2
    capsys.readouterr()
    (out / "steps.jsonl").write_text(record("environment", {}, rehearsed=True))
    assert publish.main([str(out), str(dest)]) == 4
    assert "rehearsal" in capsys.readouterr().err
    assert publish.main([str(tmp_path / "none"), str(dest)]) == 4


# --- all of it


@pytest.mark.tools
@pytest.mark.timeout(900)
def test_the_rehearsal_passes_whole_and_can_be_published(tmp_path: Path) -> None:
    out, dest = tmp_path / "out", tmp_path / "published"
    began = subprocess.run(
        [str(RUN_SH), "--rehearse", "--out", str(out)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert began.returncode == 0, began.stdout + began.stderr
    found = done(out)
    assert list(found) == [step.name for step in drive.STEPS]
    for step in drive.STEPS:
        expected = "ok" if step.rehearsed and step.name != "parity_data" else "skipped"
        assert found[step.name]["status"] == expected, found[step.name]
    for name in ("engine_vs_lm_eval", "mmlu_vs_lm_eval"):
        assert found[name]["found"]["agreement"]["agrees"]
    assert {p["status"] for p in found["article_24gb"]["found"]["points"]} == {"ok"}
    assert publish.main([str(out), str(dest), "--rehearsed"]) == 0
    assert "times" in (dest / "SUMMARY.md").read_text()
    runs = [path.parent for path in dest.rglob("manifest.json")]
    assert len(runs) >= 10
    for path in runs:
        run = StoredRun(path)
        assert run.replicates() or run.cells() or list(path.glob("recall/*.json"))
