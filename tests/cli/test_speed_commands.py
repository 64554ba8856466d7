"""`latency`, `throughput` and `memory` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import tiny_mamba

import mambabench.plots.speed
import mambabench.sweep.run
from mambabench.cli import _run
from mambabench.errors import StoreError

FAKE = ("--model", "fake:prefill_ms=20,token_ms=4", "--no-ceilings")
STANDIN = Path(__file__).parent.parent / "standin_child.py"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a script take the place of measuring processes; the first call says what happens in them."""

    def rule(*rules: tuple[dict[str, Any], str]) -> None:
        child = (sys.executable, "-S", "-E", str(STANDIN), str(tmp_path / "jobs"), json.dumps(rules))
        monkeypatch.setattr(mambabench.sweep.run, "child_command", lambda: child)

    rule()
    return rule


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ("--model mamba-14b", 2, "unknown model 'mamba-14b'. Closest: mamba-1.4b"),
        ("--model mamba-tiny --model mamba-tiny", 2, "given 2 times"),
        ("--model fake:speed=3", 2, "no quantity of a fake model"),
        ("--prompt-len 128:", 2, "--prompt-len '128:'"),
        ("--prompt-len 512:128*2", 2, "goes from 512 down to 128"),
        ("--gen-len 0", 2, "--gen-len '0'"),
        ("--batch-size two", 2, "--batch-size 'two'"),
        ("--arm fastest", 2, "'fastest' is not one of 'eager', 'graph'"),
        ("--attention paged", 2, "'paged' is not one of"),
        ("--prefill-chunk 0", 2, "--prefill-chunk '0'"),
        ("--processes -1", 2, "--processes '-1'"),
        ("--model mamba-1.4b --weights random --vram-budget 2GB", 2, "below the weights of mamba-1.4b"),
        ("--memory-budget lots", 2, "--memory-budget 'lots' is not a size"),
        ("--device tpu", 2, "unknown device 'tpu'"),
        ("--device cuda:7", 4, "'cuda:7' cannot be used"),
        ("--suite figure8-right", 2, "`mambabench throughput --suite figure8-right` runs it"),
        ("--suite smoke-sped", 2, "unknown suite 'smoke-sped'. Closest: smoke-speed"),
        ("--suite gone.yaml", 2, "no suite file gone.yaml"),
        ("--processes 999999999", 2, "more than the 20,000 processes that a sweep may have"),
        ("--prompt-len 1:1000+1 --batch-size 1:1000+1", 2, "2,000,000 points in 3 processes each"),
        ("--seed 99999999999", 2, "seed 99999999999 is too large"),
        ("--plot /dev/null", 2, "/dev/null is no directory"),
        ("--plot /proc/figures", 2, "cannot be written to"),
        ("--out /dev/null/results", 2, "cannot write results to /dev/null/results"),
        ("--text gone.txt", 2, "'gone.txt' cannot be read"),
        ("--text /dev/null", 2, "'/dev/null' holds next to no text"),
        (f"--text {__file__} --tokenizer ./gone", 2, "'./gone'"),
        ("--tokenizer here", 2, "--tokenizer goes with --text"),
        ("--model hf:nobody/nothing", 4, "nobody/nothing is not in the local cache"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: str, code: int, words: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = lambda *a, **k: pytest.fail("a process was started")  # noqa: E731
    monkeypatch.setattr(mambabench.sweep.run, "run_child", started)
    began_s = time.perf_counter()
    assert _run(["latency", *args.split()]) == code
    assert time.perf_counter() - began_s < 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert out == ""
    assert list(Path().iterdir()) == []


def test_a_mistake_is_answered_quickly_from_a_cold_start() -> None:
    began_s = time.perf_counter()
    args = ["latency", "--model", "mamba-2.8b", "--weights", "random", "--memory-budget", "1GB"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mambabench", *args],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert time.perf_counter() - began_s < 2
    assert done.returncode == 2
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "mambabench.sweep.plan" in imported
    assert not imported & {"torch", "transformers", "numba", "pandas", "scipy", "lm_eval", "matplotlib"}


@pytest.mark.parametrize("kind", ["latency", "throughput", "memory"])
def test_a_command_alone_says_what_it_would_do(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert _run([kind, "--device", "cpu", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "models: mamba-tiny, pythia-tiny, which come with the package" in out
    assert "weights: pretrained, as they are on this machine" in out
    assert "dry run: nothing was started" in out
    assert list(Path().iterdir()) == []


def test_a_dry_run_forecasts_every_point(capsys: pytest.CaptureFixture[str]) -> None:
    args = "--model mamba-130m --model pythia-160m --prompt-len 128:8192*8 --attention sdpa --attention eager"
    args += (
        " --attention flash --weights random --device cpu --memory-budget 1GB --processes 2 --dry-run --json"
    )
    assert _run(["memory", *args.split(), "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    points = document["points"]
    assert len(points) == 3 * (1 + 3)
    assert [p["obstacle"] for p in points if p["attention"] == "flash"] == ["FlashAttention needs a GPU"] * 3
    fits = {(p["model"], p["attention"], p["prompt_len_tokens"]): p["fits"] for p in points}
    assert fits["mamba-130m", "none", 8192]
    assert not fits["pythia-160m", "eager", 8192]
    assert document["n_processes"] == len(document["order"]) == 2 * 3 * (1 + 2)
    # 2 * 12 layers * 768 * 4 bytes a token, after the 16 generated ones.
    (row,) = [p for p in points if p["attention"] == "sdpa" and p["prompt_len_tokens"] == 1024]
    assert row["state_bytes"] == 2 * 12 * 768 * 4 * (1024 + 16)


def test_lengths_beyond_learned_positions_are_rows_and_rotary_ones_are_not(
    tmp_path: Path, standin: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gpt").mkdir()
    config = {"model_type": "gpt2", "n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 2}
    (tmp_path / "gpt" / "config.json").write_text(json.dumps(config))
    models = ("--model", str(tmp_path / "gpt"), "--model", "pythia-tiny", "--weights", "random")
    sizes = ("--prompt-len", "128,1024", "--gen-len", "4", "--processes", "1", "--no-ceilings")
    assert _run(["latency", *models, *sizes, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["table"]["rows"]
    found = [(r["point"]["model"], r["point"]["prompt_len_tokens"], r["status"]) for r in rows]
    assert found == [
        ("gpt", 128, "ok"), ("pythia-tiny", 128, "ok"),
        ("gpt", 1024, "unsupported"), ("pythia-tiny", 1024, "ok"),
    ]  # fmt: skip
    assert "learned 256 positions" in rows[2]["detail"]


def test_a_directory_without_a_tokenizer_can_be_measured(
    tmp_path: Path, standin: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_mamba(tmp_path / "mine")
    for path in model.glob("token*"):
        path.unlink()
    capsys.readouterr()
    args = ("--model", str(model), "--prompt-len", "8", "--gen-len", "4", "--no-ceilings", "--processes", "1")
    assert _run(["latency", *args]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "mine" in out
    assert "weights: pretrained, as they are on this machine" in out


def test_table_words_plots_and_the_place_of_the_run(
    standin: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    standin(({"prompt_len_tokens": 512}, "oom"))
    args = ("--model", "fake:token_ms=2", "--model", "fake:token_ms=1", "--prompt-len", "128:1024*2")
    command = ["latency", *args, "--gen-len", "4", "--processes", "2", "--plot", "figures/here"]
    assert _run(command) == 0
    out, _ = capsys.readouterr()
    (run,) = Path("results").iterdir()
    assert out.splitlines()[-1] == f"run: {run}"
    assert "fake:token_ms=2" in out
    assert "out of memory" in out.lower() or "oom" in out
    drawn = sorted(p.name for p in Path("figures/here").iterdir())
    assert {"ttft.png", "ttft.svg"} <= set(drawn)
    assert _run(command) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("(complete before; nothing was measured)")


def test_a_table_outlives_figures_that_cannot_be_written(
    standin: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> list[Path]:
        raise StoreError("the figure cannot be written", hint="Free some space.")

    monkeypatch.setattr(mambabench.plots.speed, "save_figures", full)
    args = ("latency", *FAKE, "--prompt-len", "128", "--gen-len", "4", "--processes", "1")
    assert _run([*args, "--plot", "figures", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["table"]["rows"][0]["status"] == "ok"
    assert err == "error: the figure cannot be written. Free some space.\n"


def test_a_sweep_of_nothing_that_can_be_measured_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["latency", *FAKE, "--arm", "graph", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("(no point can be measured here)")


def test_a_large_plan_is_laid_out_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    began_s = time.perf_counter()
    args = ("--prompt-len", "1:1000+1", "--batch-size", "1:4+1", "--dry-run", "--json")
    assert _run(["latency", *FAKE, *args]) == 0
    assert time.perf_counter() - began_s < 10
    document = json.loads(capsys.readouterr().out)
    assert len(document["points"]) == 4000
    assert [step["point"] for step in document["order"][:4000]] == list(range(4000))


def test_damaged_weights_are_not_replaced_by_random_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_mamba(tmp_path / "mine") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    capsys.readouterr()
    args = ["latency", "--model", str(weights.parent), "--device", "cpu", "--dry-run"]
    assert _run(args) == 4
    assert "model.safetensors' is damaged" in capsys.readouterr().err
    assert _run([*args, "--weights", "random"]) == 0
    weights.unlink()
    capsys.readouterr()
    assert _run(args) == 0
    out = capsys.readouterr().out
    assert "weights: random with seed 0, since those of mine are not on this machine" in out
    assert "fetches them" not in out


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ceilings", "{"),
        ("replicates", '{"schema_version": 99}'),
        ("replicates", None),
    ],
)
def test_a_damaged_file_of_a_run_shows_before_anything_is_measured(
    standin: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    text: str | None,
) -> None:
    command = ["latency", *FAKE, "--prompt-len", "128", "--gen-len", "4", "--processes", "1", "--json"]
    assert _run(command) == 0
    (run,) = Path("results").iterdir()
    (stored,) = (run / "replicates").iterdir()
    if text is None:
        text = json.dumps(
            json.loads(stored.read_text()) | {"repeats": [{"ttft_s": float("nan"), "itl_s": []}]}
        )
    (run / kind / (stored.name if kind == "replicates" else "cpu-float32-0.json")).write_text(text)
    if kind == "ceilings":
        stored.unlink()
    capsys.readouterr()
    started = lambda *a, **k: pytest.fail("a process was started")  # noqa: E731
    monkeypatch.setattr(mambabench.sweep.run, "run_child", started)
    assert _run(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: results/")
    assert "damaged" in line or "schema version 99" in line


def test_a_long_name_leaves_room_for_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_mamba(tmp_path / ("long" * 50))
    assert _run(["memory", "--model", str(model), "--device", "cpu", "--dry-run"]) == 0
    heading, first, *_ = capsys.readouterr().out.splitlines()
    assert heading.rstrip().endswith("peak, expected")
    assert first.startswith("long" * 12 + " ")
    assert first.rstrip().endswith("kB")


def test_a_suite_without_a_kind_is_taken_for_one_of_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("models: [mamba-tiny]\nprompt_len: 8\ngen_len: 4\n")
    assert _run(["suites", str(path)]) == 2
    assert "1 mistake: (1) 'kind' is missing, one of latency" in capsys.readouterr().err
    assert _run(["latency", "--suite", str(path), "--dry-run"]) == 0


def test_json_is_all_that_is_printed(
    standin: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "throughput",
        *FAKE,
        "--prompt-len",
        "128",
        "--batch-size",
        "1,4",
        "--processes",
        "2",
        "--json",
    ]
    assert _run(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert Path(document["run"]).is_dir()
    assert document["table"]["kind"] == "throughput"
    assert [row["status"] for row in document["table"]["rows"]] == ["ok", "ok"]
    assert len(document["replicates"]) == 4
    assert any("64 tokens generated" in note or "128" in note for note in document["notes"])


def test_a_point_that_fails_is_told_and_the_others_are_shown(
    standin: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    standin(({"prompt_len_tokens": 256}, "raise"))
    command = ["latency", *FAKE, "--prompt-len", "128:512*2", "--gen-len", "4", "--processes", "1"]
    assert _run(command) == 3
    out, err = capsys.readouterr()
    assert "nothing was measured" not in out
    assert "1 of 3 processes failed, first fake:prefill_ms=20,token_ms=4 256+4 eager: failed" in err
    assert "something is wrong" in err
    assert "run: " in out
    standin()
    assert _run(command) == 0


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mambabench", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_and_reports_what_the_model_takes() -> None:
    command = ("latency", *FAKE, "--prompt-len", "64", "--gen-len", "16", "--processes", "2", "--json")
    process = start(*command)
    try:
        for _ in range(6000):
            if stored := list(Path("results").glob("*/replicates/[!.]*.json")):
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted: what was done is kept, and the same command goes on from there\n"
    assert len(stored) == 1
    kept = stored[0].read_bytes()

    done = start(*command)
    out, err = done.communicate(timeout=120)
    assert (done.returncode, err) == (0, "")
    assert stored[0].read_bytes() == kept
    document = json.loads(out)
    (row,) = document["table"]["rows"]
    assert (row["status"], row["n_processes"]) == ("ok", 2)
    # A sleep may end late on a busy machine, never early; its median hardly does.
    assert row["tpot_s"]["value"] == pytest.approx(0.004, rel=0.02)
    assert row["ttft_s"]["value"] == pytest.approx(0.020, rel=0.02)
