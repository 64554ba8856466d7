"""Choosing tokens row by row: against transformers' processors, and against the distribution they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM

from mambabench.errors import NotANumberError, UsageError
from mambabench.models import sampling
from mambabench.models.base import SamplingOptions
from mambabench.models.sampling import RowSamplers, draw

V = 50
OPTIONS = st.builds(
    SamplingOptions,
    do_sample=st.booleans(),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([None, 0, 1, 5, 1000]),
    top_p=st.sampled_from([None, 0.1, 0.7, 1.0]),
    min_p=st.sampled_from([None, 0.0, 0.05, 0.5]),
    repetition_penalty=st.sampled_from([None, 1.0, 1.3, 0.8, 2]),
)
ONE_BY_ONE: list[dict[str, Any]] = [
    {"temperature": 0.3}, {"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.05}, {"repetition_penalty": 1.3},
]  # fmt: skip


def logits(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, V, generator=torch.Generator().manual_seed(seed)) * 3


def texts(n: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (n,), generator=generator).tolist()
    return [torch.randint(0, V, (length,), generator=generator).tolist() for length in lengths]


@cache
def small_model() -> Any:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    )


def transformers_scores(row: torch.Tensor, ids: list[int], options: SamplingOptions) -> torch.Tensor:
    """One row's scores as transformers' own `generate` processes them, given these options."""
    how: dict[str, Any] = {"do_sample": options.do_sample}
    if options.repetition_penalty is not None:
        how["repetition_penalty"] = float(options.repetition_penalty)
    if options.do_sample:
        how |= {"temperature": options.temperature, "top_k": options.top_k or 0}
        how |= {"top_p": options.top_p, "min_p": options.min_p}
    processors = small_model()._get_logits_processor(GenerationConfig(**how), input_ids_seq_length=len(ids))
    scores: torch.Tensor = processors(torch.tensor([ids]), row[None])[0]
    return scores


def our_scores(scores: torch.Tensor, ids: Sequence[list[int]], options: SamplingOptions) -> torch.Tensor:
    """The scores that `RowSamplers` draws from."""
    found: list[torch.Tensor] = []

    def draw_nothing(processed: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        found.append(processed)
        return torch.zeros(len(processed), dtype=torch.int64)

    with patch.object(sampling, "draw", draw_nothing):
        RowSamplers([options] * len(ids)).choose(scores, range(len(ids)), lambda row: ids[row])
    return found[0]


def check_against_transformers(options: SamplingOptions, n: int, seed: int) -> None:
    scores, ids = logits(n, seed), texts(n, seed)
    expected = torch.stack([transformers_scores(scores[k], ids[k], options) for k in range(n)])
    if options.do_sample:
        assert torch.equal(our_scores(scores, ids, options), expected)
    else:
        chosen = RowSamplers([options] * n).choose(scores, range(n), lambda row: ids[row])
        assert chosen == expected.argmax(-1).tolist()


@settings(deadline=None, max_examples=150)
@given(options=OPTIONS, n=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_scores_are_those_of_transformers(options: SamplingOptions, n: int, seed: int) -> None:
    check_against_transformers(options, n, seed)


@pytest.mark.parametrize("one", ONE_BY_ONE, ids=lambda one: next(iter(one)))
def test_each_option_alone_is_that_of_transformers_and_has_an_effect(one: dict[str, Any]) -> None:
    options = SamplingOptions(do_sample=True, **one)
    check_against_transformers(options, 5, 0)
    assert not torch.equal(our_scores(logits(5), texts(5), options), logits(5))
    assert torch.equal(our_scores(logits(5), texts(5), SamplingOptions(do_sample=True)), logits(5))


@settings(deadline=None, max_examples=60)
@given(
    options=st.lists(OPTIONS, min_size=1, max_size=6),
    seed=st.integers(0, 10_000),
    order=st.randoms(use_true_random=False),
)
def test_rows_of_any_options_choose_together_as_alone(
    options: list[SamplingOptions], seed: int, order: Any
) -> None:
    n = len(options)
    rows = [replace(o, seed=seed + k) for k, o in enumerate(options)]
    scores, ids = logits(n, seed), texts(n, seed)
    alone = []
    for k in range(n):
        single = RowSamplers([rows[k]])
        alone.append([single.choose(scores[k : k + 1], [0], lambda _, k=k: ids[k])[0] for _ in range(3)])
    places = list(range(n))
    together = RowSamplers(rows)
    for step in range(3):
        order.shuffle(places)
        chosen = together.choose(scores[places], places, lambda row: ids[row])
        assert chosen == [alone[k][step] for k in places]


def test_a_row_that_has_left_changes_nothing_for_the_others() -> None:
    options = [SamplingOptions(do_sample=True, seed=k) for k in range(3)]
    scores = logits(3)
    with_all, without = RowSamplers(options), RowSamplers(options)
    first = [s.choose(scores, [0, 1, 2], texts) for s in (with_all, without)]
    assert first[0] == first[1]
    second = with_all.choose(scores, [0, 1, 2], texts)
    assert without.choose(scores[[0, 2]], [0, 2], texts) == [second[0], second[2]]


def test_the_largest_logit_wins_and_of_equal_ones_that_which_argmax_names() -> None:
    scores = logits(4)
    scores[1, [7, 20, 33]] = 99.0
    chosen = RowSamplers([SamplingOptions()] * 4).choose(scores, range(4), texts)
    assert chosen == scores.argmax(-1).tolist()
    assert chosen[1] == 7


@pytest.mark.parametrize("cut", [{}, {"top_p": 0.8}, {"top_k": 6, "temperature": 2.0}, {"min_p": 0.1}])
def test_draws_follow_the_processed_distribution(cut: dict[str, Any]) -> None:
    n = 20_000
    row, ids = logits(1, 5)[0] / 2, [3, 9]
    options = SamplingOptions(do_sample=True, repetition_penalty=1.2, **cut)
    probability = transformers_scores(row, ids, options).double().softmax(-1)
    samplers = RowSamplers([replace(options, seed=k) for k in range(4)])
    scores = row.repeat(4, 1)
    drawn = torch.tensor([samplers.choose(scores, range(4), lambda _: ids) for _ in range(n // 4)]).flatten()
    counts = torch.bincount(drawn, minlength=V)
    assert int(counts[probability == 0].sum()) == 0
    # Rare ids are one class, so that each class expects enough draws for the test's distribution.
    common = probability * n >= 5
    observed = [*counts[common].tolist(), int(counts[~common].sum())]
    expected = [*(probability[common] * n).tolist(), float(probability[~common].sum()) * n]
    if expected[-1] < 1:
        observed, expected = observed[:-1], expected[:-1]
    scale = sum(observed) / sum(expected)
    assert stats.chisquare(observed, [e * scale for e in expected]).pvalue > 1e-3


@given(st.lists(st.sampled_from([-1.0, 0.0, 2.0, -float("inf")]), min_size=1, max_size=8), st.floats(0, 1))
@example([0.0, -float("inf")], 1 - 2**-53)
@example([-float("inf"), 0.0, -float("inf")], 0.0)
@example([0.1, 0.2, 0.3, -float("inf")], 1 - 2**-53)
def test_a_draw_inverts_the_distribution_and_never_takes_an_excluded_id(row: list[float], u: float) -> None:
    if max(row) == -float("inf") or u == 1.0:
        return
    found = int(draw(torch.tensor([row]), torch.tensor([u], dtype=torch.float64))[0])
    probability = torch.tensor(row).softmax(-1).double()
    assert probability[found] > 0
    assert float(probability[:found].sum()) <= u + 1e-6
    assert float(probability[: found + 1].sum()) >= u - 1e-6


def test_no_other_random_numbers_are_disturbed_or_used() -> None:
    options = [SamplingOptions(do_sample=True, seed=1)]
    before = torch.random.get_rng_state()
    first = RowSamplers(options).choose(logits(1), [0], texts)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(12345)
    assert RowSamplers(options).choose(logits(1), [0], texts) == first


def test_a_text_is_asked_for_only_where_a_penalty_needs_it() -> None:
    def seen(row: int) -> list[int]:
        assert row == 1
        return [4]

    options = [SamplingOptions(), SamplingOptions(repetition_penalty=2.0), SamplingOptions(do_sample=True)]
    RowSamplers(options).choose(logits(3), [0, 1, 2], seen)


def test_logits_in_16_bits_are_worked_on_in_32() -> None:
    options = [SamplingOptions(do_sample=True, top_p=0.9, temperature=0.7, seed=k) for k in range(4)]
    scores = logits(4).bfloat16()
    narrow = RowSamplers(options).choose(scores, range(4), texts)
    assert narrow == RowSamplers(options).choose(scores.float(), range(4), texts)


def test_logits_that_are_no_numbers_are_refused() -> None:
    scores = logits(2)
    scores[1, 3] = float("nan")
    with pytest.raises(NotANumberError):
        RowSamplers([SamplingOptions()] * 2).choose(scores, [0, 1], texts)


@pytest.mark.parametrize(
    "bad",
    [{"temperature": 0.0}, {"temperature": -1}, {"top_p": -0.5}, {"min_p": 2.0}, {"repetition_penalty": 0.0}],
)
def test_options_out_of_range_are_refused_in_one_line(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="bad generation option: ") as caught:
        RowSamplers([SamplingOptions(), SamplingOptions(do_sample=True, **bad)])
    assert "\n" not in str(caught.value)
