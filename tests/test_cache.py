"""Where computed files are kept."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from mambabench.cache import cache_dir


def test_the_variable_chooses_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAMBABENCH_CACHE", str(tmp_path / "c"))
    assert cache_dir() == tmp_path / "c"
    assert not cache_dir().exists()


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MAMBABENCH_CACHE", "~/c")
    assert cache_dir() == tmp_path / "c"


@pytest.mark.parametrize("value", [None, ""])
def test_without_it_the_user_s_cache_is_used(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MAMBABENCH_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("MAMBABENCH_CACHE", value)
    assert cache_dir() == Path(platformdirs.user_cache_dir("mambabench"))
