"""Processes that are interrupted, whose reader goes away, or that want to write to one place together."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import tiny_mamba, tiny_neox
from tasks.rows import write_jsonl, write_rows

from mambabench.cli import _escape_what_cannot_be_written, _run
from mambabench.cli.options import print_json

TASKS = ("--task", "piqa")
PIQA = {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mamba(tmp_path_factory.mktemp("model") / "mamba")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.mark.parametrize("command", ["--help", "tasks a", "models"])
def test_a_closed_pipe_and_a_full_disk(command: str) -> None:
    program = [sys.executable, "-m", "mambabench", *command.split()]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (3, "error: No space left on device\n")


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mambabench", "zeroshot", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if there():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("nothing happened within a minute")


@pytest.mark.parametrize("wait_s", [0.3, 1.2])
def test_an_interruption_while_libraries_are_imported(data: Path, model: Path, wait_s: float) -> None:
    process = start("--model", model, *TASKS, "--data-dir", data)
    time.sleep(wait_s)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted: what was done is kept, and the same command goes on from there\n"
    assert list(Path().iterdir()) == []


def test_an_interruption_of_generated_code_ends_with_the_same_exit_code(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import sys\nfrom mambabench import cli\n"
        "cli._invoke = lambda args: exec('import os, time; os.kill(os.getpid(), 2); time.sleep(9)')\n"
        "cli.main()\n"
    )
    program = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1


def test_an_interruption_while_python_ends_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import atexit, os\nfrom mambabench import cli\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid()): kill(me, 2)\n"
        "last = Last()\n"
        "atexit.register(os.kill, os.getpid(), 2)\n"
        "cli._invoke = lambda args: os.kill(os.getpid(), 2)\n"
        "cli.main()\n"
    )
    program = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_two_writers_and_an_interrupted_run_that_goes_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [PIQA | {"goal": f"goal {i} " * 9} for i in range(600)]
    write_jsonl(tmp_path / "baber" / "piqa" / "validation.jsonl", rows)
    model = tiny_neox(tmp_path / "neox")
    capsys.readouterr()
    command = ("--model", model, *TASKS, "--data-dir", tmp_path, "--batch-size", "2")
    process = start(*command)
    try:
        # More than a log's heading.
        logs = Path("results").glob
        wait_for(lambda: any(p.stat().st_size > 2000 for p in logs("*/answers/*")), process)
        process.send_signal(signal.SIGSTOP)
        assert _run(["zeroshot", *map(str, command)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"is being written by process {process.pid} on " in line
        assert "`--out DIR`" in line
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted: what was done is kept, and the same command goes on from there\n"
    (run,) = Path("results").iterdir()
    assert not (run / ".owner.json").exists()

    # A process of its own: libraries say some things only once, when they are imported.
    done = start(*command, "--out", run.parent.absolute(), "--json")
    out, err = done.communicate(timeout=120)
    assert (done.returncode, err) == (0, "")
    document = json.loads(out)
    (cell,) = document["cells"]
    assert 0 < cell["n_requests_answered_before"] < cell["n_requests"] == 2 * len(rows)
    assert Path(document["run"]) == run.absolute()


def test_letters_that_stdout_does_not_have_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    _escape_what_cannot_be_written()
    print_json({"text": "Schön \N{GRINNING FACE}"})
    sys.stdout.flush()
    assert json.loads(written.getvalue()) == {"text": "Schön \N{GRINNING FACE}"}
    sys.stdout.write("Schön \N{GRINNING FACE}…")
    sys.stdout.flush()
    assert written.getvalue().endswith(b"Sch\\xf6n \\U0001f600\\u2026")
