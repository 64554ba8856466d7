"""Which part of an unfinished text is settled: pieces add up to the final text, none is taken back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders import EOS, tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mambabench.scoring.stopping import GrowingText, StopStrings, cut_at_stop, final_text

BYTE_LEVEL = tokenizer()


def falling_back_to_bytes() -> Any:
    """A tokenizer in the manner of Llama's: pieces with a mark for a space, and a token for each byte."""
    pieces = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "中", "."]
    backend = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def tidying_spaces() -> Any:
    """A tokenizer of words that takes the space before a full stop away again."""
    words = ["[UNK]", "we", "do", "n't", ".", ",", "'", "'s", "'ve", "?", "!", "it"]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", clean_up_tokenization_spaces=True
    )


TOKENIZERS = {"byte-level": BYTE_LEVEL, "bytes": falling_back_to_bytes(), "words": tidying_spaces()}


def pieces(tok: Any, ids: list[int], stop: list[str]) -> list[str]:
    growing = GrowingText(tok, stop)
    return [*(growing.add(token) for token in ids), growing.end()]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_pieces_add_up_to_the_final_text(kind: str, data: Any) -> None:
    """Any ids in any order: also bytes that are no text, and special tokens in between."""
    tok = TOKENIZERS[kind]
    ids = data.draw(st.lists(st.integers(0, len(tok) - 1), max_size=25))
    whole = tok.decode(ids, skip_special_tokens=True)
    stop = data.draw(
        st.lists(
            st.one_of(
                st.text(alphabet=sorted(set(whole) | {"a"}), max_size=4),
                st.builds(lambda i, n: whole[i : i + n], st.integers(0, 30), st.integers(0, 5)),
            ),
            max_size=3,
        )
    )
    found = pieces(tok, ids, stop)
    assert "".join(found) == final_text(tok, ids, stop) == cut_at_stop(whole, stop)


@settings(deadline=None, max_examples=100)
@given(
    text=st.text(alphabet="ab. \né中🦙", max_size=30),
    stop=st.lists(st.text(alphabet="ab. \né中🦙", min_size=1, max_size=6), max_size=3),
)
@example("aab", ["ab"])
@example(".aa", [".aa", "a"])
@example("aé中", ["中"])
def test_a_generated_text_is_streamed_without_its_stop_string(text: str, stop: list[str]) -> None:
    """As the loop does it: an id at a time, until the watch says that the row has ended."""
    watch = StopStrings(BYTE_LEVEL, [stop])
    ids: list[int] = []
    growing = GrowingText(BYTE_LEVEL, stop)
    sent = ""
    for token in BYTE_LEVEL.encode(text):
        ids.append(token)
        piece = growing.add(token)
        assert "\ufffd" not in piece
        sent += piece
        # What is sent can never turn out to be in the stop string: the final text holds it, whatever follows.
        assert not any(s in sent for s in stop)
        if watch(0, ids):
            break
    sent += growing.end()
    assert sent == final_text(BYTE_LEVEL, ids, stop)
    assert text.startswith(sent)
    assert not any(s in sent for s in stop)
    assert sent == text or any(s in text for s in stop)


def test_text_is_let_go_as_soon_as_it_can_be() -> None:
    ids = BYTE_LEVEL.encode("the river. And")
    found = pieces(BYTE_LEVEL, ids, [".\n", "xyz"])
    assert found[:-1] == [
        ""
        if BYTE_LEVEL.decode([t]) == "."
        else ("." if k and BYTE_LEVEL.decode([ids[k - 1]]) == "." else "") + BYTE_LEVEL.decode([t])
        for k, t in enumerate(ids)
    ]
    assert found[-1] == ""


def test_half_of_a_character_waits_for_the_other() -> None:
    ids = BYTE_LEVEL.encode("é")
    assert len(ids) == 2
    assert pieces(BYTE_LEVEL, ids, []) == ["", "é", ""]
    # At the end there is no other half to wait for.
    assert pieces(BYTE_LEVEL, ids[:1], []) == ["", "\ufffd"]
    assert pieces(BYTE_LEVEL, [*ids[:1], *BYTE_LEVEL.encode("a")], []) == ["", "\ufffda", ""]


def test_a_run_of_bytes_waits_for_its_end() -> None:
    """Such a tokenizer takes back a character when the byte behind it is no text."""
    tok = TOKENIZERS["bytes"]
    e_acute = [tok.convert_tokens_to_ids(t) for t in ("<0xC3>", "<0xA9>")]
    (a,) = tok.convert_tokens_to_ids(["a"])
    assert pieces(tok, [a, *e_acute, a], []) == ["a", "", "", "éa", ""]
    assert pieces(tok, [*e_acute, e_acute[0], a], []) == ["", "", "", "\ufffd\ufffd\ufffda", ""]


def test_a_stop_string_across_tokens_and_within_one() -> None:
    ids = BYTE_LEVEL.encode("one boat there")
    tokens = [BYTE_LEVEL.decode([t]) for t in ids]
    within = next(t for t in tokens if len(t.strip()) > 2)[1:3]
    across = tokens[0][-1:] + tokens[1][:1]
    for stop in (within, across):
        watch = StopStrings(BYTE_LEVEL, [[stop]])
        n = next(k for k in range(1, len(ids) + 1) if watch(0, ids[:k]))
        expected = "one boat there".split(stop)[0]
        assert stop not in BYTE_LEVEL.decode(ids[: n - 1])
        assert final_text(BYTE_LEVEL, ids[:n], [stop]) == expected
        assert "".join(pieces(BYTE_LEVEL, ids[:n], [stop])) == expected


def test_a_special_token_is_no_text() -> None:
    ids = BYTE_LEVEL.encode(f"one{EOS}two")
    assert "".join(pieces(BYTE_LEVEL, ids, [])) == "onetwo"
    # "et" is there only without the special token: the watch cannot see it, the text ends before it.
    assert not StopStrings(BYTE_LEVEL, [["et"]])(0, ids)
    assert "".join(pieces(BYTE_LEVEL, ids, ["et"])) == "on"
    assert re.fullmatch("one?", "".join(pieces(BYTE_LEVEL, ids, [EOS])[:2]))
