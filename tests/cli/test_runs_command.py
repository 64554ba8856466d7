"""`mambabench runs` as a user meets it."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from scored_runs import choice_samples, drawn, stored_run
from speed_records import MAMBA, sweep
from stored import checkpoint_record, manifest
from stored_sweeps import store_sweep

from mambabench.cli import _run
from mambabench.fingerprint import digest
from mambabench.schema import CertificateRecord, ReadRecord
from mambabench.store import Store
from mambabench.store.manage import find_place

Call = Callable[..., tuple[int, str, str]]
NASTY = "\x1b]0;owned\x07[bold]m\n\u202ex"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs: a complete one, one that lacks a task, and a damaged one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    root = tmp_path / "results"
    stored_run(root, "mamba", {"piqa": choice_samples(*drawn(4))}, created_utc="2025-01-01T00:00:00Z")
    reads = (ReadRecord(task="piqa", metrics=("acc",)), ReadRecord(task="sciq", metrics=("acc",)))
    tasks = {"piqa": choice_samples(*drawn(40))}
    command = ("mambabench", "zeroshot", "--model", "a b", "--out", "elsewhere")
    stored_run(root, "pythia", tasks, reads=reads, command=command, created_utc="2025-03-01T00:00:00Z")
    damaged = stored_run(root, "broken", {"piqa": choice_samples(*drawn(4))})
    (damaged / "manifest.json").write_text("{", "utf-8")
    return root


@pytest.fixture
def runs(results: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*args: str) -> tuple[int, str, str]:
        code = _run(["runs", *args])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def named(root: Path, part: str) -> str:
    return next(path.name for path in find_place(root).runs if part in path.name)


def listed(out: str) -> list[str]:
    return [row["name"] for row in json.loads(out)["runs"]]


def test_a_list_has_a_row_for_every_run_damaged_or_not(runs: Call, results: Path) -> None:
    code, out, err = runs("list")
    assert (code, err) == (0, "")
    for part, state in (("mamba", "complete"), ("pythia", "interrupted"), ("broken", "unreadable")):
        [row] = [line for line in out.splitlines() if named(results, part) in line and "damaged" not in line]
        assert state in row
    assert "1 of 2" in out
    assert f"{named(results, 'broken')}: manifest.json is damaged" in out


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ((), ["broken", "mamba", "pythia"]),
        (("--sort", "name"), ["broken", "mamba", "pythia"]),
        (("--sort", "size"), ["pythia", "mamba", "broken"]),
        (("--state", "complete", "--state", "unreadable"), ["broken", "mamba"]),
        (("--model", "PYTH"), ["pythia"]),
        (("--model", "*a"), ["mamba", "pythia"]),
        (("--suite", "made*"), ["mamba", "pythia"]),
        (("--kind", "latency"), []),
        (("--since", "2025-02-01"), ["pythia"]),
        (("--before", "2025-02-01T00:00"), ["mamba"]),
        (("--since", "1d"), []),
    ],
)
def test_filters_and_order(runs: Call, args: tuple[str, ...], parts: list[str]) -> None:
    code, out, _ = runs("list", "--json", *args)
    names = listed(out)
    assert code == 0
    assert len(names) == len(parts)
    assert all(part in name for part, name in zip(parts, names, strict=True))


def test_a_time_ago_is_counted_from_now(runs: Call, results: Path) -> None:
    made = (datetime.now(UTC) - timedelta(hours=30)).isoformat(timespec="seconds")
    stored_run(results, "late", {"piqa": choice_samples(*drawn(4))}, created_utc=made)
    assert len(listed(runs("list", "--json", "--since", "2d")[1])) == 1
    assert len(listed(runs("list", "--json", "--since", "31h")[1])) == 1
    assert listed(runs("list", "--json", "--since", "1d")[1]) == []


def test_places_and_single_runs_are_listed_by_path(runs: Call, results: Path) -> None:
    stored_run(Path("other"), "mamba", {"piqa": choice_samples(*drawn(4))})
    one = f"results/{named(results, 'pythia')}"
    _, out, _ = runs("list", "other", one)
    assert one in out
    assert "other/zeroshot-mamba" in out
    assert "broken" not in out
    Path("empty").mkdir()
    assert runs("list", "empty") == (0, "no run in empty\n", "")
    assert runs("list", "--model", "nobody") == (0, "none of 3 runs is such\n", "")


def test_what_dead_processes_left_is_mentioned(runs: Call, results: Path) -> None:
    (results / ".new-host-1-abc").mkdir()
    assert "results also holds .new-host-1-abc: a run being made or deleted" in runs("list")[1]


def test_a_run_that_is_written_is_shown_so(runs: Call, results: Path) -> None:
    with Store(results).open_run(manifest("now")) as run:
        _, out, _ = runs("list", "--state", "running")
        assert f"{run.path.name} is being written by process {os.getpid()}" in out
        code, out, _ = runs("verify", run.path.name, "--json")
        assert code == 4
        for args in (("rename", run.path.name, "x"), ("delete", run.path.name, "--yes")):
            code, _, err = runs(*args)
            assert (code, "is being written by process" in err) == (2, True)


def test_nothing_that_a_terminal_obeys_is_printed(runs: Call, results: Path) -> None:
    reads = (ReadRecord(task=NASTY, metrics=("acc",)),)
    path = stored_run(
        results, "nasty", {"piqa": choice_samples(*drawn(4))}, models=(NASTY,), suite=NASTY, reads=reads,
        command=("mambabench", NASTY), environment={"system": NASTY, "gpus": [NASTY], "packages": 3},
    )  # fmt: skip
    (path / f"note{NASTY}").write_text("x", "utf-8")
    path = path.rename(results / f"run {NASTY}")
    broken = [json.loads((path / "manifest.json").read_text("utf-8")), NASTY]
    (path / "cells" / f"{NASTY}.json").write_text(json.dumps(broken), "utf-8")
    calls = [("list",), ("list", "results", str(path)), ("show", str(path)), ("du",), ("verify",)]
    calls += [("show", f"nothing {NASTY}"), ("rename", str(path), f"a{NASTY}"), ("delete", str(path))]
    for args in calls:
        _, out, err = runs(*args)
        found = [c for c in out + err if not c.isprintable() and c != "\n"]
        assert found == [], args
        assert "fault of mambabench" not in err
    [row] = [row for row in json.loads(runs("list", "--json")[1])["runs"] if row["suite"] == NASTY]
    assert row["models"] == [NASTY]
    assert json.loads(runs("show", str(path), "--json")[1])["manifest"]["command"][1] == NASTY


def test_show_says_what_is_missing_and_how_to_go_on(runs: Call, results: Path) -> None:
    name = named(results, "pythia")
    code, out, _ = runs("show", "zeroshot-pythia")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == f"results/{name}"
    assert "state interrupted: not all that was asked for is there" in lines
    assert "missing pythia on sciq" in lines
    assert "holds pythia, cells: 1 ok (piqa)" in lines
    # The directory that was typed is not the one that the run lies in.
    assert "to go on mambabench zeroshot --model 'a b' --out results" in lines
    details = json.loads(runs("show", name, "--json")[1])
    assert details["go_on"] == ["mambabench", "zeroshot", "--model", "a b", "--out", "results"]
    assert details["commands"] == [["mambabench", "zeroshot", "--model", "a b", "--out", "elsewhere"]]
    assert details["missing"] == ["pythia on sciq"]
    assert sum(kind["size_bytes"] for kind in details["files"].values()) == details["size_bytes"]


def test_show_writes_what_is_no_number_as_null(runs: Call, results: Path) -> None:
    name = named(results, "mamba")
    certificate = CertificateRecord(
        fast_path="f", shipped_path="s", dtype="float32", reference="r", kinds=(), n_tokens=1, n_rounds=1,
        ratio=math.nan, bar=1.5, passed=False, wall_s=1.0, made_utc="2025-01-01T00:00:00Z",
    )  # fmt: skip
    record = checkpoint_record(certificate=certificate)
    (results / name / "checkpoints" / "m.json").write_text(json.dumps(record.model_dump()), "utf-8")
    code, out, err = runs("show", name, "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out, parse_constant=pytest.fail)["checkpoints"]
    assert shown[-1]["certificate"]["ratio"] is None


def test_show_gives_reasons_of_failures_and_later_commands(runs: Call, results: Path) -> None:
    record = sweep(models=(MAMBA,), prompt_lens=(128,), processes=1)[0]
    failed = record.model_copy(update={"status": "timeout", "detail": "took too long"})
    path = store_sweep(results / "speed", [failed], settings={"processes": 1})
    later = json.loads((path / "manifest.json").read_text("utf-8"))
    later["command"].append("--again")
    later["environment"]["packages"]["torch"] = "9.9.9"
    (path / "manifest-2.json").write_text(json.dumps(later), "utf-8")
    _, out, _ = runs("show", "speed")
    assert "batch 1, 128 + 64 tokens, process 0: timeout: took too long" in out
    assert "mambabench latency --again; software torch 9.9.9" in out
    assert out.rstrip().endswith("to go on     mambabench latency --again")


def test_rename_and_its_refusals(runs: Call, results: Path) -> None:
    name = named(results, "mamba")
    code, out, _ = runs("rename", name, "first")
    assert code == 0
    assert out.startswith(f"results/{name} is results/first now. The command that made it finds it there")
    assert (results / "first").is_dir()
    assert runs("rename", "first", "a/b")[0] == 2
    assert runs("rename", "fisrt", "second")[2].startswith("error: unknown run 'fisrt'. Closest: first.")


def test_deletion_is_asked_for(runs: Call, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = named(results, "mamba")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, _, err = runs("delete", name)
    assert code == 2
    assert f"results/{name}: complete, 1 result, " in err
    assert "without a terminal nobody can be asked" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []

    def answer(text: str, **more: Any) -> bool:
        asked.append(text)
        return len(asked) > 1

    monkeypatch.setattr(click, "confirm", answer)
    assert runs("delete", name)[:2] == (0, "nothing was deleted\n")
    assert (results / name).is_dir()
    code, out, _ = runs("delete", name, named(results, "broken"))
    assert (code, out.startswith("deleted 2 runs, ")) == (0, True)
    assert asked[0].startswith("Delete this run, ")
    assert asked[1].startswith("Delete 2 runs, ")
    assert [path.name for path in find_place(results).runs] == [named(results, "pythia")]


def test_nothing_is_deleted_where_one_is_no_run(runs: Call, results: Path) -> None:
    (results / "published").mkdir()
    code, _, err = runs("delete", named(results, "mamba"), "results/published", "--yes")
    assert (code, "results/published is no run" in err) == (2, True)
    assert len(find_place(results).runs) == 3
    code, out, _ = runs("delete", named(results, "mamba"), "--yes")
    assert code == 0
    assert out.splitlines()[-1].startswith("deleted 1 run, ")


def test_a_deletion_without_stdin_asks_nobody(results: Path) -> None:
    name = named(results, "mamba")
    program = shlex.join([sys.executable, "-m", "mambabench", "runs", "delete", name])
    done = subprocess.run(["sh", "-c", f"{program} <&-"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: nothing was deleted: ")
    assert (results / name).is_dir()


def test_verify_ends_with_1_where_something_differs(runs: Call, results: Path) -> None:
    code, out, _ = runs("verify")
    assert code == 1
    assert out.rstrip().endswith("3 runs: 1 with something that does not agree")
    code, out, _ = runs("verify", "zeroshot-mamba", "--seal")
    assert code == 0
    assert "sealed: " in out
    name = named(results, "mamba")
    assert (results / name / "SHA256SUMS").exists()
    [cell] = (results / name / "cells").iterdir()
    cell.write_bytes(cell.read_bytes() + b"\n")
    code, out, _ = runs("verify", name, "--seal")
    assert code == 1
    assert f"cells/{cell.name}: changed" in out
    assert "not sealed: it is not as it was sealed" in out
    code, out, _ = runs("verify", "zeroshot-broken", "--seal", "--json")
    [row] = json.loads(out)["runs"]
    assert (code, row["sealed"]) == (1, "not sealed: see what does not agree")
    assert next(c for c in row["checks"] if c["what"] == "records")["outcome"] == "differs"
    assert runs("verify", "--out", "nowhere")[0] == 4
    assert runs("verify", "nothing")[0] == 2


def test_du_adds_up(runs: Call, results: Path) -> None:
    (results / named(results, "mamba") / "answers" / "a.jsonl").write_bytes(b"x" * 50_000)
    (results / named(results, "pythia") / "answers" / "a.jsonl").write_bytes(b"x" * 70_000)
    (results / named(results, "pythia") / "notes.txt").write_bytes(b"x" * 3_000)
    code, out, _ = runs("du", "--json")
    value = json.loads(out)
    everything = [p for run in find_place(results).runs for p in run.rglob("*") if p.is_file()]
    assert code == 0
    assert value["size_bytes"] == sum(path.stat().st_size for path in everything)
    # Of an interrupted run answers are what it goes on with.
    assert sorted(row["spare_answers_bytes"] for row in value["runs"]) == [0, 0, 50_000]
    _, out, _ = runs("du")
    assert "50 kB are answers of 1 run of which every result is there." in out
    assert "3 kB in 1 file are none of ours: notes.txt." in out
    rows = [line.split()[0] for line in out.splitlines() if line.strip().startswith("zeroshot-")]
    assert rows[0] == named(results, "pythia")
    assert " 3 runs " in out


def test_a_mistyped_command_of_the_group(runs: Call) -> None:
    code, _, err = runs("lsit")
    assert (code, err) == (
        2,
        "error: unknown command 'lsit'. Closest: list. `mambabench runs --help` lists all.\n",
    )
    assert runs()[0] == 2


def test_many_runs_with_narrow_room_stay_whole(
    runs: Call, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from io import StringIO

    from mambabench.store.overview import overviews
    from mambabench.tables import runs as tables

    monkeypatch.setattr(tables, "_WIDTH_OF_FILES", 50)
    stream = StringIO()
    tables.render_list(list(overviews(find_place(results).runs)), stream)
    assert max(len(line) for line in stream.getvalue().splitlines() if "─" in line) <= 50
    assert "No room for suite" in stream.getvalue()
    assert "interrupted" in stream.getvalue()


def test_the_group_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mambabench.cli import _run\n"
        "_run(['runs', '--help']); _run(['runs', 'list', '--help'])\n"
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'transformers', 'numba') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.rstrip().endswith("[]")


def test_identities_that_differ_late_are_not_confused(runs: Call, results: Path) -> None:
    for name in ("one", "two"):
        identity = digest("same")[:60] + digest(name)[:4]
        stored_run(results, name, {"piqa": choice_samples(*drawn(4))}, identity=identity)
    code, _, err = runs("show", digest("same")[:12])
    assert (code, "stands for 2 runs" in err) == (2, True)
    assert runs("show", digest("same")[:60] + digest("one")[:4])[0] == 0
