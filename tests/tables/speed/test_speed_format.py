"""Figures as they are read: three digits, the right unit, no digit that was not there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.stats.replicates import Estimate
from mambabench.tables.speed.format import (
    listed,
    number,
    percent,
    plural,
    seconds,
    size,
    times,
    with_interval,
)

UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}


def read(text: str) -> float:
    figure, _, unit = text.partition(" ")
    return float(figure.replace(",", "")) * UNITS.get(unit, 1.0)


@given(st.floats(1e-8, 1e7))
def test_times_keep_three_digits(value: float) -> None:
    assert read(seconds(value)) == pytest.approx(value, rel=0.00501)
    assert re.fullmatch(r"[\d,]+(\.\d+)? (s|ms|µs|ns)", seconds(value))


@given(st.integers(1, 10**14))
def test_sizes_keep_three_digits(value: int) -> None:
    assert read(size(value)) == pytest.approx(value, rel=0.00501)


@given(st.floats(1e-6, 1e9))
def test_numbers_keep_three_digits(value: float) -> None:
    assert read(number(value)) == pytest.approx(value, rel=0.00501)
    assert "e" not in number(value)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (number(9.996), "10.0"),
        (number(999.6), "1,000"),
        (number(0), "0"),
        (number(-12.34), "-12.3"),
        (seconds(0.9996), "1.00 s"),
        (seconds(0.0123), "12.3 ms"),
        (size(24e9), "24 GB"),
        (size(6_700_000_000), "6.7 GB"),
        (size(0), "0 B"),
        (size(100e6), "100 MB"),
        (percent(0.0512), "5.1%"),
        (percent(1.234), "123%"),
        (percent(-0.0001, signed=True), "0.0%"),
        (percent(0.02, signed=True), "+2.0%"),
        (times(1.005), "1.00"),
        (times(0.034), "0.0340"),
        (times(250.0), "250"),
        (plural(1, "process", "processes"), "1 process"),
        (plural(1200, "point"), "1,200 points"),
        (listed(["a"]), "a"),
        (listed(["a", "b"]), "a and b"),
        (listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_examples(written: str, text: str) -> None:
    assert written == text


def test_an_estimate_is_written_by_what_it_is() -> None:
    given_by = {
        "t on log": "2.00 x (95% interval 1.00 to 4.00)",
        "range": "2.00 x (range 1.00 to 4.00 of 3 processes)",
    }
    for method, text in given_by.items():
        n = 6 if method == "t on log" else 3
        assert with_interval(Estimate(2.0, 1.0, 4.0, n, method), times, " x") == text  # type: ignore[arg-type]
    assert with_interval(Estimate(2.0, 2.0, 2.0, 1, "single"), times) == "2.00 (one process)"
