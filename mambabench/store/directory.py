"""The directory of all runs: a run is found by what it is, or made in one step.

store = Store(Path("results"))
with store.open_run(manifest) as run:
    ...
print([stored.manifest.name for stored in store.runs()])
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from mambabench.errors import StoreError
from mambabench.schema import RunManifest
from mambabench.store.files import make_directory, slug, storing, sync_directory, write_record
from mambabench.store.lock import acquire
from mambabench.store.run import MANIFEST, RunDir, StoredRun, folders_of

_STAGING_PREFIX: Final = ".new-"
_PROBE_BYTES: Final = 1 << 16


class Store:
    """A directory of runs.

    Args:
        root: the directory; need not exist before the first run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_writable(self) -> None:
        """Find out, within milliseconds, whether a run could be written; leaves nothing behind.

        Raises:
            StoreError: the root or a parent is a file, cannot be written to, or its disk is full.
        """
        folder = self.root.absolute()
        while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise StoreError(
                f"cannot write results to {self.root}: {folder} is not a directory",
                hint="Name another directory with `--out DIR`.",
            )
        with storing(self.root), tempfile.TemporaryFile(dir=folder, buffering=0) as stream:
            stream.write(bytes(_PROBE_BYTES))
            os.fsync(stream.fileno())

    def check_free(self, manifest: RunManifest) -> None:
        """Find out whether another process is writing the run that `open_run` would resume.

        Raises:
            StoreError: it is; named with its host.
        """
        if (path := self._find(manifest)) is not None:
            acquire(path).release()

    def runs(self) -> list[StoredRun]:
        """Return all runs whose manifest can be read, oldest first; needs no lock."""
        found: list[StoredRun] = []
        for path in self._paths():
            with suppress(StoreError):
                found.append(StoredRun(path))
        return sorted(found, key=lambda run: (run.manifest.created_utc, run.path.name))

    def open_run(self, manifest: RunManifest) -> RunDir:
        """Resume the run with the manifest's identity, or create it; use as a context manager.

        A new run is put in `<root>/<name>-<start of the identity>/`, complete with its manifest, in one step.

        Raises:
            StoreError: nothing can be written there, another process is writing this run (named with its
                host), or a file of the run is damaged or of a newer version.
        """
        self.check_writable()
        path = self._find(manifest)
        if path is None:
            path = self._create(manifest)
        return RunDir(path, manifest)

    def _paths(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        children = sorted(self.root.iterdir())
        return [p for p in children if not p.name.startswith(".") and (p / MANIFEST).is_file()]

    def _path_of(self, manifest: RunManifest) -> Path:
        return self.root / f"{slug(manifest.name, max_length=100)}-{slug(manifest.identity)[:8]}"

    def _find(self, manifest: RunManifest) -> Path | None:
        expected = self._path_of(manifest)
        for path in [expected, *self._paths()]:
            # Another run's damaged manifest is not this run's business; StoredRun complains about our own.
            with suppress(OSError, ValueError, AttributeError, RecursionError):
                if json.loads((path / MANIFEST).read_bytes()).get("identity") == manifest.identity:
                    return path
        return expected if expected.exists() else None

    def _create(self, manifest: RunManifest) -> Path:
        path = self._path_of(manifest)
        made: list[Path] = []
        staging: Path | None = None
        try:
            make_directory(self.root, made)
            with storing(self.root):
                self._remove_abandoned()
                prefix = f"{_STAGING_PREFIX}{slug(socket.gethostname())}-{os.getpid()}-"
                staging = Path(tempfile.mkdtemp(prefix=prefix, dir=self.root))
                staging.chmod(self.root.stat().st_mode & 0o777)
                for folder in folders_of(manifest):
                    (staging / folder).mkdir()
                write_record(staging / MANIFEST, manifest)
                try:
                    staging.rename(path)
                except OSError:
                    # Another process created the same run in the meantime; its lock decides who goes on.
                    if not (path / MANIFEST).is_file():
                        raise
                    shutil.rmtree(staging)
                sync_directory(self.root)
        except BaseException:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            for folder_made in reversed(made):
                with suppress(OSError):
                    folder_made.rmdir()
            raise
        return path

    def _remove_abandoned(self) -> None:
        """Delete the directories of processes of this machine that died while creating a run."""
        import psutil

        here = f"{_STAGING_PREFIX}{slug(socket.gethostname())}-"
        for path in self.root.glob(f"{here}*"):
            pid = path.name.removeprefix(here).split("-")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(path, ignore_errors=True)
