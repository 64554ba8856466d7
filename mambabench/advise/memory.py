"""Memory of one model and setting at a wish: measured, bounded from both sides, or computed from sizes.

More sequences and longer ones take no less memory. So a larger point that was measured bounds the wish from
above, a smaller one from below, and what ran out of memory speaks against everything larger. From below there
are also weights and states by their sizes: a state grows by as many bytes with each token. None of these
bounds is a figure, and one from below that keeps the limit leaves all open.

    memory_check(rows, facts, wish)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mambabench.advise.facts import RunFacts
from mambabench.advise.result import Check, Figure, State, judged
from mambabench.advise.rows import Row
from mambabench.advise.speed import Found, figure_at, remarks_of
from mambabench.advise.wish import Wish
from mambabench.tables.speed.flags import EMULATED
from mambabench.units import size

_PEAK = "peak_bytes"
_AGAINST = ("oom", "skipped_after_oom", "unsupported")
_SAME_SLOPE = 0.01


def memory_check(rows: Sequence[Row], facts: Mapping[str, RunFacts], wish: Wish) -> Check:
    """Hold the memory that a wish takes against what there is.

    Args:
        rows: of one model and setting.
        facts: of their runs, with the memory of their devices.
        wish: what is asked for.

    Returns:
        The check; without any limit it tells only whether the wish is known to run.
    """
    limit = wish.memory_bytes if wish.memory_bytes is not None else capacity_bytes(rows, facts)
    failed = _ran_out(rows, facts, limit, wish)
    found = figure_at(rows, _PEAK, wish)
    above = found if found.figure is not None else _larger(rows, limit, wish)
    if above is not None and above.figure is not None:
        against = (f"{failed}, though as large a point ran",) if failed else ()
        doubts = (*against, *above.doubts, *_process(above, limit))
        check = Check("memory", limit, "kept", above.figure, doubts=doubts, remarks=remarks_of(above))
        if limit is None:
            return Check("memory", None, "doubt" if doubts else "kept", above.figure, doubts=doubts)
        return judged(check, at_most=True)
    if failed:
        return Check("memory", limit, "broken", why=failed)
    least = _at_least(rows, wish)
    if least is None or limit is None:
        return Check("memory", limit, "unknown", least, why=found.why)
    state: State = "broken" if least.low is not None and least.low > limit else "unknown"
    return Check("memory", limit, state, least, why=_said(found.why, rows, least, wish))


def capacity_bytes(rows: Sequence[Row], facts: Mapping[str, RunFacts]) -> int | None:
    """Return the memory of the device that rows were measured on, the least where runs differ in it."""
    known = [facts.get(row.run, RunFacts()).device(row.setting.device)[1] for row in rows]
    return min((one for one in known if one is not None), default=None)


def state_bytes(rows: Sequence[Row], length_tokens: int) -> int | None:
    """Return how large the state of one sequence is at least after so many tokens, by the sizes of the model.

    From two lengths on it follows from the bytes that each token adds. From one it is that of the measured
    length, or of a shorter one the same share.

    Args:
        rows: of one model and setting.
        length_tokens: prompt and output together.
    """
    known: dict[int, float] = {}
    for row in rows:
        if row.state_bytes_spec is not None:
            one = row.state_bytes_spec / row.batch_size
            known[row.length_tokens] = max(one, known.get(row.length_tokens, 0.0))
    if not known:
        return None
    first, last = min(known), max(known)
    if first == last:
        grows = next(row.setting.attention for row in rows) != "none"
        share = min(1.0, length_tokens / first) if grows else 1.0
        return int(known[first] * share)
    slope = (known[last] - known[first]) / (last - first)

    def at(length: int) -> float:
        return known[first] + slope * (length - first)

    # A cache of fixed size has steps instead of a slope.
    if slope < 0 or any(abs(at(length) - one) > _SAME_SLOPE * one for length, one in known.items()):
        return None
    return max(0, int(at(length_tokens)))


def _ran_out(rows: Sequence[Row], facts: Mapping[str, RunFacts], limit: int | None, wish: Wish) -> str:
    """Say which point that is nowhere larger than the wish could not be run; empty if there is none."""
    for row in sorted(rows, key=lambda row: (row.batch_size, row.prompt_len_tokens, row.gen_len_tokens)):
        if row.status not in _AGAINST or not _is_smaller(row, wish):
            continue
        where = f"batch {row.batch_size}, {row.prompt_len_tokens:,} + {row.gen_len_tokens:,} tokens"
        if row.status == "unsupported":
            return f"unsupported at {where}" + (f": {row.detail}" if row.detail else "")
        if _counts(row, facts.get(row.run, RunFacts()), limit):
            return f"out of memory at {where}"
    return ""


def _counts(row: Row, facts: RunFacts, limit: int | None) -> bool:
    """Return whether running out of memory in a run's room says that it would within the limit."""
    if row.needed_bytes is not None and limit is not None and row.needed_bytes > limit:
        return True
    emulated = EMULATED in row.flags or facts.budget_bytes is not None
    room = facts.budget_bytes if emulated else facts.device(row.setting.device)[1]
    if limit is None or room is None:
        return not emulated
    return limit <= room


def _is_smaller(row: Row, wish: Wish) -> bool:
    return (
        row.batch_size <= wish.conversations
        and row.prompt_len_tokens <= wish.prompt_len_tokens
        and row.length_tokens <= wish.length_tokens
    )


def _is_larger(row: Row, wish: Wish) -> bool:
    return (
        row.batch_size >= wish.conversations
        and row.prompt_len_tokens >= wish.prompt_len_tokens
        and row.length_tokens >= wish.length_tokens
    )


def _usable(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.status == "ok" and _PEAK in row.figures and not row.unusable("B")]


def _larger(rows: Sequence[Row], limit: int | None, wish: Wish) -> Found | None:
    """Return the larger point that takes least, unless that alone does not keep the limit."""
    larger = [row for row in _usable(rows) if _is_larger(row, wish)]
    if not larger:
        return None
    row = min(larger, key=lambda row: (_most(row), row.prompt_len_tokens, row.gen_len_tokens))
    ends = row.figures[_PEAK]
    if limit is not None and _most(row) > limit:
        return None
    figure = Figure(
        ends.value, None, _most(row), "at most", "B", ends.method, row.n_processes, (row.place(_PEAK),)
    )
    doubts = ("not measured at this size, but a larger one fits", *row.doubts("B"))
    return Found(figure, (row,), doubts)


def _most(row: Row) -> float:
    ends = row.figures[_PEAK]
    return ends.value if ends.high is None else max(ends.high, ends.value)


def _process(found: Found, limit: int | None) -> tuple[str, ...]:
    """Doubt that there is room for the libraries and the device's context besides the model."""
    took = max((row.process_bytes or 0 for row in found.rows), default=0)
    if limit is None or took <= limit:
        return ()
    return (f"the whole process took {size(took)}, more than there is",)


def _at_least(rows: Sequence[Row], wish: Wish) -> Figure | None:
    """Return the larger of what smaller points took, and of weights and states by their sizes."""
    smaller = [row for row in _usable(rows) if _is_smaller(row, wish)]
    figures = [
        Figure(ends.value, ends.low, None, "at least", "B", ends.method, row.n_processes, (row.place(_PEAK),))
        for row in smaller
        if (ends := row.figures[_PEAK]).low is not None
    ]
    weights = min((row.weights_bytes for row in _usable(rows) if row.weights_bytes), default=None)
    state = state_bytes(_usable(rows), wish.length_tokens)
    if weights is not None and state is not None:
        computed = float(weights + wish.conversations * state)
        figures.append(Figure(computed, computed, None, "at least", "B"))
    return max(figures, key=lambda figure: figure.low or 0.0, default=None)


def _said(why: str, rows: Sequence[Row], least: Figure, wish: Wish) -> str:
    if least.places:
        return f"{why}; a smaller point took {size(least.value)}"
    smaller = [row for row in _usable(rows) if _is_smaller(row, wish) and row.transient_bytes]
    if not smaller:
        return f"{why}; weights and states take {size(least.value)}"
    row = max(smaller, key=lambda row: (row.batch_size, row.transient_bytes or 0))
    return (
        f"{why}; weights and states take {size(least.value)}, by their sizes, and all else took "
        f"{size(row.transient_bytes or 0)} at batch {row.batch_size}"
    )
