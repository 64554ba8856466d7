"""Gates: what is read and refused, which contrasts they name, the rule of decision, what is not known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.compare.gate_grammar import Gate
from mambabench.compare.gates import GateResult, check_gates, parse_gate, raise_for
from mambabench.compare.result import Comparison, Contrast, Overall, Side
from mambabench.compare.speed_result import Match, Outcome, Place, SpeedComparison, SpeedContrast, Way
from mambabench.errors import CellsFailedError, GateFailedError, UnknownNameError, UsageError

BASE, CANDIDATE = (Side(label, "model", Path(label), "zeroshot", True, False) for label in ("base", "tuned"))
WAY = Way("eager", "none", "float32", "cpu")
names = st.from_regex(r"[a-z][a-z0-9_ ()]{0,10}[a-z0-9)]", fullmatch=True).map(lambda s: " ".join(s.split()))
points = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.integers(1, 10**6),
        "batch": st.integers(1, 512),
        "gen": st.integers(1, 512),
        "chunk": st.integers(1, 512),
        "arm": st.sampled_from(["eager", "graph"]),
        "attention": st.sampled_from(["sdpa", "none"]),
        "dtype": st.sampled_from(["float32", "bfloat16"]),
        "device": st.sampled_from(["cpu", "cuda:0"]),
    },
)
order = ("prompt", "batch", "gen", "chunk", "arm", "attention", "dtype", "device")
gates = st.builds(
    Gate,
    name=names,
    measure=st.sampled_from(["", "acc", "acc_norm", "log-likelihood"]),
    point=points.map(lambda found: tuple((key, found[key]) for key in order if key in found)),
    operator=st.sampled_from(["<", "<=", ">", ">="]),
    number=st.floats(allow_nan=False, allow_infinity=False),
    unit=st.sampled_from(["pt", "%", ""]),
)


def contrast(**changes: Any) -> Contrast:
    fields: dict[str, Any] = {
        "candidate": "tuned", "task": "hellaswag", "label": "HellaSwag (10)", "measure": "acc",
        "headline": True, "family": "tasks", "unit": "%", "effect_unit": "pt", "higher_is_better": True,
        "paired": True, "n": 100, "n_candidate": 100, "n_total": 100, "baseline_value": 50.0,
        "candidate_value": 48.0, "difference": -2.0, "low": -3.0, "high": -1.0, "interval_method": "score",
        "test": "exact McNemar", "p_value": 0.01, "p_adjusted": 0.02, "n_won": 1, "n_lost": 3,
        "n_clusters": None, "cluster_name": "", "margin": 1.0, "p_equivalence": 0.5,
        "p_equivalence_adjusted": 0.5, "detectable": 3.0, "n_needed": 900, "verdict": "worse",
    }  # fmt: skip
    return Contrast(**{**fields, **changes})


PERPLEXITY = {
    "task": "lambada_openai", "label": "LAMBADA", "measure": "perplexity", "unit": "ppl", "effect_unit": "%",
    "higher_is_better": False, "baseline_value": 20.0, "difference": 5.0, "low": 2.0, "high": 8.0,
}  # fmt: skip
CONTRASTS = (
    contrast(),
    contrast(
        measure="acc_norm", headline=False, family="further metrics", difference=1.0, low=-1.0, high=3.0
    ),
    contrast(
        measure="log-likelihood", headline=False, family="log-likelihoods", unit="nats", effect_unit="nats",
        baseline_value=-3.0, difference=-0.1, low=-0.2, high=0.0,
    ),
    contrast(**PERPLEXITY),
    contrast(**{**PERPLEXITY, "measure": "acc", "headline": False, "family": "further metrics",
                "unit": "%", "effect_unit": "pt", "higher_is_better": True, "difference": -4.0, "low": -9.0,
                "high": 1.0}),
    contrast(task="arc.easy", label="ARC-E", difference=0.5, low=-0.5, high=1.5),
)  # fmt: skip
OVERALL = Overall("tuned", 2, 40.0, 39.0, -1.0, -1.5, -0.5, 0.01, 0.01, 0.4, 0.4, 2.0, "worse", "mean")
TASKS = Comparison(BASE, (CANDIDATE,), "a comparison", CONTRASTS, (OVERALL,), ())


def speed_contrast(figure: str = "tpot", prompt_len: int = 64, **changes: Any) -> SpeedContrast:
    fields: dict[str, Any] = {
        "match": Match("tuned", Place(1, prompt_len, 64), WAY, WAY), "figure": figure, "label": figure,
        "unit": "s", "lower_is_better": True, "baseline_value": 0.2, "candidate_value": 0.22, "ratio": 1.1,
        "low": 1.05, "high": 1.15, "method": "t on log", "paired": True, "n_candidate": 6, "n_baseline": 6,
        "p_value": 0.001, "p_adjusted": 0.01, "margin": 0.02, "p_equivalence": 1.0,
        "p_equivalence_adjusted": 1.0, "verdict": "slower",
    }  # fmt: skip
    return SpeedContrast(**{**fields, **changes})


SPEED_CONTRASTS = (
    speed_contrast(),
    speed_contrast(
        "decode", unit="tokens/s", lower_is_better=False, baseline_value=10.0, ratio=0.9, low=0.85, high=0.95
    ),
    speed_contrast("peak", unit="bytes", method="exact", ratio=1.01, low=1.01, high=1.01),
    speed_contrast(prompt_len=4096, ratio=1.02, low=0.98, high=1.06),
    speed_contrast("peak", 4096, unit="bytes", method="range", ratio=1.3, n_baseline=2, p_value=None),
)


def speed(*outcomes: Outcome, contrasts: tuple[SpeedContrast, ...] = SPEED_CONTRASTS) -> SpeedComparison:
    return SpeedComparison(BASE, (CANDIDATE,), "latency", "", contrasts, outcomes, (), ())


def became(baseline: str, candidate: str, prompt_len: int = 8192) -> Outcome:
    match = Match("tuned", Place(1, prompt_len, 64), WAY, WAY)
    return Outcome(match, baseline, candidate, f"base {baseline}; tuned {candidate}")  # type: ignore[arg-type]


def on_tasks(text: str, comparison: Comparison = TASKS, **options: Any) -> list[GateResult]:
    return check_gates([parse_gate(text)], comparison, None, **options)


def on_speed(text: str, *outcomes: Outcome, **options: Any) -> list[GateResult]:
    return check_gates([parse_gate(text)], None, speed(*outcomes), **options)


def one(results: list[GateResult]) -> GateResult:
    (result,) = results
    return result


@given(gates)
def test_what_is_written_is_read(gate: Gate) -> None:
    assert parse_gate(gate.text) == gate


@given(gates, st.sampled_from(["", " ", "  "]))
def test_spaces_do_not_matter(gate: Gate, space: str) -> None:
    spread = gate.text.replace(f" {gate.operator} ", f"{space}{gate.operator}{space}")
    assert parse_gate(f"{space}{spread}{space}") == gate


def test_examples() -> None:
    assert parse_gate("hellaswag < -1pt") == Gate("hellaswag", "", (), "<", -1.0, "pt")
    assert parse_gate("a.acc_norm>= + 0.5 %") == Gate("a", "acc_norm", (), ">=", 0.5, "%")
    assert parse_gate("ttft@4096 > 10%").point == (("prompt", 4096),)
    assert parse_gate("ttft@batch=8, 4096 > 1e-3").point == (("prompt", 4096), ("batch", 8))
    assert parse_gate("x < \N{MINUS SIGN}.5").number == -0.5
    assert parse_gate("task v1.2 > 3pt").name == "task v1.2"


@pytest.mark.parametrize(
    ("text", "letter", "words"),
    [
        ("", 1, "expected <"),
        ("hellaswag", 10, "expected <"),
        ("hellaswag = 1pt", 11, "expected <"),
        ("hellaswag < ", 13, "number"),
        ("hellaswag < one", 13, "number"),
        ("hellaswag < 0,5pt", 14, "expected pt, % or nothing, found ',5pt'"),
        ("hellaswag < -1 points", 16, "expected pt, % or nothing"),
        ("-1pt > hellaswag", 1, "name"),
        ("0 < x < 1", 5, "number"),
        ("x < 1e999", 5, "float"),
        ("x@ > 1", 4, "number above 0 for prompt"),
        ("x@0 > 1", 3, "number above 0 for prompt"),
        ("x@depth=3 > 1", 3, "expected one of prompt, batch"),
        ("x@1,prompt=2 > 1", 5, "prompt is given twice"),
        ("x@arm= > 1", 3, "a word for arm"),
        ("@64 > 1", 1, "name"),
    ],
)
def test_slips_are_named_by_their_place(text: str, letter: int, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    assert f"gate '{text}' cannot be read at letter {letter}: " in caught.value.message
    assert words in caught.value.message
    assert "hellaswag < -1pt" in caught.value.hint


@given(gates, st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(0, 1e3))
def test_the_rule(gate: Gate, value: float, below: float, above: float) -> None:
    gate = replace(gate, name="hellaswag", measure="acc", point=(), unit="pt")
    low, high = value - below, value + above
    found = replace(TASKS, contrasts=(contrast(difference=value, low=low, high=high),))
    by_estimate, by_interval = (
        one(check_gates([gate], found, None, fail_when=when)) for when in ("estimate", "certain")
    )
    beyond = {"<": value < gate.number, "<=": value <= gate.number,
              ">": value > gate.number, ">=": value >= gate.number}[gate.operator]  # fmt: skip
    if not math.isclose(value, gate.number, rel_tol=1e-8, abs_tol=1e-8):
        assert by_estimate.crossed == beyond
    assert by_estimate.status == ("failed" if by_estimate.crossed else "passed")
    # The whole interval beyond the threshold means every point of it, the estimate too.
    whole = all(gate.holds(v) for v in (low, value, high))
    assert by_estimate.certain == by_interval.certain == whole
    assert by_interval.status == ("failed" if whole else "passed")
    assert by_interval.crossed or not by_interval.certain


@pytest.mark.parametrize(("operator", "crosses"), [("<", False), ("<=", True), (">", False), (">=", True)])
def test_a_tie_but_for_rounding_is_a_tie(operator: str, crosses: bool) -> None:
    # As 1% of 100 is in floating point: 100 * (0.49 - 0.5) = -1.0000000000000009.
    rounded = replace(TASKS, contrasts=(contrast(difference=100 * (0.49 - 0.5)),))
    assert one(on_tasks(f"hellaswag {operator} -1pt", rounded)).crossed == crosses


def test_a_task_is_known_by_name_and_label() -> None:
    for name in ("hellaswag", "HellaSwag (10)", "hellaswag (10)"):
        found = one(on_tasks(f"{name} < -1.5pt"))
        assert (found.value, found.low, found.high, found.unit) == (-2.0, -3.0, -1.0, "pt")
        assert (found.status, found.certain) == ("failed", False)
        assert (found.candidate, found.where) == ("tuned", "HellaSwag (10) acc")
    assert one(on_tasks("hellaswag.acc_norm < -1pt")).status == "passed"
    # A dot may be of the task's name.
    assert one(on_tasks("arc.easy < -1pt")).value == 0.5
    assert one(on_tasks("arc.easy.acc < -1pt")).value == 0.5


def test_units() -> None:
    assert one(on_tasks("hellaswag < -3%")).value == pytest.approx(-4)
    assert one(on_tasks("hellaswag < -3%")).low == pytest.approx(-6)
    assert one(on_tasks("lambada_openai > 3%")).value == 5.0
    plain = one(on_tasks("lambada_openai.perplexity > 0.5"))
    assert (plain.value, plain.low, plain.high, plain.unit) == (1.0, 0.4, 1.6, "ppl")
    # Points are asked for, and the headline has none.
    assert one(on_tasks("lambada_openai < -1pt")).where == "LAMBADA acc"
    assert one(on_tasks("hellaswag.log-likelihood < -0.05")).unit == "nats"
    assert one(on_tasks("overall < -0.5pt")).certain is False
    assert one(on_tasks("overall < -0.4pt")).certain is True
    assert one(on_tasks("overall < -2%")).value == pytest.approx(-2.5)


def test_any_takes_what_gets_worse_in_its_direction() -> None:
    assert {r.where: r.value for r in on_tasks("any < -1pt")} == {
        "HellaSwag (10) acc": -2.0, "LAMBADA acc": -4.0, "ARC-E acc": 0.5,
    }  # fmt: skip
    assert [r.where for r in on_tasks("any > 3%")] == ["LAMBADA perplexity"]
    assert [r.where for r in on_tasks("any < -3%")] == ["HellaSwag (10) acc", "ARC-E acc"]
    assert [r.where for r in on_tasks("any.acc_norm < -3pt")] == ["HellaSwag (10) acc_norm"]
    with pytest.raises(UsageError, match="nothing that was compared gets worse by rising in percentage"):
        on_tasks("any > 1pt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hellaswagg < -1pt", "unknown name 'hellaswagg'. Closest: hellaswag"),
        ("tpot > 5%", "Compared were hellaswag, lambada_openai, arc.easy, overall"),
        ("hellaswag.f1 < -1pt", "hellaswag has no 'f1'. It has acc, acc_norm, log-likelihood"),
        ("lambada_openai.perplexity > 1pt", "perplexity is no share"),
        ("hellaswag < -1", "points or percent"),
        ("overall < -1", "points or percent"),
        ("overall.acc < -1pt", "no measures"),
        ("hellaswag.log-likelihood < -1%", "logarithm"),
        ("hellaswag@64 < -1pt", "a task has no points"),
        ("any.f1 < -1pt", "has no 'f1'"),
        ("any@64 > 1%", "unknown name 'any'"),
    ],
)
def test_gates_that_cannot_be_held(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        on_tasks(text)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_is_not_known_does_not_pass() -> None:
    two = replace(TASKS, candidates=(CANDIDATE, replace(CANDIDATE, label="other")))
    found = on_tasks("hellaswag < -9pt", two)
    assert [(r.candidate, r.status) for r in found] == [("tuned", "passed"), ("other", "unknown")]
    assert [r.status for r in on_tasks("overall < -9pt", two)] == ["passed", "unknown"]
    for lost in ({"difference": None}, {"difference": math.nan}):
        changed = replace(TASKS, contrasts=(contrast(**lost),))
        assert one(on_tasks("hellaswag < -9pt", changed)).status == "unknown"
    nothing = replace(TASKS, contrasts=(contrast(baseline_value=0.0),))
    assert one(on_tasks("hellaswag < -9%", nothing)).status == "unknown"
    without = replace(TASKS, contrasts=(contrast(low=None, high=None),))
    assert one(on_tasks("hellaswag < -1pt", without)).status == "failed"
    undecided = one(on_tasks("hellaswag < -1pt", without, fail_when="certain"))
    assert (undecided.status, undecided.certain) == ("unknown", False)
    assert one(on_tasks("hellaswag < -3pt", without, fail_when="certain")).status == "passed"


def test_speed() -> None:
    assert [(r.where, r.status) for r in on_speed("tpot > 5%")] == [
        ("tpot at prompt 64", "failed"),
        ("tpot at prompt 4,096", "passed"),
    ]
    assert one(on_speed("tpot_s@64 > +5%")).value == pytest.approx(10)
    assert one(on_speed("tpot@64 > 5%")).certain is False
    assert one(on_speed("tpot@64 > 4%")).certain is True
    assert one(on_speed("decode_tokens_per_s@64 < -5%")).value == pytest.approx(-10)
    seconds = one(on_speed("tpot@64 > 0.015"))
    assert (seconds.value, seconds.unit, seconds.status) == (pytest.approx(0.02), "s", "failed")
    exact, ranged = on_speed("peak > 0.5%")
    assert (exact.certain, exact.low) == (True, pytest.approx(1))
    assert (ranged.crossed, ranged.certain, ranged.low) == (True, False, None)
    assert ranged.why == "2 processes a side: no interval"
    assert on_speed("peak > 0.5%", fail_when="certain")[1].status == "unknown"
    assert {r.where.split()[0] for r in on_speed("any > 5%")} == {"tpot", "peak"}
    assert {r.where.split()[0] for r in on_speed("any < -5%")} == {"decode"}
    assert len(on_speed("any@prompt=4096,arm=eager > 5%")) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tpot > 1pt", "no percentage points"),
        ("tpot@65 > 1%", "There are prompt 64; prompt 4,096."),
        ("tpot@arm=graph > 1%", "no such point"),
        ("tpot.p50 > 1%", "Write 'tpot'"),
        ("energy > 1%", "energy was not measured. Compared were tpot, decode, peak."),
        ("any > 1", "no unit in common"),
        ("hellaswag < -1pt", "Compared were tpot, decode, peak."),
    ],
)
def test_gates_on_speed_that_cannot_be_held(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        on_speed(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("baseline", "candidate", "gate", "status"),
    [
        ("ok", "oom", "tpot > 5%", "failed"),
        ("ok", "unsupported", "any > 5%", "failed"),
        ("ok", "oom", "decode < -5%", "failed"),
        ("ok", "oom", "tpot < -5%", "unknown"),
        ("oom", "ok", "tpot > 5%", "passed"),
        ("oom", "ok", "tpot < -5%", "unknown"),
        ("oom", "skipped_after_oom", "tpot > 5%", "passed"),
        ("oom", "skipped_after_oom", "tpot@8192 > 5%", "unknown"),
        ("ok", "timeout", "tpot > 5%", "unknown"),
        ("failed", "ok", "tpot > 5%", "unknown"),
        ("failed", "oom", "tpot > 5%", "unknown"),
    ],
)
def test_where_a_side_could_not_run(baseline: str, candidate: str, gate: str, status: str) -> None:
    last = on_speed(gate, became(baseline, candidate))[-1]
    assert (last.where.endswith("at prompt 8,192"), last.status, last.value) == (True, status, None)
    assert last.why == f"base {baseline}; tuned {candidate}"


def test_some_processes_that_failed_leave_the_figures_of_the_others() -> None:
    found = one(on_speed("tpot@64 > 50%", became("ok", "killed", 64)))
    assert (found.status, found.value, found.why) == ("passed", pytest.approx(10), "base ok; tuned killed")
    lost = one(on_speed("tpot@64 > 50%", became("ok", "oom", 64)))
    assert (lost.status, lost.value) == ("failed", None)


def test_a_figure_that_is_missing_at_one_place_is_not_passed() -> None:
    found = on_speed("decode < -50%")
    assert [(r.where, r.status) for r in found] == [
        ("decode at prompt 64", "passed"),
        ("decode at prompt 4,096", "unknown"),
    ]


def test_raising() -> None:
    passed, failed = on_tasks("hellaswag < -9pt"), on_tasks("hellaswag < -1.5pt")
    raise_for(passed)
    raise_for([])
    with pytest.raises(GateFailedError) as caught:
        raise_for([*passed, *failed, *on_tasks("any < -1.5pt")])
    assert caught.value.exit_code == 1
    assert caught.value.message == (
        "gate 'hellaswag < -1.5pt' failed: tuned: HellaSwag (10) acc changed by -2.00 pt; 3 times in all, in "
        "2 of 3 gates"
    )
    unknown = on_speed("decode < -50%")
    with pytest.raises(CellsFailedError, match="could not be decided") as undecided:
        raise_for([*passed, *unknown])
    assert undecided.value.exit_code == 3
    # What is certain to have failed comes before what is not known.
    with pytest.raises(GateFailedError):
        raise_for([*unknown, *failed])


def test_unknown_names_are_of_their_own_class() -> None:
    with pytest.raises(UnknownNameError):
        check_gates([parse_gate("x > 1%")], None, None)
