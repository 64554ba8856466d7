"""`mambabench compare` as a user meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import tiny_mamba, tiny_neox
from speed_records import MAMBA, PYTHIA, sweep
from stored_sweeps import store_sweep
from tasks.rows import write_rows

import mambabench.cli.compare
import mambabench.execute
import mambabench.models.load
from mambabench.cli import _run
from mambabench.execute import run_zeroshot
from mambabench.store import Store, StoredRun
from mambabench.suite import suite_from_tasks
from mambabench.zeroshot import ZeroshotOptions

TASKS = ("--task", "piqa", "--task", "lambada_openai")
QUICK = ("--replicates", "1000")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, checkpoints, and a run of each checkpoint but one."""
    folder = tmp_path_factory.mktemp("place")
    write_rows(folder / "data", n=12)
    for number, name in enumerate(("base", "tuned", "fresh")):
        tiny_mamba(folder / name, seed=number)
    tiny_neox(folder / "other")
    for name in ("base", "tuned"):
        run_zeroshot(
            ZeroshotOptions(
                (str(folder / name),), suite_from_tasks(["piqa", "lambada_openai"]), out=folder / "runs",
                data_dir=folder / "data",
            )
        )  # fmt: skip
    for run in Store(folder / "runs").runs():
        run.path.rename(folder / "runs" / run.manifest.models[0])
    broken = shutil.copytree(folder / "runs" / "tuned", folder / "broken")
    next((broken / "samples").glob("*piqa*")).write_bytes(b"x")
    shutil.copytree(folder / "runs" / "tuned", folder / "empty", ignore=shutil.ignore_patterns("cells"))
    few = suite_from_tasks(["lambada_openai"], num_fewshot=1)
    options = ZeroshotOptions((str(folder / "tuned"),), few, out=folder / "shots", data_dir=folder / "data")
    run_zeroshot(options).path.rename(folder / "few")
    store_sweep(folder / "sweep", sweep(models=(MAMBA, PYTHIA), processes=3))
    return folder


@pytest.fixture
def compare(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def call(*args: str) -> tuple[int, str, str]:
        code = _run(["compare", *(a.replace("PLACE", str(place)) for a in args)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


Call = Callable[..., tuple[int, str, str]]
BOTH = ("PLACE/runs/base", "PLACE/runs/tuned")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ("", 2, "nothing is named to compare. `mambabench compare --help` shows"),
        ("PLACE/runs/base", 2, "only base is there to be compared. Name at least two"),
        ("PLACE/base", 2, "only base is there to be compared"),
        ("PLACE/runs/base PLACE/runs/base", 2, "are the same model of the same run"),
        ("PLACE/base PLACE/base", 2, "is given 2 times"),
        ("PLACE/runs/base PLACE/gone", 4, "no such file or directory"),
        ("PLACE/runs/base PLACE/empty", 2, "holds no results"),
        ("PLACE/runs/base PLACE/broken", 2, "cannot read the samples in"),
        ("PLACE/runs/base PLACE/broken PLACE/fresh --data-dir PLACE/data", 2, "cannot read the samples in"),
        ("PLACE/runs/base PLACE/few", 2, "lambada_openai"),
        ("PLACE/runs/base PLACE/few PLACE/fresh --task lambada_openai", 2, "lambada_openai"),
        ("PLACE/runs/base PLACE/fresh --task sciq", 2, "has no task of suite sciq"),
        ("PLACE/runs/base PLACE/fresh", 4, "data set"),
        ("PLACE/runs/base PLACE/fresh --suite gone.yaml", 2, "no suite file gone.yaml"),
        ("PLACE/runs/base PLACE/fresh --suite smoke --task piqa", 2, "exclude each other"),
        ("PLACE/runs/base PLACE/sweep", 2, "Compare either with its like"),
        ("PLACE/sweep PLACE/fresh", 2, "Measure it first: `mambabench latency --model"),
        ("PLACE/sweep --export e", 2, "--export is of items, and sweeps have none"),
        ("PLACE/runs/base PLACE/runs/tuned --suite smoke", 2, "--suite says how models are evaluated, and"),
        ("PLACE/runs/base PLACE/runs/tuned --baseline x", 2, "unknown baseline 'x'"),
        ("PLACE/base PLACE/fresh --task piqa --baseline x", 2, "unknown baseline 'x'"),
        ("PLACE/runs/base PLACE/runs/tuned --fail-if piqa", 2, "gate 'piqa' cannot be read at letter 5"),
        ("PLACE/runs/base PLACE/runs/tuned --fail-if piqo<-1pt", 2, "unknown name 'piqo'. Closest: piqa"),
        ("PLACE/base PLACE/fresh --task piqa --fail-if piqo<-1pt", 2, "unknown name 'piqo'. Closest: piqa"),
        ("PLACE/base PLACE/fresh --task piqa --fail-if piqa.bleu<-1pt", 2, "piqa has no 'bleu'. It has acc"),
        ("PLACE/base PLACE/fresh --task piqa --fail-if Any<-1pt", 2, "unknown name 'Any'. Closest: any"),
        ("PLACE/base PLACE/fresh --task piqa --fail-if piqa@512<-1pt", 2, "a task has no points"),
        ("PLACE/runs/base PLACE/runs/tuned --margin 0", 2, "--margin '0' is no amount above 0. Write 1pt"),
        ("PLACE/runs/base PLACE/runs/tuned --margin 1pt --margin 2", 2, "--margin '2' is given twice"),
        ("PLACE/runs/base PLACE/runs/tuned --detect 2%", 2, "'2%' is not in percentage points"),
        (f"PLACE/runs/base PLACE/runs/tuned --margin .{'0' * 160}1", 2, "less than any test shows"),
        (f"PLACE/runs/base PLACE/runs/tuned --detect .{'0' * 160}1", 2, "less than any test shows"),
        ("PLACE/runs/base PLACE/runs/tuned --alpha 1", 2, "1.0 is not in the range"),
        ("PLACE/runs/base PLACE/runs/tuned --alpha 0.51", 2, "0.51 is not in the range"),
        ("PLACE/runs/base PLACE/runs/tuned --alpha 1e-300", 2, "1e-300 is not in the range"),
        ("PLACE/runs/base PLACE/runs/tuned --replicates 3", 2, "at least 1,000 replicates, not 3"),
        ("PLACE/runs/base PLACE/runs/tuned --replicates 1000000000", 2, "is more than 1,000,000. Those move"),
        ("PLACE/runs/base PLACE/runs/tuned --cluster colour", 2, "no task has documents that share a field"),
        ("PLACE/runs/base PLACE/runs/tuned --plot /dev/null", 2, "`--plot` names a directory for all"),
        ("PLACE/runs/base PLACE/runs/tuned --export /dev/null/a", 2, "`--export` names a directory for all"),
        ("PLACE/base PLACE/fresh --task piqa --out /dev/null/r", 2, "cannot write results to /dev/null/r"),
        ("--checkpoints x-*", 2, "--checkpoints 'x-*' matches no directory. Quote"),
        ("--checkpoints PLACE/b* --baseline base", 2, "--baseline does not go with --checkpoints"),
        ("--checkpoints PLACE/fres* --task piqa", 2, "no training step is known of"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_anything_is_evaluated(
    compare: Call, monkeypatch: pytest.MonkeyPatch, args: str, code: int, words: str
) -> None:
    def refuse(*given: Any, **more: Any) -> Any:
        raise AssertionError("weights were read")

    monkeypatch.setattr(mambabench.models.load, "load", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    got, out, err = compare(*args.split())
    assert (got, out) == (code, ""), err
    assert words in err
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert list(Path.cwd().iterdir()) == []


def test_runs_are_compared(compare: Call) -> None:
    code, out, err = compare(*BOTH, *QUICK)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("tuned is ")
    assert " base: " in lines[0]
    assert sum("lambada_openai" in line for line in lines) > 0
    # The other way round what was won is lost.
    there = json.loads(compare(*BOTH, *QUICK, "--json")[1])
    back = json.loads(compare(*BOTH, *QUICK, "--json", "--baseline", "tuned")[1])
    assert [c["n_won"] for c in there["contrasts"]] == [c["n_lost"] for c in back["contrasts"]]
    assert {c["candidate"] for c in back["contrasts"]} == {"base"}
    assert there["kind"] == "scores"
    assert there["schema_version"] == 1
    assert (there["gates"], there["files"], there["warnings"]) == ([], {}, [])


def test_options_reach_the_statistics(compare: Call) -> None:
    asked = (
        "--correction", "bh", "--alpha", "0.1", "--margin", "2.5pt", "--margin", "3%", "--margin", "0.5nats",
        "--detect", "4pt", "--power", "0.9", "--seed", "7", "--cluster", "none", "--examples", "0",
    )  # fmt: skip
    options = json.loads(compare(*BOTH, *QUICK, *asked, "--json")[1])["options"]
    assert options == {
        "correction": "bh", "alpha": 0.1, "margin_points": 2.5, "margin_percent": 3.0, "margin_nats": 0.5,
        "detect_points": 4.0, "power": 0.9, "seed": 7, "cluster": "none", "n_examples": 0, "ranking": False,
        "replicates": 1000, "log_likelihoods": True,
    }  # fmt: skip
    assert json.loads(compare(*BOTH, *QUICK, "--json")[1])["options"]["n_examples"] == 2


def test_models_are_evaluated_as_the_runs_that_they_are_held_against(
    compare: Call, place: Path, tmp_path: Path
) -> None:
    args = ("PLACE/runs/base", "new=PLACE/fresh", "PLACE/other", "--data-dir", "PLACE/data")
    out = tmp_path / "out"
    code, text, err = compare(*args, *QUICK, "--out", str(out))
    assert code == 0, err
    runs = {run.manifest.models: run for run in Store(out).runs()}
    assert set(runs) == {("fresh",), ("other",)}
    # The suite of the run, whose tasks were named one by one.
    assert {run.manifest.suite_sha256 for run in runs.values()} == {
        StoredRun(place / "runs" / "base").manifest.suite_sha256
    }
    lines = text.splitlines()
    assert f"run of new: {runs[('fresh',)].path}" in lines
    assert lines[0].startswith("new is ")
    again = compare(*args, *QUICK, "--out", str(out))[1]
    for name, label in (("fresh", "new"), ("other", "other")):
        line = f"run of {label}: {runs[(name,)].path}"
        text = text.replace(line, f"{line} (complete before; nothing was computed)")
    assert again == text
    # Named as they lie there, runs are compared without being run.
    names = [run.path.name for run in runs.values()]
    assert compare(*names, "--out", str(out), *QUICK)[0] == 0


def test_gates_come_last_and_decide_the_exit_code(compare: Call) -> None:
    code, out, err = compare(*BOTH, *QUICK, "--fail-if", "piqa < -101pt", "--fail-if", "any < -100.5 pt")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[-2:]] == ["passed", "passed"]
    code, out, err = compare(*BOTH, *QUICK, "--fail-if", "piqa > -101pt", "--json")
    assert code == 1
    assert err.startswith("error: gate 'piqa > -101pt' failed: tuned: ")
    (gate,) = json.loads(out)["gates"]
    assert (gate["status"], gate["crossed"], gate["certain"]) == ("failed", True, True)
    code, out, err = compare(*BOTH, *QUICK, "--fail-if", "piqa > -60pt", "--fail-when", "certain")
    assert code in (0, 1)


def test_files_are_written_and_named(compare: Call, tmp_path: Path) -> None:
    drawn, written = tmp_path / "a" / "figures", tmp_path / "items"
    code, out, err = compare(*BOTH, *QUICK, "--plot", str(drawn), "--export", str(written))
    assert code == 0, err
    assert {p.name for p in written.iterdir()} == {
        "items.parquet", "contrasts.parquet", "categories.parquet", "calibration.parquet",
    }  # fmt: skip
    assert {p.name for p in drawn.glob("*.png")} == {
        "differences.png", "perplexities.png", "log_likelihoods.png", "calibration.png",
    }  # fmt: skip
    for path in (*written.iterdir(), *drawn.iterdir()):
        assert any(line.endswith(str(path)) for line in out.splitlines())


def test_a_figure_that_cannot_be_drawn_comes_after_the_table(
    compare: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mambabench.cli.compare, "check_directory", lambda *given: None)
    (tmp_path / "file").write_text("")
    code, out, err = compare(*BOTH, *QUICK, "--plot", str(tmp_path / "file"))
    assert code == 2
    assert out.startswith("tuned is ")
    assert "cannot be made: File exists. Name another directory for `--plot`" in err


def test_cells_that_fail_are_told_after_what_could_be_compared(
    compare: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mambabench.tasks.evaluate

    score = mambabench.tasks.evaluate.score_task

    def failing(name: str, *given: Any, **more: Any) -> Any:
        if name == "piqa":
            raise RuntimeError("no luck")
        return score(name, *given, **more)

    monkeypatch.setattr(mambabench.tasks.evaluate, "score_task", failing)
    code, out, err = compare(
        "PLACE/runs/base", "PLACE/fresh", "--data-dir", "PLACE/data", "--out", str(tmp_path / "out"), *QUICK
    )
    assert code == 3
    assert "fresh on piqa: RuntimeError: no luck" in err
    assert out.startswith("fresh is ")


def test_an_interruption_keeps_what_was_evaluated(
    compare: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mambabench.execute.run_zeroshot
    calls: list[int] = []

    def interrupted(*given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*given, **more)

    monkeypatch.setattr(mambabench.execute, "run_zeroshot", interrupted)
    args = ("PLACE/fresh", "PLACE/other", "--task", "piqa", "--data-dir", "PLACE/data", "--out")
    code, out, err = compare(*args, str(tmp_path / "out"))
    assert (code, out) == (130, "")
    assert "what was done is kept" in err
    (kept,) = Store(tmp_path / "out").runs()
    assert [cell.status for cell in kept.cells()] == ["ok"]


def test_sweeps_are_compared_by_ratios(compare: Call, tmp_path: Path) -> None:
    code, out, err = compare("PLACE/sweep", "--fail-if", "tpot > 10000%", "--plot", str(tmp_path / "figures"))
    assert code == 0, err
    assert "against mamba-130m" in out.splitlines()[0]
    assert (tmp_path / "figures" / "speed-ratios.svg").is_file()
    assert out.splitlines()[-1].startswith("passed  tpot > 10000%")
    code, out, err = compare("PLACE/sweep", "--baseline", PYTHIA.name, "--fail-if", "tpot > -99.9%", "--json")
    assert code == 1
    document = json.loads(out)
    assert document["kind"] == "latency"
    assert document["baseline"]["label"] == PYTHIA.name


def test_checkpoints_are_evaluated_and_laid_out_by_step(compare: Call, place: Path, tmp_path: Path) -> None:
    for step, name in ((1000, "base"), (20, "tuned"), (300, "fresh")):
        shutil.copytree(place / name, tmp_path / "cwd" / "ft" / f"checkpoint-{step}")
    args = ("--task", "piqa", "--data-dir", "PLACE/data", "--out", str(tmp_path / "out"), *QUICK)
    code, out, err = compare(
        "--checkpoints", "ft/checkpoint-*", *args, "--json", "--plot", str(tmp_path / "figures")
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["kind"] == "curves"
    assert document["series"] == ["ft"]
    curve = next(c for c in document["curves"] if c["task"] == "piqa")
    assert [p["step"] for p in curve["points"]] == [20, 300, 1000]
    assert document["files"]["plot"] == [str(tmp_path / "figures" / f"curves.{e}") for e in ("png", "svg")]
    # The runs that were made are as good as the checkpoints.
    code, again, err = compare("--checkpoints", "zeroshot-piqa-*", "--out", str(tmp_path / "out"), *QUICK)
    assert code == 0, err
    assert "1,000" in again or "1000" in again
    # Of runs a task is picked by the name that they give it.
    picked = ("--checkpoints", "zeroshot-piqa-*", "--out", str(tmp_path / "out"), *QUICK, "--task")
    assert compare(*picked, "piqa")[:2] == (0, again)
    code, _, err = compare(*picked, "pica")
    assert code == 2
    assert "unknown task 'pica'. Closest: piqa. There are piqa" in err
