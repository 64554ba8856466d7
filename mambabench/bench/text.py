"""Prompts of a text, and how many bytes of it a token stands for.

Models with different tokenizers can be compared by the bytes that they read and write in a second, and not by
their tokens.

    text = read_text("book.txt", tokenizer)
    text.bytes_per_token          # 4.4
    text.prompts(2, 128)          # two lists of 128 ids
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_BYTES = 1_000_000
"""More of a text changes its bytes a token by little."""


@dataclass(frozen=True)
class Text:
    """A text in one model's tokens."""

    ids: tuple[int, ...]
    bytes_per_token: float
    """Of UTF-8."""

    def prompts(self, rows: int, length: int) -> list[list[int]]:
        """Return consecutive pieces; the text begins again where it is too short."""
        n = len(self.ids)
        return [[self.ids[(row * length + i) % n] for i in range(length)] for row in range(rows)]


def read_text(path: str | Path, tokenizer: PreTrainedTokenizerBase) -> Text:
    """Read the beginning of a file.

    Raises:
        UsageError: it cannot be read, is no text, or holds next to nothing.
    """
    content = plain_text(path)
    ids = tokenizer(content, add_special_tokens=False)["input_ids"]
    return Text(tuple(ids), len(content.encode()) / len(ids))


def plain_text(path: str | Path) -> str:
    """Return the beginning of a file, whole characters only.

    Raises:
        UsageError: it cannot be read, is no text, or holds next to nothing.
    """
    hint = "--text takes a plain text file in UTF-8."
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(_MOST_BYTES)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}", hint=hint) from error
    try:
        # A character may be cut in two at the end.
        content = head.decode("utf-8", errors="strict" if len(head) < _MOST_BYTES else "ignore")
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not UTF-8 text", hint=hint) from error
    if "\0" in content:
        raise UsageError(f"'{path}' is a binary file", hint=hint)
    if len(content.split()) < 2:
        raise UsageError(f"'{path}' holds next to no text", hint=hint)
    return content
