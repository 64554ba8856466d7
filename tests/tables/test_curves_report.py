"""What is said of curves is what they hold, and long series stay readable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_curves import DOUBLING, made_curve, made_curves

from mambabench.compare.curves_result import BestStep, Curve, Curves
from mambabench.tables.compare.curves import (
    caveats,
    contenders_text,
    curve_words,
    luck_text,
    shown_steps,
    words,
)
from mambabench.tables.compare.curves_terminal import as_text


def said(curve: Curve) -> str:
    return " ".join(curve_words(curve, Curves((curve.series,), (curve,), 0.05, 2000)))


def with_best(curve: Curve, **changes: Any) -> Curve:
    return replace(curve, best=replace(curve.best, **changes))


class TestWords:
    def test_best_change_contenders_and_luck_are_named(self) -> None:
        text = said(made_curve(steps=(0, 100, 200, 300, 400, 500, 600, 700, 800)))
        assert text == (
            "160m, LAMBADA acc: best at step 600 with 45.0%, after 25.0% at step 0 and before 44.5% at step "
            "800. From the first step to the last: +18.2 points (95% +15.1 to +21.3), p < 0.001. 4 other "
            "steps (400, 500, 700 and 800) may be the best as well; after step 400 no gain over it is shown. "
            "Picked as the best of 9 steps, it is worth 44.3% on other items: 0.7 points of luck; it is the "
            "best in 100% of resamples."
        )

    def test_without_items_luck_is_a_bound(self) -> None:
        text = said(made_curve(paired=False))
        assert "Of its value at most 0.7 points is the luck of having been picked from 27 steps." in text
        assert "resamples" not in text

    @pytest.mark.parametrize(
        ("contenders", "expected"),
        [
            ((), "could not be tested"),
            ((2,), "Each other step is worse, at 5% in all."),
            ((1, 2, 3, 4), "No step is shown to be worse than the best: all may be."),
            ((2, 4), "1 other step (4) may be the best as well."),
            ((1, 2), "1 other step (1) may be the best as well; after step 1 no gain over it is shown."),
        ],
    )
    def test_who_else_may_be_the_best(self, contenders: tuple[int, ...], expected: str) -> None:
        curve = made_curve(steps=(1, 2, 3, 4))
        assert expected in said(with_best(curve, step=2, contenders=contenders))

    def test_a_last_step_that_is_worse_is_past_the_best(self) -> None:
        curve = made_curve(steps=tuple(range(0, 2000, 100)))
        assert "past the best: step 1,900 is worse than step 1,400 by more than noise" in said(curve)
        text = " ".join(words(made_curves(series=("a",), steps=tuple(range(0, 2000, 100)))))
        assert "a at the last step is worse than its best by more than noise in LAMBADA acc (44.4% " in text
        assert "and 1 more." in text
        assert "past the best" not in said(made_curve(steps=(1, 2, 3, 4)))

    @pytest.mark.parametrize(
        ("place", "expected"),
        [(0, "best at the first"), (-1, "which is the best"), (None, "the same at every step")],
    )
    def test_a_best_at_an_end(self, place: int | None, expected: str) -> None:
        curve = made_curve(steps=(5, 6, 7))
        point = curve.points[place or 0]
        ties = (5, 6, 7) if place is None else (point.step,)
        best = BestStep(point.step, point.value, ties, ties, True, None, None)
        assert expected in said(replace(curve, best=best))

    def test_caveats_are_those_of_what_is_there(self) -> None:
        assert len(caveats(made_curves())) == 2
        assert "2,000 resamples" in caveats(made_curves())[1]
        assert "errors were independent" in caveats(made_curves(paired=False))[1]
        assert caveats(Curves((), (), 0.05, 2000)) == []

    def test_cells_of_the_summary(self) -> None:
        curve = made_curve(steps=(1, 2, 3, 4))
        assert (luck_text(curve), contenders_text(curve)) == ("0.7 points", "4 of 4, from 1")
        assert luck_text(made_curve(paired=False)) == "at most 0.7 points"
        nothing = with_best(curve, luck=None, contenders=())
        assert (luck_text(nothing), contenders_text(nothing)) == ("", "")
        assert contenders_text(with_best(curve, contenders=(3,))) == "it alone"
        # Less than none is noise of the resamples.
        assert luck_text(with_best(curve, luck=-0.2)) == "0.0 points"


class TestShownSteps:
    @given(st.sets(st.integers(0, 10**6), min_size=2, max_size=60), st.data(), st.integers(3, 20))
    def test_ends_and_wanted_steps_are_kept(self, steps: set[int], data: Any, most: int) -> None:
        ordered = sorted(steps)
        wanted = data.draw(st.lists(st.sampled_from(ordered), max_size=most - 2))
        shown = shown_steps(ordered, wanted, most)
        assert shown == sorted(set(shown))
        assert len(shown) == min(most, len(ordered))
        assert {ordered[0], ordered[-1], *wanted} <= set(shown) <= steps


class TestTerminal:
    def test_every_series_has_its_best_steps_and_its_values(self) -> None:
        text = as_text(made_curves(remarks=("a remark",)))
        for series in ("160m", "410m", "1.4b"):
            assert f"{series}: best steps" in text
            assert f"{series}: by training step" in text
        assert "11 of 27 steps are left out here" in text
        assert "A remark." in text
        assert max(map(len, text.splitlines())) <= 140

    def test_marks_are_those_of_the_steps(self) -> None:
        text = as_text(made_curves(series=("",), n_tasks=1, steps=(0, 10, 20, 30, 40, 50, 60, 70, 80)))
        rows = {line.split()[0]: line for line in text.splitlines() if line.strip()[:2].strip().isdigit()}
        assert rows["60"].split() == ["60", "45.0%", "[43.0,", "47.0]", "*"]
        assert rows["40"].rstrip().endswith("~")
        assert rows["0"].rstrip().endswith("]")
        assert "Best steps" in text

    def test_no_column_is_cut_without_a_word(self) -> None:
        text = as_text(made_curves(series=("x",), n_tasks=16, steps=DOUBLING))
        assert "No room for" in text
        assert "mean of 16" in text

    def test_names_cannot_write_to_the_terminal(self) -> None:
        curve = made_curve("a\x1b[31m", label="L\n\x07")
        text = as_text(Curves((curve.series,), (curve,), 0.05, 2000))
        assert "\x1b" not in text
        assert "\x07" not in text
