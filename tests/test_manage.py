"""Runs told by their state, found by name, renamed and deleted."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from scored_runs import choice_samples, drawn, stored_run, task_record
from speed_records import MAMBA, PYTHIA, sweep
from stored import cell, manifest
from stored_sweeps import store_sweep

from mambabench.bench.points import sequence
from mambabench.cli import runs_list
from mambabench.errors import StoreError, UnknownNameError, UsageError
from mambabench.fingerprint import digest
from mambabench.long_schema import RecallRecord
from mambabench.schema import CheckpointRecord, FileRecord, LongSettingsRecord, ReadRecord, RunManifest
from mambabench.speed_schema import PointRecord, ReplicateRecord
from mambabench.store import Store
from mambabench.store.manage import (
    check_name,
    checked_runs,
    delete_run,
    find_place,
    find_run,
    plan_deletion,
    remove_leftovers,
    rename_run,
    same_runs,
)
from mambabench.store.overview import STATES, looks_like_run, overview
from mambabench.store.seal import write_seal
from mambabench.store.select import Filters
from mambabench.store.usage import KINDS as FILE_KINDS
from mambabench.store.usage import kind_of, usage_of


def run_of(root: Path, name: str = "first", **changes: Any) -> Path:
    return stored_run(root, name, {"piqa": choice_samples(*drawn(4))}, **changes)


def records(points: list[PointRecord], processes: int) -> list[ReplicateRecord]:
    """Records of all processes in the order in which a sweep measures them."""
    template = sweep(models=(MAMBA,), prompt_lens=(128,), processes=1)[0]
    return [
        template.model_copy(
            update={
                "point": step.point, "order": step.order, "replicate": step.replicate,
                "fingerprint": digest([step.point, step.replicate]),
            }
        )
        for step in sequence(points, processes=processes)
    ]  # fmt: skip


def test_the_command_lists_every_state_and_kind_there_is() -> None:
    assert runs_list._STATES == STATES
    assert set(runs_list.KINDS) == set(RunManifest.model_fields["kind"].annotation.__args__)  # type: ignore[union-attr]


def test_a_complete_a_partial_and_an_empty_run(tmp_path: Path) -> None:
    assert overview(run_of(tmp_path, "a")).state == "complete"
    assert overview(run_of(tmp_path, "b", partial=True)).state == "partial"
    few = {"piqa": task_record("piqa", 4, n_docs_total=9)}
    limited = stored_run(tmp_path, "c", {"piqa": choice_samples(*drawn(4))}, records=few)
    assert overview(limited).state == "partial"
    with Store(tmp_path).open_run(manifest("d")) as run:
        pass
    assert overview(run.path).state == "empty"


def test_what_was_asked_and_is_not_there_is_named(tmp_path: Path) -> None:
    reads = (ReadRecord(task="piqa", metrics=("acc",)), ReadRecord(task="sciq", metrics=("acc",)))
    found = overview(run_of(tmp_path, models=("first", "second"), reads=reads))
    assert (found.state, found.n_ok, found.n_expected) == ("interrupted", 1, 4)
    assert found.missing == ("first on sciq", "second on piqa", "second on sciq")


def test_a_group_stands_for_its_tasks(tmp_path: Path) -> None:
    reads = (ReadRecord(task="mmlu_stem", metrics=("acc",)),)
    tasks = {"mmlu_astronomy": choice_samples(*drawn(4))}
    grouped = {"mmlu_astronomy": task_record("mmlu_astronomy", 4, group="mmlu_stem")}
    found = overview(stored_run(tmp_path, "m", tasks, records=grouped, reads=reads))
    assert found.state == "interrupted"
    assert found.n_expected == 19
    assert "m on mmlu_anatomy" in found.missing
    assert "m on mmlu_astronomy" not in found.missing


def test_a_failed_cell_makes_a_failed_run(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    [record] = (path / "cells").glob("*.json")
    value = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps({**value, "status": "failed", "error": "too bad"}), "utf-8")
    found = overview(path)
    assert (found.state, found.n_ok, [r["error"] for r in found.failed]) == ("failed", 0, ["too bad"])


def test_equal_weights_under_two_names_are_not_missing(tmp_path: Path, stored_checkpoint: Any) -> None:
    path = run_of(tmp_path, models=("first", "second"))
    assert overview(path).state == "interrupted"
    for name in ("first", "second"):
        stored_checkpoint(path, name, sha256="0" * 64)
    assert overview(path).state == "complete"
    stored_checkpoint(path, "second", sha256="1" * 64)
    assert overview(path).state == "interrupted"


@pytest.fixture
def stored_checkpoint() -> Any:
    from stored import checkpoint_record

    def write(path: Path, name: str, *, sha256: str) -> CheckpointRecord:
        files = (FileRecord(name="model.safetensors", size_bytes=1, sha256=sha256),)
        record = checkpoint_record(name=name, files=files)
        (path / "checkpoints" / f"{name}.json").write_text(record.model_dump_json(), "utf-8")
        return record

    return write


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_sweep_is_complete_only_with_its_last_process(tmp_path: Path, processes: int) -> None:
    # Two of the points have one size, so that a sweep that stopped within a size has all lengths.
    of_two = sweep(models=(MAMBA, PYTHIA), prompt_lens=(128, 512), processes=1)
    points = list(dict.fromkeys(record.point for record in of_two))
    asked = {"suite_sha256": digest({"points": points}), "settings": {"processes": processes}}
    everything = records(points, processes)
    assert len(everything) == 4 * processes
    for n in range(1, len(everything) + 1):
        found = overview(store_sweep(tmp_path / str(n), everything[:n], **asked))
        assert (found.state == "complete") == (n == len(everything)), n
        assert bool(found.missing) == (n < len(everything))
    assert found.n_expected == len(everything)


def test_out_of_memory_is_a_result_of_a_sweep(tmp_path: Path) -> None:
    [record] = records([sweep(models=(MAMBA,), prompt_lens=(128,), processes=1)[0].point], 1)
    for status, state in (("oom", "complete"), ("unsupported", "complete"), ("timeout", "failed")):
        changed = record.model_copy(update={"status": status})
        path = store_sweep(tmp_path / status, [changed], settings={"processes": 1})
        assert overview(path).state == state


def test_long_context_lacks_what_any_of_its_commands_asked_for(tmp_path: Path) -> None:
    def asked(*lengths: int) -> RunManifest:
        settings = LongSettingsRecord(
            dtype="auto",
            device="cpu",
            weights="pretrained",
            seed=0,
            lengths_tokens=lengths,
            tasks=("needle",),
        )
        command = ("mambabench", "longcontext", *map(str, lengths))
        return manifest("long", kind="longcontext", models=("m",), settings=settings, command=command)

    def recall(length: int) -> RecallRecord:
        return RecallRecord(
            fingerprint=digest(length), checkpoint_fingerprint="c", model="m", task="needle",
            task_version="1", length_tokens=length, status="ok",
        )  # fmt: skip

    with Store(tmp_path).open_run(asked(256)) as run:
        run.write_long(recall(256))
    assert overview(run.path).state == "complete"
    with Store(tmp_path).open_run(asked(256, 512)) as run:
        pass
    assert overview(run.path).missing == ("m on needle at 512 tokens",)


def test_a_run_that_is_written_is_running_until_its_writer_ends(tmp_path: Path) -> None:
    path = run_of(tmp_path, "a")
    identity = json.loads((path / "manifest.json").read_text("utf-8"))["identity"]
    with Store(tmp_path).open_run(manifest("zeroshot-a", identity=identity)) as run:
        assert run.path == path
        found = overview(path)
        assert found.state == "running"
        assert f"process {os.getpid()} on " in found.written_by
        with pytest.raises(StoreError, match="is being written by process") as caught:
            rename_run(path, "b")
        # Not `--out`, which says where this command looks.
        assert caught.value.hint == "Wait for it or stop it."
        with pytest.raises(StoreError, match="is being written by process"):
            plan_deletion(path)
        with pytest.raises(StoreError, match="is being written by process"):
            delete_run(path)
    assert overview(path).state == "complete"
    # A process that was killed leaves its note behind.
    (path / ".owner.json").write_text("{}", "utf-8")
    assert overview(path).state == "complete"


def test_a_seal_that_cannot_be_written_is_said_to_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_of(tmp_path, "a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        write_seal(path)
    assert caught.value.hint == "The run was not sealed."


DAMAGES = {
    "cut": ("manifest.json", b'{"schema', "manifest.json is damaged: it is not JSON"),
    "list": ("manifest.json", b"[1]", "manifest.json is damaged: it is no record"),
    "deep": ("manifest.json", b"[" * 100_000, "manifest.json is damaged"),
    "newer": ("manifest.json", b'{"schema_version": 99}', "has schema version 99; this mambabench reads"),
    "later": ("manifest-2.json", b"{}", "manifest-2.json is damaged: name: Field required"),
    "record": ("cells/x.json", b"{", "cells/x.json is damaged: it is not JSON"),
    "foreign": ("cells/x.json", b'{"status": 1}', "cells/x.json is damaged: it is no record"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_says_which_file_it_is(tmp_path: Path, damage: str) -> None:
    name, content, words = DAMAGES[damage]
    path = run_of(tmp_path)
    (path / name).write_bytes(content)
    if damage == "newer":
        (path / name).write_bytes(
            json.dumps({**manifest().model_dump(mode="json"), "schema_version": 99}).encode()
        )
    found = overview(path)
    assert found.state == "unreadable"
    assert words in found.problems[0]
    assert find_place(tmp_path).runs == (path,)


def test_pipes_and_directories_in_the_place_of_records_are_damage(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    os.mkfifo(path / "cells" / "pipe.json")
    (path / "cells" / "folder.json").mkdir()
    assert set(overview(path).problems) == {
        "cells/pipe.json is no file", "cells/folder.json is no file"
    }  # fmt: skip


def test_a_run_is_told_from_what_only_looks_like_one(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    web = tmp_path / "web"
    for name in ("checkpoints", "samples", "answers"):
        (web / name).mkdir(parents=True)
    assert not looks_like_run(web)
    (web / "manifest.json").write_text('{"name": "app", "kind": "web"}', "utf-8")
    assert not looks_like_run(web)
    (run / "manifest.json").unlink()
    assert looks_like_run(run)
    assert not looks_like_run(tmp_path / "nothing")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / ".new-host-1-x").mkdir()
    found = find_place(tmp_path)
    assert found.runs == (run,)
    assert [path.name for path in found.staging] == [".new-host-1-x"]


def test_a_run_is_found_by_path_name_beginning_or_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "results"
    one, two = run_of(out, "mamba"), run_of(out, "pythia")
    identity = json.loads((two / "manifest.json").read_text("utf-8"))["identity"]
    for text in (str(two), str(two / "manifest.json"), two.name, "zeroshot-py", identity[:8], f"{two}/"):
        assert find_run(text, out) == two
    with pytest.raises(UsageError, match="'zeroshot-' stands for 2 runs") as caught:
        find_run("zeroshot-", out)
    assert one.name in caught.value.hint
    with pytest.raises(UnknownNameError, match="unknown run") as unknown:
        find_run(two.name.replace("py", "yp"), out)
    assert two.name in unknown.value.hint
    # An identity is typed with more than a few letters; a name's beginning is another thing.
    with pytest.raises(UnknownNameError):
        find_run(identity[:5], out)
    assert checked_runs([two.name, str(two), one.name], out) == [two, one]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a\0b", "character that no name has"),
        ("..", "is no run"),
        ("file", "file is a file and no run"),
        ("results", "holds runs and is none itself"),
        ("results/nothing", "unknown run"),
        ("broken", "is a link that leads nowhere"),
        ("x" * 5000, "unknown run"),
    ],
)
def test_what_is_no_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "results")
    (tmp_path / "file").write_text("x", "utf-8")
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(UsageError, match=words):
        find_run(text, Path("results"))


def test_a_renamed_run_is_the_one_that_its_command_opens(tmp_path: Path) -> None:
    path = run_of(tmp_path, "a")
    other = run_of(tmp_path, "b")
    asked = manifest(
        "zeroshot-a", identity=json.loads((path / "manifest.json").read_text("utf-8"))["identity"]
    )
    renamed = rename_run(path, "my baseline, näive")
    assert (renamed.is_dir(), path.exists()) == (True, False)
    assert overview(renamed).state == "complete"
    with Store(tmp_path).open_run(asked) as run:
        assert run.path == renamed
    assert find_place(tmp_path).runs == (renamed, other)
    assert rename_run(renamed, path.name) == path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is no name"), (" a", "is no name"), ("a/b", "is a path"), ("../a", "is a path"),
        ("..", "begins with a dot"), (".a", "begins with a dot"), ("-a", "begins like an option"),
        ("a\nb", "cannot be seen"), ("a\x1b[2J", "cannot be seen"), ("x" * 300, "longer than 255"),
        ("ä" * 130, "longer than 255"), ("taken", "is there already"), ("link", "is there already"),
        ("latency-m-0123abcd", "ends like the name of another run"),
    ],
)  # fmt: skip
def test_names_that_a_run_cannot_have(tmp_path: Path, name: str, words: str) -> None:
    path = run_of(tmp_path)
    (tmp_path / "taken").write_text("x", "utf-8")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match=words):
        rename_run(path, name)
    assert path.is_dir()


def test_a_name_may_end_like_the_run_itself(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    check_name(path, f"mine-{path.name[-8:]}")


def test_copies_of_a_run_are_found(tmp_path: Path) -> None:
    path, other = run_of(tmp_path, "a"), run_of(tmp_path, "b")
    copy = shutil.copytree(path, tmp_path / "copy")
    assert same_runs(path) == [copy]
    assert same_runs(other) == []


def test_a_deleted_run_is_gone_and_nothing_else(tmp_path: Path) -> None:
    path, other = run_of(tmp_path, "a"), run_of(tmp_path, "b")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x", "utf-8")
    (path / "figures").symlink_to(outside)
    (path / "notes.txt").write_text("mine", "utf-8")
    plan = plan_deletion(path)
    assert (plan.state, plan.n_results, plan.link_to) == ("complete", 1, None)
    assert sorted(plan.unknown) == ["figures", "notes.txt"]
    assert plan.size_bytes == sum(p.lstat().st_size for p in path.rglob("*") if p.is_symlink() or p.is_file())
    delete_run(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([other.name, "outside"])
    assert (outside / "kept").read_text("utf-8") == "x"


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    path = run_of(tmp_path / "elsewhere")
    link = tmp_path / "results" / "link"
    link.parent.mkdir()
    link.symlink_to(path)
    assert plan_deletion(link).link_to == path
    delete_run(link)
    assert not link.is_symlink()
    assert overview(path).state == "complete"


def test_a_run_that_holds_another_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_of(tmp_path)
    inner = shutil.copytree(run_of(tmp_path, "other"), path / "deep" / "inner")
    for refused in (plan_deletion, delete_run):
        with pytest.raises(UsageError, match="holds another run"):
            refused(path)
    delete_run(inner)
    monkeypatch.chdir(path / "cells")
    with pytest.raises(UsageError, match="holds the working directory"):
        delete_run(path)


def test_what_is_no_run_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "app"}', "utf-8")
    for name in ("web", "nothing"):
        with pytest.raises(UsageError):
            delete_run(tmp_path / name)
    assert (tmp_path / "web" / "manifest.json").exists()


def test_an_interrupted_deletion_leaves_no_half_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = run_of(tmp_path, "a"), run_of(tmp_path, "b")

    def interrupted(folder: Path) -> None:
        next((folder / "cells").iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            delete_run(path)
    found = find_place(tmp_path)
    assert found.runs == (other,)
    assert len(found.staging) == 1
    foreign = tmp_path / ".gone-another.host-1-0"
    foreign.mkdir()
    assert remove_leftovers(tmp_path) == list(found.staging)
    assert sorted(p.name for p in tmp_path.iterdir()) == [foreign.name, other.name]


def test_files_are_counted_by_kind(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    (path / "answers" / "a-b.jsonl").write_bytes(b"x" * 10)
    (path / "perplexity").mkdir()
    (path / "perplexity" / "m.f32").write_bytes(b"x" * 20)
    (path / "perplexity" / "m.1.state").write_bytes(b"x" * 30)
    (path / "figure.svg").write_bytes(b"x" * 40)
    usage = usage_of(path)
    sizes = {kind: taken.size_bytes for kind, taken in usage.by_kind.items()}
    picked = {k: sizes[k] for k in ("answers", "log-probabilities", "states", "other")}
    assert picked == {"answers": 10, "log-probabilities": 20, "states": 30, "other": 40}
    assert usage.unknown == ("figure.svg",)
    assert usage.total.size_bytes == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    assert list(usage.by_kind) == [kind for kind in FILE_KINDS if kind in usage.by_kind]
    assert kind_of("lm-eval/m/results.json") == "exports"
    assert kind_of("cells/.m.json.x.tmp") == "unfinished"


def test_filters_hold_together(tmp_path: Path) -> None:
    old = overview(run_of(tmp_path, "mamba-130m", created_utc="2025-01-31T23:30:00Z"))
    new = overview(run_of(tmp_path, "pythia-160m", created_utc="2025-02-01T00:30:00Z", suite="Other"))
    (tmp_path / "x").mkdir()
    bad = overview(tmp_path / "x")

    def kept(**wanted: Any) -> list[Any]:
        return [run for run in (old, new, bad) if Filters(**wanted).keep(run)]

    assert kept() == [old, new, bad]
    assert kept(models=("mamba",)) == [old]
    assert kept(models=("MAMBA-*", "*160m")) == [old, new]
    assert kept(models=("130",), states=("failed",)) == []
    assert kept(suites=("other",)) == [new]
    assert kept(states=("unreadable",)) == [bad]
    assert kept(kinds=("zeroshot",)) == [old, new]
    assert kept(since_utc="2025-02-01") == [new]
    assert kept(before_utc="2025-02-01") == [old]
    # The same moment by another clock.
    assert kept(since_utc="2025-02-01T02:00:00+02:00") == [new]


def test_a_cell_of_an_older_run_without_reads(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest(models=("hf:org/mamba tiny", "second"))) as run:
        run.write_cell(cell(), [])
    assert overview(run.path).missing == ("second on smoke_last_word",)
