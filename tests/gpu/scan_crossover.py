"""From which length on mamba_ssm's scans beat our own on this GPU, over rows that go on from states.

    python tests/gpu/scan_crossover.py --found figures.json [--device cuda:0] [--repeats 15]

For each model's sizes, dtype and number of tokens a row: the median time of one layer's scan with all rows on
our Triton kernels, and with all on mamba_ssm's, its layout, states and all. Once with one row, and once with
as many as make a batch of 16,384 tokens. `crossover_tokens` is the shortest length from which mamba_ssm's is
faster at every longer one, or null; `mambabench.kernels.gpu.choice` has the guesses that it should replace.

Not run on hardware yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from checks import Figures

from mambabench.bench.clock import Clock, clock_for
from mambabench.kernels.gpu import choice
from mambabench.kernels.gpu.choice import ChosenKernels
from mambabench.kernels.gpu.official import Functions, functions
from mambabench.kernels.gpu.triton_kernels import TritonKernels
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
BATCH_TOKENS = 16_384
_WARM_UPS = 3


@dataclass(frozen=True)
class Size:
    """A layer's scan, as a model has it."""

    name: str
    heads: int
    """0 for Mamba-1."""
    channels: int
    n_states: int
    dtype: torch.dtype

    def work(self, kernels: Any, rows: int, length: int, device: str) -> Callable[[], Any]:
        """Return what runs the scan over some rows, each on from its state, in place."""
        tokens, starts = rows * length, row_starts([length] * rows)

        def drawn(*shape: int, dtype: torch.dtype = self.dtype) -> torch.Tensor:
            return torch.randn(*shape, device=device).to(dtype)

        def positive(*shape: int) -> torch.Tensor:
            return torch.rand(*shape, device=device) + 0.1

        if not self.heads:
            state = Rows.apart(drawn(rows, self.n_states, self.channels, dtype=torch.float32))
            u, dt = drawn(tokens, self.channels), drawn(tokens, self.channels) - 4
            proj, xz = drawn(tokens, 2 * self.n_states), drawn(tokens, 2 * self.channels)
            a, vector = -positive(self.n_states, self.channels), positive(self.channels)
            given = u, dt, vector, a, proj, 0, vector, xz, self.channels, starts, state, state
            return lambda: kernels.scan(*given)
        width = self.channels // self.heads
        state = Rows.apart(drawn(rows, self.heads, self.n_states, width, dtype=torch.float32))
        xbc, dt = drawn(tokens, self.channels + 2 * self.n_states), drawn(tokens, self.heads) - 4
        vector, skip = positive(self.heads), positive(self.heads, width)
        given_ssd = xbc, dt, 0, vector, -vector, skip, 1, starts, state, state
        return lambda: kernels.ssd(*given_ssd)


SIZES = (
    *(Size("mamba-130m", 0, 1536, 16, dtype) for dtype in (torch.bfloat16, torch.float32)),
    *(Size("mamba-1.4b", 0, 4096, 16, dtype) for dtype in (torch.bfloat16, torch.float32, torch.float16)),
    Size("mamba-2.8b", 0, 5120, 16, torch.bfloat16),
    Size("mamba2-130m", 24, 1536, 128, torch.bfloat16),
    Size("mamba2-1.3b", 64, 4096, 128, torch.bfloat16),
    Size("mamba2-2.7b", 80, 5120, 128, torch.bfloat16),
)


def crossover_tokens(times: Sequence[tuple[int, float, float]]) -> int | None:
    """Return the shortest length from which mamba_ssm's scan is faster at each that was tried.

    >>> crossover_tokens([(16, 1.0, 3.0), (32, 2.0, 1.5), (64, 4.0, 2.0)])
    32

    Args:
        times: a length in tokens, and the seconds of ours and of mamba_ssm's.
    """
    found = None
    for length, ours_s, official_s in sorted(times, reverse=True):
        if official_s >= ours_s:
            break
        found = length
    return found


def typical_s(work: Callable[[], Any], clock: Clock, repeats: int) -> float:
    """Return the median time of some work; what is compiled or tried out at first is not in it."""
    for _ in range(_WARM_UPS):
        work()
    clock.synchronise()
    clock.prepare(repeats + 1)
    marks = [clock.mark()]
    for _ in range(repeats):
        work()
        marks.append(clock.mark())
    return median(clock.elapsed(marks).step_s)


def measure(
    figures: Figures,
    found: Functions,
    clock: Clock,
    *,
    device: str,
    sizes: Sequence[Size] = SIZES,
    lengths: Sequence[int] = LENGTHS,
    batch_tokens: int = BATCH_TOKENS,
    repeats: int = 15,
) -> None:
    """Time both scans of every size and add the times as they are known."""
    # Every row is long.
    choice.LONG_TOKENS = choice.LONG_SSD_TOKENS = 1
    choice._SHARE_AHEAD = 0
    crossovers: dict[str, int | None] = {}
    for size in sizes:
        ours, official = TritonKernels(size.dtype), ChosenKernels(size.dtype, found)
        name = f"{size.name} {str(size.dtype).removeprefix('torch.')}"
        for batch in ("one row", "a batch"):
            times = []
            for length in lengths:
                rows = 1 if batch == "one row" else max(1, batch_tokens // length)
                # The inputs of one are gone before those of the other are made.
                ours_s = typical_s(size.work(ours, rows, length, device), clock, repeats)
                official_s = typical_s(size.work(official, rows, length, device), clock, repeats)
                times.append((length, ours_s, official_s))
                key = f"{name}, {batch}, {rows} x {length}"
                figures.add(**{key: {"triton_s": ours_s, "official_s": official_s}})
            crossovers[f"{name}, {batch}"] = crossover_tokens(times)
            figures.add(crossover_tokens=crossovers)


def main() -> None:
    """Measure on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--found", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--device", default="cuda:0", help="a GPU")
    parser.add_argument("--repeats", type=int, default=15, help="of each time")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")
    found = functions()
    if found is None:
        sys.exit("mamba_ssm does not load; `mambabench doctor` says why")
    figures = Figures(options.found)
    figures.add(card=torch.cuda.get_device_name(options.device))
    with torch.inference_mode(), torch.cuda.device(options.device):
        measure(figures, found, clock_for(options.device), device=options.device, repeats=options.repeats)


if __name__ == "__main__":
    main()
