"""Stop strings, grouping, seeds and streams, with a model whose next token is known and one on states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import N_TOKENS, mamba_config, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MambaForCausalLM

from mambabench.errors import NotANumberError
from mambabench.models.base import SamplingOptions
from mambabench.models.stateful import Step
from mambabench.models.step_mamba import MambaSteps
from mambabench.scoring.generate import Generator
from mambabench.scoring.requests import GenerationRequest
from mambabench.scoring.stopping import StopStrings, cut_at_stop

TOKENIZER = tokenizer()


class Script:
    """Continues every prompt with the ids of a text, whatever the prompt."""

    stateful = None

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


class OnStates:
    """A model that goes on from states; it notes the rows of each forward."""

    def __init__(self, most_rows: int = 1000) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            module: Any = MambaForCausalLM(mamba_config(tie_word_embeddings=False)).eval()
        self.steps = MambaSteps(module, vocab_size=N_TOKENS)
        self.tokenizer = TOKENIZER
        self.device = torch.device("cpu")
        self.stateful = self
        self.calls: list[tuple[int, ...]] = []
        self.most_rows = most_rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.steps, name)

    def step(self, ids: torch.Tensor, lengths: Sequence[int], state: Any = None, **how: Any) -> Step:
        if len(lengths) > self.most_rows:
            raise torch.OutOfMemoryError
        self.calls.append(tuple(lengths))
        return self.steps.step(ids, lengths, state, **how)


HOT = SamplingOptions(do_sample=True, temperature=1.5, top_p=0.95)
PROMPTS = ["the river", "a", "the old man and the boat", "of the dog", "b", "Then they", "é"]


def on_prompts(*stop: str, n: int = 25, **options: Any) -> list[GenerationRequest]:
    how = SamplingOptions(**options)
    return [GenerationRequest(tuple(TOKENIZER.encode(p)), n + i, stop, how) for i, p in enumerate(PROMPTS)]


def streamed(model: Any, requests: list[GenerationRequest], **how: Any) -> tuple[list[str], list[str | None]]:
    texts = [""] * len(requests)
    reasons: list[str | None] = [None] * len(requests)
    for event in Generator(model, **how).stream(requests):
        assert reasons[event.row] is None, "an event after the end"
        assert (event.reason is not None) == event.finished
        assert event.text or event.finished
        texts[event.row] += event.text
        reasons[event.row] = event.reason
    assert all(reasons)
    return texts, reasons


@pytest.mark.parametrize("options", [{}, vars(HOT)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("stop", [(), ("e",), ("he ", "\n", "ou", "t")])
def test_on_states_a_batch_gives_what_each_prompt_alone_gives(
    options: dict[str, Any], stop: tuple[str, ...]
) -> None:
    model = OnStates()
    requests = on_prompts(*stop, **options)
    alone = [run(model, [request])[0] for request in requests]
    assert run(model, requests) == alone
    assert run(model, requests[::-1], batch_size=3) == alone[::-1]
    assert streamed(model, requests)[0] == alone
    assert len(set(alone)) > 4
    assert not any(s in text for s in stop for text in alone)


def test_on_states_any_requests_share_a_batch_which_they_alone_decide() -> None:
    generator = Generator(OnStates())  # type: ignore[arg-type]
    requests = [*on_prompts("x"), *on_prompts(**vars(HOT))]
    (batch,) = generator.batches(requests)
    assert sorted(batch) == list(range(14))
    # Equal prompts stand beside each other.
    assert {frozenset(batch[k : k + 2]) for k in range(0, 14, 2)} == {frozenset({k, k + 7}) for k in range(7)}
    many = [greedy((k % 7 + 1, k)) for k in range(150)]
    assert [len(b) for b in generator.batches(many)] == [64, 64, 22]
    for how in ({"batch_size": 3}, {"memory_bytes": 1 << 20}):
        assert Generator(OnStates(), **how).batches(many) == generator.batches(many)  # type: ignore[arg-type]


def test_on_states_repeats_of_a_sampled_prompt_differ_and_forward_it_once() -> None:
    model = OnStates()
    context = tuple(TOKENIZER.encode("the old man"))
    draws = [GenerationRequest(context, 8, (), HOT, repeat=k) for k in range(5)]
    found = run(model, draws)
    assert len(set(found)) == 5
    assert model.calls[0] == (len(context),)
    assert model.calls[1:] == [(1,) * 5] * 7
    other_seed = [replace(d, options=replace(HOT, seed=1)) for d in draws]
    assert not set(run(model, other_seed)) & set(found)


def test_tokens_are_counted_that_went_through_the_model() -> None:
    model = OnStates()
    generator = Generator(model)  # type: ignore[arg-type]
    requests = [greedy((1, 2, 3), n=4), greedy((1, 2, 3), n=2), greedy((4,), n=1)]
    list(generator.generate(requests))
    assert generator.tokens_forwarded == sum(map(sum, model.calls)) == 3 + 1 + 3 + 1
    list(generator.stream(requests[:1]))
    assert generator.tokens_forwarded == 8 + 6


def test_on_states_out_of_memory_halves_what_runs_at_once_and_says_so() -> None:
    requests = on_prompts(n=6)
    expected = run(OnStates(), requests)
    notes: list[str] = []
    model = OnStates(most_rows=3)
    assert run(model, requests, note=notes.append) == expected
    assert notes == [
        "out of memory with 7 sequences; going on with 4", "out of memory with 4 sequences; going on with 2",
    ]  # fmt: skip
    assert max(map(len, model.calls)) == 3
    # What runs at once is halved with the batch, also where it was only a part of it.
    notes.clear()
    assert run(OnStates(most_rows=1), requests, batch_size=2, note=notes.append) == expected
    assert notes == ["out of memory with 7 sequences; going on with 4"]


def test_memory_and_batch_size_bound_the_rows_at_once() -> None:
    requests = on_prompts(n=3)
    expected = run(OnStates(), requests)
    model = OnStates()
    assert run(model, requests, batch_size=2) == expected
    assert max(map(len, model.calls)) == 2
    model = OnStates()
    assert run(model, requests, memory_bytes=80_000) == expected
    assert 1 < max(map(len, model.calls)) < 7
    model = OnStates()
    assert run(model, requests, memory_bytes=1) == expected
    assert max(map(sum, model.calls)) == 1


def test_options_that_only_transformers_knows_go_to_the_model_as_it_is_shipped() -> None:
    class Both(Script):
        stateful = OnStates()  # type: ignore[assignment]

    model = Both("a boat")
    extra = GenerationRequest((1, 2), 9, (), SamplingOptions(extra={"suppress_tokens": [3]}))
    plain = GenerationRequest((1, 2), 9, (), SamplingOptions())
    generator = Generator(model)  # type: ignore[arg-type]
    assert generator.batches([extra, plain, extra, plain]) == [(1, 3), (0, 2)]
    found = run(model, [extra, plain])
    assert found[0] == "a boat" != found[1]
    assert len(model.calls) == 1
    assert streamed(model, [extra, plain])[0] == found


def test_a_stream_says_why_each_text_ended() -> None:
    (free,) = run(OnStates(), [greedy((5, 6), n=20)])
    ids = TOKENIZER.encode(free)
    plain = GenerationRequest((5, 6), 20, (), SamplingOptions())
    stopped, ended = replace(plain, stop=(free[5:8],)), replace(plain, eos_ids=(ids[3],))
    asked = [plain, stopped, ended, replace(plain, max_new_tokens=0)]
    texts, reasons = streamed(OnStates(), asked)
    assert reasons == ["length", "stop", "eos", "length"]
    assert texts == run(OnStates(), asked)
    assert texts[3] == ""
    assert streamed(Script("one. two"), [greedy((1,), "."), greedy((1,), n=1), greedy((2,))])[1] == [
        "stop", "length", "length",
    ]  # fmt: skip
    assert streamed(Script("one<|endoftext|>"), [greedy((1,))]) == (["one"], ["eos"])


def test_a_stream_brings_text_token_by_token_from_all_rows_and_short_prompts_first() -> None:
    model = OnStates()
    requests = [GenerationRequest(context, 20, (), HOT) for context in ((7,) * 300, (9,))]
    # A fourth of the room is for prompts: 200 tokens at once.
    room_bytes = 800 * model.activation_bytes_per_token
    rows = []
    calls_at_first = {}
    for event in Generator(model, memory_bytes=room_bytes).stream(requests):  # type: ignore[arg-type]
        rows.append(event.row)
        calls_at_first.setdefault(event.row, list(model.calls))
    assert calls_at_first[1] == [(1,)]
    assert calls_at_first[0][:3] == [(1,), (200,), (100,)]
    assert rows.count(0) > 5 < rows.count(1)
    assert len(set(rows[-8:])) == 2


def test_a_stream_may_be_left_early() -> None:
    generator = Generator(OnStates())  # type: ignore[arg-type]
    stream = generator.stream([greedy((5, 6), n=50)])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert 2 <= generator.tokens_forwarded < 10


def test_logits_that_are_no_numbers_end_generation() -> None:
    model = OnStates()
    model.steps._head = model.steps._head * float("nan")
    with pytest.raises(NotANumberError):
        run(model, [greedy((1, 2))])
