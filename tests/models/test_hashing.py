from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mambabench.models import hashing


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashing, "_REMEMBER_FROM_BYTES", 10)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_records_carry_relative_names_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"11")
    records = hashing.file_records([tmp_path / "b", tmp_path / "a"], root=tmp_path)
    assert [(r.name, r.size_bytes, r.sha256) for r in records] == [
        ("a", 2, _sha256(b"11")),
        ("b", 1, _sha256(b"2")),
    ]


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 20)
    assert hashing.cached_sha256(path) == _sha256(b"x" * 20)
    monkeypatch.setattr(hashing, "file_sha256", lambda p: pytest.fail("read again"))
    assert hashing.cached_sha256(path) == _sha256(b"x" * 20)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 20)
    hashing.cached_sha256(path)
    path.write_bytes(b"y" * 20)
    os.utime(path, ns=(1, 1))
    assert hashing.cached_sha256(path) == _sha256(b"y" * 20)


def test_a_link_shares_its_targets_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blob").write_bytes(b"x" * 20)
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    hashing.cached_sha256(tmp_path / "blob")
    monkeypatch.setattr(hashing, "file_sha256", lambda p: pytest.fail("read again"))
    assert hashing.cached_sha256(tmp_path / "link") == _sha256(b"x" * 20)


@pytest.mark.parametrize("content", ["", "[]", '{"x": 3}'])
def test_a_damaged_memory_costs_time_only(tmp_path: Path, content: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file-sha256.json").write_text(content)
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 20)
    assert hashing.cached_sha256(path) == _sha256(b"x" * 20)
    assert hashing.cached_sha256(path) == _sha256(b"x" * 20)


def test_an_unwritable_cache_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MAMBABENCH_CACHE", str(tmp_path / "file" / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 20)
    assert hashing.cached_sha256(path) == _sha256(b"x" * 20)


def test_the_memory_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_MAX_ENTRIES", 3)
    for i in range(6):
        path = tmp_path / f"w{i}"
        path.write_bytes(bytes([i]) * 20)
        hashing.cached_sha256(path)
    assert len(hashing._read_memory()) == 3
