"""Profiles of several runs hold their accuracies, from one model to many checkpoints."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from drawn_words import check_words

from mambabench.frames.columns import frame
from mambabench.plots.palette import RULE
from mambabench.plots.profile import draw_profile
from mambabench.plots.speed.looks import Looks


def scores(labels: list[str], n_tasks: int = 3, **changes: Any) -> pd.DataFrame:
    """Return accuracies that rise with the model and the task; every second task has a published figure."""
    return frame(
        "scores",
        [
            {
                "run": "r", "label": label, "model": label, "suite": "s", "task": f"t{t}",
                "task_label": f"Task number {t}", "metric": "acc", "headline": True,
                "value": 30.0 + place + t % 5, "unit": "%", "interval_low": 29.0 + place + t % 5,
                "interval_high": 31.5 + place + t % 5, "n_items": 100, "n_items_total": 100, "chance": 25.0,
                "reference": 30.0 if t % 2 else None,
            } | changes
            for place, label in enumerate(labels)
            for t in range(n_tasks)
        ],
    )  # fmt: skip


def drawn(table: pd.DataFrame) -> Any:
    figure = draw_profile(table)
    assert figure is not None
    return figure


def artists(figure: Any) -> dict[str, Any]:
    (axes,) = figure.axes
    return {str(one.get_label()): one for one in (*axes.lines, *axes.collections)}


def test_marks_bars_and_ticks_are_the_frame() -> None:
    table = scores(["a", "b"])
    figure = drawn(table)
    found = artists(figure)
    for label in ("a", "b"):
        mine = table[table["label"] == label]
        assert list(found[label].get_xdata()) == list(mine["value"])
        ends = [sorted(x for x, _ in bar) for bar in found[f"_interval {label}"].get_segments()]
        assert ends == [list(e) for e in zip(mine["interval_low"], mine["interval_high"], strict=True)]
        assert list(found[f"_published {label}"].get_xdata()) == [30.0]
    # The first model stands above the second one in each row.
    assert all(y < z for y, z in zip(found["a"].get_ydata(), found["b"].get_ydata(), strict=True))
    assert "a: Task number 0 30.0%, Task number 1 31.0%, Task number 2 32.0%." in figure.description


def test_a_row_has_the_models_that_were_asked_and_a_task_its_first_accuracy() -> None:
    parts = [scores(["a"], 2), scores(["b"], 1), scores(["a"], 2, metric="acc_norm", value=90.0)]
    parts += [scores(["c"], 1, unit="ppl"), scores(["d"], 1, value=None)]
    both = pd.concat(parts, ignore_index=True)
    found = artists(drawn(both))
    assert list(found["a"].get_xdata()) == [30.0, 31.0]
    assert list(found["b"].get_xdata()) == [30.0]
    assert not {"c", "d"} & set(found)
    # One mark is in the middle of its row, two are around it.
    (axes,) = drawn(both).axes
    first, second = axes.get_yticks()
    assert found["a"].get_ydata()[1] == second
    assert (found["a"].get_ydata()[0] + found["b"].get_ydata()[0]) / 2 == pytest.approx(first)


def test_partial_runs_say_so_and_nothing_gives_no_figure() -> None:
    assert "partial" in drawn(scores(["a"], n_items=5)).description
    assert "partial" not in drawn(scores(["a"])).description
    assert draw_profile(scores(["a"], unit="ppl")) is None
    assert draw_profile(frame("scores", [])) is None


def test_what_is_infinite_is_not_drawn() -> None:
    table = scores(["a", "b"])
    table.loc[0, "value"], table.loc[1, "value"] = float("inf"), float("-inf")
    table.loc[4, "interval_high"] = float("inf")
    found = artists(drawn(table))
    assert list(found["a"].get_xdata()) == [table.loc[2, "value"]]
    assert len(found["b"].get_xdata()) == 3
    assert draw_profile(scores(["a"], value=float("inf"))) is None


def test_of_many_checkpoints_the_last_of_each_run_of_training_is_shown() -> None:
    steps = [f"pythia-70m@step{n}" for n in range(1000, 25000, 1000)]
    found = artists(drawn(scores(["a", *steps, "b"])))
    assert {"a", "b", "pythia-70m@step24000"} <= set(found)
    assert "pythia-70m@step23000" not in found
    # Few of them are all shown.
    assert "pythia-70m@step1000" in artists(drawn(scores(["a", *steps[:3]])))


def test_of_more_models_than_can_be_told_apart_the_best_have_colours() -> None:
    names = [f"model {i}" for i in range(30)]
    figure = drawn(scores(names))
    found = artists(figure)
    looks = Looks(names)
    for place, name in enumerate(names):
        bright = place >= 25
        assert found[name if bright else f"_{name}"].get_color() == (looks.colour(name) if bright else RULE)
    (legend,) = figure.legends
    assert {t.get_text() for t in legend.get_texts()} == {*names[25:], "25 others", "chance"}


@pytest.mark.parametrize(("n_models", "n_tasks"), [(1, 1), (3, 7), (20, 10), (8, 60)])
def test_words_can_be_read(n_models: int, n_tasks: int) -> None:
    names = [f"$a_{i}$ a long name\n of a checkpoint number {i}" for i in range(n_models)]
    figure = drawn(scores(names, n_tasks))
    check_words(figure, "profile")
    assert figure.get_size_inches()[1] < 30
