"""The protocol on a fake clock: what is reported is what the fake model was told to take, exactly."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.bench.clock import FakeClock
from mambabench.bench.fake import FakeDecoder, FakeSpec
from mambabench.bench.measure import Measured, _is_steady, measure
from mambabench.bench.memory import FakeMemory
from mambabench.speed_schema import RepeatRecord

PROMPTS = torch.zeros(2, 100, dtype=torch.int64)


def fake(text: str, clock: FakeClock) -> FakeDecoder:
    return FakeDecoder(FakeSpec.parse(text), now=clock.now, sleep=clock.launch, spun_s=0.0)


def run(text: str, *, gen_len: int = 5, repeats: int = 10, max_time_s: float = 60.0) -> Measured:
    clock = FakeClock()
    return measure(
        fake(text, clock),
        PROMPTS,
        gen_len_tokens=gen_len,
        repeats=repeats,
        max_time_s=max_time_s,
        clock=clock,
        meter=FakeMemory(),
    )


@settings(max_examples=25)
@given(
    prefill_ms=st.integers(200, 5_000),
    token_ms=st.integers(1, 500),
    token_us_per_depth=st.sampled_from([0, 1, 10]),
    gen_len=st.integers(1, 8),
)
def test_known_times_are_reported(
    prefill_ms: int, token_ms: int, token_us_per_depth: int, gen_len: int
) -> None:
    text = f"fake:prefill_ms={prefill_ms},token_ms={token_ms},token_us_per_depth={token_us_per_depth}"
    found = run(text, gen_len=gen_len)
    for repeat in found.repeats:
        if repeat.ttft_s is not None:
            assert repeat.ttft_s == pytest.approx(prefill_ms / 1e3, abs=1e-8)
        assert len(repeat.itl_s) == gen_len - 1
        for i, itl in enumerate(repeat.itl_s):
            assert itl == pytest.approx(token_ms / 1e3 + token_us_per_depth * (100 + i) / 1e6, abs=1e-8)
    assert found.repeats[0].ttft_s is not None


def test_enough_is_repeated_and_for_long_enough() -> None:
    assert len(run("fake:prefill_ms=500,token_ms=10").repeats) == 10
    # Short repeats go on until a second has been timed.
    short = run("fake:prefill_ms=10,token_ms=1").repeats
    assert sum((r.e2e_s or 0.0) for r in short) >= 1.0
    assert sum((r.e2e_s or 0.0) for r in short[:-1]) < 1.0


def test_long_prefills_leave_the_rest_of_the_time_to_decoding() -> None:
    repeats = run("fake:prefill_ms=10000,token_ms=100", max_time_s=60.0).repeats
    full = [r for r in repeats if r.ttft_s is not None]
    assert len(repeats) == 10
    assert len(full) == 2
    assert repeats[: len(full)] == full
    assert all(sum(r.itl_s) == pytest.approx(0.4) for r in repeats)


def test_time_ends_the_repeats_but_one_is_always_made() -> None:
    found = run("fake:prefill_ms=100000,token_ms=1", max_time_s=5.0)
    assert len(found.repeats) == 1
    assert found.warmup is not None
    assert not found.warmup.steady


def test_memory_alone_is_not_timed() -> None:
    found = run("fake:prefill_ms=10", repeats=0)
    assert found.repeats == []
    assert found.warmup is None
    assert found.peak is not None


def test_a_single_token_has_no_steps() -> None:
    repeats = run("fake:prefill_ms=300,token_ms=7", gen_len=1).repeats
    assert all(r.itl_s == () and r.tpot_s == 0.0 and r.e2e_s == pytest.approx(0.3) for r in repeats)


def test_the_state_is_walked_after_the_last_token() -> None:
    found = run("fake:state_mb=1,kv_kb=2", gen_len=5)
    # Five ids take four steps.
    assert found.state_tokens == 104
    assert found.state_bytes == 2 * (1_000_000 + 2_000 * 104)


def test_a_gpus_own_times_are_kept_apart_from_the_hosts() -> None:
    """Launching takes 1 ms a step on the host, and the device 5 ms: the host waits once, at the end."""
    clock = FakeClock(device=True)

    class Launching(FakeDecoder):
        def _wait(self, seconds: float) -> None:
            clock.advance(0.001)
            clock.launch(seconds)

        def prefill(self, prompts: torch.Tensor) -> torch.Tensor:
            ids = super().prefill(prompts)
            # The measuring code reads the first id, for which a GPU would be waited for.
            clock.synchronise()
            return ids

    decoder = Launching(FakeSpec.parse("fake:prefill_ms=50,token_ms=5"), now=clock.now, sleep=clock.launch)
    before = clock.n_synchronised
    found = measure(
        decoder, PROMPTS, gen_len_tokens=11, repeats=10, max_time_s=60, clock=clock, meter=FakeMemory()
    )
    repeat = found.repeats[0]
    assert repeat.ttft_s == pytest.approx(0.051)
    assert repeat.ttft_device_s == pytest.approx(0.051)
    # The device waits for the first launch only.
    assert repeat.itl_s == pytest.approx([0.006] + [0.005] * 9)
    assert repeat.decode_device_s == pytest.approx(0.051)
    assert repeat.decode_s == pytest.approx(0.051)
    n_windows = 1 + len(found.warmup.prefill_s if found.warmup else ()) + len(found.repeats)
    # One wait in prefill above, and begin, end and reading of each repeat: none for each step.
    assert clock.n_synchronised - before <= 5 * (n_windows + 1)


def test_garbage_is_not_collected_between_marks() -> None:
    clock = FakeClock()
    seen: list[bool] = []

    class Watching(FakeDecoder):
        def step(self, ids: torch.Tensor) -> torch.Tensor:
            seen.append(gc.isenabled())
            return super().step(ids)

    decoder = Watching(FakeSpec.parse("fake:token_ms=100"), now=clock.now, sleep=clock.launch, spun_s=0.0)
    measure(decoder, PROMPTS, gen_len_tokens=3, repeats=2, max_time_s=60, clock=clock, meter=FakeMemory())
    assert gc.isenabled()
    assert not any(seen[2:])


def test_what_was_found_survives_an_error() -> None:
    clock = FakeClock()
    told: list[RepeatRecord] = []

    class Failing(FakeDecoder):
        def step(self, ids: torch.Tensor) -> torch.Tensor:
            if len(told) == 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().step(ids)

    decoder = Failing(FakeSpec.parse("fake:token_ms=100"), now=clock.now, sleep=clock.launch, spun_s=0.0)
    found = Measured()
    with pytest.raises(RuntimeError, match="out of memory"):
        measure(
            decoder,
            PROMPTS,
            gen_len_tokens=3,
            repeats=5,
            max_time_s=60,
            clock=clock,
            meter=FakeMemory(),
            found=found,
            on_repeat=told.append,
        )
    assert found.repeats == told
    assert len(told) == 2


@pytest.mark.parametrize(
    ("windows", "steady"),
    [
        ([1.0, 1.0], False),
        ([1.0, 1.04, 1.05], True),
        ([1.0, 1.0, 1.06], False),
        ([9.0, 1.0, 1.0, 1.0], True),
    ],
)
def test_three_windows_must_agree(windows: list[float], steady: bool) -> None:
    assert _is_steady(windows) is steady
