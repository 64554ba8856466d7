"""Answers by request: what makes a killed run lose at most the batch in flight.

New answers go to a text log, one JSON line each, and are on the disk when `append` returns. When a cell
ends, `compact` moves them to a Parquet segment. Whatever moment the process dies at, every answer is in
the log, in a segment, or in both.

A log belongs to one checkpoint and one set of settings, and its files say so inside: an answer can never
be taken for another model's, not even when files are copied or renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mambabench.errors import StoreError
from mambabench.fingerprint import canonical_json, digest
from mambabench.schema import SCHEMA_VERSION
from mambabench.store.files import storing, write_bytes
from mambabench.store.segments import (
    KEY_BYTES,
    MIN_KEY_BYTES,
    Answer,
    Segments,
    concatenated,
    read_segment,
    table_of,
    write_segment,
)

_KEY_FIELD: Final = "k"
_LINES_PER_PARSE: Final = 50_000
_REMEDY: Final = (
    "Delete that file (its answers are computed again), or start a new run with `--out DIR`; "
    "finished cells are not affected."
)


class AnswerLog:
    """The answers of one checkpoint under one set of settings; `len()` counts distinct requests.

    Opened by `RunDir.answers`, whose lock makes this process the only writer.

    Keys are digests of 16 to 32 bytes in hexadecimal. Values are small dictionaries of JSON types, for
    example `{"logprob": -1.5, "is_greedy": True}` or `{"text": "..."}`.
    Floats come back exactly, NaN and infinities included. A later answer replaces an earlier one.
    """

    ROLL_ANSWERS = 200_000
    """Answers in the text log at which `append` compacts by itself: bounds memory and loading time."""
    MAX_SEGMENTS = 16
    """Segments at which compaction merges all of them into one."""

    def __init__(self, folder: Path, checkpoint_fingerprint: str, settings_key: str) -> None:
        """Open or create the log.

        Args:
            folder: the run's `answers/` directory; exists.
            checkpoint_fingerprint: digest of everything that the checkpoint's answers depend on.
            settings_key: any text that names the settings that change answers (dtype, device, engine).

        Raises:
            StoreError: a file is damaged (the line is named) or belongs to another checkpoint.
        """
        owner = {"checkpoint": checkpoint_fingerprint, "settings": settings_key}
        self._owner = canonical_json(owner)
        self._header = (canonical_json({"schema_version": SCHEMA_VERSION, **owner}) + "\n").encode()
        self._folder = folder
        self._stem = f"{checkpoint_fingerprint[:16]}-{digest(settings_key)[:8]}"
        self.path = folder / f"{self._stem}.jsonl"
        self._descriptor: int | None = None
        self._segments = self._read_segments()
        self._recent: dict[bytes, Answer] = {}
        if self.path.exists():
            self._read_log()
        else:
            write_bytes(self.path, self._header)
        self._count = len(self._segments) + sum(self._segments.get(key) is None for key in self._recent)
        self._open()
        if len(self._recent) >= self.ROLL_ANSWERS:
            self.compact()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> Answer | None:
        """Return the answer stored for a request key, or None."""
        raw = _raw_key(key)
        answer = self._recent.get(raw)
        return dict(answer) if answer is not None else self._segments.get(raw)

    def append(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Store answers; they survive a kill or a power cut once this returns.

        Args:
            items: (request key, answer) pairs, usually those of one batch: each call costs one
                synchronisation with the disk.

        Raises:
            StoreError: the disk is full or gone; none of the items is stored then, and the log is intact.
            ValueError: a key is no such digest, or an answer has a field named "k".
            TypeError: an answer holds something that JSON does not know.
        """
        lines: list[str] = []
        added: dict[bytes, Answer] = {}
        for key, answer in items:
            raw = _raw_key(key)
            if _KEY_FIELD in answer:
                raise ValueError(f"an answer may not have a field named {_KEY_FIELD!r}")
            line = json.dumps({_KEY_FIELD: key, **answer}, separators=(",", ":"))
            # Parsed back, so that a reader in this process sees what a later process will see.
            added[raw] = json.loads(line)
            del added[raw][_KEY_FIELD]
            lines.append(line)
        if not lines:
            return
        self._write(("\n".join(lines) + "\n").encode())
        self._count += sum(key not in self._recent and self._segments.get(key) is None for key in added)
        self._recent.update(added)
        if len(self._recent) >= self.ROLL_ANSWERS:
            self.compact()

    def compact(self) -> None:
        """Move the text log's answers to a Parquet segment; call it when a cell ends.

        Raises:
            StoreError: the disk is full or gone; the answers are still in the text log then.
        """
        if not self._recent:
            return
        known = self._segments
        fresh = {key: answer for key, answer in self._recent.items() if not _same(known.get(key), answer)}
        paths = self._segment_paths()
        merged = Segments(concatenated([known.table, table_of(fresh)])) if fresh else known
        if fresh:
            whole = len(paths) >= self.MAX_SEGMENTS
            self._write_segment(paths, merged if whole else Segments(table_of(fresh)), replaces_all=whole)
        # Only now may the log forget: a kill between the two steps leaves the answers in both places.
        self._close_descriptor()
        try:
            write_bytes(self.path, self._header)
        finally:
            self._open()
        self._segments, self._recent = merged, {}

    def close(self) -> None:
        """Release the file; nothing is lost by not calling it."""
        self._close_descriptor()

    def _write_segment(self, paths: list[Path], content: Segments, *, replaces_all: bool) -> None:
        number = 1 + max((_segment_number(path) for path in paths), default=0)
        write_segment(self._folder / f"{self._stem}.{number:04d}.parquet", content.table, self._owner)
        if replaces_all:
            for path in paths:
                with storing(path):
                    path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            raise StoreError(f"{self.path} is closed", hint="Open the run again.")
        with storing(self.path):
            before = os.fstat(self._descriptor).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except BaseException:
                # Also on Ctrl-C between two partial writes: a later batch must not follow half a line.
                try:
                    os.ftruncate(self._descriptor, before)
                except OSError:
                    self._close_descriptor()
                raise

    def _open(self) -> None:
        with storing(self.path):
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _close_descriptor(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _segment_paths(self) -> list[Path]:
        found = [path for path in self._folder.glob(f"{self._stem}.*.parquet") if _segment_number(path)]
        return sorted(found, key=_segment_number)

    def _read_segments(self) -> Segments:
        paths = self._segment_paths()
        return Segments(concatenated([read_segment(path, self._owner) for path in paths]))

    def _read_log(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}", hint=_REMEDY) from error
        end = data.rfind(b"\n") + 1
        if end < len(data):
            with storing(self.path):
                os.truncate(self.path, end)
        if end == 0:
            write_bytes(self.path, self._header)
            return
        lines = data[:end].split(b"\n")[:-1]
        del data
        self._check_header(lines[0])
        for start in range(1, len(lines), _LINES_PER_PARSE):
            self._parse(lines[start : start + _LINES_PER_PARSE], first_line=start + 1)

    def _check_header(self, line: bytes) -> None:
        if line + b"\n" == self._header:
            return
        try:
            header = json.loads(line)
            version = header["schema_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{self.path} is damaged: line 1 is not its heading", hint=_REMEDY) from error
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}; this mambabench reads up to {SCHEMA_VERSION}",
                hint="Upgrade mambabench, or write to another directory with `--out DIR`.",
            )
        raise StoreError(
            f"{self.path} holds the answers of another checkpoint or other settings", hint=_REMEDY
        )

    def _parse(self, lines: list[bytes], *, first_line: int) -> None:
        try:
            # One call for many lines is a third quicker than one call a line.
            items = json.loads(b"[" + b",".join(lines) + b"]")
            entries = [_entry(item) for item in items]
        except (ValueError, TypeError, KeyError):
            entries = []
        if len(entries) == len(lines):
            self._recent.update(entries)
        else:
            self._parse_each(lines, first_line)

    def _parse_each(self, lines: list[bytes], first_line: int) -> None:
        for number, line in enumerate(lines, first_line):
            try:
                key, answer = _entry(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{self.path} is damaged at line {number}", hint=_REMEDY) from error
            self._recent[key] = answer


def _entry(item: Any) -> tuple[bytes, Answer]:
    if type(item) is not dict:
        raise TypeError("not an object")
    return _raw_key(item.pop(_KEY_FIELD)), item


def _raw_key(key: str) -> bytes:
    raw = bytes.fromhex(key)
    if not MIN_KEY_BYTES <= len(raw) <= KEY_BYTES or len(key) != 2 * len(raw):
        raise ValueError(f"a request key is a digest in hexadecimal, not {key!r}")
    # Filled up to one width; that a shorter digest is the start of another one does not happen.
    return raw.ljust(KEY_BYTES, b"\0")


def _segment_number(path: Path) -> int:
    """Return the number in `<stem>.<number>.parquet`, or 0 if there is none."""
    text = path.name.rsplit(".", 2)[-2]
    return int(text) if text.isascii() and text.isdigit() else 0


def _same(stored: Answer | None, answer: Answer) -> bool:
    # Compared as text: a stored NaN equals itself, and 1, 1.0 and True are not the same answer.
    return stored is not None and json.dumps(stored, sort_keys=True) == json.dumps(answer, sort_keys=True)
