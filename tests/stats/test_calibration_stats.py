"""The calibration error: held against a loop, against simulated noise, and against errors that are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mambabench.stats.calibration import ITEMS_PER_BIN, MOST_BINS, reliability

Floats = NDArray[np.float64]


def drawn_confidences(rng: np.random.Generator, n: int, spread: float = 2.0) -> Floats:
    scores = np.exp(spread * rng.normal(size=(n, 4)))
    return np.asarray((scores / scores.sum(axis=1, keepdims=True)).max(axis=1))


def test_the_plain_error_is_what_a_loop_gives() -> None:
    rng = np.random.default_rng(0)
    held = rng.random(317)
    right = rng.integers(0, 2, 317)
    found = reliability(held, right)
    order = sorted(range(317), key=lambda i: held[i])
    total, start = 0.0, 0
    for part in found.bins:
        mine = order[start : start + part.n]
        start += part.n
        confidence = sum(held[i] for i in mine) / part.n
        accuracy = sum(right[i] for i in mine) / part.n
        assert part.mean_confidence == pytest.approx(confidence, abs=1e-12)
        assert part.accuracy == pytest.approx(accuracy, abs=1e-12)
        assert (part.low, part.high) == (held[mine[0]], held[mine[-1]])
        total += part.n / 317 * abs(accuracy - confidence)
    assert (start, len(found.bins)) == (317, 317 // ITEMS_PER_BIN)
    assert found.plain_error == pytest.approx(total, abs=1e-12)
    assert found.accuracy == pytest.approx(right.mean())
    assert found.mean_confidence == pytest.approx(held.mean())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.25, 0.3, 0.5, 0.5000001, 0.9, 1.0]), st.integers(0, 1)),
        min_size=1,
        max_size=400,
    )
)
def test_equal_confidences_share_a_bin_and_no_item_is_lost(items: list[tuple[float, int]]) -> None:
    held, right = zip(*items, strict=True)
    found = reliability(held, right)
    assert sum(part.n for part in found.bins) == len(items)
    assert 1 <= len(found.bins) <= MOST_BINS
    for before, after in zip(found.bins, found.bins[1:], strict=False):
        assert before.high < after.low
    assert 0 <= found.low <= found.error <= found.high <= 1
    assert found.error <= found.plain_error + 1e-9
    # Which item stands where does not matter.
    again = reliability(held[::-1], right[::-1])
    assert (again.error, again.bins) == (pytest.approx(found.error), again.bins)


def test_noise_added_to_the_error_gives_back_what_was_observed() -> None:
    """The estimate answers: with which gaps would chance give this error? So chance is asked."""
    rng = np.random.default_rng(3)
    held = drawn_confidences(rng, 500)
    right = rng.random(500) < held - 0.05
    found = reliability(held, right)
    assert 0 < found.error < found.plain_error
    shares = np.array([part.n for part in found.bins]) / 500
    gaps = np.array([part.accuracy - part.mean_confidence for part in found.bins])
    order, start, errors = np.argsort(held, kind="stable"), 0, []
    for part in found.bins:
        mine = order[start : start + part.n]
        start += part.n
        laplace = (right[mine].sum() + 1) / (part.n + 2)
        spread = np.var(right[mine] - held[mine], ddof=1)
        believed = np.mean(held[mine] * (1 - held[mine]))
        errors.append(np.sqrt(max(laplace * (1 - laplace), spread, believed) / part.n))
    noise = rng.normal(size=(40_000, len(gaps))) * errors

    def drawn(error: float) -> Floats:
        return np.asarray(np.abs(error / found.plain_error * gaps + noise) @ shares)

    assert drawn(found.error).mean() == pytest.approx(found.plain_error, abs=3e-4)
    # Normal ends: the share beyond is 2.5% but for the skew of a sum of distances.
    high = found.high if found.high > abs((right - held).mean()) + 0.05 else None
    if high is not None:
        assert (drawn(high) < found.plain_error).mean() == pytest.approx(0.025, abs=0.015)
    assert found.low == 0 or (drawn(found.low) > found.plain_error).mean() == pytest.approx(0.025, abs=0.015)


SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": lambda held: held,
    "overconfident": lambda held: np.clip(held - 0.1, 0, 1),
    "too bold": lambda held: 0.25 + 0.5 * (held - 0.25),
    "wavy": lambda held: np.clip(held + 0.1 * np.sin(6 * held), 0, 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [30, 400])
def test_the_interval_holds_the_true_error(shape: str, n: int) -> None:
    rng = np.random.default_rng(7)
    chance = SHAPES[shape]
    many = np.sort(drawn_confidences(rng, 100_000))
    parts = np.array_split(many, max(1, min(MOST_BINS, n // ITEMS_PER_BIN)))
    truth = float(np.mean([abs((chance(part) - part).mean()) for part in parts]))
    repeats = 150
    held, errors, plain = 0, 0.0, 0.0
    for _ in range(repeats):
        confidences = drawn_confidences(rng, n)
        found = reliability(confidences, rng.random(n) < chance(confidences))
        held += found.low <= truth + 1e-9 and truth <= found.high
        errors += found.error / repeats
        plain += found.plain_error / repeats
    # Three standard errors of 150 draws below 94%.
    assert held / repeats > 0.88
    assert abs(errors - truth) < abs(plain - truth) or abs(plain - truth) < 0.02


def test_a_bin_that_is_always_right_still_leaves_a_doubt() -> None:
    found = reliability([0.9] * 20, [1] * 20)
    assert found.low == 0
    assert found.high > 0.1
    assert reliability([1.0], [1]).high > 0.5


@pytest.mark.parametrize(
    ("confidences", "right"), [([], []), ([0.5], [1, 0]), ([1.5], [1]), ([0.5], [float("nan")])]
)
def test_impossible_input_is_refused(confidences: list[float], right: list[float]) -> None:
    with pytest.raises(ValueError):
        reliability(confidences, right)
