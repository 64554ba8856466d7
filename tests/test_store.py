"""The store: runs are found again, locked, never half-written, and say what is wrong in one line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import FINGERPRINT, cell, checkpoint_record, listing, manifest, sample

from mambabench.errors import StoreError
from mambabench.fingerprint import digest
from mambabench.schema import (
    SCHEMA_VERSION,
)
from mambabench.store import Store, files
from mambabench.store.files import slug

# --- runs


def test_the_same_identity_finds_the_same_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    with store.open_run(manifest()) as run:
        first = run.path
    with store.open_run(manifest("renamed", identity=digest("mamba-tiny smoke"))) as run:
        assert run.path == first
        assert run.manifest.name == "mamba-tiny smoke"
    with store.open_run(manifest(identity=digest("another"))) as run:
        assert run.path != first
        assert run.path.name.startswith("mamba-tiny-smoke-")


def test_a_resumption_under_other_circumstances_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for environment in ({"python": "3.11"}, {"python": "3.12"}, {"python": "3.12"}, {"python": "3.13"}):
        with store.open_run(manifest(environment=environment)) as run:
            path = run.path
    assert sorted(p.name for p in path.glob("manifest*.json")) == [
        "manifest-2.json",
        "manifest-3.json",
        "manifest.json",
    ]
    assert json.loads((path / "manifest.json").read_text())["environment"] == {"python": "3.11"}


def test_runs_lists_what_can_be_read_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert Store(tmp_path / "absent").runs() == []
    for name, created in [("late", "2025-03-01T00:00:00"), ("early", "2025-02-01T00:00:00")]:
        store.open_run(manifest(name, created_utc=created)).close()
    (tmp_path / "published").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert [run.manifest.name for run in store.runs()] == ["early", "late"]
    # Somebody else's damaged run does not stop ours.
    store.open_run(manifest("third")).close()


def test_a_resumed_run_keeps_its_cells(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(manifest()) as run:
        assert run.cell(FINGERPRINT) is None
        run.write_cell(cell(), [sample(0), sample(1, acc=0)])
    with store.open_run(manifest()) as run:
        assert run.cell(FINGERPRINT) == cell()
        assert run.cell(FINGERPRINT[:16] + "0" * 48) is None
        assert [s["acc"] for s in run.read_samples(FINGERPRINT)] == [1.0, 0.0]
        with pytest.raises(StoreError, match="no cell"):
            run.read_samples(digest("absent"))


def test_a_failed_cell_is_replaced(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest()) as run:
        run.write_cell(cell(status="failed", error="boom"), [])
        assert run.read_samples(FINGERPRINT) == []
        run.write_cell(cell(), [sample()])
        assert [c.status for c in run.cells()] == ["ok"]
        assert len(run.read_samples(FINGERPRINT)) == 1


def test_stored_runs_are_readable_while_another_writes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(manifest()) as run:
        run.write_cell(cell(), [sample()])
        [stored] = store.runs()
        assert stored.cells() == [cell()]
        assert stored.read_samples(FINGERPRINT) == run.read_samples(FINGERPRINT)


def test_a_closed_run_refuses_writes(tmp_path: Path) -> None:
    run = Store(tmp_path).open_run(manifest())
    run.close()
    run.close()
    with pytest.raises(StoreError, match="closed"):
        run.write_cell(cell(), [])
    with pytest.raises(StoreError, match="closed"):
        run.answers(FINGERPRINT, "fp32")


def test_what_was_loaded_is_kept(tmp_path: Path) -> None:
    record = checkpoint_record(weights="random", seed=0)
    with Store(tmp_path).open_run(manifest()) as run:
        run.write_checkpoint("m@main", record)
    [stored] = Store(tmp_path).runs()
    assert stored.checkpoints() == {"m-main": record}


def test_a_finished_cell_compacts_its_checkpoint_and_no_other(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest()) as run:
        mine = run.answers(digest("checkpoint"), "fp32")
        other = run.answers(digest("another"), "fp32")
        assert run.answers(digest("checkpoint"), "fp32") is mine
        for log in (mine, other):
            log.append([(digest("request"), {"logprob": -1.5})])
        run.write_cell(cell(), [sample()])
        [segment] = (run.path / "answers").glob("*.parquet")
        assert segment.name.startswith(digest("checkpoint")[:16])
    with Store(tmp_path).open_run(manifest()) as run:
        for name in ("checkpoint", "another"):
            assert run.answers(digest(name), "fp32").get(digest("request")) == {"logprob": -1.5}


# --- locking

HOLDER = """
import sys, time
from pathlib import Path
from tests_manifest import manifest
from mambabench.store import Store
run = Store(Path(sys.argv[1])).open_run(manifest())
print("held", flush=True)
time.sleep(60)
"""


def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the run `manifest()` in `tmp_path / "results"`."""
    text = manifest().model_dump_json()
    (tmp_path / "tests_manifest.py").write_text(
        "from mambabench.schema import RunManifest\n"
        f"def manifest():\n    return RunManifest.model_validate_json({text!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "results")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    with holder(tmp_path) as process:
        try:
            with pytest.raises(StoreError, match=rf"mamba-tiny-smoke-.*process {process.pid} on .*--out DIR"):
                store.open_run(manifest())
            # Another run in the same place is free.
            store.open_run(manifest("other")).close()
        finally:
            process.kill()
            process.wait()
    with store.open_run(manifest()) as run:
        assert run.cells() == []


def test_one_process_cannot_open_a_run_twice(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest()), pytest.raises(StoreError, match=f"process {os.getpid()}"):
        Store(tmp_path).open_run(manifest())
    Store(tmp_path).open_run(manifest()).close()


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    import socket

    with Store(tmp_path).open_run(manifest()) as run:
        path = run.path
    left = path / "cells" / ".x.json.abc.tmp"
    left.write_text("half")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    abandoned = tmp_path / f".new-{slug(socket.gethostname())}-{dead.pid}-abc"
    living = tmp_path / f".new-{slug(socket.gethostname())}-{os.getpid()}-abc"
    elsewhere = tmp_path / f".new-other.host-{dead.pid}-abc"
    for folder in (abandoned, living, elsewhere):
        folder.mkdir()
    with Store(tmp_path).open_run(manifest()):
        assert not left.exists()
    with Store(tmp_path).open_run(manifest("new")):
        assert not abandoned.exists()
        assert living.exists()
        assert elsewhere.exists()


# --- places that cannot be written


@pytest.mark.parametrize("below", ["file", "file/deeper/still"])
def test_a_root_that_is_or_lies_under_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    store = Store(tmp_path / below)
    for attempt in (store.check_writable, lambda: store.open_run(manifest())):
        with pytest.raises(StoreError, match=r"is not a directory.*--out DIR"):
            attempt()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dangling_link_as_root(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="not a directory"):
        Store(tmp_path / "link").open_run(manifest())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where nobody can create a file")
def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write /proc/mambabench.*--out DIR"):
        Store(Path("/proc/mambabench/results")).open_run(manifest())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_without_permission(tmp_path: Path) -> None:
    root = tmp_path / "results"
    root.mkdir(mode=0o555)
    with pytest.raises(StoreError, match="Permission denied"):
        Store(root).open_run(manifest())


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b").check_writable()
    assert listing(tmp_path) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    root = tmp_path / "a" / "results"
    if existing:
        root.mkdir(parents=True)
    before = listing(tmp_path)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_fill", full)
    with pytest.raises(StoreError, match=r"No space left.*Free some space.*--out DIR"):
        Store(root).open_run(manifest())
    assert listing(tmp_path) == before


def test_a_cell_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path).open_run(manifest()) as run:
        run.write_cell(cell(status="failed", error="before"), [sample()])
        before = listing(run.path)

        def full(path: Path, data: bytes) -> None:
            path.write_bytes(data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files, "_fill", full)
        with pytest.raises(StoreError, match="No space left"):
            run.write_cell(cell(), [sample()])
        assert [c.error for c in run.cells()] == ["before"]
        assert listing(run.path) == before


# --- damaged and newer files


def test_a_newer_manifest_is_refused_in_words(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest()) as run:
        path = run.path / "manifest.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "schema_version": SCHEMA_VERSION + 1, "unheard_of": 1}))
    with pytest.raises(StoreError, match=rf"schema version {SCHEMA_VERSION + 1}.*Upgrade mambabench"):
        Store(tmp_path).open_run(manifest())
    assert Store(tmp_path).runs() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1}', "\x00\x00"])
def test_a_damaged_manifest_is_refused_in_words(tmp_path: Path, text: str) -> None:
    with Store(tmp_path).open_run(manifest()) as run:
        path = run.path / "manifest.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged.*--out DIR"):
        Store(tmp_path).open_run(manifest())


def test_a_damaged_cell_is_refused_in_words(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest()) as run:
        run.write_cell(cell(), [sample()])
        [path] = (run.path / "cells").glob("*.json")
        path.write_text(path.read_text()[:100])
        for read in (run.cells, lambda: run.cell(FINGERPRINT)):
            with pytest.raises(StoreError, match=r"damaged.*its cell is computed again"):
                read()


def test_damaged_samples_are_refused_in_words(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest()) as run:
        run.write_cell(cell(), [sample()])
        path = run.samples_path(FINGERPRINT)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(StoreError, match=r"cannot read the samples.*computed again"):
            run.read_samples(FINGERPRINT)
        path.unlink()
        with pytest.raises(StoreError, match=r"cannot read the samples"):
            run.read_samples(FINGERPRINT)


def test_a_command_line_that_is_no_text_can_be_stored(tmp_path: Path) -> None:
    odd = os.fsdecode(b"--model=caf\xe9")
    with Store(tmp_path).open_run(manifest(command=(odd,))) as run:
        path = run.path
    assert json.loads((path / "manifest.json").read_bytes())["command"] == [odd]


@given(st.text())
def test_slugs_are_file_names(text: str) -> None:
    name = slug(text)
    assert name == slug(name)
    assert 1 <= len(name) <= 60
    assert not name.startswith((".", "-"))
    assert "/" not in name
