"""Times and memory of one model and setting at a wish, from what was measured at it or on both sides of it.

A figure is that of the measured point, or lies between two of one run: one that is nowhere larger than the
wish and one that is nowhere smaller, in the prompt and in prompt and output together, at the same batch. What
lies beyond is not known. Between two points the lower and the upper end of both are the figure's, so that a
bound is kept only if both points keep it.

    figure_at(rows, "ttft_s", wish)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mambabench.advise.result import Bound, Check, Figure, judged
from mambabench.advise.rows import Ends, Row
from mambabench.advise.wish import Wish
from mambabench.stats.replicates import N_FOR_INTERVAL
from mambabench.tables.speed.flags import PAST_TRAINING

Unit = Literal["s", "B"]
_INTERVAL = "t on log"
_METHODS = ("single", "range", _INTERVAL)


@dataclass(frozen=True)
class Found:
    """A figure with what takes from it; without one, why there is none."""

    figure: Figure | None
    rows: tuple[Row, ...] = ()
    """That it is from."""
    doubts: tuple[str, ...] = ()
    why: str = ""


def time_check(rows: Sequence[Row], bound: Bound, limit_s: float, wish: Wish) -> Check:
    """Hold the time to the first token, or that between tokens, against its bound.

    Args:
        rows: of one model and setting.
        bound: "ttft" or "tpot".
        limit_s: the longest that is allowed.
        wish: what is asked for.
    """
    found = figure_at(rows, f"{bound}_s", wish)
    if found.figure is None:
        return Check(bound, limit_s, "unknown", why=found.why)
    check = Check(bound, limit_s, "unknown", found.figure, doubts=found.doubts, remarks=remarks_of(found))
    return judged(check, at_most=True)


def figure_at(rows: Sequence[Row], name: str, wish: Wish) -> Found:
    """Return a figure at a wish.

    Args:
        rows: of one model and setting.
        name: "ttft_s", "tpot_s" or "peak_bytes".
        wish: what is asked for.
    """
    unit: Unit = "B" if name == "peak_bytes" else "s"
    at_batch = [row for row in rows if row.batch_size == wish.conversations]
    measured = [row for row in at_batch if row.status == "ok" and name in row.figures]
    usable = [row for row in measured if not row.unusable(unit)]
    if exact := [row for row in usable if _is_at(row, name, wish)]:
        return max((_measured(row, name, unit) for row in exact), key=_badness)
    between = []
    for run in dict.fromkeys(row.run for row in usable):
        ends = _around([row for row in usable if row.run == run], name, wish)
        if ends is not None:
            between.append(_between(*ends, name, unit, wish))
    if between:
        return max(between, key=_badness)
    return Found(None, why=_why_not(rows, at_batch, measured, usable, unit, wish))


def e2e_at(rows: Sequence[Row], wish: Wish) -> Figure | None:
    """Return the time from the prompts to the last token; None unless both of its parts are known.

    Its ends are the sums of those of its parts, which is wider than an interval of the sum.
    """
    first = figure_at(rows, "ttft_s", wish).figure
    if first is None or wish.gen_len_tokens == 1:
        return first
    later = figure_at(rows, "tpot_s", wish).figure
    if later is None:
        return None
    n = wish.gen_len_tokens - 1

    def both(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a + n * b

    return Figure(
        value=first.value + n * later.value,
        low=both(first.low, later.low),
        high=both(first.high, later.high),
        kind="between" if "between" in (first.kind, later.kind) else "measured",
        unit="s",
        method=min(first.method, later.method, key=_METHODS.index),
        n=min(first.n, later.n),
        places=tuple(dict.fromkeys([*first.places, *later.places])),
    )


def remarks_of(found: Found) -> tuple[str, ...]:
    """Return what a figure's rows are flagged with that is no doubt here."""
    doubted = {flag for row in found.rows for flag in row.doubts("s")}
    # That lengths are past the training length is said of the wish.
    every = dict.fromkeys(flag for row in found.rows for flag in row.flags if flag != PAST_TRAINING)
    return tuple(flag for flag in every if flag not in doubted and flag not in found.doubts)


def _is_at(row: Row, name: str, wish: Wish) -> bool:
    # What is generated afterwards does not change the time to the first token.
    same_output = name == "ttft_s" or row.gen_len_tokens == wish.gen_len_tokens
    return row.prompt_len_tokens == wish.prompt_len_tokens and same_output


def _measured(row: Row, name: str, unit: Unit) -> Found:
    ends = row.figures[name]
    figure = Figure(
        ends.value, ends.low, ends.high, "measured", unit, ends.method, row.n_processes, (row.place(name),)
    )
    return Found(figure, (row,), (*_few(ends), *row.doubts(unit)))


def _around(rows: Sequence[Row], name: str, wish: Wish) -> tuple[Row, Row] | None:
    """Return the nearest point that is nowhere larger than the wish, and the nearest nowhere smaller."""
    below = [row for row in rows if _is_within(_size(row, name), _wished(wish, name))]
    above = [row for row in rows if _is_within(_wished(wish, name), _size(row, name))]
    if not below or not above:
        return None
    return max(below, key=lambda row: _order(row, name)), min(above, key=lambda row: _order(row, name))


def _between(low: Row, high: Row, name: str, unit: Unit, wish: Wish) -> Found:
    first, last = low.figures[name], high.figures[name]
    begin, end, here = _position(low, name), _position(high, name), _wished_position(wish, name)
    share = math.log(here / begin) / math.log(end / begin) if end > begin else 1.0
    value = math.exp((1 - share) * math.log(first.value) + share * math.log(last.value))
    lows = [ends.value if ends.low is None else ends.low for ends in (first, last)]
    highs = [ends.value if ends.high is None else ends.high for ends in (first, last)]
    n = min(low.n_processes, high.n_processes)
    method = min(first.method, last.method, key=_METHODS.index)
    figure = Figure(
        value, min(lows), max(highs), "between", unit, method, n, (low.place(name), high.place(name))
    )
    doubts = ["not measured at these lengths, but below and above them"]
    for row in (low, high):
        doubts += [*_few(row.figures[name]), *row.doubts(unit)]
    return Found(figure, (low, high), tuple(dict.fromkeys(doubts)))


def _few(ends: Ends) -> tuple[str, ...]:
    if ends.method == _INTERVAL and ends.low is not None and ends.high is not None:
        return ()
    if ends.method == "single":
        return ("one process: nothing is known of the spread",)
    return (f"fewer than {N_FOR_INTERVAL} processes: a range, not an interval",)


def _why_not(
    rows: Sequence[Row],
    at_batch: Sequence[Row],
    measured: Sequence[Row],
    usable: Sequence[Row],
    unit: Unit,
    wish: Wish,
) -> str:
    if not rows:
        return "never measured"
    if not at_batch:
        batches = sorted({row.batch_size for row in rows})
        return f"measured at batch {_some(batches)} only, not at {wish.conversations}"
    if not measured:
        return f"no process ended well ({_some(sorted({row.status for row in at_batch}))})"
    if not usable:
        return "measured, but not to be used: " + _some(
            list(dict.fromkeys(flag for row in measured for flag in row.unusable(unit)))
        )
    lengths = sorted({(row.prompt_len_tokens, row.gen_len_tokens) for row in usable})
    return "measured at " + _some([f"{p:,} + {g:,}" for p, g in lengths]) + " tokens only"


def _some(values: Sequence[object]) -> str:
    shown = [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
    return ", ".join(shown) if len(shown) <= 4 else f"{shown[0]} to {shown[-1]} ({len(shown)} of them)"


def _badness(found: Found) -> tuple[float, float]:
    figure = found.figure
    assert figure is not None
    return (figure.value if figure.high is None else figure.high, figure.value)


def _size(row: Row, name: str) -> tuple[int, int]:
    return _compared(row.prompt_len_tokens, row.length_tokens, name)


def _wished(wish: Wish, name: str) -> tuple[int, int]:
    return _compared(wish.prompt_len_tokens, wish.length_tokens, name)


def _compared(prompt_len: int, length: int, name: str) -> tuple[int, int]:
    return (prompt_len, 0 if name == "ttft_s" else length)


def _is_within(small: tuple[int, int], large: tuple[int, int]) -> bool:
    return small[0] <= large[0] and small[1] <= large[1]


def _order(row: Row, name: str) -> tuple[float, int, int]:
    return (_position(row, name), row.prompt_len_tokens, row.gen_len_tokens)


def _position(row: Row, name: str) -> float:
    return _along(row.prompt_len_tokens, row.gen_len_tokens, name)


def _wished_position(wish: Wish, name: str) -> float:
    return _along(wish.prompt_len_tokens, wish.gen_len_tokens, name)


def _along(prompt_len: int, gen_len: int, name: str) -> float:
    """Return what a figure is laid out over: the prompt, the mean depth of steps, or the final length."""
    return prompt_len + {"ttft_s": 0.0, "tpot_s": 0.5, "peak_bytes": 1.0}[name] * gen_len
