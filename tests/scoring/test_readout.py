"""Log-probabilities against a float64 softmax, in one piece and in chunks of the vocabulary."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.errors import NotANumberError
from mambabench.scoring import readout
from mambabench.scoring.readout import read_in_chunks, read_logits


def case(n: int, vocab: int, q: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, vocab, generator=generator).mul(5).round(decimals=1)
    rows = torch.randint(0, n, (q,), generator=generator).sort().values
    targets = torch.randint(0, vocab, (q,), generator=generator)
    # Some targets are the best of their row, which random ones hardly ever are.
    best = torch.rand(q, generator=generator) < 0.3
    targets[best] = logits[rows[best]].argmax(dim=1)
    return logits, rows, targets


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 90), st.integers(0, 99), st.integers(1, 45))
def test_both_ways_equal_a_float64_softmax(n: int, vocab: int, q: int, seed: int, chunk: int) -> None:
    logits, rows, targets = case(n, vocab, q, seed)
    want = logits.double().log_softmax(dim=1)[rows, targets]
    # Rounded logits tie often; the first of the largest counts.
    want_best = logits.argmax(dim=1)[rows] == targets
    found, best = read_logits(logits, rows, targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readout, "VOCABULARY_CHUNK", chunk)
        chunked, chunked_best = read_in_chunks(lambda a, b: logits[:, a:b], vocab, rows, targets)
    assert torch.allclose(found, want, atol=1e-5)
    assert torch.allclose(chunked, want, atol=1e-5)
    assert torch.equal(best, want_best)
    assert torch.equal(chunked_best, want_best)


def test_narrow_logits_are_read_in_32_bits() -> None:
    logits = torch.zeros(1, 40_000, dtype=torch.bfloat16)
    found, _ = read_logits(logits, torch.tensor([0]), torch.tensor([7]))
    assert found.item() == pytest.approx(-10.596635, abs=1e-5)


def test_a_vocabulary_of_one_chunk_is_asked_for_once() -> None:
    asked = []

    def logits(first: int, last: int) -> torch.Tensor:
        asked.append((first, last))
        return torch.zeros(1, last - first)

    read_in_chunks(logits, 65_536, torch.tensor([0]), torch.tensor([0]))
    assert asked == [(0, 65_536)]
    asked.clear()
    read_in_chunks(logits, 131_073, torch.tensor([0]), torch.tensor([131_072]))
    assert asked == [(0, 65_536), (65_536, 131_072), (131_072, 131_073)]


@pytest.mark.parametrize("chunk", [2, 100])
def test_nan_is_an_error(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "VOCABULARY_CHUNK", chunk)
    logits = torch.zeros(2, 9)
    logits[1, 8] = float("nan")
    with pytest.raises(NotANumberError):
        read_in_chunks(lambda a, b: logits[:, a:b], 9, torch.tensor([0, 1]), torch.tensor([0, 0]))


@pytest.mark.parametrize("chunk", [100, 4])
@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_overflowing_logits_are_an_error(chunk: int, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "VOCABULARY_CHUNK", chunk)
    logits = torch.zeros(2, 10)
    logits[1] = float("-inf")
    logits[1, 8] = value
    with pytest.raises(NotANumberError):
        read_in_chunks(lambda a, b: logits[:, a:b], 10, torch.tensor([0]), torch.tensor([3]))
