"""Figures of long-context tables hold what the tables hold, and stay readable from small to large."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_words import check_words
from long_records import CASES, ENDS, MAMBA, Run, recall_record, recalls, unsupported_recall

from mambabench.errors import UsageError
from mambabench.plots.longcontext import KEYS, figures, save_figures
from mambabench.plots.longcontext.joined import draw_joined
from mambabench.plots.palette import ON_CELL_LIGHT, PAPER
from mambabench.plots.speed.looks import Looks
from mambabench.tables.longcontext.table import LongTable, build_long_table


@cache
def table(case: str) -> LongTable:
    return CASES[case]()


@cache
def drawn(case: str) -> dict[str, Any]:
    return dict(figures(table(case)))


def line(axes: Any, label: str) -> Any:
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


def panels(figure: Any) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def band(axes: Any, model: str) -> set[tuple[float, float]]:
    (found,) = [c for c in axes.collections if c.get_label() == f"_band {model}"]
    return {(float(x), float(y)) for x, y in found.get_paths()[0].vertices}


def test_what_there_is_data_for_is_drawn_in_order() -> None:
    assert tuple(drawn("usual")) == KEYS
    # Without cost there is nothing to join.
    assert tuple(drawn("small")) == KEYS[:3]
    assert figures(build_long_table("a run", [], [], rows={})) == {}
    cost_alone = Run(speeds=(MAMBA,)).table()
    assert figures(cost_alone) == {}


def test_curves_are_accuracies_with_their_intervals() -> None:
    figure, usual = drawn("usual")["recall_by_length"], table("usual")
    found = panels(figure)
    assert list(found) == ["mean of 3 tasks", "needle", "passkey", "copying"]
    for title, axes in found.items():
        for model in usual.models:
            rows = usual.rows_of(model)
            values = [r.recall_mean if title.startswith("mean") else r.accuracy(title) for r in rows]
            curve = line(axes, model)
            assert list(curve.get_xdata()) == [r.length_tokens for r in rows]
            assert list(curve.get_ydata()) == pytest.approx([100 * v.value for v in values if v])
            ends = {
                (r.length_tokens, 100 * e)
                for r, v in zip(rows, values, strict=True)
                if v
                for e in (v.low, v.high)
            }
            assert ends <= band(axes, model)
        assert list(line(axes, "_chance").get_ydata()) == [25, 25]
        assert axes.get_xscale() == "log"


def test_rings_are_effective_contexts_and_hollow_marks_lie_past_training() -> None:
    found = panels(drawn("usual")["recall_by_length"])
    rings = {
        (title, one.get_label().removeprefix("_ring ")): int(one.get_xdata()[0])
        for title, axes in found.items()
        for one in axes.lines
        if one.get_label().startswith("_ring")
    }
    told = {
        (e.task or "mean of 3 tasks", e.model): e.found.length_tokens
        for e in table("usual").effective
        if e.found.outcome != "none"
    }
    assert rings == told
    assert not any(title == "copying" for title, _ in rings)
    for axes in found.values():
        for label, lengths in (("_past", {4096}), ("_within", {256, 512, 1024, 2048})):
            marks = [one for one in axes.lines if one.get_label() == label]
            assert len(marks) == 2
            for one in marks:
                assert set(one.get_xdata()) == lengths
                assert (one.get_markerfacecolor() == PAPER) == (label == "_past")
        assert list(line(axes, "_training").get_xdata()) == [2048, 2048]


def test_a_length_without_a_figure_breaks_its_line() -> None:
    made = [recall_record("m", "a", n, 0.8) for n in (256, 1024)]
    records = [made[0][0], unsupported_recall("m", "a", 512, ENDS), made[1][0]]
    built = build_long_table("a run", records, [], rows={r.fingerprint: q for r, q in made})
    (axes,) = figures(built)["recall_by_length"].axes
    ys = line(axes, "m").get_ydata()
    assert [math.isnan(y) for y in ys] == [False, True, False]


def test_parts_without_samples_are_gaps_of_a_map() -> None:
    record, rows = recall_record("m", "a", 256, 0.5, n_depths=10)
    few = record.model_copy(update={"depths": tuple(record.depths[i] for i in (0, 3, 7))})
    built = build_long_table("a run", [few], [], rows={record.fingerprint: rows})
    (axes, _) = figures(built)["recall_grid"].axes
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)[:, 0]
    assert [i for i, share in enumerate(shown) if not math.isnan(share)] == [0, 3, 7]
    assert len(shown) == 10
    depths = {round(y): t.get_text() for y, t in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert all(text == f"{5 + 10 * y}%" for y, text in depths.items())


@pytest.mark.parametrize(("processes", "costs"), [(1, False), (2, True)])
def test_bands_of_costs_are_spoken_of_where_there_are_any(processes: int, costs: bool) -> None:
    built = Run(tasks={"a": recalls({256: 0.6, 512: 0.6})}, speeds=(MAMBA,), processes=processes).table()
    figure = draw_joined(built)
    assert figure is not None
    subtitle = figure.description.split("\n")[1]
    assert "bands are 95% intervals" in subtitle
    assert ("of costs ranges" in subtitle) == costs


@pytest.mark.parametrize("case", ["small", "usual", "wide"])
def test_maps_hold_accuracy_by_depth_and_length(case: str) -> None:
    figure, built = drawn(case)["recall_grid"], table(case)
    maps = [axes for axes in figure.axes if axes.images]
    cells = [(task, model) for task in built.tasks for model in built.models]
    assert len(maps) == len(cells)
    for axes, (task, model) in zip(maps, cells, strict=True):
        (image,) = axes.images
        assert image.get_clim() == (0, 1)
        assert image.get_cmap().name == "cividis"
        shown = np.ma.filled(image.get_array(), np.nan)
        rows = built.rows_of(model)
        expected = np.full(shown.shape, np.nan)
        for x, row in enumerate(rows):
            for y, part in enumerate(row.recall[task].depths):
                expected[y, x] = part.accuracy
        np.testing.assert_array_equal(shown, expected)
        # Numbers stand where there are figures.
        texts = {t.get_position(): t.get_text() for t in axes.texts if t.get_text().isdigit()}
        assert texts == {
            (x, y): f"{100 * v:.0f}" for (y, x), v in np.ndenumerate(expected) if not math.isnan(v)
        }
        n_unsupported = sum(r.recall[task].status == "unsupported" for r in rows)
        assert len([p for p in axes.patches if p.get_label() == "_unsupported"]) == n_unsupported
    (bar,) = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert [list(one.get_ydata()) for one in bar.lines if one.get_label() == "_chance"] == [[0.25, 0.25]] * 2


def test_numbers_are_told_from_dark_and_bright_cells() -> None:
    import matplotlib

    axes = next(axes for axes in drawn("usual")["recall_grid"].axes if axes.images)
    colours = matplotlib.colormaps["cividis"]
    for text in axes.texts:
        if text.get_text().isdigit():
            x, y = text.get_position()
            share = float(axes.images[0].get_array()[y, x])
            contrast = _contrast(
                colours(share)[:3], (1.0,) * 3 if text.get_color() == ON_CELL_LIGHT else (0.0,) * 3
            )
            assert contrast > 3.5


def _contrast(a: Any, b: Any) -> float:
    """Return the contrast ratio of the Web Content Accessibility Guidelines."""

    def light(colour: Any) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    bright, dark = sorted((light(a), light(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_the_end_of_training_lies_between_two_columns() -> None:
    axes = next(axes for axes in drawn("usual")["recall_grid"].axes if axes.images)
    marks = [one for one in axes.lines if one.get_label() == "_training"]
    # Between 2,048, which is still within, and 4,096.
    assert [list(one.get_xdata()) for one in marks] == [[3.5, 3.5]] * 2
    assert not [one for one in drawn("small")["recall_grid"].axes[0].lines if one.get_label() == "_training"]


def test_loss_is_shown_with_its_paired_change() -> None:
    figure, built = drawn("wide")["loss_by_context"], table("wide")
    found = panels(figure)
    for model in ("mamba-130m", "pythia-160m"):
        bits = [r.bits_per_byte for r in built.rows_of(model)]
        assert list(line(found["Loss"], model).get_ydata()) == pytest.approx([b.value for b in bits if b])
        trend = built.trend_of(model)
        assert trend is not None
        axes = found["Change from the shortest context"]
        assert list(line(axes, model).get_ydata()) == [0.0, *(d.value for d in trend.found.from_shortest)]
        ends = {
            (n, e)
            for n, d in zip(trend.found.lengths[1:], trend.found.from_shortest, strict=True)
            for e in (d.low, d.high)
        }
        assert ends <= band(axes, model)
    assert list(line(found["Loss"], "_ring mamba-130m").get_xdata()) == [2048]
    assert not [one for one in found["Loss"].lines if one.get_label() == "_ring pythia-160m"]
    assert "mamba-130m: 1.154 bits per byte after 256 tokens" in figure.description
    assert "rises from 8,192" in figure.description


def test_one_axis_of_lengths_holds_quality_and_cost() -> None:
    figure, built = drawn("wide")["quality_and_cost"], table("wide")
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["recall (%)", "bits per byte", "first token", "later tokens", "peak memory", "state"]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    rows = [r for r in built.rows_of("pythia-160m") if r.ttft_s is not None]
    curves = [line(axes, "pythia-160m") for axes in figure.axes]
    for curve, values in (
        (curves[2], [r.ttft_s.value for r in rows if r.ttft_s]),
        (curves[3], [r.tpot_s.value for r in rows if r.tpot_s]),
        (curves[4], [r.peak_bytes.value for r in rows if r.peak_bytes]),
        (curves[5], [r.state_bytes for r in rows]),
    ):
        assert list(curve.get_xdata()) == [r.length_tokens for r in rows]
        assert list(curve.get_ydata()) == values
    (failed,) = [one for one in figure.axes[2].get_children() if str(one.get_label()) == "_failed"]
    assert list(failed.get_xdata()) == [32768, 65536]
    assert "pythia-160m: cost oom at 32,768, 65,536 tokens." in figure.description


def test_models_have_the_colours_of_the_sweeps() -> None:
    looks = Looks(table("wide").models)
    for key in KEYS[1:]:
        for axes in drawn("wide")[key].axes:
            for model in ("mamba-130m", "pythia-160m", "mamba-1.4b"):
                curve = [one for one in axes.lines if one.get_label() == model]
                assert all(one.get_color() == looks.colour(model) for one in curve)


@pytest.mark.parametrize("case", ["small", "usual", "wide"])
def test_nothing_is_cut_off_and_no_words_touch(case: str) -> None:
    for key, figure in drawn(case).items():
        check_words(figure, key)
        assert all(axes.bbox.height > 30 for axes in figure.axes), key


def test_single_lengths_and_many_models_are_drawn() -> None:
    models = tuple(f"model-{i}" for i in range(9))
    built = Run(lengths=(256,), models=models, tasks={"a": recalls({256: 0.6})}, loss=lambda m, n: 3.0,
                speeds=(MAMBA,)).table()  # fmt: skip
    found = figures(built)
    assert tuple(found) == KEYS
    (axes,) = found["recall_by_length"].axes
    low, high = axes.get_xlim()
    assert low < 256 < high
    # Nine maps beside each other would be too wide.
    maps = found["recall_grid"]
    assert [axes.get_title(loc="left") for axes in maps.axes if axes.images] == list(models)
    assert maps.get_size_inches()[0] < 8
    # One length has no effective context to ring, and no change to show.
    assert not [one for one in axes.lines if one.get_label().startswith("_ring")]
    assert len(found["loss_by_context"].axes) == 1


def test_figures_are_described_and_saved(tmp_path: Path) -> None:
    paths = save_figures(table("small"), tmp_path, ("svg",))
    assert [p.name for p in paths] == [f"{key}.svg" for key in KEYS[:3]]
    drawing = paths[0].read_text("utf-8")
    assert "<desc>" in drawing
    assert 'aria-label="Recall by depth and length"' in drawing
    for key, figure in drawn("usual").items():
        title, subtitle, *sentences = figure.description.split("\n")
        assert title
        assert subtitle.startswith("a run · ")
        assert sentences, key
    with pytest.raises(UsageError, match="cannot be written"):
        save_figures(table("small"), tmp_path, ("gif",))
    again = tmp_path / "again"
    again.mkdir()
    save_figures(table("small"), again, ("svg",))
    assert all((again / p.name).read_bytes() == p.read_bytes() for p in paths)
