"""Numbers on the axes of figures are written plainly and without loss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.plots.speed.scales import quantity, tokens_text
from mambabench.plots.speed.series import few


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (128, "128"),
        (1000, "1,000"),
        (1024, "1k"),
        (10_000, "10,000"),
        (65536, "64k"),
        (2**20, "1M"),
        (0, "0"),
    ],
)
def test_lengths_are_written_plainly(n: int, text: str) -> None:
    assert tokens_text(n) == text


@given(st.floats(1e-8, 1e4))
def test_times_keep_three_digits_and_their_unit(seconds: float) -> None:
    number, unit = quantity(seconds, "s").split()
    back = float(number.replace(",", "")) * {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert back == pytest.approx(seconds, rel=5.1e-3)
    assert unit == "s" or 1 <= float(number.replace(",", "")) <= 1000


@given(st.sets(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(2, 8))
def test_few_keep_both_ends(values: set[int], most: int) -> None:
    found = few(sorted(values), most)
    assert len(found) == min(most, len(values))
    assert (found[0], found[-1]) == (min(values), max(values))
    assert set(found) <= values
