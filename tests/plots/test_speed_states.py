"""States and ceilings are of what each arm held, and memory sweeps without times have all of them."""

from __future__ import annotations

from dataclasses import replace

import speed_plot_tables as tables
from speed_plot_tables import line, lines, rows_of
from speed_records import PYTHIA, point, replicate

from mambabench.plots.speed import figures
from mambabench.sizes import break_even_tokens, layout_for
from mambabench.tables.speed.table import SpeedTable


def test_memory_sweeps_have_lines_of_the_spec_and_break_even_rings() -> None:
    models = (tables.TRAINED_MAMBA, PYTHIA)
    made = [replicate(m, point(m, n), kind="memory", repeats=0) for m in models for n in (16, 512)]
    (axes,) = figures(tables.table_of(made, "memory"))["state_bytes"].axes
    assert len(lines(axes, "mamba-130m")) == len(lines(axes, "pythia-160m")) == 1
    layout = layout_for("mambabench", "float32")
    meet = break_even_tokens(tables.sizes("mamba-130m"), layout, tables.sizes("pythia-160m"), layout)
    assert [ring.get_xdata()[0] for ring in lines(axes, "_break-even")] == [meet]


def by_own_library_and_ours() -> SpeedTable:
    """Return a table of an arm with mambabench's state and one with transformers', which is larger."""
    made = []
    for arm, library in (("eager", "mambabench"), ("shipped", "transformers")):
        layout = layout_for(library, "float32")
        held = tables.sizes("mamba-130m").state_bytes(layout)
        speeds = replace(tables.TRAINED_MAMBA, state_bytes=held)
        for length in (16, 512):
            at = point(speeds, length, arm=arm)  # type: ignore[arg-type]
            made.append(replicate(speeds, at, implementation=f"{library} Mamba"))
        made.append(replicate(PYTHIA, point(PYTHIA, 512, arm=arm), implementation=f"{library} X"))  # type: ignore[arg-type]
    return tables.table_of(made)


def test_arms_that_hold_a_state_in_other_ways_are_lines_of_their_own() -> None:
    figure = figures(by_own_library_and_ours())["state_bytes"]
    (axes,) = figure.axes
    for library, held in (("mambabench", 2_801_664), ("transformers", 2_949_120)):
        assert set(line(axes, f"mamba-130m, {library}").get_ydata()) == {held}
        measured = line(axes, f"_measured mamba-130m, {library}")
        assert list(measured.get_xdata()) == [79, 575]
        assert list(measured.get_ydata()) == [held] * 2
    # Both hold keys and values alike.
    assert len(lines(axes, "pythia-160m")) == 1
    rings = sorted(ring.get_xdata()[0] for ring in lines(axes, "_break-even"))
    assert rings == [2_801_664 / PYTHIA.kv_bytes_per_token, 2_949_120 / PYTHIA.kv_bytes_per_token]
    styles = {line(axes, f"mamba-130m, {name}").get_linestyle() for name in ("mambabench", "transformers")}
    assert len(styles) == 2
    assert {"mambabench", "transformers"} <= {t.get_text() for t in figure.legends[0].get_texts()}


def test_decode_ceilings_are_of_each_arms_own_state() -> None:
    swept = by_own_library_and_ours()
    (axes,) = figures(swept)["decode_tokens_per_s"].axes
    drawn_at = {tuple(found.get_ydata()) for found in lines(axes, "_ceiling: bandwidth of a copy")}
    expected: dict[str, set[float]] = {}
    for row in rows_of(swept, "mamba-130m"):
        assert row.decode_tokens_per_s is not None
        assert row.decode_ceiling_share is not None
        ceiling = row.decode_tokens_per_s.value / row.decode_ceiling_share.value
        expected.setdefault(row.point.arm, set()).add(round(ceiling, 6))
    assert len(expected["eager"]) == len(expected["shipped"]) == 1
    found = {round(y, 6) for ys in drawn_at if len(ys) == 2 for y in ys}
    assert found == expected["eager"] | expected["shipped"]
    assert len(found) == 2


def test_a_cache_with_room_for_one_more_token_is_drawn_where_it_belongs() -> None:
    record = replicate(PYTHIA, point(PYTHIA, 512))
    assert record.memory is not None
    room = record.memory.model_copy(update={"state_tokens": 576})
    (axes,) = figures(tables.table_of([record.model_copy(update={"memory": room})]))["state_bytes"].axes
    assert list(line(axes, "_measured pythia-160m").get_xdata()) == [576]
