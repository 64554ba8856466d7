"""`mambabench advise`: what it prints of stored runs, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from speed_records import MAMBA, PYTHIA, sweep
from stored_sweeps import store_sweep

from mambabench.cli import _run

WISH = ["--prompt-len", "512", "--gen-len", "64"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "results"
    store_sweep(folder / "latency-both", sweep(models=[MAMBA, PYTHIA]))
    return folder


def test_the_answer_comes_first_then_candidates_evidence_and_what_to_measure(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["advise", str(results), *WISH, "--prefer", "speed"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert " fits" in out.splitlines()[0]
    places = [
        out.index(words)
        for words in (
            " fits",
            " model ",
            "Evidence:",
            "at 512 + 64 tokens, batch 1, 6 processes, run latency-both",
        )
    ]
    assert places == sorted(places)
    assert "24 GB allowed" in out


def test_json_is_one_document_with_the_same_answer(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["advise", str(results), *WISH, "--ttft", "10s", "--tpot", "2s"]
    assert _run(arguments) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert _run([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["answer"][0].startswith(first[:60])
    assert {c["label"] for c in said["candidates"]} == {MAMBA.name, PYTHIA.name}
    chosen = said["chosen"]
    assert [check["bound"] for check in chosen["checks"]] == ["memory", "ttft", "tpot"]
    place = chosen["checks"][1]["figure"]["places"][0]
    assert (place["run"], place["prompt_len_tokens"], place["batch_size"]) == ("latency-both", 512, 1)


def test_the_exit_code_tells_an_answer_from_none(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["advise", str(results), *WISH, "--ttft", "1us"]) == 0
    assert "Nothing that was measured fits" in capsys.readouterr().out
    assert _run(["advise", str(results), *WISH, "--recall", "90%"]) == 4
    out = capsys.readouterr().out
    assert "Not known" in out
    assert f"mambabench longcontext --model {PYTHIA.name} --model {MAMBA.name} --lengths 576" in out


def test_results_are_read_where_no_run_is_named(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    assert _run(["advise", *WISH]) == 0
    assert _run(["advise", "latency-both", *WISH]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--gen-len", "64"], "--prompt-len"),
        (["--prompt-len", "0", "--gen-len", "64"], "--prompt-len '0' is not a whole number from 1 up. Write"),
        ([*WISH, "--recall", "0.9"], "--recall '0.9'"),
        ([*WISH, "--quality", "120%"], "--quality '120%'"),
        ([*WISH, "--ttft", "2"], "--ttft '2'"),
        ([*WISH, "--memory", "24 apples"], "--memory '24 apples'"),
        ([*WISH, "--conversations", "-1"], "--conversations '-1'"),
        (["--prompt-len", "512", "--gen-len", "1", "--tpot", "1s"], "--tpot"),
        (["nowhere", *WISH], "nowhere"),
        (["", *WISH], "name is empty"),
    ],
)
def test_mistakes_are_one_line_that_names_them(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["advise", *arguments]) == 2
    _, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert named in err


def test_no_model_library_is_imported(results: Path) -> None:
    program = (
        "import sys; from mambabench.cli import _run; "
        f"code = _run({['advise', str(results), *WISH]!r}); "
        "sys.exit(code or ' '.join({'torch', 'transformers', 'lm_eval', 'numba'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
