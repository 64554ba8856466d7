"""Rows of a figure of differences: which way is better, what they are called, and what is hollow."""

from __future__ import annotations

from dataclasses import replace

from comparisons import comparison, contrast

from mambabench.compare.result import Comparison
from mambabench.plots.compare.calibration import draw_calibration
from mambabench.plots.compare.differences import draw_differences
from mambabench.plots.speed.sheet import sheet_style

SUBJECTS = [f"hendrycksTest-{a}_{b}" for a in ("high_school", "college") for b in ("biology", "physics")]


def names(shown: Comparison, unit: str = "pt") -> list[str]:
    with sheet_style():
        figure = draw_differences(shown, unit)
    assert figure is not None
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_shares_of_which_less_is_better_are_not_drawn_as_accuracies() -> None:
    shown = comparison(2, {"tuned": 3.0}, overall=())
    bias = contrast(task="crows", label="crows", measure="pct_stereotype", higher_is_better=False)
    both = replace(shown, contrasts=(bias, *shown.contrasts))
    assert names(both) == names(shown)
    with sheet_style():
        figure = draw_differences(both, "pt")
        alone = draw_differences(replace(shown, contrasts=(bias,)), "pt")
    assert figure is not None
    assert "without 1 task of which less is better" in figure.description
    assert figure.axes[0].get_xlim()[0] < 0 < figure.axes[0].get_xlim()[1]
    # By themselves they are, with the better side on the right.
    assert alone is not None
    assert alone.axes[0].xaxis_inverted()


def test_long_names_of_tasks_are_told_apart() -> None:
    shown = comparison(4, {"tuned": 3.0}, overall=())
    new = dict(zip([c.task for c in shown.contrasts if c.effect_unit == "pt"], SUBJECTS, strict=True))
    renamed = replace(
        shown,
        contrasts=tuple(
            replace(c, label=new[c.task], measure="acc" if c.task == "piqa" else c.measure)
            for c in shown.contrasts
        ),
        calibrations=tuple(replace(c, label=new[c.task]) for c in shown.calibrations),
    )
    found = names(renamed)
    assert len({name.partition(" (")[0] for name in found}) == 4
    assert all(name.endswith(("(acc)", "(acc_norm)")) for name in found)
    with sheet_style():
        figure = draw_calibration(renamed)
    assert figure is not None
    titles = [axes.get_title(loc).replace("\n", "") for axes in figure.axes for loc in ("left", "center")]
    assert len({title for title in titles if title}) == 4


def test_hollow_marks_are_large_enough_to_look_hollow() -> None:
    labels = [f"c{i}" for i in range(6)]
    shown = comparison(30, dict.fromkeys(labels, 0.0), calibrations=(), changes=())
    with sheet_style():
        figure = draw_differences(shown, "pt")
    assert figure is not None
    marks = {line.get_marker(): line for line in figure.axes[0].lines if "hollow" in str(line.get_label())}
    assert {"s", "P", "X"} <= set(marks)
    # The arms of a cross are a third of its width.
    assert marks["s"].get_markersize() > 2 * marks["s"].get_markeredgewidth()
    for cross in "PX":
        assert marks[cross].get_markersize() / 3 > 2 * marks[cross].get_markeredgewidth()
