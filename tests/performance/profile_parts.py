"""Where a pass of the engine spends its time, by part: planning, tokenization, products, scan, and so on.

    python tests/performance/speed.py --profile mamba-130m/hellaswag ...

Functions are replaced for a while by ones that look at the clock. Time within a part that is called from
another counts for the inner one alone, so that the parts add up. Python's own profiler then runs over a
second pass, for the functions that no part names.
"""

from __future__ import annotations

import cProfile
import functools
import importlib
import io
import pstats
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

PARTS = {
    "tokenization": ("mambabench.tasks.lm_eval_backend:MambabenchLM.tok_encode",),
    "requests as arrays": (
        "mambabench.scoring.questions:Questions.of",
        "mambabench.scoring.questions:Questions.distinct",
    ),
    "planning": ("mambabench.scoring.trie:plan", "mambabench.scoring.trie_plan:Plan.work"),
    "matrix products": (
        "mambabench.models.step_mamba:linear",
        "mambabench.models.step_mamba2:linear",
        "torch.nn.modules.linear:Linear.forward",
    ),
    "scan": (
        "mambabench.kernels.packed:CpuKernels.scan",
        "mambabench.kernels.packed:CpuKernels.ssd",
    ),
    "convolution": ("mambabench.kernels.packed:CpuKernels.conv_silu",),
    "normalisation": (
        "mambabench.kernels.packed:CpuKernels.add_norm",
        "mambabench.kernels.packed:CpuKernels.gate_norm",
        "torch.nn.modules.normalization:LayerNorm.forward",
    ),
    "attention": ("mambabench.models.packed_attention:PackedAttention.__call__",),
    "logits": (
        "mambabench.models.recurrent_steps:RecurrentSteps.logits",
        "mambabench.models.step_attention:AttentionSteps.logits",
    ),
    "softmax": ("mambabench.scoring.readout:read_logits",),
    "state copies": (
        "mambabench.models.stateful:State.gather",
        "mambabench.models.stateful:State.select",
        "mambabench.models.recurrent_state:RecurrentLayers.places",
    ),
    "answers to disk": ("mambabench.store.answers:AnswerLog.append",),
}
"""From part to functions, each as `module:name`; a method's class stands before it."""
REST = "all else"
_TOP = 15


class Clock:
    """Exclusive time by part."""

    def __init__(self) -> None:
        self.took_s: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = [REST]
        self._since_s = time.perf_counter()

    def enter(self, part: str) -> None:
        """Begin a part; the one around it rests. A product inside the logits is theirs."""
        self._turn()
        self._open.append("logits" if self._open[-1] == "logits" else part)

    def leave(self) -> None:
        """Return to the part around."""
        self._turn()
        self._open.pop()

    def _turn(self) -> None:
        now_s = time.perf_counter()
        self.took_s[self._open[-1]] += now_s - self._since_s
        self._since_s = now_s


def by_part(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of each part of some work in this thread, the longest first."""
    with ExitStack() as stack:
        clock = Clock()
        for part, places in PARTS.items():
            for place in places:
                stack.enter_context(_clocked(place, part, clock))
        clock.enter(REST)
        work()
        clock.leave()
    return dict(sorted(clock.took_s.items(), key=lambda item: -item[1]))


@contextmanager
def _clocked(place: str, part: str, clock: Clock) -> Iterator[None]:
    owner, name = find(place)
    found = vars(owner)[name]
    is_class_method = isinstance(found, classmethod)
    plain = found.__func__ if is_class_method else found

    @functools.wraps(plain)
    def timed(*args: Any, **kwargs: Any) -> Any:
        clock.enter(part)
        try:
            return plain(*args, **kwargs)
        finally:
            clock.leave()

    with patch.object(owner, name, classmethod(timed) if is_class_method else timed):
        yield


def find(place: str) -> tuple[Any, str]:
    """Return where a function of `PARTS` is kept, and its name there."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for inner in classes:
        owner = getattr(owner, inner)
    return owner, name


def profiled(work: Callable[[], object]) -> dict[str, Any]:
    """Return "parts", seconds by part of one pass, and "functions", Python's profile of another one."""
    work()
    parts = by_part(work)
    profile = cProfile.Profile()
    profile.runcall(work)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(_TOP)
    return {"parts": parts, "functions": text.getvalue()}
