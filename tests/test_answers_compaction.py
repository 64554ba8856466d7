"""Compaction of a log of answers keeps every answer, wherever it stops."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answered import answer, contents, pairs, reopened

from mambabench.fingerprint import digest
from mambabench.store.answers import AnswerLog


def test_compaction_keeps_everything_and_is_idempotent(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.compact()
    assert not list(tmp_path.glob("*.parquet"))
    log.append(pairs(*range(20)))
    log.compact()
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    log.compact()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == after
    assert log.path.read_bytes().count(b"\n") == 1
    log.append(pairs(20))
    for reader in (log, reopened(tmp_path)):
        assert contents(reader) == {n: answer(n) for n in range(21)}
        assert len(reader) == 21


def test_answers_compacted_before_are_not_compacted_again(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.append(pairs(1, 2))
    text = log.path.read_bytes()
    log.compact()
    # As a kill between the segment and the new log leaves it.
    log.path.write_bytes(text)
    again = reopened(tmp_path)
    assert len(again) == 2
    again.compact()
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert contents(reopened(tmp_path)) == {1: answer(1), 2: answer(2)}


def test_many_segments_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerLog, "MAX_SEGMENTS", 3)
    log = reopened(tmp_path)
    seen = []
    for number in range(10):
        log.append(pairs(number))
        log.compact()
        seen.append(len(list(tmp_path.glob("*.parquet"))))
        assert contents(reopened(tmp_path)) == {n: answer(n) for n in range(number + 1)}
    assert seen == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]


def test_a_long_log_compacts_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerLog, "ROLL_ANSWERS", 5)
    log = reopened(tmp_path)
    for number in range(12):
        log.append(pairs(number))
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    assert contents(reopened(tmp_path)) == {n: answer(n) for n in range(12)}


def test_keys_that_share_their_first_bytes_are_told_apart(tmp_path: Path) -> None:
    start = "ab" * 8
    keys = [start + digest(n)[16:] for n in range(6)]
    log = reopened(tmp_path)
    log.append([(k, {"logprob": float(n)}) for n, k in enumerate(keys[:3])])
    log.compact()
    log.append([(k, {"logprob": float(n)}) for n, k in enumerate(keys[3:5], 3)])
    log.append([(keys[0], {"logprob": 10.0})])
    log.compact()
    for reader in (log, reopened(tmp_path)):
        assert [reader.get(k) for k in keys] == [{"logprob": v} for v in (10.0, 1.0, 2.0, 3.0, 4.0)] + [None]
        assert len(reader) == 5


class Died(BaseException):
    pass


def dying(count: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Make the `count`-th system call that changes a directory or a file raise; return whether it did."""
    left = [count]

    def wrapped(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Died
            return real(*args, **kwargs)

        return call

    for name in ("write", "fsync", "open", "replace", "rename", "unlink", "ftruncate"):
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    return lambda: left[0] <= 0


def test_compaction_loses_nothing_wherever_it_stops(tmp_path: Path) -> None:
    stops = 0
    for count in range(1, 60):
        folder = tmp_path / str(count)
        folder.mkdir()
        log = reopened(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AnswerLog, "MAX_SEGMENTS", 2)
            for number in range(2):
                log.append(pairs(number))
                log.compact()
            log.append(pairs(2, 3))
            died = dying(count, patch)
            try:
                log.compact()
            except Died:
                stops += 1
            finished = not died()
        # A new process finds everything, and so does this one if it goes on.
        assert contents(reopened(folder)) == {n: answer(n) for n in range(4)}
        assert contents(log) == {n: answer(n) for n in range(4)}
        if finished:
            break
    assert finished
    assert stops >= 6
