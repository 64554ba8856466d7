"""Operations in place of models."""

from __future__ import annotations

import pytest
import torch

from mambabench.bench.failures import UnsupportedError
from mambabench.bench.ops import OpDecoder, OpSpec
from mambabench.errors import UsageError

PROMPTS = torch.zeros(2, 40, dtype=torch.int64)


@pytest.mark.parametrize("text", ["op:scan,d=64,n=4", "op:attention,d=128"])
def test_an_operation_runs_over_its_length(text: str) -> None:
    decoder = OpDecoder(OpSpec.parse(text), device="cpu", dtype="float32")
    decoder.prepare(batch_size=2, prompt_len_tokens=40, gen_len_tokens=1)
    result = decoder._work()
    assert isinstance(result, torch.Tensor)
    assert result.numel() == 2 * 40 * decoder._spec.d
    assert bool(result.isfinite().all())
    assert decoder.prefill(PROMPTS).tolist() == [0, 0]


def test_attention_is_causal() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = OpDecoder(OpSpec.parse("op:attention,d=64"), device="cpu", dtype="float32")
        decoder.prepare(batch_size=1, prompt_len_tokens=8, gen_len_tokens=1)
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, 1, 8, 64) for _ in range(3))
    scores = (q @ k.transpose(2, 3) / 8).masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf)
    found = decoder._work()
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, scores.softmax(dim=3) @ v, atol=1e-5, rtol=1e-5)


def test_it_generates_nothing() -> None:
    decoder = OpDecoder(OpSpec.parse("op:scan"), device="cpu", dtype="float32")
    with pytest.raises(UnsupportedError, match="--gen-len 1"):
        decoder.prepare(batch_size=1, prompt_len_tokens=8, gen_len_tokens=2)


@pytest.mark.parametrize("text", ["op:", "op:conv", "op:scan,d=0", "op:scan,x=3", "op:attention,d=100"])
def test_malformed_operations_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        OpSpec.parse(text)
