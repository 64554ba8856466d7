"""`mambabench import`: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from foreign_results import old, write

from mambabench.cli import _run


def test_an_import_says_what_it_made_and_again_that_it_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in")
    arguments = ["import", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert _run(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (run,) = (tmp_path / "out").iterdir()
    assert out.splitlines() == [
        "1 model: org/small",
        "3 results of 3 tasks, 3 of them with samples",
        f"run: {run}",
    ]
    assert _run(arguments) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[-1] == f"run: {run} (imported before; nothing was changed)"


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "160m_step0.json"
    path.write_text(json.dumps(old("EleutherAI/pythia-v1.1-160m", "step0", limit=7)))
    arguments = ["import", str(path), "--out", str(tmp_path / "out"), "--name", "steps", "--task", "piqa"]
    assert _run([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert err == ""
    assert said["manifest"]["name"] == "steps"
    assert said["manifest"]["partial"]
    assert (said["n_written"], [c["model"] for c in said["cells"]]) == (1, ["pythia-160m@step0"])
    assert Path(said["run"]).name.startswith("steps-")
    assert _run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 result of 1 task, 0 of them with samples, partial: not all items were scored" in lines


def test_errors_are_one_line_and_come_before_anything_heavy(tmp_path: Path) -> None:
    half = tmp_path / "results.json"
    half.write_text("{")
    file = tmp_path / "file"
    file.write_text("")
    good = write(tmp_path / "in")
    commands: list[tuple[int, list[str]]] = [
        (2, []),
        (2, [str(half)]),
        (2, [str(tmp_path / "nowhere")]),
        (2, [str(good), "--task", "t_mx"]),
        (2, [str(good), "--time", "1999"]),
        (2, [str(good), "--name", ""]),
        (2, [str(good), "--out", str(file)]),
        (0, [str(good), "--out", str(tmp_path / "out")]),
    ]
    program = (
        "import json, sys\nfrom mambabench.cli import _run\n"
        "codes = [_run(['import', *c]) for _, c in json.loads(sys.argv[1])]\n"
        "heavy = ('torch', 'transformers', 'lm_eval', 'datasets')\n"
        "print(json.dumps([codes, [m for m in heavy if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    codes, heavy = json.loads(done.stdout.splitlines()[-1])
    assert codes == [code for code, _ in commands]
    assert heavy == []
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands) - 1
    assert all(line.startswith("error: ") for line in lines)
    assert not (tmp_path / "results").exists()
