"""Wishes: what can be written, and what has no meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.advise.wish import Wish, parse_percent, parse_seconds
from mambabench.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2.0), ("50ms", 0.05), (" 1.5 S ", 1.5), ("250us", 2.5e-4), (".5min", 30.0), ("3µs", 3e-6)],
)
def test_times_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds, rel=1e-12)


@given(st.floats(0.001, 1000.0))
def test_units_of_time_say_the_same(value: float) -> None:
    milliseconds = f"{value:.6f}ms"
    seconds = f"{float(milliseconds[:-2]) / 1000:.12f}s"
    assert parse_seconds(milliseconds) == pytest.approx(parse_seconds(seconds), rel=1e-6)


@pytest.mark.parametrize("text", ["2", "", "s", "-1s", "0s", "1h", "nan s", "1e3s", f"{'9' * 400}s"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--ttft"):
        parse_seconds(text, name="--ttft")


@pytest.mark.parametrize(("text", "value"), [("90%", 90.0), (" 0.5 % ", 0.5), ("100%", 100.0)])
def test_percentages_are_read_with_their_sign(text: str, value: float) -> None:
    assert parse_percent(text) == value


@pytest.mark.parametrize("text", ["0.9", "90", "0%", "101%", "-3%", "%", "nan%"])
def test_what_may_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--recall"):
        parse_percent(text, name="--recall")


def test_a_bound_on_tokens_that_there_are_not_is_refused() -> None:
    with pytest.raises(UsageError, match="--tpot"):
        Wish(100, 1, tpot_s=0.1)
    assert Wish(100, 1, ttft_s=0.1).length_tokens == 101
