"""Whether what a run was made from is still the same: checkpoints and imported files, where they still lie.

check = check_checkpoints(StoredRun(Path("results/zeroshot-smoke-mamba-tiny-75c8b06c")))

They are looked for where the run's command named them, from the working directory, among the bundled models
and in the Hub's cache. Nothing is downloaded, and what is not there is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench.errors import MambabenchError, StoreError
from mambabench.models.hashing import cached_sha256
from mambabench.schema import CheckpointRecord, ImportSettingsRecord, RunManifest
from mambabench.store.files import read_record
from mambabench.store.verify import Check, checked

if TYPE_CHECKING:
    from mambabench.registry import ModelRef
    from mambabench.schema import FileRecord
    from mambabench.store import StoredRun

_MODEL: Final = "--model"
_VALUED: Final = ("--name", "--task", "--time", "--out")
"""Options of an import that take a value."""


def check_checkpoints(run: StoredRun) -> Check:
    """Compare the files of the run's checkpoints with the digests that were taken when they were loaded."""
    problems: list[str] = []
    n = n_all = 0
    refs = list(_refs(run))
    for path in sorted((run.path / "checkpoints").glob("[!.]*.json")):
        try:
            record = read_record(path, CheckpointRecord, remedy="")
        except StoreError:
            # Its records have said so.
            continue
        adapter = record.adapter.files if record.adapter else ()
        for files, folders in (
            (record.files, _folders(record, refs, adapter=False)),
            (adapter, _folders(record, refs, adapter=True)),
        ):
            n_all += len(files)
            for file in files:
                if (found := _found(file, folders, record)) is None:
                    continue
                n += 1
                problems += _difference(file, found, record.name)
    how = f"sha256 of {n} of {n_all} recorded files, those that lie on this machine"
    why_not = "none of them lies where the command named it" if n_all else "no file is recorded"
    return checked("checkpoints", n, how, problems, why_not)


def check_sources(run: StoredRun) -> Check:
    """Compare the files that were imported with the digests that were taken when they were read."""
    settings = run.manifest.settings
    files = settings.files if isinstance(settings, ImportSettingsRecord) else ()
    problems: list[str] = []
    there = _named_files(run)
    n = 0
    for file in files:
        candidates = there.get(file.name, [])
        if not candidates:
            continue
        n += 1
        if all(_difference(file, path, "") for path in candidates):
            problems += _difference(file, candidates[0], "")
    how = f"sha256 of {n} of {len(files)} imported files, those that lie on this machine"
    return checked("sources", n, how, problems, "none of them lies where the command named it")


def _difference(file: FileRecord, path: Path, model: str) -> list[str]:
    whose = f" of {model}" if model else ""
    try:
        if path.stat().st_size == file.size_bytes and cached_sha256(path) == file.sha256:
            return []
    except OSError as error:
        return [f"{path}{whose} cannot be read: {error.strerror or error}"]
    return [f"{path}{whose} has changed since it was read"]


def _manifests(run: StoredRun) -> Iterator[RunManifest]:
    yield run.manifest
    for path in sorted(run.path.glob("manifest-*.json")):
        try:
            yield read_record(path, RunManifest, remedy="")
        except StoreError:
            continue


def _refs(run: StoredRun) -> Iterator[tuple[str, ModelRef]]:
    """Yield the name in tables and what it stands for of every model that a command names."""
    from mambabench.registry import resolve

    for manifest in _manifests(run):
        typed = list(_values(manifest.command, _MODEL))
        # The manifest has the models in the order of the command; a suite of a sweep may name others.
        names = manifest.models if len(manifest.models) == len(typed) else ("",) * len(typed)
        for name, text in zip(names, typed or manifest.models, strict=bool(typed)):
            try:
                ref = resolve(text, need_weights=False)
            except (MambabenchError, OSError, ValueError):
                continue
            yield name or ref.name, ref


def _values(command: Sequence[str], option: str) -> Iterator[str]:
    for place, word in enumerate(command):
        if word == option and place + 1 < len(command):
            yield command[place + 1]
        elif word.startswith(f"{option}="):
            yield word.removeprefix(f"{option}=")


def _folders(record: CheckpointRecord, refs: Iterable[tuple[str, ModelRef]], *, adapter: bool) -> list[Path]:
    found = []
    for name, ref in refs:
        if record.name not in (name, ref.name):
            continue
        # Files of an adapter are apart from those of its base.
        at = ref.base if ref.base is not None and not adapter else ref
        if at.path is not None:
            found.append(at.path if at.path.is_dir() else at.path.parent)
    return found


def _found(file: FileRecord, folders: Sequence[Path], record: CheckpointRecord) -> Path | None:
    # A record is no more to be trusted than any other file.
    if Path(file.name).is_absolute() or ".." in Path(file.name).parts:
        return None
    for folder in folders:
        if (folder / file.name).is_file():
            return folder / file.name
    if record.hub_id is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(record.hub_id, file.name, revision=record.revision)
    except (OSError, ValueError):
        return None
    return Path(cached) if isinstance(cached, str) else None


def _named_files(run: StoredRun) -> dict[str, list[Path]]:
    """Return the files that the arguments of an import named or held, by file name."""
    found: dict[str, list[Path]] = {}
    for manifest in _manifests(run):
        before = ""
        for word in manifest.command[2:]:
            is_value, before = before in _VALUED, word
            if word.startswith("-") or is_value:
                continue
            path = Path(word)
            try:
                files = [path] if path.is_file() else [p for p in path.rglob("*.json*") if p.is_file()]
            except (OSError, ValueError):
                continue
            for file in files:
                found.setdefault(file.name, []).append(file)
    return found
