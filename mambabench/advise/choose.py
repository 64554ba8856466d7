"""Which of the candidates that fit is recommended, and which cannot be told from it.

What is preferred decides first, then the rest in a fixed order. A candidate is left behind only where its
interval and that of the best do not overlap, and only by what can be compared with it: shares over the same
tasks, times and bytes of one machine and dtype.

    choose(candidates, "quality").chosen
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mambabench.advise.result import VERDICTS, Candidate, Figure
from mambabench.advise.wish import Preference

Criterion = Literal["recall", "quality", "speed", "memory"]
Group = tuple[object, ...]

_ORDER: Final[dict[Preference, tuple[Criterion, ...]]] = {
    "quality": ("recall", "quality", "speed", "memory"),
    "speed": ("speed", "recall", "quality", "memory"),
    "memory": ("memory", "recall", "quality", "speed"),
}
_LESS_IS_BETTER: Final = ("speed", "memory")
_BETWEEN_PROCESSES: Final = 1.10
NAMES: Final[dict[Criterion, str]] = {
    "recall": "recall",
    "quality": "average accuracy",
    "speed": "speed",
    "memory": "memory",
}


@dataclass(frozen=True)
class Choice:
    """What is recommended of those that fit."""

    chosen: Candidate | None
    ties: tuple[Candidate, ...] = ()
    """Those that cannot be told from it."""
    behind: tuple[tuple[Candidate, Criterion], ...] = ()
    """Those that fit as surely and are behind, each with the first criterion that it is behind in."""
    remarks: tuple[str, ...] = ()
    """What could not be compared."""


def choose(candidates: Sequence[Candidate], prefer: Preference) -> Choice:
    """Return what is recommended.

    Candidates that fit without a doubt go before those that leave one.

    Args:
        candidates: of any verdict, in any order.
        prefer: what decides.
    """
    pool = [c for c in candidates if c.state == "kept"] or [c for c in candidates if c.state == "doubt"]
    if not pool:
        return Choice(None)
    remarks = []
    behind: list[tuple[Candidate, Criterion]] = []
    for criterion in _ORDER[prefer]:
        kept, remark = _best(pool, criterion)
        left = [c for c in pool if all(c is not other for other in kept)]
        behind += [(c, criterion) for c in left if figure_of(c, criterion) is not None]
        remarks += [remark] if remark else []
        pool = kept
    pool = sorted(pool, key=lambda c: rank(c, prefer))
    return Choice(pool[0], tuple(pool[1:]), tuple(behind), tuple(remarks))


def before(criterion: Criterion, prefer: Preference) -> tuple[Criterion, ...]:
    """Return the criteria that decide before another."""
    order = _ORDER[prefer]
    return order[: order.index(criterion)]


def rank(candidate: Candidate, prefer: Preference) -> tuple[object, ...]:
    """Return where a candidate stands among others by its values alone, whatever their intervals."""
    found: list[object] = [VERDICTS.index(candidate.verdict)]
    for criterion in _ORDER[prefer]:
        figure = figure_of(candidate, criterion)
        sign = 1.0 if criterion in _LESS_IS_BETTER else -1.0
        found.append((1, 0.0) if figure is None else (0, sign * figure.value))
    return (*found, candidate.key)


def figure_of(candidate: Candidate, criterion: Criterion) -> Figure | None:
    """Return the figure that decides in a criterion."""
    if criterion == "speed":
        return candidate.e2e
    figure = candidate.figure(criterion)
    return None if figure is None or figure.kind == "at least" else figure


def _best(pool: Sequence[Candidate], criterion: Criterion) -> tuple[list[Candidate], str]:
    """Return those that are not behind, and what has to be said of how they were compared."""
    known = [(c, figure) for c in pool if (figure := figure_of(c, criterion)) is not None]
    if not known:
        return list(pool), ""
    groups: dict[Group, list[tuple[Candidate, Figure]]] = {}
    for candidate, figure in known:
        groups.setdefault(_group(candidate, figure, criterion), []).append((candidate, figure))
    kept = [candidate for group in groups.values() for candidate in _not_behind(group, criterion)]
    remarks = []
    if len(groups) > 1:
        remarks.append(f"not ranked by {NAMES[criterion]}, as {_apart(criterion)}")
    if left := [c for c in pool if all(c is not other for other, _ in known)]:
        names = ", ".join(dict.fromkeys(c.label for c in left))
        remarks.append(f"{NAMES[criterion]} not known of {names}")
    return kept, "; ".join(remarks)


def _not_behind(group: Sequence[tuple[Candidate, Figure]], criterion: Criterion) -> list[Candidate]:
    if criterion in _LESS_IS_BETTER:
        best = min((figure for _, figure in group), key=lambda f: (f.value, _high(f)))
        return [candidate for candidate, figure in group if _low(figure) <= _high(best)]
    best = max((figure for _, figure in group), key=lambda f: (f.value, _low(f)))
    return [candidate for candidate, figure in group if _high(figure) >= _low(best)]


def _low(figure: Figure) -> float:
    return (figure.value if figure.low is None else figure.low) / _slack(figure)


def _high(figure: Figure) -> float:
    return (figure.value if figure.high is None else figure.high) * _slack(figure)


def _slack(figure: Figure) -> float:
    """Return by how much ends that are no interval's may be off: processes of one point differ by so much."""
    return 1.0 if figure.unit == "%" or figure.is_interval else _BETWEEN_PROCESSES


def _group(candidate: Candidate, figure: Figure, criterion: Criterion) -> Group:
    setting = candidate.setting
    if criterion in _LESS_IS_BETTER:
        return (setting.machine, setting.device, setting.dtype)
    if criterion == "quality":
        return candidate.comparable
    check = candidate.check("recall")
    tasks = () if check is None else tuple(task for task, _, _ in check.parts)
    return (tasks,)


def _apart(criterion: Criterion) -> str:
    if criterion in _LESS_IS_BETTER:
        return "machines or dtypes differ"
    return "tasks differ"
