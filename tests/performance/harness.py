"""What the measuring itself costs, and whether sweeps report what is known of a fake model.

    python tests/performance/harness.py [--quick]

1. The loop's own time between two marks, with a model whose step does nothing: target below 1% of 1 ms.
2. A fake model of known times and allocations measured by each kind of sweep, on idle cores and beside two
   processes that keep the cores busy: target within 2% or 0.1 ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from performance import tables
from performance.forward import SPINNERS, busy_cores

STEP_S = 0.001
TIMES = "fake:prefill_ms=80,prefill_us_per_token=20,token_ms=5,token_us_per_depth=2"
# Apart from the times, since touching memory takes some, and more on busy cores.
MEMORY = "fake:weights_mb=200,state_mb=4,kv_kb=20,transient_mb=100"
PROMPT, GEN, BATCH = 500, 16, 4


def overhead_s(n_steps: int = 20_000, repeats: int = 7) -> list[float]:
    """Return the loop's own seconds a step, one figure a repeat."""
    import torch

    from mambabench.bench.clock import HostClock
    from mambabench.bench.fake import FakeDecoder, FakeSpec
    from mambabench.bench.measure import _repeat

    class Idle(FakeDecoder):
        def step(self, ids: torch.Tensor) -> torch.Tensor:
            return ids

    decoder = Idle(FakeSpec.parse("fake:prefill_ms=0,token_ms=0"))
    prompts = torch.zeros(1, 8, dtype=torch.int64)
    return [_repeat(decoder, prompts, n_steps + 1, HostClock()).tpot_s for _ in range(repeats)]


def reported(kind: str, processes: int) -> dict[str, float]:
    """Run a sweep over two fake models and return its figures divided by those that are known."""
    from mambabench.bench.fake import FakeSpec
    from mambabench.bench.points import Block
    from mambabench.sweep.options import SpeedOptions
    from mambabench.sweep.run import run_sweep

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"processes": processes, "out": Path(folder), "ceilings": False}
        block = Block((TIMES, MEMORY), (PROMPT,), (GEN,), (BATCH,))
        timed, held = run_sweep(SpeedOptions(kind, (block,), **options)).table.rows  # type: ignore[arg-type]
    spec = FakeSpec.parse(TIMES)
    prefill_s = spec.prefill_s(prompt_len_tokens=PROMPT)
    step_s = sum(spec.step_s(depth_tokens=PROMPT + i) for i in range(GEN - 1)) / (GEN - 1)
    spec = FakeSpec.parse(MEMORY)
    state_bytes = BATCH * spec.state_bytes(length_tokens=PROMPT + GEN - 1)
    in_prefill_bytes = BATCH * spec.state_bytes(length_tokens=PROMPT) + spec.transient_mb * 1e6
    assert timed.ttft_s is not None
    assert timed.tpot_s is not None
    assert timed.decode_tokens_per_s is not None
    assert held.memory is not None
    assert held.peak_bytes is not None
    return {
        "ttft_s": timed.ttft_s.value / prefill_s,
        "tpot_s": timed.tpot_s.value / step_s,
        "decode_tokens_per_s": timed.decode_tokens_per_s.value * step_s / BATCH,
        "state_bytes": held.memory.state_bytes / state_bytes,
        "peak_bytes": held.peak_bytes.value / (spec.weights_bytes + in_prefill_bytes),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one process a sweep, fewer steps")
    given = parser.parse_args()
    print(tables.machine())
    costs = overhead_s(1_000 if given.quick else 20_000)
    share = statistics.median(costs) / STEP_S
    print(f"\nloop's own time: {statistics.median(costs) * 1e6:.2f} us a step "
          f"({min(costs) * 1e6:.2f} to {max(costs) * 1e6:.2f}), {share:.2%} of a 1 ms step")  # fmt: skip
    print(f"\n{TIMES} and {MEMORY}, {BATCH} x ({PROMPT} + {GEN}); reported over known:")
    processes = 1 if given.quick else 3
    for cores in ("idle", "busy"):
        for kind in ("latency", "throughput", "memory"):
            began_s = time.perf_counter()
            if cores == "busy":
                with busy_cores(SPINNERS):
                    found = reported(kind, processes)
            else:
                found = reported(kind, processes)
            figures = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
            print(f"{cores:5} {kind:11} {figures}  ({time.perf_counter() - began_s:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
