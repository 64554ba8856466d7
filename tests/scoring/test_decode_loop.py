"""The decode loop on states: against transformers' own generation, and rows against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import N_TOKENS, llama_config, mamba2_config, mamba_config, neox_config
from transformers import (
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    LogitsProcessorList,
    Mamba2ForCausalLM,
    MambaForCausalLM,
    SuppressTokensLogitsProcessor,
)

from mambabench.errors import NotANumberError, UsageError
from mambabench.models.base import SamplingOptions
from mambabench.models.stateful import Step
from mambabench.models.step_attention import AttentionSteps
from mambabench.models.step_mamba import MambaSteps
from mambabench.models.step_mamba2 import Mamba2Steps
from mambabench.scoring.decode_loop import DecodeLoop, Room
from mambabench.scoring.requests import GenerationRequest

UNTIED = {"tie_word_embeddings": False}  # Tied weights of a random model repeat the last token for ever.
FAMILIES: dict[str, Any] = {
    "mamba": (lambda: MambaForCausalLM(mamba_config(**UNTIED)), MambaSteps),
    "mamba2": (lambda: Mamba2ForCausalLM(mamba2_config(**UNTIED)), Mamba2Steps),
    "neox": (lambda: GPTNeoXForCausalLM(neox_config()), AttentionSteps),
    "llama": (lambda: LlamaForCausalLM(llama_config()), AttentionSteps),
}
WIDE = Room(64, 1 << 30, 1024)
ROOMS = {"all at once": WIDE, "few rows": Room(3, 1 << 30, 1024), "short forwards": Room(64, 1 << 30, 7)}
Counted = list[tuple[int, ...]]


class Watched:
    """Steps that notes how many tokens of each row go through each forward."""

    def __init__(self, steps: Any) -> None:
        self._steps = steps
        self.calls: Counted = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._steps, name)

    def step(self, ids: torch.Tensor, lengths: Sequence[int], state: Any = None, **how: Any) -> Step:
        self.calls.append(tuple(lengths))
        step: Step = self._steps.step(ids, lengths, state, **how)
        return step


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    build, steps = FAMILIES[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = build().eval()
    return module, steps(module, vocab_size=N_TOKENS)


@pytest.fixture(scope="module")
def mamba() -> Any:
    build, steps = FAMILIES["mamba"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return steps(build().eval(), vocab_size=N_TOKENS)


def prompt(n: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, N_TOKENS, (n,), generator=generator).tolist())


def asked(
    context: tuple[int, ...], n: int = 12, eos: tuple[int, ...] = (), **options: Any
) -> GenerationRequest:
    return GenerationRequest(context, n, (), SamplingOptions(**options), eos_ids=eos)


def never(row: int, new_ids: Sequence[int]) -> bool:
    return False


def texts(
    model: Any, requests: Sequence[GenerationRequest], room: Room = WIDE, stop: Any = never
) -> list[list[int]]:
    """Run the loop; check that every row ends once, and that nothing comes after."""
    new: list[list[int]] = [[] for _ in requests]
    ended: set[int] = set()
    loop = DecodeLoop(model, requests, room=room, stop=stop)
    for tokens in loop.run():
        for row, token, reason in tokens:
            assert row not in ended
            if token is not None:
                new[row].append(token)
            if reason is not None:
                ended.add(row)
    assert ended == set(range(len(requests)))
    return new


def shipped(module: Any, request: GenerationRequest, **options: Any) -> list[int]:
    """What transformers' own generation gives for one prompt alone."""
    ids = torch.tensor([request.context])
    padded = list(range(N_TOKENS, module.config.vocab_size))
    out = module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_new_tokens, do_sample=False,
        eos_token_id=list(request.eos_ids) or None, pad_token_id=0,
        logits_processor=LogitsProcessorList([SuppressTokensLogitsProcessor(padded, device="cpu")]),
        **options,
    )  # fmt: skip
    new: list[int] = out[0, len(request.context) :].tolist()
    return new


LENGTHS = (1, 17, 5, 40, 2, 17, 9)


@pytest.mark.parametrize("room", ROOMS)
def test_greedy_texts_are_those_of_transformers(pair: tuple[Any, Any], room: str) -> None:
    module, steps = pair
    requests = [asked(prompt(n, seed), 8 + seed) for seed, n in enumerate(LENGTHS)]
    found = texts(steps, requests, ROOMS[room])
    assert found == [shipped(module, request) for request in requests]
    assert len({token for row in found for token in row}) > 20


def test_an_end_of_text_id_ends_a_row_as_it_does_there(pair: tuple[Any, Any]) -> None:
    module, steps = pair
    free = texts(steps, [asked(prompt(n, seed)) for seed, n in enumerate(LENGTHS)])
    eos = (free[1][3], free[4][6])
    requests = [asked(prompt(n, seed), eos=eos) for seed, n in enumerate(LENGTHS)]
    found = texts(steps, requests)
    assert found == [shipped(module, request) for request in requests]
    assert len({len(row) for row in found}) > 2


def test_a_penalty_sees_each_rows_own_text_and_nothing_else(pair: tuple[Any, Any]) -> None:
    module, steps = pair
    requests = [asked(prompt(n, seed), repetition_penalty=1.7) for seed, n in enumerate(LENGTHS)]
    found = texts(steps, requests)
    assert found == [shipped(module, request, repetition_penalty=1.7) for request in requests]
    assert found != texts(steps, [replace(r, options=SamplingOptions()) for r in requests])


SAMPLED = SamplingOptions(
    do_sample=True, temperature=1.5, top_k=40, top_p=0.95, min_p=0.01, repetition_penalty=1.2
)


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_row_draws_depends_on_its_seed_alone(pair: tuple[Any, Any], room: str) -> None:
    _, steps = pair
    rows = [
        GenerationRequest(prompt(n, k), 6 + k, (), replace(SAMPLED, seed=k, top_p=0.95 if k % 2 else None))
        for k, n in enumerate(LENGTHS)
    ]
    rows.insert(3, asked(prompt(8, 50)))
    alone = [texts(steps, [row])[0] for row in rows]
    assert texts(steps, rows, ROOMS[room]) == alone
    assert texts(steps, rows[::-1], ROOMS[room]) == alone[::-1]
    again = [replace(row, options=replace(row.options, seed=row.options.seed + 100)) for row in rows]
    others = texts(steps, again, ROOMS[room])
    assert [a == b for a, b in zip(alone, others, strict=True)] == [k == 3 for k in range(len(rows))]


def test_rows_leave_when_they_are_done_and_others_enter(mamba: Any) -> None:
    watched = Watched(mamba)
    bounds = (2, 5, 1, 4, 3)
    requests = [asked(prompt(4 + k, k), n) for k, n in enumerate(bounds)]
    assert [len(row) for row in texts(watched, requests, Room(2, 1 << 30, 1024))] == list(bounds)
    # Two prompts; a step of both, which ends the first; the third prompt, which is done at once; and so on.
    assert watched.calls == [
        (4, 5), (1, 1), (6,), (7,), (1, 1), (1, 1), (1, 1), (8,), (1,), (1,),
    ]  # fmt: skip


def test_rows_enter_together_once_there_is_room_for_several(mamba: Any) -> None:
    watched = Watched(mamba)
    requests = [asked(prompt(3, k), n) for k, n in enumerate((2, 4, *[6] * 6, 3, 3, 3))]
    texts(watched, requests, Room(8, 1 << 30, 1024))
    # Seven rows go on alone; the two free places are taken at once.
    assert [len(call) for call in watched.calls] == [8, 8, 7, 7, 2, 8, 8, 1, 1, 1]
    assert [call[0] for call in watched.calls] == [3, 1, 1, 1, 3, 1, 1, 3, 1, 1]


def test_equal_prompts_are_forwarded_once(mamba: Any) -> None:
    watched = Watched(mamba)
    same, other = prompt(11), prompt(6, 1)
    draws = [replace(asked(same, 4), options=replace(SAMPLED, seed=k)) for k in range(5)]
    requests = [*draws[:3], asked(other, 4), *draws[3:]]
    loop = DecodeLoop(watched, requests, room=WIDE, stop=never)
    found: list[list[int]] = [[] for _ in requests]
    for tokens in loop.run():
        for row, token, _ in tokens:
            found[row].append(token or 0)
    assert watched.calls == [(11, 6), *[(1,) * 6] * 3]
    assert loop.tokens_forwarded == 17 + 18
    assert found == [texts(mamba, [r])[0] for r in requests]
    assert len({tuple(row) for row in found}) == 6


def test_a_common_beginning_is_forwarded_once(pair: tuple[Any, Any]) -> None:
    module, steps = pair
    watched = Watched(steps)
    begin = prompt(30)
    requests = [asked(begin + prompt(n, seed), 5) for seed, n in enumerate((4, 1, 9), start=1)]
    found = texts(watched, requests, Room(2, 1 << 30, 16))
    assert watched.calls[:3] == [(16,), (14,), (4, 1)]
    assert sum(map(sum, watched.calls)) == 30 + 4 + 1 + 9 + 3 * 4
    assert found == [shipped(module, request) for request in requests]
    # One of the prompts is where the others begin.
    nested = [asked(begin, 5), asked((*begin, 7), 5)]
    assert texts(steps, nested) == [shipped(module, request) for request in nested]


def test_a_long_prompt_goes_in_pieces(pair: tuple[Any, Any]) -> None:
    module, steps = pair
    for n in (14, 15, 29):
        watched = Watched(steps)
        request = asked(prompt(n), 3)
        assert texts(watched, [request], Room(4, 1 << 30, 7)) == [shipped(module, request)]
        assert max(map(sum, watched.calls)) == 7
        assert sum(map(sum, watched.calls)) == n + 2


def test_the_first_token_comes_with_the_prompt(mamba: Any) -> None:
    watched = Watched(mamba)
    requests = [asked(prompt(5, k), 3) for k in range(4)]
    run = DecodeLoop(watched, requests, room=Room(4, 1 << 30, 10), stop=never).run()
    assert [token.row for token in next(run)] == [0, 1]
    assert watched.calls == [(5, 5)]
    assert [token.row for token in next(run)] == [2, 3]
    assert [token.row for token in next(run)] == [0, 1, 2, 3]


def test_memory_bounds_the_rows(mamba: Any) -> None:
    requests = [asked(prompt(4, k), 3) for k in range(6)]
    for options, logit_bytes in ((SamplingOptions(), 8), (SAMPLED, 40)):
        rows = [replace(request, options=options) for request in requests]
        each = 2 * mamba.state_size.fixed_bytes + logit_bytes * N_TOKENS
        for n_rows in (1, 2, 5):
            watched = Watched(mamba)
            texts(watched, rows, Room(64, n_rows * each + 1, 1024))
            assert max(len(call) for call in watched.calls) == n_rows
    # What alone is too large is tried: the estimate may be wrong.
    assert len(texts(mamba, requests, Room(64, 0, 1024))) == 6


def test_a_cache_that_grows_counts_up_to_its_end() -> None:
    build, steps_class = FAMILIES["neox"]
    steps = steps_class(build().eval(), vocab_size=N_TOKENS)
    token_bytes = steps.state_size.bytes_per_token
    assert token_bytes > 0
    each = 2 * (4 + 30) * token_bytes + 8 * N_TOKENS
    watched = Watched(steps)
    texts(watched, [asked(prompt(4, k), 30) for k in range(4)], Room(64, 2 * each, 1024))
    assert max(len(call) for call in watched.calls) == 2


def test_a_budget_is_divided_and_halved(mamba: Any) -> None:
    token = mamba.activation_bytes_per_token
    room = Room.within(400 * token, mamba, most_rows=64)
    assert room == Room(64, 300 * token, 100)
    assert Room.within(1 << 40, mamba, most_rows=8).prefill_tokens == 1024
    assert Room.within(40 * token, mamba, most_rows=64).rows == 10
    greedy: Any = Watched(mamba)
    greedy.workspace_bytes = 100 * token
    assert Room.within(400 * token, greedy, most_rows=64) == Room(64, 225 * token, 75)
    assert Room.within(100 * token, greedy, most_rows=64).row_bytes == 38 * token
    assert room.part(8, 32) == Room(8, 75 * token, 25)
    assert Room(1, 10, 1).part(1, 2) == Room(1, 5, 1)


@pytest.mark.parametrize("n", [0, 1])
def test_no_or_one_new_token(pair: tuple[Any, Any], n: int) -> None:
    module, steps = pair
    watched = Watched(steps)
    requests = [asked(prompt(3), n), asked(prompt(9, 1), 2), asked(prompt(4, 2), n)]
    found = texts(watched, requests)
    assert found == [shipped(module, r) if r.max_new_tokens else [] for r in requests]
    assert watched.calls == [((9,) if n == 0 else (3, 9, 4)), (1,)]
    assert texts(watched, []) == []


def test_every_row_says_why_it_ended(mamba: Any) -> None:
    (free,) = texts(mamba, [asked(prompt(5))])
    requests = [asked(prompt(5)), asked(prompt(5), eos=(free[4],)), asked(prompt(5)), asked(prompt(5), 0)]
    loop = DecodeLoop(mamba, requests, room=WIDE, stop=lambda row, new: row == 2 and len(new) == 3)
    reasons = {t.row: t.reason for tokens in loop.run() for t in tokens if t.reason is not None}
    assert reasons == {0: "length", 1: "eos", 2: "stop", 3: "length"}


def test_logits_that_are_no_numbers_end_the_loop(mamba: Any) -> None:
    class Broken(Watched):
        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self._steps.logits(hidden).clone()
            logits[-1, 5] = float("nan")
            return logits

    with pytest.raises(NotANumberError):
        texts(Broken(mamba), [asked(prompt(5)), asked(prompt(3))])


def test_what_cannot_be_run_is_refused(mamba: Any) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        DecodeLoop(mamba, [asked(())], room=WIDE, stop=never)
    with pytest.raises(UsageError, match="not supported here: num_beams"):
        DecodeLoop(mamba, [asked((1,), extra={"num_beams": 2})], room=WIDE, stop=never)
