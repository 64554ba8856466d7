"""Where a generated text ends, and which part of an unfinished one is settled.

watch = StopStrings(tokenizer, [["."], []])
watch(0, new_ids)                     # does the text of row 0 hold a "." now?

text = GrowingText(tokenizer, ["."])
for token in new_ids:
    print(text.add(token), end="")    # never half of a character or of a stop string
print(text.end())
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Reason = Literal["stop", "eos", "length"]
"""Why a text ended: at a stop string, at an end-of-text id, or because it was long enough."""

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""A byte among the tokens of a vocabulary of characters, as Llama's has them."""
_TIDIED_CHARACTERS = 8
"""A tokenizer that tidies spaces changes no more of a text's end than this when more follows."""
_UNKNOWN = "\ufffd"


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return `text` up to the first occurrence of any non-empty stop string.

    >>> cut_at_stop("one two. three", [".", "two"])
    'one '
    """
    for term in stop:
        if term:
            text = text.split(term, 1)[0]
    return text


def final_text(tokenizer: PreTrainedTokenizerBase, new_ids: Sequence[int], stop: Sequence[str]) -> str:
    """Return the text of a row's new ids, without special tokens, cut at its stop string."""
    return cut_at_stop(str(tokenizer.decode(list(new_ids), skip_special_tokens=True)), stop)


class StopStrings:
    """Watches rows of new ids for stop strings by decoding the end of each row.

    Args:
        tokenizer: decodes ids.
        stop: the strings of each row.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[Sequence[str]]) -> None:
        self._tokenizer = tokenizer
        self._stop = [[s for s in row if s] for row in stop]
        # A token decodes to at least one byte, so this many tokens hold the longest stop string
        # whole, with room for a character that a token's edge cuts in two.
        self._window = [max((len(s.encode()) for s in row), default=0) + 8 for row in self._stop]

    def __call__(self, row: int, new_ids: Sequence[int]) -> bool:
        """Return whether the text of `new_ids` now holds one of the row's stop strings."""
        if not self._stop[row]:
            return False
        # Stop strings of chat models are special tokens, which decoding could leave out.
        tail = self._tokenizer.decode(list(new_ids[-self._window[row] :]), skip_special_tokens=False)
        return any(s in tail for s in self._stop[row])


class GrowingText:
    """The text of a row whose ids come in one by one.

    The pieces that `add` and `end` return are, one after another, `final_text` of all ids. What may still
    change is held back: the beginning of a stop string, or of a character that takes several tokens.

    Args:
        tokenizer: decodes ids.
        stop: the row's stop strings.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = [s for s in stop if s]
        self._ids: list[int] = []
        self._n_sent = 0
        self._in_bytes = False
        self._unsettled = _TIDIED_CHARACTERS if tokenizer.clean_up_tokenization_spaces else 0

    def add(self, token: int) -> str:
        """Add an id, and return the text that is settled by it."""
        self._ids.append(token)
        if _BYTE_TOKEN.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token))):
            self._in_bytes = True
        elif self._in_bytes:
            # A special token is left out, so that bytes on both sides of it are one run.
            self._in_bytes = not self._tokenizer.decode([token], skip_special_tokens=True)
        return self._sent_up_to(self._settled())

    def end(self) -> str:
        """Return the rest of the text: no more ids follow."""
        return self._sent_up_to(final_text(self._tokenizer, self._ids, self._stop))

    def _sent_up_to(self, text: str) -> str:
        piece = text[self._n_sent :]
        self._n_sent += len(piece)
        return piece

    def _settled(self) -> str:
        """Return the text so far without what more ids may change.

        All is decoded again for each id: what an id decodes to depends on those before it in ways that
        differ by tokenizer. It takes a millisecond at some thousand ids.
        """
        if self._in_bytes:
            # A run of them is decoded as one, and wholly to replacement characters while it is no UTF-8.
            return ""
        text = str(self._tokenizer.decode(self._ids, skip_special_tokens=True)).rstrip(_UNKNOWN)
        if self._unsettled:
            text = text[: -self._unsettled]
        begun = max((_begun(text, s) for s in self._stop), default=0)
        # The string may also be there whole, behind a special token that the watch for it saw between.
        return cut_at_stop(text, self._stop)[: len(text) - begun]


def _begun(text: str, term: str) -> int:
    """Return how many characters at the end of `text` are a beginning of `term`, but not all of it."""
    longest = min(len(text), len(term) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(term[:n])), 0)
