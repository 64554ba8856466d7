"""Rows of frames as plain values: missing ones None, figures with their ends, and what flags mean here.

>>> weight_of("busy machine", "s"), weight_of("certificate failed", "B")
('doubt', 'unusable')
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from mambabench.advise.facts import RunFacts
from mambabench.advise.result import Place, Setting
from mambabench.tables.speed import flags

if TYPE_CHECKING:
    import pandas as pd

Weight = Literal["unusable", "doubt", "remark"]
FIGURES: Final = ("ttft_s", "tpot_s", "peak_bytes")
# Conversations are measured at histories and turns, which are no prompts of a batch.
_KINDS: Final = ("latency", "throughput", "memory")
_UNUSABLE: Final = frozenset(
    {flags.NOT_CERTIFIED, flags.STATE_DIFFERS, flags.FALLBACK, flags.NOT_POSITIVE, flags.PATHS_DIFFER}
)
# That few tokens are generated may be the wish itself.
_REMARKS: Final = frozenset(
    {
        flags.PAST_TRAINING,
        flags.EMULATED,
        flags.ABOVE_CEILING,
        flags.CEILINGS_UNSTEADY,
        flags.FEW_TOKENS,
    }
)
# Bytes do not depend on how long something was timed, nor on what else was running.
_OF_TIMES: Final = frozenset(
    {
        flags.NOT_STEADY,
        flags.FEW_REPEATS,
        flags.FEW_PREFILLS,
        flags.SHORT,
        flags.OUTLIERS,
        flags.BUSY,
    }
)


def weight_of(flag: str, unit: Literal["s", "B"]) -> Weight:
    """Return what a sweep's flag takes from a figure; a flag that is not known leaves a doubt."""
    if flag in _UNUSABLE:
        return "unusable"
    if flag in _REMARKS or (unit == "B" and flag in _OF_TIMES):
        return "remark"
    return "doubt"


@dataclass(frozen=True)
class Ends:
    """A figure of one point, over its processes."""

    value: float
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Row:
    """One measured point of a sweep."""

    run: str
    label: str
    model: str
    setting: Setting
    batch_size: int
    prompt_len_tokens: int
    gen_len_tokens: int
    status: str
    detail: str
    flags: tuple[str, ...]
    figures: Mapping[str, Ends]
    n_processes: int
    weights_bytes: int | None
    state_bytes_spec: int | None
    transient_bytes: int | None
    process_bytes: int | None
    """Peak of the whole process."""
    needed_bytes: int | None
    """What an allocation that failed would have brought the total to."""
    training_length_tokens: int | None

    @property
    def length_tokens(self) -> int:
        """Prompt and output together."""
        return self.prompt_len_tokens + self.gen_len_tokens

    def unusable(self, unit: Literal["s", "B"]) -> tuple[str, ...]:
        """Return the flags that forbid the use of its figures."""
        return tuple(flag for flag in self.flags if weight_of(flag, unit) == "unusable")

    def doubts(self, unit: Literal["s", "B"]) -> tuple[str, ...]:
        """Return the flags that leave a doubt."""
        return tuple(flag for flag in self.flags if weight_of(flag, unit) == "doubt")

    def place(self, figure: str) -> Place:
        """Return where it was measured, with one of its figures."""
        ends = self.figures.get(figure)
        return Place(
            self.run,
            self.prompt_len_tokens,
            self.gen_len_tokens,
            self.batch_size,
            None if ends is None else ends.value,
            None if ends is None else ends.low,
            None if ends is None else ends.high,
        )


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows; what is missing or no finite number is None."""
    import pandas as pd

    return [
        {str(name): _plain(value, pd.isna(value)) for name, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]


def speed_rows(frame: pd.DataFrame, facts: Mapping[str, RunFacts]) -> list[Row]:
    """Return the points of frame `speed` that say something of prompts and batches."""
    return [_row(row, facts) for row in plain(frame) if row["kind"] in _KINDS and _complete(row)]


def _complete(row: Mapping[str, Any]) -> bool:
    return all(row[name] is not None for name in ("batch_size", "prompt_len_tokens", "gen_len_tokens"))


def _row(row: Mapping[str, Any], facts: Mapping[str, RunFacts]) -> Row:
    run = row["run"] or ""
    device = row["device"] or ""
    machine, _ = facts.get(run, RunFacts()).device(device)
    needed = [row["requested_bytes"], row["allocated_bytes"]]
    return Row(
        run=run,
        label=row["label"] or "",
        model=row["model"] or row["label"] or "",
        setting=Setting(
            machine=machine,
            device=device,
            dtype=row["dtype"] or "",
            arm=row["arm"] or "",
            attention=row["attention"] or "",
            prefill_chunk_tokens=int(row["prefill_chunk_tokens"] or 0),
        ),
        batch_size=int(row["batch_size"]),
        prompt_len_tokens=int(row["prompt_len_tokens"]),
        gen_len_tokens=int(row["gen_len_tokens"]),
        status=row["status"] or "missing",
        detail=" ".join((row["detail"] or "").split()),
        flags=tuple(flag.strip() for flag in (row["flags"] or "").split(";") if flag.strip()),
        figures={name: ends for name in FIGURES if (ends := _ends(row, name)) is not None},
        n_processes=int(row["n_processes"] or 0),
        weights_bytes=_whole(row["weights_bytes"]),
        state_bytes_spec=_whole(row["state_bytes_spec"]),
        transient_bytes=_whole(row["transient_bytes"]),
        process_bytes=_whole(row["peak_process_bytes"]),
        needed_bytes=None if None in needed else int(sum(needed)),
        training_length_tokens=_whole(row["training_length_tokens"]),
    )


def _ends(row: Mapping[str, Any], name: str) -> Ends | None:
    value = row[name]
    # A time or a size that is not above zero is lost in noise.
    if value is None or value <= 0:
        return None
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    method = row[f"{name}_method"] or "single"
    return Ends(float(value), low, high, method)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _plain(value: Any, missing: Any) -> Any:
    if missing is True or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
