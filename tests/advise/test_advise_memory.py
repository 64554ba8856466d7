"""Memory at a wish: measured, bounded by other points, computed, and what ran out of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wished import FACTS, GB, failed, rows_of, timed

from mambabench.advise.memory import memory_check, state_bytes
from mambabench.advise.result import Check
from mambabench.advise.wish import Wish
from mambabench.sizes import ModelSizes, layout_for


def _check(wish: Wish, *rows: dict[str, Any], **facts: Any) -> Check:
    said = {name: replace(one, **facts) for name, one in FACTS.items()}
    return memory_check(rows_of(*rows), said, wish)


@pytest.mark.parametrize(
    ("memory", "state"), [(3 * GB, "kept"), (2 * GB, "unknown"), (GB, "broken"), (None, "kept")]
)
def test_a_measured_peak_is_held_against_what_there_is(memory: int | None, state: str) -> None:
    peak = (1.5 * GB, 2.2 * GB, 2.5 * GB)
    check = _check(Wish(1000, 100, memory_bytes=memory), timed("m", 1000, 100, peak_bytes=peak))
    assert check.state == state
    assert check.limit == (24 * GB if memory is None else memory)


def test_without_a_recorded_device_memory_is_not_judged() -> None:
    check = _check(Wish(1000, 100), timed("m", 1000, 100, peak_bytes=999 * GB), memory_bytes=None)
    assert (check.state, check.limit) == ("kept", None)
    assert _check(Wish(1000, 101), timed("m", 1000, 100), memory_bytes=None).state == "unknown"
    assert _check(Wish(1000, 101), failed("m", "oom", 1000, 100), memory_bytes=None).state == "broken"


def test_room_for_the_process_is_doubted_where_it_took_more() -> None:
    check = _check(Wish(10, 10, memory_bytes=3 * GB), timed("m", 10, 10, peak_process_bytes=4 * GB))
    assert check.state == "doubt"
    assert "the whole process took 4 GB" in check.doubts[0]


def test_noise_of_times_is_no_doubt_about_bytes() -> None:
    row = timed("m", 10, 10, flags="busy machine; outliers; less than 1 s timed")
    assert _check(Wish(10, 10), row).state == "kept"
    assert _check(Wish(10, 10), timed("m", 10, 10, flags="processes missing")).state == "doubt"


def test_a_larger_point_that_fits_bounds_from_above_and_leaves_a_doubt() -> None:
    rows = [
        timed("m", 2000, 100, batch=8, peak_bytes=3 * GB),
        timed("m", 4000, 100, batch=16, peak_bytes=9 * GB),
    ]
    check = _check(Wish(1000, 100, conversations=4, memory_bytes=4 * GB), *rows)
    assert check.state == "doubt"
    assert check.figure is not None
    assert (check.figure.kind, check.figure.high) == ("at most", 3 * GB)
    # That a larger point does not fit says nothing of the smaller one.
    assert _check(Wish(1000, 100, conversations=4, memory_bytes=2 * GB), *rows).state == "unknown"


def test_a_smaller_point_that_does_not_fit_speaks_against_the_larger() -> None:
    check = _check(Wish(2000, 100, conversations=4, memory_bytes=GB), timed("m", 1000, 100, batch=2))
    assert check.state == "broken"
    assert check.figure is not None
    assert check.figure.kind == "at least"
    assert (
        _check(Wish(2000, 100, conversations=4, memory_bytes=3 * GB), timed("m", 1000, 100)).state
        == "unknown"
    )


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (failed("m", "oom", 1000, 100), "broken"),
        (failed("m", "oom", 2000, 100), "broken"),
        (failed("m", "skipped_after_oom", 1000, 50, batch=2), "broken"),
        (failed("m", "unsupported", 100, 10), "broken"),
        (failed("m", "oom", 2001, 100), "unknown"),
        (failed("m", "oom", 2000, 101), "unknown"),
        (failed("m", "oom", 1000, 100, batch=4), "unknown"),
        (failed("m", "killed", 1000, 100), "unknown"),
        (failed("m", "timeout", 1000, 100), "unknown"),
        (failed("m", "failed", 1000, 100), "unknown"),
        (failed("m", "missing", 2000, 100), "unknown"),
    ],
)
def test_running_out_of_memory_speaks_against_what_is_nowhere_smaller(
    row: dict[str, Any], state: str
) -> None:
    assert _check(Wish(2000, 100, conversations=3), row).state == state


def test_running_out_is_of_the_memory_that_there_was() -> None:
    row = failed("m", "oom", 1000, 100)
    assert _check(Wish(1000, 100, memory_bytes=24 * GB), row).state == "broken"
    assert _check(Wish(1000, 100, memory_bytes=80 * GB), row).state == "unknown"
    emulated = failed("m", "oom", 1000, 100, flags="emulated memory budget")
    assert _check(Wish(1000, 100), emulated, budget_bytes=4 * GB).state == "unknown"
    assert _check(Wish(1000, 100, memory_bytes=4 * GB), emulated, budget_bytes=4 * GB).state == "broken"
    asked = emulated | {"requested_bytes": 20 * GB, "allocated_bytes": 5 * GB}
    assert _check(Wish(1000, 100), asked, budget_bytes=4 * GB).state == "broken"
    assert _check(Wish(1000, 100), emulated, memory_bytes=None).state == "unknown"


def test_one_that_ran_and_one_that_ran_out_leave_a_doubt() -> None:
    rows = [timed("m", 1000, 100), failed("m", "oom", 500, 100, run="zero")]
    check = _check(Wish(1000, 100), *rows)
    assert check.state == "doubt"
    assert "out of memory at batch 1, 500 + 100 tokens" in check.doubts[0]


def test_weights_and_states_are_computed_where_nothing_was_measured() -> None:
    states = {n: 1_000_000 * (10 + n) for n in (110, 210)}
    rows = [timed("m", n - 10, 10, state_bytes_spec=size, attention="sdpa") for n, size in states.items()]
    wish = Wish(1990, 10, conversations=4, memory_bytes=9 * GB)
    check = _check(wish, *rows)
    assert check.figure is not None
    assert check.figure.value == GB + 4 * 1_000_000 * 2010
    assert (check.state, check.figure.kind) == ("broken", "at least")
    assert _check(replace(wish, memory_bytes=10 * GB), *rows).state == "unknown"


@pytest.mark.parametrize("lengths", [(128, 4096), (512,), (64, 100, 8192)])
@settings(max_examples=30, deadline=None)
@given(kv=st.integers(0, 5000), fixed=st.integers(0, 100_000), wish=st.integers(2, 20_000))
def test_states_follow_the_sizes_of_the_architecture(
    lengths: tuple[int, ...], kv: int, fixed: int, wish: int
) -> None:
    sizes = _sizes(fixed, kv)
    layout = layout_for("mambabench", "float32")
    rows = [
        timed("m", n - 1, 1, batch=3, attention="sdpa" if kv else "none",
              state_bytes_spec=3 * sizes.state_bytes(layout, length_tokens=n))
        for n in lengths
    ]  # fmt: skip
    found = state_bytes(rows_of(*rows), wish)
    assert found is not None
    true = sizes.state_bytes(layout, length_tokens=wish)
    assert found <= true
    if len(lengths) > 1:
        assert true - found <= 1


def test_a_cache_of_fixed_size_is_not_computed() -> None:
    rows = [timed("m", n, 0, attention="sdpa", state_bytes_spec=s) for n, s in ((10, 5), (20, 50), (30, 51))]
    assert state_bytes(rows_of(*rows), 40) is None
    assert state_bytes(rows_of(timed("m", 10, 10)), 40) is None


def _sizes(fixed: int, kv: int) -> ModelSizes:
    return ModelSizes(
        name="m", family="hybrid", n_layers=1, d_model=1, vocab_rows=1, n_parameters=1, n_read_parameters=1,
        n_fp32_parameters=0, n_matmul_parameters=1, ssm_elements=fixed, conv_elements_per_column=0, d_conv=1,
        kv_elements_per_token=kv, attention_width=1, n_attention_layers=1, training_length_tokens=None,
        learned_positions=None,
    )  # fmt: skip
