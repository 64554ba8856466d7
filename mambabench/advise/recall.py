"""Recall of one model at a wish: the worst mean accuracy over recall tasks up to prompt and output.

Recall need not fall from length to length, and a conversation passes through all of them. So the bound is
held against every measured length up to the smallest that is no shorter than the wish. It is kept if all of
them keep it, broken if one that is no longer than the wish breaks it; where only a longer one breaks it,
nothing is known of the wish itself.

    recall_check(means, tasks, wish)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mambabench.advise.result import Check, Figure, Place, State, judged
from mambabench.advise.wish import Wish
from mambabench.tables.longcontext.flags import FEW_SAMPLES, PAST_TRAINING, UNSUPPORTED

Values = Mapping[str, Any]
_WORST_LAST: Final[tuple[State, ...]] = ("kept", "doubt", "unknown", "broken")
_NO_PATH: Final = "unsupported"


@dataclass(frozen=True)
class Recalled:
    """What is known of one model's recall."""

    means: tuple[Values, ...] = ()
    """Rows of frame `recall_means`."""
    tasks: tuple[Values, ...] = ()
    """Rows of frame `recall` of accuracy, and those that are not ok."""
    doubts: tuple[str, ...] = ()
    why: str = ""
    """Why nothing is known, where nothing is."""

    @property
    def known(self) -> dict[int, Values]:
        """Return the lengths that have a mean, ascending; where several runs measured one, the worst."""
        rows = [row for row in self.means if row["accuracy"] is not None]
        rows.sort(key=lambda row: (row["length_tokens"], -row["accuracy"], row["run"]))
        return {row["length_tokens"]: row for row in rows}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the tasks that have an accuracy, by name."""
        return tuple(sorted({row["task"] for row in self.tasks if row["value"] is not None}))


def recall_check(recalled: Recalled, wish: Wish) -> Check | None:
    """Hold a model's recall against what is needed; without a need, look at it all the same.

    Returns:
        The check; None where none is needed and nothing is known.
    """
    need, length = wish.recall_percent, wish.length_tokens
    known = recalled.known
    if need is not None and (no_path := _no_path(recalled, length)) is not None:
        return Check("recall", need, "broken", why=f"the model has no path to {no_path:,} tokens")
    above = min((at for at in known if at >= length), default=None)
    if need is None:
        if above is None:
            return None
        worst = min((known[at] for at in known if at <= above), key=lambda row: row["accuracy"])
        return _with_parts(Check("recall", None, "kept", _figure(worst)), recalled, worst["length_tokens"])
    checks = {
        at: judged(
            Check("recall", need, "unknown", _figure(row), doubts=(*recalled.doubts, *_doubts(row))),
            at_most=False,
        )
        for at, row in known.items()
        if above is None or at <= above
    }
    if above is None:
        return _beyond(checks, recalled, need, length)
    if checks[above].state == "broken" and above > length:
        why = f"too low at {above:,} tokens, and nothing is known of {length:,}"
        checks[above] = replace(checks[above], state="unknown", close=False, why=why)
    worst_at = max(checks, key=lambda at: (_WORST_LAST.index(checks[at].state), -_value(checks[at])))
    check = checks[worst_at]
    doubts = tuple(dict.fromkeys(d for one in checks.values() for d in one.doubts))
    why = check.why or f"at {worst_at:,} tokens, the worst of {len(checks)} lengths up to {above:,}"
    remarks = _remarks(need, recalled, [known[at] for at in checks], worst_at)
    return _with_parts(replace(check, doubts=doubts, why=why, remarks=remarks), recalled, worst_at)


def _beyond(checks: Mapping[int, Check], recalled: Recalled, need: float, length: int) -> Check:
    """Judge by shorter lengths alone: these can only break the bound."""
    broken = [at for at, check in checks.items() if check.state == "broken"]
    if broken:
        at = min(broken, key=lambda at: _value(checks[at]))
        return _with_parts(replace(checks[at], why=f"at {at:,} tokens already"), recalled, at)
    longest = f"only up to {max(checks):,} tokens, not to {length:,}" if checks else ""
    why = f"measured {longest}" if longest else recalled.why or "never measured"
    figure = checks[max(checks)].figure if checks else None
    return Check("recall", need, "unknown", figure, why=why)


def _no_path(recalled: Recalled, length: int) -> int | None:
    lengths = [row["length_tokens"] for row in recalled.tasks if row["status"] == _NO_PATH]
    return min((at for at in lengths if at <= length), default=None)


def _figure(row: Values) -> Figure:
    place = Place(
        row["run"], row["length_tokens"], value=row["accuracy"], low=row["interval_low"],
        high=row["interval_high"],
    )  # fmt: skip
    return Figure(
        row["accuracy"],
        row["interval_low"],
        row["interval_high"],
        "measured",
        "%",
        "",
        row["n"] or 0,
        (place,),
    )


def _doubts(row: Values) -> tuple[str, ...]:
    found = [FEW_SAMPLES] if FEW_SAMPLES in _flags(row) else []
    if row["interval_low"] is None or row["interval_high"] is None:
        found.append("recall without an interval")
    return tuple(found)


def _flags(row: Values) -> list[str]:
    return [flag.strip() for flag in (row["flags"] or "").split(";")]


def _remarks(need: float, recalled: Recalled, rows: Sequence[Values], at: int) -> tuple[str, ...]:
    found = []
    if any(PAST_TRAINING in _flags(row) for row in rows) or any(
        row["past_training_length"] for row in recalled.tasks if row["length_tokens"] <= at
    ):
        found.append("recall was measured past the training length, and is what it is")
    if any(UNSUPPORTED in _flags(row) for row in rows):
        found.append("some recall tasks have no path to some lengths")
    low = [name for name, _, part in _parts(recalled, at) if part.high is not None and part.high < need]
    if low:
        found.append(f"tasks that are below by themselves: {', '.join(low)}")
    return tuple(found)


def _parts(recalled: Recalled, at: int) -> list[tuple[str, int, Figure]]:
    rows = [row for row in recalled.tasks if row["length_tokens"] == at and row["value"] is not None]
    rows.sort(key=lambda row: (row["task"], row["value"]))
    worst = {row["task"]: row for row in reversed(rows)}
    return [
        (
            task,
            at,
            Figure(row["value"], row["interval_low"], row["interval_high"], "measured", "%", "",
                   row["n_questions"] or 0, (Place(row["run"], at),)),
        )
        for task, row in sorted(worst.items())
    ]  # fmt: skip


def _with_parts(check: Check, recalled: Recalled, at: int) -> Check:
    return replace(check, parts=tuple(_parts(recalled, at)))


def _value(check: Check) -> float:
    assert check.figure is not None
    return check.figure.value
