"""Stop strings, grouping and seeds, with a model whose next token is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from builders import tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.models.base import SamplingOptions
from mambabench.scoring.generate import Generator, StopStrings, cut_at_stop
from mambabench.scoring.requests import GenerationRequest

TOKENIZER = tokenizer()


class Script:
    """Continues every prompt with the ids of a text, whatever the prompt."""

    def __init__(self, text: str) -> None:
        self.ids = TOKENIZER.encode(text)
        self.tokenizer = TOKENIZER
        self.device = torch.device("cpu")
        self.calls: list[tuple[int, int, int]] = []
        self.seeds: list[int] = []

    def generate(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        stop: Callable[[int, Sequence[int]], bool],
        eos_ids: Sequence[int],
    ) -> list[list[int]]:
        self.calls.append((*input_ids.shape, max_new_tokens))
        self.seeds.append(options.seed)
        rows = []
        for row in range(len(input_ids)):
            new: list[int] = []
            for token in self.ids[:max_new_tokens]:
                new.append(token)
                if token in eos_ids or stop(row, new):
                    break
            rows.append(new)
        return rows


def run(model: Any, requests: list[GenerationRequest], **how: Any) -> list[str]:
    found = {i: text for batch in Generator(model, **how).generate(requests) for i, text in batch}
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def greedy(context: tuple[int, ...], *stop: str, n: int = 200) -> GenerationRequest:
    return GenerationRequest(context, n, stop, SamplingOptions(), eos_ids=(TOKENIZER.eos_token_id,))


def test_text_ends_before_its_stop_string_and_generation_with_it() -> None:
    model = Script("the river and the boat. Then they sailed")
    assert run(model, [greedy((1, 2), ".")]) == ["the river and the boat"]
    new = model.generate(
        torch.tensor([[1]]), max_new_tokens=99, options=SamplingOptions(),
        stop=StopStrings(TOKENIZER, [["."]]), eos_ids=[],
    )  # fmt: skip
    assert TOKENIZER.decode(new[0]).endswith(".")


def test_each_row_has_its_own_stop_strings() -> None:
    model = Script("one, two. three")
    assert run(model, [greedy((1, 2), "."), greedy((3, 4), ","), greedy((5, 6))]) == [
        "one, two",
        "one",
        "one, two. three",
    ]
    assert len(model.calls) == 1


def test_end_of_text_ends_a_row_and_is_not_in_the_text() -> None:
    assert run(Script("one<|endoftext|>two"), [greedy((1,))]) == ["one"]


def test_a_special_token_stops_a_row_that_asks_for_it() -> None:
    """Chat models end a turn with a special token, which decoded text may leave out."""
    model = Script("one<|endoftext|>two")
    without_eos = GenerationRequest((1,), 99, (), SamplingOptions())
    asked = GenerationRequest((2,), 99, ("<|endoftext|>",), SamplingOptions())
    assert run(model, [without_eos, asked]) == ["onetwo", "one"]


def test_only_prompts_of_equal_length_share_a_batch() -> None:
    model = Script("x")
    requests = [greedy((1,) * n) for n in (3, 5, 3, 3, 5)]
    run(model, requests, batch_size=2)
    assert model.calls == [(2, 5, 200), (2, 3, 200), (1, 3, 200)]


def test_sampled_requests_run_alone_with_seeds_that_only_the_request_decides() -> None:
    model = Script("x")
    options = SamplingOptions(do_sample=True, temperature=0.7)
    draws = [GenerationRequest((1, 2), 5, (), options, repeat=repeat) for repeat in range(3)]
    run(model, draws)
    first = list(model.seeds)
    assert len(set(first)) == 3
    assert [rows for rows, _, _ in model.calls] == [1, 1, 1]
    model.seeds.clear()
    run(model, list(reversed(draws)))
    assert sorted(model.seeds) == sorted(first)


@settings(deadline=None)
@given(
    text=st.text(alphabet="ab. \né中", max_size=40),
    stop=st.lists(st.text(alphabet="ab. \né中", min_size=1, max_size=6), max_size=3),
)
def test_watching_the_tail_finds_what_the_whole_text_shows(text: str, stop: list[str]) -> None:
    """Detection at every step must agree with looking at the whole text so far."""
    watch = StopStrings(TOKENIZER, [stop])
    ids = TOKENIZER.encode(text)
    for n in range(1, len(ids) + 1):
        so_far = TOKENIZER.decode(ids[:n])
        held_before = any(s in TOKENIZER.decode(ids[: n - 1]) for s in stop)
        if held_before:
            break
        assert watch(0, ids[:n]) == any(s in so_far for s in stop)


@given(
    text=st.text(alphabet="abc", max_size=30), stop=st.lists(st.text(alphabet="abc", max_size=3), max_size=4)
)
def test_cut_text_holds_no_stop_string_and_is_a_beginning(text: str, stop: list[str]) -> None:
    cut = cut_at_stop(text, stop)
    assert text.startswith(cut)
    assert not any(s in cut for s in stop if s)
    if not any(s in text for s in stop if s):
        assert cut == text


def test_out_of_memory_halves_the_batch_and_says_so() -> None:
    class Small(Script):
        def generate(self, input_ids: torch.Tensor, **how: Any) -> list[list[int]]:
            if len(input_ids) > 1:
                raise torch.OutOfMemoryError
            return super().generate(input_ids, **how)

    notes: list[str] = []
    assert run(Small("x"), [greedy((i,)) for i in range(3)], note=notes.append) == ["x"] * 3
    assert notes[0] == "out of memory with 3 sequences; going on with 2"
