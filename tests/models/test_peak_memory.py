"""The count of a forward's memory against sums done by hand."""

from __future__ import annotations

import torch
from torch import nn

from mambabench.models.peak_memory import PeakMemory


class _Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(8, 32)
        self.narrow = nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.wide(x)
        y = torch.tanh(y)
        result: torch.Tensor = self.narrow(y)
        return result


def test_what_lives_at_the_same_time() -> None:
    module = _Steps()
    for tokens in (1, 10):
        x = torch.randn(tokens, 8)
        with torch.inference_mode(), PeakMemory(module) as memory:
            out = module(x)
            first = memory.peak_bytes
            # Its input is dead, so that a copy of the output is far below the peak.
            again = out.clone()
        # The product and its tanh, 32 floats each.
        assert first == memory.peak_bytes == tokens * 2 * 32 * 4
        del again


def test_views_and_weights_are_not_memory() -> None:
    module = _Steps()
    with torch.inference_mode(), PeakMemory(module) as memory:
        assert module.wide.weight.t()[2:].sum() is not None
        assert memory.peak_bytes == 4
        big = torch.zeros(100)
        views = [big[i:] for i in range(10)]
        assert 400 <= memory.peak_bytes <= 404
        del big
        other = torch.zeros(100)
        assert memory.peak_bytes >= 800, "a view keeps what it looks at"
        del views, other
        torch.zeros(150)
    assert memory.peak_bytes <= 804
