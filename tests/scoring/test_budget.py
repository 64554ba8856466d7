"""What is divided never exceeds what was given, and every part gets something."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mambabench.models.stateful import StateSize
from mambabench.scoring.budget import Fit, default_budget_bytes, free_bytes


@given(
    budget=st.integers(16_000_000, 1 << 34),
    fixed=st.integers(0, 1 << 26),
    per_token=st.integers(0, 1 << 18),
    activation=st.integers(1_000, 1 << 19),
    vocab=st.integers(200, 300_000),
    on_gpu=st.booleans(),
)
def test_the_parts_stay_within_the_budget(
    budget: int, fixed: int, per_token: int, activation: int, vocab: int, on_gpu: bool
) -> None:
    state = StateSize(fixed, per_token)
    fit = Fit.within(budget, activation_bytes_per_token=activation, vocab_size=vocab, on_gpu=on_gpu)
    assert min(fit.batch_tokens, fit.logit_rows) >= 1
    logits = fit.logit_rows * 8 * min(vocab, 65_536)
    used = fit.batch_tokens * activation + logits + fit.state_bytes
    # A single row or token is allowed whatever it takes: less cannot be forwarded.
    assert used <= budget + activation + 8 * 65_536
    costs = fit.costs(state, None, split_tokens=2.0)
    assert (costs.state_bytes, costs.state_bytes_per_token) == (fixed, per_token)
    assert costs.budget_bytes == fit.state_bytes


def test_what_a_scan_takes_for_itself_is_left_free() -> None:
    sizes = {"activation_bytes_per_token": 50_000, "vocab_size": 50_000, "on_gpu": True}
    for budget, workspace in ((1 << 30, 200 << 20), (8 << 30, 1 << 30)):
        fit = Fit.within(budget, **sizes, workspace_bytes=workspace)
        assert fit == Fit.within(budget - workspace, **sizes)
        assert fit != Fit.within(budget, **sizes)
    # Of a small budget half is divided: a scan of fewer tokens does not take all.
    assert Fit.within(256 << 20, **sizes, workspace_bytes=1 << 30) == Fit.within(
        256 << 20, **sizes, workspace_bytes=128 << 20
    )


def test_a_bound_on_rows_is_kept() -> None:
    state = StateSize(1 << 20, 0)
    fit = Fit.within(1 << 28, activation_bytes_per_token=4_096, vocab_size=300, on_gpu=False)
    assert fit.costs(state, 3, split_tokens=1.0).batch_rows == 3
    assert fit.costs(state, None, split_tokens=1.0).batch_rows is None


@pytest.mark.parametrize(("total_gib", "budget_gib"), [(2, 1), (16, 4), (80, 8)])
def test_a_budget_by_default_does_not_depend_on_what_is_free(
    total_gib: int, budget_gib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free_gib in (0, 1, total_gib):
        memory = free_gib << 30, total_gib << 30
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, memory=memory: memory)
        assert default_budget_bytes(torch.device("cuda")) == budget_gib << 30
    assert default_budget_bytes(torch.device("cpu")) == 512 << 20


def test_the_memory_is_that_of_the_devices_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {torch.device("cuda:0"): (1 << 30, 8 << 30), torch.device("cuda:1"): (3 << 30, 16 << 30)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", cards.__getitem__)
    assert [default_budget_bytes(card) >> 30 for card in cards] == [2, 4]
    assert [free_bytes(card) >> 30 for card in cards] == [1, 3]
