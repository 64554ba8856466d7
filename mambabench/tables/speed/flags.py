"""What limits the figures of a point, in a closed list of words, each with what to do about it.

>>> sorted(ADVICE)[0]
'a figure not above zero'
"""

from __future__ import annotations

from collections.abc import Sequence

from mambabench.medians import (
    Figure,
    budget_bytes,
    by_replicate,
    has_outlier,
    is_positive,
    tpot_s,
    ttft_s,
)
from mambabench.speed_schema import PointRecord, ReplicateRecord

PAST_TRAINING = "past training length"
NOT_STEADY = "warm-up not steady"
FEW_REPEATS = "fewer than 10 repeats"
FEW_PREFILLS = "fewer than 10 prefills"
SHORT = "less than 1 s timed"
OUTLIERS = "outliers"
FEW_TOKENS = "fewer than 64 tokens generated"
DIFFER = "processes differ by over 10%"
OUTCOMES_DIFFER = "processes ended differently"
PATHS_DIFFER = "kernel paths differ"
FALLBACK = "torch fallback on a GPU"
STATE_DIFFERS = "state differs from the specification"
EMULATED = "emulated memory budget"
NOT_POSITIVE = "a figure not above zero"
ABOVE_CEILING = "above the measured ceiling"
BUSY = "busy machine"
CEILINGS_UNSTEADY = "ceilings unsteady"
NOT_CERTIFIED = "certificate failed"
INCOMPLETE = "processes missing"

ADVICE: dict[str, str] = {
    PAST_TRAINING: "speed and memory are real, answers would not be; end `--prompt-len` earlier",
    NOT_STEADY: "times still changed when the first repeat began; raise `--repeats`, stop other programs",
    FEW_REPEATS: "too few for a published figure; raise `--repeats` or `--max-time`",
    FEW_PREFILLS: "later repeats decoded alone, as prefills are long; raise `--max-time`",
    SHORT: "too short to average over the machine's noise; raise `--repeats` or `--gen-len`",
    OUTLIERS: "repeats 10 median deviations off are kept, medians bear them; raise `--repeats` if in doubt",
    FEW_TOKENS: "not for publication; use `--gen-len 64` or more",
    DIFFER: "one process is not like the next; use `--processes 6` or more and quieten the machine",
    OUTCOMES_DIFFER: "the worst is shown, figures are of those that measured; raise `--processes`",
    PATHS_DIFFER: "not all processes ran the same code; use one `--device` and one installation",
    FALLBACK: "slanders the model; `pip install mambabench[cuda]`, or use `--device cpu`",
    STATE_DIFFERS: "measured and computed state bytes do not agree; do not use this row's memory",
    EMULATED: "bounds CUDA's allocator or, on a CPU, resident memory; leave `--memory-budget` out for all",
    NOT_POSITIVE: "lost in noise; net energy is shown as it is, others are left out; raise `--gen-len`",
    ABOVE_CEILING: "caches beat the copy or product, or both were slowed; raise `--processes`",
    CEILINGS_UNSTEADY: "the best copy or product of one round is over 10% off another's; quieten the machine",
    BUSY: "other programs were running when a process began; stop them and run again with `--processes 6`",
    NOT_CERTIFIED: "the forward disagrees with its reference; believe nothing of it, try `--arm shipped`",
    INCOMPLETE: "not all processes of the point have run; the same command finishes the sweep",
}
"""Every flag and the way out; tables print it as a footnote."""

_N_REPEATS = 10
_TIMED_S = 1.0
_N_TOKENS = 64
_BETWEEN = 1.10
_FALLBACKS = ("transformers torch loop", "transformers torch chunks")


def flags_of(
    point: PointRecord,
    records: Sequence[ReplicateRecord],
    *,
    above_ceiling: bool = False,
    ceilings_unsteady: bool = False,
    n_cores: int | None = None,
    n_processes: int | None = None,
) -> tuple[str, ...]:
    """Return the flags of a point in the order of `ADVICE`.

    Args:
        point: what was measured.
        records: its processes.
        above_ceiling: whether it did more than the measured ceilings allow.
        ceilings_unsteady: whether rounds of measuring these differ.
        n_cores: of the machine, against which its load is judged; null for no judgement.
        n_processes: that the sweep measures each point with; null where that is not known.
    """
    # Times of a process that did not end well are in no figure, so that nothing limits them.
    speed = [r for r in records if r.status == "ok" and r.repeats]
    memories = [r.memory for r in records if r.memory is not None]
    paths = {r.kernel_path for r in records if r.kernel_path}
    found = {
        PAST_TRAINING: any(r.past_training_length for r in records),
        NOT_STEADY: any(r.warmup is not None and not r.warmup.steady for r in speed),
        FEW_REPEATS: any(len(r.repeats) < _N_REPEATS for r in speed),
        FEW_PREFILLS: any(_n_prefills(r) < _N_REPEATS <= len(r.repeats) for r in speed),
        SHORT: any(_timed_s(r) < _TIMED_S for r in speed),
        OUTLIERS: any(has_outlier(v) for r in speed for v in _series(r)),
        FEW_TOKENS: bool(speed) and point.gen_len_tokens < _N_TOKENS,
        DIFFER: any(_differ(speed, figure) for figure in (ttft_s, tpot_s)),
        OUTCOMES_DIFFER: len({r.status for r in records}) > 1,
        PATHS_DIFFER: len(paths) > 1,
        FALLBACK: point.device != "cpu" and any(p.startswith(_FALLBACKS) for p in paths),
        STATE_DIFFERS: any(m.state_bytes_spec not in (None, m.state_bytes) for m in memories),
        EMULATED: any(budget_bytes(r) is not None for r in records),
        NOT_POSITIVE: any(r.status == "ok" and not is_positive(r) for r in records),
        ABOVE_CEILING: above_ceiling,
        CEILINGS_UNSTEADY: ceilings_unsteady,
        BUSY: any(_is_busy(r, n_cores) for r in records),
        NOT_CERTIFIED: any(r.certificate is not None and not r.certificate.passed for r in records),
        INCOMPLETE: n_processes is not None and 0 < len(records) < n_processes,
    }
    return tuple(flag for flag in ADVICE if found[flag])


def _series(record: ReplicateRecord) -> list[list[float]]:
    first = [r.ttft_s for r in record.repeats if r.ttft_s is not None]
    return [first, [r.tpot_s for r in record.repeats if r.itl_s]]


def _n_prefills(record: ReplicateRecord) -> int:
    return sum(r.ttft_s is not None for r in record.repeats)


def _timed_s(record: ReplicateRecord) -> float:
    return sum((r.ttft_s or 0.0) + r.decode_s for r in record.repeats)


def _differ(records: Sequence[ReplicateRecord], figure: Figure) -> bool:
    values = by_replicate(records, figure).values()
    return len(values) > 1 and max(values) > _BETWEEN * min(values)


def _is_busy(record: ReplicateRecord, n_cores: int | None) -> bool:
    # What the sweep itself leaves in the load is at most one process on all cores.
    return n_cores is not None and record.load_average is not None and record.load_average > n_cores + 0.5
