"""All figures of a set of runs: which there are is known without drawing, and models look alike in all."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from comparisons import comparison
from hypothesis import given, settings
from hypothesis import strategies as st
from long_records import CASES as LONG
from made_curves import made_curves
from quality_costs import quality_costs
from speed_plot_tables import CASES as SPEED

from mambabench.errors import StoreError, UsageError
from mambabench.frames.api import Runs
from mambabench.frames.columns import frame
from mambabench.frames.load import LoadedRun
from mambabench.plots.longcontext import figures as long_figures
from mambabench.plots.palette import COLOURS
from mambabench.plots.report import drawings_of, pictures_of, save_pictures
from mambabench.plots.speed import figures as speed_figures
from mambabench.plots.speed.looks import Looks, places_of, shared_looks


class Made(Runs):
    """Runs whose tables and frames were made up."""

    def __init__(self, *runs: LoadedRun, given: Any = None, curves: Any = None, costs: Any = None) -> None:
        super().__init__(runs)
        self.given = given
        self.curves = curves
        self.costs = costs

    @property
    def comparison(self) -> Any:
        return self.given

    def frame(self, name: str) -> Any:
        return self.costs if name == "quality_cost" and self.costs is not None else frame(name, [])


def run(name: str, **tables: Any) -> LoadedRun:
    models = {m: m for table in tables.values() for m in table.models}
    return LoadedRun(name, Path(name), None, labels=models, **tables)


@cache
def speed(case: str) -> Any:
    return SPEED[case]()


@cache
def long(case: str) -> Any:
    return LONG[case]()


@pytest.mark.parametrize("case", ["small", "usual", "throughput"])
def test_what_a_sweep_can_draw_is_known_without_drawing(case: str) -> None:
    found = list(pictures_of(Made(run("r", speed=speed(case)))))
    assert found == [key.replace("_", "-") for key in speed_figures(speed(case))]


@pytest.mark.parametrize("case", ["small", "usual"])
def test_what_a_long_run_can_draw_is_known_without_drawing(case: str) -> None:
    found = list(pictures_of(Made(run("r", long=long(case)))))
    assert found == [key.replace("_", "-") for key in long_figures(long(case))]


def test_figures_stand_in_the_order_of_a_report() -> None:
    runs = Made(
        run("Two sweeps/1", speed=speed("small")), run("two sweeps 1", speed=speed("small")),
        run("lengths", long=long("small")), given=comparison(2, {"tuned": 1.0}), curves=made_curves(),
        costs=quality_costs(),
    )  # fmt: skip
    keys = list(pictures_of(runs))
    assert keys[:5] == ["differences", "log-likelihoods", "calibration", "training-curves", "accuracy-cost"]
    assert keys[5:8] == ["recall-grid", "recall-by-length", "loss-by-context"]
    assert keys[8].startswith("two-sweeps-1-ttft")
    assert "two-sweeps-1-2-ttft" in keys
    assert all(re.fullmatch("[a-z0-9-]+", key) for key in keys)
    own = [(d.figure, d.run) for d in drawings_of(runs) if d.figure == "ttft"]
    assert own == [("ttft", "Two sweeps/1"), ("ttft", "two sweeps 1")]


def test_a_model_has_one_look_in_all_figures_of_a_report() -> None:
    runs = Made(run("first", speed=speed("usual")), run("second", long=long("usual")))
    runs.runs[0].labels.update({"another": "another"})  # type: ignore[attr-defined]
    order = list(dict.fromkeys(label for one in runs.runs for label in one.labels))
    pictures = pictures_of(runs)
    seen: dict[str, set[str]] = {}
    for key in ("ttft", "recall-by-length"):
        for axes in pictures[key]().axes:
            for one in axes.lines:
                if one.get_label() in order:
                    seen.setdefault(str(one.get_label()), set()).add(str(one.get_color()))
    assert seen == {label: {COLOURS[order.index(label)]} for label in seen}
    assert len(seen) >= 2
    # Outside of a report a table's own order counts again.
    assert Looks(["x", "y"]).colour("y") == COLOURS[1]


def test_a_look_that_is_shared_goes_before_a_table_s_own() -> None:
    looks = Looks(["a", "b"])
    with shared_looks({"b": 3}):
        assert (looks.colour("a"), looks.colour("b")) == (COLOURS[0], COLOURS[3])
        with pytest.raises(ZeroDivisionError), shared_looks({"b": 4}):
            raise ZeroDivisionError
        assert looks.colour("b") == COLOURS[3]
    assert looks.colour("b") == COLOURS[1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40))
def test_labels_of_a_model_share_its_colour_and_no_two_a_look(groups: list[int]) -> None:
    named = {f"label {i}": f"model {group}" for i, group in enumerate(groups)}
    places = places_of(named)
    assert len(set(places.values())) == len(places)
    for a in named:
        for b in named:
            if named[a] == named[b]:
                assert places[a] % len(COLOURS) == places[b] % len(COLOURS)


def test_pictures_are_written_one_after_the_other(tmp_path: Path) -> None:
    runs = Made(run("r", speed=speed("small")))
    paths = save_pictures(runs, tmp_path, ("svg",))
    assert [p.name for p in paths] == [f"{key}.svg" for key in pictures_of(runs)]
    again = tmp_path / "again"
    again.mkdir()
    chosen = {"ttft": pictures_of(runs)["ttft"]}
    (same,) = save_pictures(chosen, again, ("svg",))
    assert same.read_bytes() == (tmp_path / "ttft.svg").read_bytes()
    with pytest.raises(UsageError, match="cannot be written"):
        save_pictures(runs, tmp_path, ("gif",))


def test_a_figure_that_fails_costs_no_other(tmp_path: Path) -> None:
    def broken() -> Any:
        raise ValueError("a depth is no number")

    pictures = pictures_of(Made(run("r", speed=speed("small"))))
    wanted = {"first": broken, "ttft": pictures["ttft"]}
    with pytest.raises(StoreError, match=r"first \(a depth is no number\)"):
        save_pictures(wanted, tmp_path, ("svg",))
    assert [path.name for path in tmp_path.iterdir()] == ["ttft.svg"]


def test_saying_what_there_is_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Callable[[], Any]:
        raise AssertionError

    monkeypatch.setattr("mambabench.plots.speed.sheet.Sheet.__init__", never)
    runs = Made(
        run("r", speed=speed("usual"), long=long("usual")), given=comparison(2), costs=quality_costs()
    )
    assert len(pictures_of(runs)) > 10
    assert pictures_of(Made()) == {}
