"""The answer to a wish in one or two sentences, and what a check says in a few words.

>>> short(Figure(0.5, 0.4, 0.6, kind="measured", unit="s", method="t on log", n=6))
'500 ms [400 ms, 600 ms]'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mambabench.advise.choose import NAMES, Choice, before, figure_of
from mambabench.advise.result import Bound, Candidate, Check, Figure
from mambabench.advise.wish import Wish
from mambabench.tables.speed.format import listed, plural, seconds, size, times

_MOST_NAMED = 3
BOUNDS_IN_WORDS: Final[dict[Bound, str]] = {
    "memory": "memory",
    "ttft": "time to the first token",
    "tpot": "time between tokens",
    "recall": "recall",
    "quality": "average accuracy",
}
_SIGNS: Final = {"measured": "", "between": "~", "at least": "≥ ", "at most": "≤ "}


def answer(candidates: Sequence[Candidate], choice: Choice, wish: Wish) -> tuple[str, ...]:
    """Return the answer in one or two sentences, most important first."""
    chosen = choice.chosen
    if not candidates:
        return ("The runs hold nothing that tells: no model was timed, and no recall measured.",)
    if chosen is None:
        return _none(candidates, wish)
    doubts = chosen.all_doubts
    more = f", and {len(doubts) - 1} more" if len(doubts) > 1 else ""
    doubt = f" with doubt ({doubts[0]}{more})" if doubts else ""
    figures = [said for check in chosen.checks if (said := _said(check))]
    times_said = [
        f"{name} {short(figure)}"
        for name, figure, bound in (
            ("first token after", chosen.ttft, "ttft"),
            ("each later one", chosen.tpot, "tpot"),
        )
        if figure is not None and all(check.bound != bound for check in chosen.checks)
    ]
    said = "; ".join([*figures, *times_said])
    first = f"{name_of(chosen)} fits{doubt} for {_wished(wish)}: {said}."
    if choice.ties:
        return (first, _ties(choice.ties))
    return (first, *(_behind(choice, wish) or _rest(candidates)))


def name_of(candidate: Candidate) -> str:
    """Return a model with its setting."""
    return f"{candidate.label} ({candidate.setting.text})"


def written(value: float, unit: str) -> str:
    """Return a value with its unit."""
    if unit == "%":
        return f"{value:.1f}%"
    return seconds(value) if unit == "s" else size(value)


def short(figure: Figure) -> str:
    """Return a figure with its ends in square brackets, a range's in round ones."""
    value = f"{_SIGNS[figure.kind]}{written(figure.value, figure.unit)}"
    if figure.low is None or figure.high is None or figure.method == "single":
        return value
    low, high = written(figure.low, figure.unit), written(figure.high, figure.unit)
    if low == high == written(figure.value, figure.unit):
        return value
    return f"{value} [{low}, {high}]" if figure.is_interval else f"{value} ({low} to {high})"


def limit_of(check: Check) -> str:
    """Return a check's bound in words."""
    assert check.limit is not None
    if check.bound in ("recall", "quality"):
        return f"{check.limit:g}% needed"
    unit = "B" if check.bound == "memory" else "s"
    return f"{written(check.limit, unit)} allowed"


def problem(check: Check) -> str:
    """Return why a check is not kept, with by how much it is broken."""
    name = BOUNDS_IN_WORDS[check.bound]
    if check.figure is None or check.limit is None:
        return f"{name}: {check.why}"
    text = f"{name} {short(check.figure)}, {limit_of(check)}"
    if check.state == "broken":
        return f"{text} ({_by(check)}){_why(check)}"
    return f"{text}: too close to tell" if check.close else f"{text}{_why(check)}"


def _why(check: Check) -> str:
    return f", {check.why}" if check.why else ""


def _by(check: Check) -> str:
    assert check.figure is not None
    assert check.limit is not None
    if check.figure.unit == "%":
        return f"{check.limit - check.figure.value:.1f} points short"
    return f"{times(check.figure.value / check.limit)} times that"


def _said(check: Check) -> str:
    if check.figure is None or check.limit is None:
        return ""
    limit = f" of {limit_of(check)}" if check.bound in ("memory", "ttft", "tpot") else f", {limit_of(check)}"
    return f"{BOUNDS_IN_WORDS[check.bound]} {short(check.figure)}{limit}"


def _wished(wish: Wish) -> str:
    at_once = plural(wish.conversations, "conversation")
    return f"{at_once} of {wish.prompt_len_tokens:,} + {wish.gen_len_tokens:,} tokens"


def _ties(ties: Sequence[Candidate]) -> str:
    names = [name_of(one) for one in ties[:_MOST_NAMED]]
    names += [f"{len(ties) - _MOST_NAMED} more"] if len(ties) > _MOST_NAMED else []
    return f"{listed(names)} cannot be told from it: intervals overlap, or nothing compares them."


def _behind(choice: Choice, wish: Wish) -> tuple[str, ...]:
    """Say of those that came nearest why they are not chosen."""
    if not choice.behind:
        return ()
    last = choice.behind[-1][1]
    nearest = [name_of(candidate) for candidate, criterion in choice.behind if criterion == last]
    names = nearest[:_MOST_NAMED] + ([f"{len(nearest) - _MOST_NAMED} more"] * (len(nearest) > _MOST_NAMED))
    alike = [
        NAMES[criterion]
        for criterion in before(last, wish.prefer)
        if choice.chosen is not None and figure_of(choice.chosen, criterion) is not None
    ]
    though = f"; {listed(alike)} cannot tell them apart" if alike else ""
    fit = "fits" if len(nearest) == 1 else "fit"
    be = "is" if len(nearest) == 1 else "are"
    return (f"{listed(names)} {fit} too and {be} behind in {NAMES[last]}{though}.",)


def _rest(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    n_unknown = sum(c.state == "unknown" for c in candidates)
    n_broken = sum(c.state == "broken" for c in candidates)
    ways = plural(len(candidates), "candidate")
    parts = [f"{n_broken} of {ways} {'does' if n_broken == 1 else 'do'} not fit"] if n_broken else []
    of = "" if parts else f" of {ways}"
    parts += (
        [f"whether {n_unknown}{of} {'fits' if n_unknown == 1 else 'fit'} is not known"] if n_unknown else []
    )
    said = ", and ".join(parts)
    return (f"{said[0].upper()}{said[1:]}.",) if said else ()


def _none(candidates: Sequence[Candidate], wish: Wish) -> tuple[str, ...]:
    unknown = [c for c in candidates if c.state == "unknown"]
    broken = [c for c in candidates if c.state == "broken"]
    if not unknown:
        nearest = broken[0]
        check = next(check for check in nearest.checks if check.state == "broken")
        first = f"Nothing that was measured fits {_wished(wish)}."
        return (first, f"{name_of(nearest)}: {problem(check)}.")
    but = f", and {len(broken)} {'other does' if len(broken) == 1 else 'others do'} not fit" if broken else ""
    first = f"Not known: no model is known to fit {_wished(wish)}{but}."
    check = next(check for check in unknown[0].checks if check.state == "unknown")
    return (first, f"{name_of(unknown[0])}: {problem(check)}.")
