"""Figures of more models, and of names of any script, than fit side by side."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparisons import comparison
from drawn_words import check_words
from hypothesis import given
from hypothesis import strategies as st
from long_records import Run, falling
from speed_plot_tables import SIX, sizes
from speed_records import ceilings, point, replicate

from mambabench.plots import MOST_NAME_LETTERS, save, shortened, width_letters
from mambabench.plots.compare import DRAW as OF_COMPARISON
from mambabench.plots.compare.fewer import fewer
from mambabench.plots.longcontext import DRAW as OF_LENGTHS
from mambabench.plots.speed import DRAW as OF_SWEEP
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.series import MOST_LINES, chunks
from mambabench.plots.speed.sheet import sheet_style
from mambabench.tables.speed.table import SpeedTable, build_speed_table

ODD = ("$x_1$ & <b>", "模型-" * 15, "line\nbreak\x1b[31m", "\\frac{a}{b}%_^{}~#", "اختبار-النموذج", "/a" * 30)
NAMES = tuple(f"{odd} {i}" for odd, i in zip(itertools.cycle(ODD), range(14), strict=False))


def sweep() -> SpeedTable:
    records, known = [], {}
    for i, name in enumerate(NAMES):
        base = SIX[i % len(SIX)]
        speeds = replace(base, name=name, token_s=base.token_s * (1 + 0.1 * i))
        known[name] = sizes(base.name)
        records += [replicate(speeds, point(speeds, length)) for length in (128, 1024)]
    return build_speed_table("latency", "a sweep", records, [ceilings()], known, expected=())


def drawn(draw: Any, table: Any) -> Any:
    with sheet_style():
        figure = draw(table)
    assert figure is not None
    return figure


def test_models_share_panels_and_each_is_bright_in_one(tmp_path: Path) -> None:
    figure = drawn(OF_SWEEP["ttft"], sweep())
    labels = [shortened(name) for name in NAMES]
    bright = [
        [str(one.get_label()) for one in axes.lines if one.get_label() in labels] for axes in figure.axes
    ]
    assert sorted(itertools.chain(*bright)) == sorted(labels)
    assert len(figure.axes) == 2
    assert max(map(len, bright)) <= MOST_LINES
    for axes, mine in zip(figure.axes, bright, strict=True):
        muted = [one for one in axes.lines if one.get_label() == "_muted"]
        assert len(muted) == len(NAMES) - len(mine)
    with warnings.catch_warnings():
        # The font has no letters of every script.
        warnings.simplefilter("ignore")
        check_words(figure, "odd names")
    save(figure, tmp_path / "odd.svg")
    assert "模型-" in (tmp_path / "odd.svg").read_text("utf-8")


@given(st.integers(1, 60), st.integers(1, 4))
def test_panels_hold_no_more_lines_than_can_be_told_apart(n_models: int, each: int) -> None:
    models = [str(i) for i in range(n_models)]
    parts = chunks(models, n_models * each)
    assert list(itertools.chain(*parts)) == models
    assert all(len(part) * each <= MOST_LINES for part in parts)


def test_maps_of_many_models_and_tasks_are_of_the_mean() -> None:
    models = tuple(f"model {i}" for i in range(7))
    tasks = {f"task {i}": falling(300 if i else 600) for i in range(7)}
    table = Run(lengths=(256, 512), models=models, tasks=tasks, n_samples=20).table()
    figure = drawn(OF_LENGTHS["recall_grid"], table)
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in maps] == list(models)
    for axes, model in zip(maps, models, strict=True):
        shown = np.ma.filled(axes.images[0].get_array(), np.nan)
        for x, row in enumerate(table.rows_of(model)):
            for y in range(shown.shape[0]):
                parts = [row.recall[task].depths[y].accuracy for task in tasks]
                assert shown[y, x] == pytest.approx(float(np.mean(parts)))
    check_words(figure, "means")


def test_bands_are_left_out_and_said_to_be_where_they_hide_lines() -> None:
    for n, banded in ((9, True), (10, False)):
        models = tuple(f"model {i}" for i in range(n))
        table = Run(lengths=(256, 512), models=models, tasks={"a": falling(300)}, n_samples=20).table()
        figure = drawn(OF_LENGTHS["recall_by_length"], table)
        assert any(str(c.get_label()).startswith("_band") for c in figure.axes[0].collections) == banded
        assert ("left out" in figure.description) != banded


def test_candidates_furthest_from_the_baseline_are_drawn() -> None:
    steps = {f"run@step{n}": 50.0 + n for n in range(1, 11)}
    others = {f"model {i}": float((-1) ** i * 3 * i) for i in range(25)}
    made = comparison(2, {**steps, **others}, calibrations=())
    cut, words = fewer(made, 20)
    kept = [side.label for side in cut.candidates]
    assert kept == ["run@step10", *(f"model {i}" for i in range(6, 25))]
    assert {c.candidate for c in cut.contrasts} == {o.candidate for o in cut.overall} == set(kept)
    assert words.startswith("20 of 35 models")
    assert words in drawn(OF_COMPARISON["differences"], made).description
    assert fewer(made, 35) == (made, "")


@given(st.text(max_size=80), st.text(max_size=40))
def test_shown_names_are_short_and_on_one_line(model: str, run: str) -> None:
    for name in (model, f"{model} ({run})"):
        shown = shortened(name)
        assert shown.isprintable()
        assert width_letters(shown) <= MOST_NAME_LETTERS


def test_legends_tell_names_apart_that_end_alike() -> None:
    names = [f"{letter}{'-the-same' * 6}" for letter in "ab"]
    assert shortened(names[0]) == shortened(names[1])
    assert len({handle.get_label() for handle in Looks(names).handles(names)}) == 2
