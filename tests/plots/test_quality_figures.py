"""Figures of quality against cost hold the frame's figures, its fronts, and words for what is missing."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from drawn_words import check_words
from quality_costs import COSTS, quality_costs

from mambabench.frames.columns import frame
from mambabench.plots.quality import draw_quality_cost
from mambabench.plots.quality_points import COSTS as DRAWN
from mambabench.plots.quality_points import panels_of, way_of
from mambabench.plots.speed.looks import Looks


def drawn(table: pd.DataFrame, quality: str | None = None) -> Any:
    figure = draw_quality_cost(table, quality)
    assert figure is not None
    return figure


def lines(axes: Any, label: str) -> list[Any]:
    return [one for one in axes.lines if one.get_label() == label]


def points(one: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(*one.get_data(), strict=True)]


def test_a_mark_is_a_model_at_a_length_with_both_intervals() -> None:
    table = quality_costs()
    figure = drawn(table)
    assert len(figure.axes) == len(COSTS)
    for axes, cost in zip(figure.axes, DRAWN, strict=True):
        for label in ("small", "large", "wasteful"):
            mine = table[(table["label"] == label) & (table["cost"] == cost.column)]
            expected = list(zip(mine["cost_value"], mine["quality_percent"], strict=True))
            (marks,) = lines(axes, f"_beaten {label}" if label == "wasteful" else label)
            assert points(marks) == expected
            (joined,) = lines(axes, f"_lengths {label}")
            assert points(joined) == expected
            bars = {c.get_label(): c.get_segments() for c in axes.collections}
            ends = [[x for x, _ in bar] for bar in bars[f"_cost {label}"]]
            assert ends == [list(e) for e in zip(mine["cost_low"], mine["cost_high"], strict=True)]
            # An accuracy is the same at all lengths, so that one bar is enough.
            (bar,) = bars[f"_quality {label}"]
            assert [y for _, y in bar] == [
                mine["quality_low_percent"].iloc[0], mine["quality_high_percent"].iloc[0]
            ]  # fmt: skip


def test_recall_has_an_interval_at_each_length() -> None:
    (axes, *_) = drawn(quality_costs(quality="recall")).axes
    (bars,) = [c for c in axes.collections if c.get_label() == "_quality small"]
    assert len(bars.get_segments()) == 3


def test_steps_join_the_front_of_each_length() -> None:
    table = quality_costs()
    (axes, *_) = drawn(table).axes
    steps = lines(axes, "_front")
    assert len(steps) == 3
    for one, length in zip(steps, (512, 2048, 8192), strict=True):
        front = table[(table["length_tokens"] == length) & (table["cost"] == "tpot_s") & table["on_front"]]
        assert points(one) == list(zip(front["cost_value"], front["quality_percent"], strict=True))
        assert one.get_drawstyle() == "steps-post"


def test_of_many_lengths_three_have_steps_and_of_one_model_none() -> None:
    (axes, *_) = drawn(quality_costs(lengths=(128, 256, 512, 1024, 2048))).axes
    assert len(lines(axes, "_front")) == 3
    alone = drawn(quality_costs(("one",)))
    assert not any(lines(axes, "_front") or lines(axes, "_bound") for axes in alone.axes)
    unknown = drawn(quality_costs(on_front=None))
    assert not any(lines(axes, "_front") for axes in unknown.axes)
    assert all(lines(axes, "wasteful") for axes in unknown.axes)


def test_axes_are_logarithmic_where_costs_span_decades() -> None:
    figure = drawn(quality_costs())
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log", "linear", "linear"]
    for axes, cost in zip(figure.axes, DRAWN, strict=True):
        low, high = axes.get_xlim()
        values = quality_costs(costs=(cost.column,))
        assert low < values["cost_low"].min()
        assert values["cost_high"].max() < high


@pytest.mark.parametrize(
    ("setting", "length", "way"),
    [
        ("batch 1, prompt of 2,048 tokens, 64 generated, cpu", 2048, "batch 1, 64 generated, cpu"),
        ("batch 1, 2,048 prompt tokens, cpu", 2048, "batch 1, cpu"),
        ("batch 1, prompt 512, 512 generated", 512, "batch 1, 512 generated"),
        ("prompts of 2k tokens, batch 8", 2048, "batch 8"),
        ("512, batch 8", 512, "batch 8"),
        ("", 512, ""),
    ],
)  # fmt: skip
def test_a_way_of_measuring_is_a_setting_without_the_prompt(setting: str, length: int, way: str) -> None:
    assert way_of(setting, length) == way


def test_ways_of_measuring_have_panels_of_their_own_and_the_rarest_are_left_out() -> None:
    ways = [f"batch {n}, prompt of {{:,}} tokens" for n in (1, 2, 4, 8)]
    many = [quality_costs(costs=COSTS[:2], setting=way) for way in ways[:3]]
    few = quality_costs(("small", "large"), costs=COSTS[:2], setting=ways[3])
    table = pd.concat([few, *many], ignore_index=True)
    panels, left_out = panels_of(table)
    assert [(p.way, p.cost.column) for p in panels] == [
        (f"batch {n}", cost) for n in (1, 2, 4) for cost in COSTS[:2]
    ]
    assert left_out == ["batch 8"]
    figure = drawn(table)
    assert len(figure.axes) == 6
    assert "without batch 8" in figure.description


def test_what_is_not_drawn_is_told_of() -> None:
    table = quality_costs(("small", "large"), costs=("tpot_s", "gross_j_per_token"))
    gone = (table["label"] == "large") & (table["length_tokens"] == 8192)
    table.loc[gone & (table["cost"] == "tpot_s"), ["cost_value", "cost_low", "cost_high"]] = float("nan")
    table = table[~((table["label"] == "large") & (table["cost"] == "gross_j_per_token"))]
    text = drawn(table).description
    assert "large: no each later token at 8,192" not in text
    assert "large: no time of a token at 8,192 tokens, so not drawn there." in text
    assert "large: no energy, so not drawn there." in text
    assert "small: no" not in text


def test_each_quality_has_a_figure_of_its_own() -> None:
    both = pd.concat([quality_costs(), quality_costs(quality="recall")], ignore_index=True)
    assert drawn(both).description.startswith("Accuracy and what it costs")
    assert drawn(both, "recall").description.startswith("Recall and what it costs")
    assert draw_quality_cost(quality_costs(), "recall") is None
    assert draw_quality_cost(frame("quality_cost", [])) is None
    assert draw_quality_cost(quality_costs(cost_value=float("inf"))) is None


@pytest.mark.parametrize(("quality", "n"), [("recall", 1), ("recall", 6), ("average accuracy", 20)])
def test_words_can_be_read(quality: str, n: int) -> None:
    names = [f"$a_{i}$ long name of a directory of checkpoints number {i}" for i in range(n)]
    figure = drawn(quality_costs(names, quality=quality))
    check_words(figure, f"{quality} {n}")
    looks = Looks(names)
    (axes, *_) = figure.axes
    assert {one.get_color() for one in lines(axes, f"_lengths {names[0]}")} == {looks.colour(names[0])}


@pytest.mark.parametrize("n_costs", [1, 2, 3])
def test_long_ways_of_measuring_can_be_read(n_costs: int) -> None:
    way = "batch {}, 64 generated, float32, cpu (Intel Xeon Platinum 8481C), mean of 3 tasks set {}"
    costs = COSTS[:n_costs]
    figure = drawn(pd.concat([quality_costs(costs=costs, setting=way.format(n, n)) for n in (1, 2)]))
    check_words(figure, f"ways {n_costs}")
    assert "mean of 3 tasks set 2" in " ".join(axes.get_title("left") for axes in figure.axes).replace(
        "\n", " "
    )
