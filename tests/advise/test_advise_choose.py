"""The choice among candidates, against a brute-force reading of the same rules, and its properties."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.advise.choose import choose
from mambabench.advise.result import Candidate, Check, Figure, Setting
from mambabench.advise.wish import PREFERENCES, Preference

ORDERS = {
    "quality": ("recall", "quality", "speed", "memory"),
    "speed": ("speed", "recall", "quality", "memory"),
    "memory": ("memory", "recall", "quality", "speed"),
}


@st.composite
def _figures(draw: st.DrawFn, unit: Any) -> Figure | None:
    if draw(st.integers(0, 5)) == 0:
        return None
    value, spread = draw(st.integers(1, 12)), draw(st.integers(0, 3))
    method = "" if unit == "%" else draw(st.sampled_from(["t on log", "range", "single"]))
    return Figure(value, value - spread / 2, value + spread / 2, "measured", unit, method, 6)


def _state(name: str) -> Any:
    return name


@st.composite
def _candidates(draw: st.DrawFn) -> list[Candidate]:
    found = []
    for number in range(draw(st.integers(0, 6))):
        state = draw(st.sampled_from(["kept", "doubt", "unknown", "broken"]))
        checks = [Check("memory", 100.0, _state(state), draw(_figures("B")))]
        for bound in ("recall", "quality"):
            if (figure := draw(_figures("%"))) is not None:
                checks.append(Check(bound, None, "kept", figure))
        machine, tasks = draw(st.sampled_from(["a", "b"])), draw(st.sampled_from([("x",), ("y",)]))
        found.append(
            Candidate(f"m{number}", f"m{number}", Setting(machine, "cpu", "float32"), 1, tuple(checks),
                      draw(_figures("s")), comparable=tasks)
        )  # fmt: skip
    return found


def _figure(candidate: Candidate, criterion: str) -> Figure | None:
    return candidate.e2e if criterion == "speed" else candidate.figure(criterion)  # type: ignore[arg-type]


def _ends(figure: Figure) -> tuple[float, float]:
    assert figure.low is not None
    assert figure.high is not None
    slack = 1.1 if figure.method in ("range", "single") else 1.0
    return figure.low / slack, figure.high * slack


def _is_behind(one: Candidate, other: Candidate, criterion: str) -> bool:
    """Tell whether `one` is surely worse than `other`."""
    a, b = _figure(one, criterion), _figure(other, criterion)
    if a is None or b is None:
        return False
    if criterion in ("speed", "memory"):
        return one.setting == other.setting and _ends(a)[0] > _ends(b)[1]
    if criterion == "quality" and one.comparable != other.comparable:
        return False
    return _ends(a)[1] < _ends(b)[0]


def _leads(one: Candidate, pool: list[Candidate], criterion: str) -> bool:
    """Tell whether nobody comparable has a better value, ties going to the narrower."""
    sign = 1 if criterion in ("speed", "memory") else -1

    def order(candidate: Candidate) -> tuple[float, float]:
        figure = _figure(candidate, criterion)
        assert figure is not None
        return sign * figure.value, sign * _ends(figure)[1 if sign > 0 else 0]

    def comparable(other: Candidate) -> bool:
        if criterion in ("speed", "memory"):
            return other.setting == one.setting
        return criterion == "recall" or other.comparable == one.comparable

    rivals = [c for c in pool if _figure(c, criterion) is not None and comparable(c)]
    return all(order(one) <= order(other) for other in rivals)


@settings(max_examples=60, deadline=None)
@given(candidates=_candidates(), prefer=st.sampled_from(PREFERENCES), seed=st.randoms())
def test_the_choice_is_that_of_a_plain_reading(
    candidates: list[Candidate], prefer: Preference, seed: Any
) -> None:
    pool = [c for c in candidates if c.verdict == "fits"]
    pool = pool or [c for c in candidates if c.verdict == "fits with doubt"]
    for criterion in ORDERS[prefer]:
        known = [c for c in pool if _figure(c, criterion) is not None]
        if known:
            leaders = [c for c in known if _leads(c, known, criterion)]
            pool = [c for c in known if not any(_is_behind(c, leader, criterion) for leader in leaders)]
    shuffled = list(candidates)
    seed.shuffle(shuffled)
    choice = choose(shuffled, prefer)
    assert (choice.chosen is None) == (not pool)
    chosen = [choice.chosen, *choice.ties] if choice.chosen is not None else []
    assert {c.label for c in chosen} == {c.label for c in pool}
    again = choose(candidates, prefer)
    assert (again.chosen, again.ties) == (choice.chosen, choice.ties)
    for candidate, criterion in choice.behind:
        assert candidate.label not in {c.label for c in pool}
        assert _figure(candidate, criterion) is not None


@settings(max_examples=50, deadline=None)
@given(candidates=_candidates(), prefer=st.sampled_from(PREFERENCES))
def test_nothing_that_does_not_fit_is_ever_chosen(candidates: list[Candidate], prefer: Preference) -> None:
    choice = choose(candidates, prefer)
    verdicts = {c.verdict for c in candidates}
    if choice.chosen is None:
        assert not verdicts & {"fits", "fits with doubt"}
    else:
        assert choice.chosen.verdict == ("fits" if "fits" in verdicts else "fits with doubt")


def test_machines_are_not_ranked_against_each_other() -> None:
    fast = _timed("fast", 1.0, "a")
    slow = _timed("slow", 9.0, "b")
    choice = choose([slow, fast], "speed")
    assert [choice.chosen, *choice.ties] == [fast, slow]
    assert "not ranked by speed, as machines or dtypes differ" in choice.remarks
    assert choose([_timed("slow", 9.0, "a"), fast], "speed").ties == ()


def _timed(name: str, value: float, machine: str) -> Candidate:
    figure = Figure(value, value, value, "measured", "s", "t on log", 6)
    return Candidate(name, name, Setting(machine, "cpu"), 1, (Check("memory", None, "kept"),), figure)
