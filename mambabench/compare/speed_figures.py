"""The figures of a process that sweeps are compared by, with their names in tables and in gates.

>>> figure_named("tpot_s").label
'time per token'
>>> figure_named("hellaswag") is None
True
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mambabench import medians
from mambabench.compare.speed_result import SpeedUnit
from mambabench.medians import Figure
from mambabench.speed_schema import ConversationRecord, ReplicateRecord


@dataclass(frozen=True)
class SpeedFigure:
    """One figure of a process."""

    name: str
    label: str
    unit: SpeedUnit
    of: Figure
    aliases: tuple[str, ...] = ()
    """Other names for it in gates."""
    lower_is_better: bool = True
    n_for_exact: int = 2
    """Processes a side from which equal figures are taken as exact."""
    inverse_of: str = ""
    """Name of the figure whose inverse it is, so that both are one test."""


def figure_named(name: str) -> SpeedFigure | None:
    """Return a figure by its name or one of its aliases, None for another name."""
    return next((f for f in FIGURES if name == f.name or name in f.aliases), None)


def _decode_tokens_per_s(record: ReplicateRecord) -> float | None:
    tpot_s = medians.tpot_s(record)
    return record.point.batch_size / tpot_s if tpot_s else None


def _state_bytes(record: ReplicateRecord) -> float | None:
    if record.conversation is not None:
        return float(record.conversation.history_state_bytes)
    return float(record.memory.state_bytes) if record.memory is not None else None


def _conversation(figure: Callable[[ConversationRecord], float | None]) -> Figure:
    def of(record: ReplicateRecord) -> float | None:
        return None if record.conversation is None else figure(record.conversation)

    return of


def _operation(name: str) -> Figure:
    def median(record: ConversationRecord) -> float | None:
        times = next((o.times_s for o in record.operations if o.operation == name), ())
        return statistics.median(times) if times else None

    return _conversation(median)


_OPERATIONS: Final = {
    "resume": "go on after a turn",
    "prefill_again": "forward everything again",
    "snapshot": "copy the state",
    "restore": "copy it back",
    "save": "write the state to a file",
    "load": "read it back",
    "fork": "begin several continuations",
    "rewind": "go back before a turn",
}
FIGURES: Final[tuple[SpeedFigure, ...]] = (
    SpeedFigure("ttft", "time to first token", "s", medians.ttft_s, ("ttft_s",)),
    SpeedFigure("tpot", "time per token", "s", medians.tpot_s, ("tpot_s",)),
    SpeedFigure(
        "itl", "steps, median", "s", medians.itl_percentile_s(50), ("itl_s", "itl_p50", "itl_p50_s")
    ),
    SpeedFigure("itl_p99", "steps, 99th percentile", "s", medians.itl_percentile_s(99), ("itl_p99_s",)),
    SpeedFigure("e2e", "prompt and all tokens", "s", medians.e2e_s, ("e2e_s",)),
    SpeedFigure(
        "decode", "decoding", "tokens/s", _decode_tokens_per_s, ("decode_tokens_per_s",),
        lower_is_better=False, inverse_of="tpot",
    ),
    SpeedFigure("peak", "peak memory", "bytes", medians.peak_bytes, ("peak_bytes", "peak_vram_bytes")),
    # Walked over the live state, and a process whose specification says otherwise has failed.
    SpeedFigure("state", "state and KV", "bytes", _state_bytes, ("state_bytes",), n_for_exact=1),
    SpeedFigure(
        "forks", "all continuations' states", "bytes", _conversation(lambda c: float(c.forked_state_bytes)),
        ("forks_bytes", "forked_state_bytes"), n_for_exact=1,
    ),
    SpeedFigure(
        "energy", "energy per token", "J/token", medians.gross_j_per_token,
        ("energy_j_per_token", "j_per_token", "gross_j_per_token"),
    ),
    *(
        SpeedFigure(name, label, "s", _operation(name), (f"{name}_s",))
        for name, label in _OPERATIONS.items()
    ),
)  # fmt: skip
"""In the order of tables; a sweep has those that its processes measured."""
