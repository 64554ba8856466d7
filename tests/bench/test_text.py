"""Prompts of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from mambabench.bench.text import Text, plain_text, read_text
from mambabench.errors import UsageError
from mambabench.models.fake import byte_tokenizer


def test_bytes_of_a_token(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("naïve words", encoding="utf-8")
    text = read_text(path, byte_tokenizer())
    # One token a byte, and the ï is two.
    assert len(text.ids) == 12
    assert text.bytes_per_token == 1.0


def test_prompts_are_consecutive_and_begin_again() -> None:
    text = Text(tuple(range(10)), 4.0)
    assert text.prompts(2, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert text.prompts(1, 12)[0][-2:] == [0, 1]


def test_a_long_text_is_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    # A character of three bytes lies across the end of what is read.
    path.write_text("a " + "€" * 500_000, encoding="utf-8")
    content = plain_text(path)
    assert 999_990 < len(content.encode()) <= 1_000_000
    assert set(content) == {"a", " ", "€"}


@pytest.mark.parametrize("content", [b"", b"word", b"\xff\xfe a b", b"a\0b c d"])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="--text"):
        plain_text(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        plain_text(tmp_path / "nowhere")
