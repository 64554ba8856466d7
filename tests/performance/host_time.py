"""What the host does for a forward on a GPU, apart from the launches: measured without a GPU.

    python tests/performance/host_time.py [--rows 64 256] [--model mamba mamba2 hybrid] [--repeats 7]

A GPU idles whenever the host takes longer to say what is to be done than the GPU takes to do it. Models have
48 layers, tiny widths and the real classes of a GPU's kernels; a launch and a matrix product do nothing. What
is left is Python, allocations of states, and arrays that would be copied to the GPU, which are counted. A
launch itself, some microseconds each and the same number whatever the rows, is not in the figures. Times are
the processor's, so that a busy machine hardly changes them.

Each row is one of the engine's patterns: a forward of 30 tokens a row from nothing; forwards from states of
which each is named four times, keeping none or all; 100 steps of one token a row, each over its own state.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from builders import mamba2_config, mamba_config, mamba_ssm_config, spread_weights
from performance import tables

from mambabench.kernels.gpu import layout, triton_kernels
from mambabench.models import step_hybrid, step_mamba, step_mamba2
from mambabench.models.stateful import State, bytes_of

LAYERS, TOKENS, STEPS, BROODS = 48, 30, 100, 4
HEADER = (
    "host", "rows", "pattern", "time", "copies to the GPU", "bytes of them",
)  # fmt: skip
_N_IDS, _WIDTH = 304, 8
MODELS = ("mamba", "mamba2", "hybrid")


class _NoKernel:
    """Stands for a Triton kernel: launching it does nothing."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **options: None


class Sends:
    """Counts what goes from the host to the GPU."""

    def __init__(self, sent: Callable[..., torch.Tensor]) -> None:
        self._sent = sent
        self.n = self.bytes = 0

    def __call__(self, array: Any, device: Any) -> torch.Tensor:
        """Count one array."""
        self.n += 1
        self.bytes += array.nbytes
        return self._sent(array, device)


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@contextmanager
def without_work() -> Iterator[Sends]:
    """Let kernels and products do nothing, and count what would go to a GPU."""
    kernels = triton_kernels.TritonKernels
    with ExitStack() as stack:
        # Triton would need a compiler; no kernel is ever compiled here.
        stack.enter_context(patch.object(triton_kernels, "obstacle", lambda: None))
        for module in (step_mamba, step_mamba2, step_hybrid):
            stack.enter_context(patch.object(module, "linear", _product))
            stack.enter_context(patch.object(module, "kernels_for", lambda device, dtype: kernels(dtype)))
        found = kernels(torch.float32)
        for module in (found._math, found._scan, found._ssd):
            for name, value in list(vars(module).items()):
                if hasattr(value, "fn") and hasattr(value, "__getitem__"):
                    stack.enter_context(patch.object(module, name, _NoKernel()))
        sends = Sends(layout.sent)
        for place in (triton_kernels, layout):
            if hasattr(place, "sent"):
                stack.enter_context(patch.object(place, "sent", sends))
        yield sends


def build(name: str) -> Any:
    """Return a model of 48 narrow layers over a GPU's kernels."""
    from transformers import Mamba2ForCausalLM, MambaForCausalLM

    sizes = {"hidden_size": _WIDTH, "num_hidden_layers": LAYERS}
    if name == "mamba":
        return step_mamba.MambaSteps(MambaForCausalLM(mamba_config(**sizes)), vocab_size=_N_IDS)
    if name == "mamba2":
        config = mamba2_config(**sizes, num_heads=2, head_dim=8)
        return step_mamba2.Mamba2Steps(Mamba2ForCausalLM(config), vocab_size=_N_IDS)
    shape = mamba_ssm_config(d_model=_WIDTH, n_layer=LAYERS, ssm_cfg={"layer": "Mamba1", "d_state": 8})
    return step_hybrid.HybridSteps(shape, spread_weights(shape), vocab_size=_N_IDS, dtype=torch.float32)


class Patterns:
    """What the engine asks of a model.

    Args:
        steps: the model.
        rows: of a batch, a multiple of 16.
    """

    def __init__(self, steps: Any, rows: int) -> None:
        self._steps, self._rows = steps, rows
        self._ids = torch.zeros(rows * TOKENS, dtype=torch.int64)
        self._ones = torch.zeros(rows, dtype=torch.int64)
        self._all = list(range(rows))
        # Parents from four batches, each the context of four rows.
        parents = rows // BROODS
        batches = [self._state(parents // BROODS) for _ in range(BROODS)]
        self._picks = [
            (batches[row % BROODS], row // BROODS) for row in range(parents) for _ in range(BROODS)
        ]
        self.named: dict[str, tuple[Callable[[], Any], int]] = {
            "from nothing, keeping all": (lambda: self._state(rows), 1),
            "from shared states, keeping none": (lambda: self._children([]), 1),
            "from shared states, keeping all": (lambda: self._children(self._all), 1),
            "one token a row, in place": (self._decoded, STEPS),
            "gather the parents": (lambda: State.gather(self._picks), 1),
            "select every other row": (lambda: self._kept.select(self._all[::2]), 1),
            "count the bytes of two batches": (lambda: bytes_of([self._kept, self._shared]), 1),
            "count what a batch holds": (lambda: self._kept.allocated_bytes, 1),
        }
        self._kept, self._shared = self._state(rows), State.gather(self._picks)

    def _state(self, rows: int) -> State:
        ids = self._ids[: rows * TOKENS]
        state: State = self._steps.step(ids, [TOKENS] * rows, keep=list(range(rows))).state
        return state

    def _children(self, keep: list[int]) -> Any:
        state = State.gather(self._picks)
        return self._steps.step(self._ids, [TOKENS] * self._rows, state, keep=keep, consume=True)

    def _decoded(self) -> None:
        state = self._kept
        for _ in range(STEPS):
            state = self._steps.step(self._ones, [1] * self._rows, state, consume=True).state
        self._kept = state


def measure(name: str, rows: int, repeats: int) -> Iterator[list[str]]:
    """Yield a model's lines of the table."""
    with without_work() as sends:
        patterns = Patterns(build(name), rows)
        for pattern, (work, steps) in patterns.named.items():
            work()
            sends.n = sends.bytes = 0
            took_s = []
            for _ in range(repeats):
                began_s = time.thread_time()
                work()
                took_s.append((time.thread_time() - began_s) / steps)
            each = repeats * steps
            time_ms = f"{1e3 * median(took_s):.2f} ms ({1e3 * min(took_s):.2f}–{1e3 * max(took_s):.2f})"
            yield [name, str(rows), pattern, time_ms, f"{sends.n / each:g}", f"{sends.bytes / each:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rows", nargs="+", type=int, default=(64, 256), help="multiples of 16")
    parser.add_argument("--repeats", type=int, default=7, help="times of each pattern (default: %(default)s)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(tables.machine() + "\n")
    lines = [
        line for name in chosen.model for rows in chosen.rows for line in measure(name, rows, chosen.repeats)
    ]
    print(tables.markdown(HEADER, lines))


if __name__ == "__main__":
    main()
