"""One point measured in this process: warm up, watch the memory, repeat, keep every raw time.

    found = measure(decoder, prompts, gen_len_tokens=64, repeats=10, max_time_s=60, clock=clock, meter=meter)
    found.repeats[0].ttft_s, found.peak.peak_bytes

A repeat is a prefill and the decoding after it. Where prefills are long, the last repeats decode alone,
from the state after the prompt.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mambabench.speed_schema import RepeatRecord, WarmupRecord

if TYPE_CHECKING:
    from torch import Tensor

    from mambabench.bench.clock import Clock, Mark
    from mambabench.bench.decoders import Decoder
    from mambabench.bench.memory import MemoryMeter, Peak

LEAST_TIMED_S = 1.0
"""What is timed takes at least so long in all, however short a repeat is."""
MOST_REPEATS = 1_000
_STEADY_WITHIN = 1.05
_STEADY_WINDOWS, _MOST_WINDOWS = 3, 10
_WINDOW_STEPS = 8
_WARMUP_SHARE = 0.25
_FULL_SHARE = 0.5
"""Part of the time that may go into repeats with a prefill; after it, decoding alone is repeated."""


@dataclass
class Measured:
    """What a process found out, added to as it goes on, so that an end in between leaves what there is."""

    first_call_s: float = 0.0
    prepare_s: float = 0.0
    peak: Peak | None = None
    state_bytes: int = 0
    state_tokens: int = 0
    """Tokens of each sequence that the state covered when it was walked."""
    warmup: WarmupRecord | None = None
    repeats: list[RepeatRecord] = field(default_factory=list)


def measure(
    decoder: Decoder,
    prompts: Tensor,
    *,
    gen_len_tokens: int,
    repeats: int,
    max_time_s: float,
    clock: Clock,
    meter: MemoryMeter,
    found: Measured | None = None,
    on_repeat: Callable[[RepeatRecord], None] = lambda repeat: None,
) -> Measured:
    """Measure one shape in one arm.

    Args:
        decoder: of a loaded model.
        prompts: ids [B, L] on its device.
        gen_len_tokens: generated for each sequence, the first id included.
        repeats: at least so many are timed, and for at least a second.
        max_time_s: no repeat begins later than this, warm-up not counted.
        clock: of the decoder's device.
        meter: of this process, its baseline taken.
        found: filled in as figures come; a new one by default.
        on_repeat: told of each repeat.

    Raises:
        UnsupportedError: the arm cannot do this.
        RuntimeError: whatever the device reports, memory that ran out among it.
    """
    found = Measured() if found is None else found
    shape = {"batch_size": prompts.shape[0], "prompt_len_tokens": prompts.shape[1]}
    began_s = clock.now()
    decoder.prepare(**shape, gen_len_tokens=gen_len_tokens)
    clock.synchronise()
    found.prepare_s = clock.now() - began_s

    began_s = clock.now()
    ids = decoder.prefill(prompts)
    for _ in range(min(2, gen_len_tokens - 1)):
        ids = decoder.step(ids)
    clock.synchronise()
    found.first_call_s = clock.now() - began_s

    # Before anything is repeated, so that what an allocator keeps of earlier repeats is not counted.
    del ids
    gc.collect()
    meter.reset()
    _repeat(decoder, prompts, gen_len_tokens, clock)
    found.peak = meter.peak()
    found.state_bytes, found.state_tokens = decoder.state_bytes(), decoder.state_tokens

    if not repeats:
        return found
    found.warmup = _warm_up(decoder, prompts, gen_len_tokens, clock, max_time_s * _WARMUP_SHARE)
    for repeat in _repeats(decoder, prompts, gen_len_tokens, clock, repeats, max_time_s):
        found.repeats.append(repeat)
        on_repeat(repeat)
    return found


def _warm_up(decoder: Decoder, prompts: Tensor, gen_len: int, clock: Clock, most_s: float) -> WarmupRecord:
    """Repeat the shape until the last windows agree, or the time is up."""
    prefill_s: list[float] = []
    step_s: list[float] = []
    n_steps = min(_WINDOW_STEPS, gen_len - 1)
    began_s = clock.now()
    for _ in range(_MOST_WINDOWS):
        repeat = _repeat(decoder, prompts, n_steps + 1, clock)
        assert repeat.ttft_s is not None
        prefill_s.append(repeat.ttft_s)
        if n_steps:
            step_s.append(repeat.tpot_s)
        if _is_steady(prefill_s) and (not n_steps or _is_steady(step_s)):
            break
        if clock.now() - began_s >= most_s:
            break
    steady = _is_steady(prefill_s) and (not n_steps or _is_steady(step_s))
    return WarmupRecord(prefill_s=tuple(prefill_s), decode_step_s=tuple(step_s), steady=steady)


def _is_steady(windows: Sequence[float]) -> bool:
    last = windows[-_STEADY_WINDOWS:]
    return len(last) == _STEADY_WINDOWS and max(last) <= _STEADY_WITHIN * min(last)


def _repeats(
    decoder: Decoder, prompts: Tensor, gen_len: int, clock: Clock, repeats: int, max_time_s: float
) -> Iterator[RepeatRecord]:
    """Yield timed repeats until there are enough of them, or the time is up."""
    began_s = clock.now()
    timed_s = longest_s = 0.0
    kept = False
    for n_done in range(MOST_REPEATS):
        gone_s = clock.now() - began_s
        if n_done and (gone_s >= max_time_s or (n_done >= repeats and timed_s >= LEAST_TIMED_S)):
            return
        if kept:
            repeat = _repeat(decoder, None, gen_len, clock)
        else:
            # The last repeat with a prefill leaves its state to those that decode alone.
            kept = bool(n_done) and gen_len > 1 and gone_s + 2 * longest_s > max_time_s * _FULL_SHARE
            repeat = _repeat(decoder, prompts, gen_len, clock, keep=kept)
            longest_s = max(longest_s, clock.now() - began_s - gone_s)
        timed_s += repeat.decode_s + (repeat.ttft_s or 0.0)
        yield repeat


def _repeat(
    decoder: Decoder, prompts: Tensor | None, gen_len: int, clock: Clock, *, keep: bool = False
) -> RepeatRecord:
    """Time a prefill and the steps after it, or with no prompts the steps from the kept state."""
    clock.prepare(gen_len + 2)
    marks: list[Mark] = []
    mark, step = clock.mark, decoder.step
    ttft_s: float | None = None
    with _undisturbed():
        if prompts is None:
            ids = decoder.rewind()
            clock.synchronise()
        else:
            clock.synchronise()
            began_s = clock.now()
            marks.append(mark())
            ids = decoder.prefill(prompts)
            marks.append(mark())
            ids.tolist()
            ttft_s = clock.now() - began_s
            if keep:
                decoder.keep()
                clock.synchronise()
        first_s = clock.now()
        marks.append(mark())
        for _ in range(gen_len - 1):
            ids = step(ids)
            marks.append(mark())
        clock.synchronise()
        decode_s = clock.now() - first_s
    times = clock.elapsed(marks)
    n_before = 0 if prompts is None else 2
    on_device = times.device_s is not None
    return RepeatRecord(
        ttft_s=ttft_s,
        itl_s=tuple(times.step_s[n_before:]),
        decode_host_s=decode_s if on_device else None,
        ttft_device_s=times.device_s[0] if times.device_s and prompts is not None else None,
        decode_device_s=sum(times.device_s[n_before:]) if times.device_s is not None else None,
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep Python from collecting garbage between two marks."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
