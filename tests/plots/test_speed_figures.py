"""Figures hold what their tables hold, stay readable from one point to a hundred, and equal tables give equal
files.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speed_plot_tables as tables
from drawn_words import check_words
from speed_plot_tables import line, lines, rows_of
from speed_records import MAMBA, PYTHIA, failed, point, replicate

from mambabench.errors import UsageError
from mambabench.plots.palette import PAPER
from mambabench.plots.speed import KEYS, figures, save_figures
from mambabench.plots.speed.scales import quantity
from mambabench.sizes import break_even_tokens, layout_for
from mambabench.tables.speed.table import SpeedTable, build_speed_table


@cache
def table(case: str) -> SpeedTable:
    return tables.CASES[case]()


@cache
def drawn(case: str) -> dict[str, Any]:
    return dict(figures(table(case)))


def untold(replicates: list[Any]) -> SpeedTable:
    """Return a table of models without known sizes, on a machine without ceilings."""
    return build_speed_table("latency", "a sweep", replicates, [], {}, expected=())


def drawn_texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


SVG = "{http://www.w3.org/2000/svg}"
QUANTITIES = {
    "ttft": "ttft_s",
    "itl_depth": "tpot_s",
    "decode_tokens_per_s": "decode_tokens_per_s",
    "peak_memory": "peak_bytes",
}


@pytest.mark.parametrize("processes", [3, 6])
def test_lines_are_the_estimates_and_bands_their_ends(processes: int) -> None:
    swept = tables.usual(processes)
    found = figures(swept)
    for key, name in QUANTITIES.items():
        (axes,) = found[key].axes
        for model in swept.models:
            rows = rows_of(swept, model)
            estimates = [getattr(r, name) for r in rows]
            curve = line(axes, model)
            assert list(curve.get_xdata()) == [r.point.prompt_len_tokens for r in rows]
            assert list(curve.get_ydata()) == [e.value for e in estimates]
            (band,) = [c for c in axes.collections if c.get_label() == f"_band {model}"]
            corners = {tuple(v) for v in band.get_paths()[0].vertices}
            ends = {
                (r.point.prompt_len_tokens, v)
                for r, e in zip(rows, estimates, strict=True)
                for v in (e.low, e.high)
            }
            assert ends <= corners
            assert {y for _, y in corners} == {y for _, y in ends}
        words = "95% intervals" if processes == 6 else "ranges over processes"
        assert f"{processes} processes a point · bands are {words}" in found[key].description


def test_points_past_the_training_length_are_hollow_and_its_end_is_marked() -> None:
    (axes,) = drawn("usual")["itl_depth"].axes
    lengths: dict[str, list[int]] = {"_past": [], "_within": []}
    for label, found in lengths.items():
        for marks in lines(axes, label):
            hollow = marks.get_markerfacecolor() == PAPER
            assert hollow == (label == "_past")
            found += list(marks.get_xdata())
    # 2048 and 64 generated tokens are more than 2048.
    assert sorted(lengths["_past"]) == [2048, 2048, 4096, 4096]
    assert sorted(lengths["_within"]) == sorted([128, 256, 512, 1024] * 2)
    assert list(line(axes, "_training").get_xdata()) == [2048, 2048]
    assert "trained on 2k" in [t.get_text() for t in axes.texts]


def test_failures_stand_above_the_frame_with_their_words() -> None:
    for key in QUANTITIES:
        figure = drawn("throughput")[key]
        (axes,) = figure.axes
        marks = line(axes, "_failed")
        assert list(marks.get_xdata()) == [64, 128]
        assert list(line(axes, "pythia-160m").get_xdata()) == [1, 2, 4, 8, 16, 32]
        assert "pythia-160m: oom, skipped" in [t.get_text() for t in axes.texts]
        assert "oom at batch 64; skipped at batch 128" in figure.description
        figure.draw_without_rendering()
        heights = marks.get_transform().transform([(64, 1.0), (128, 1.0)])[:, 1]
        assert (heights > axes.bbox.ymax + 2).all()


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("oom", "oom"), ("timeout", "timeout"), ("unsupported", "unsupported"), ("killed", "killed"),
        ("skipped_after_oom", "skipped"), ("illegal_access", "illegal access"), ("failed", "failed"),
    ],
)  # fmt: skip
def test_a_failure_between_two_points_breaks_the_line(status: Any, word: str) -> None:
    ok = [replicate(MAMBA, point(MAMBA, n)) for n in (128, 512)]
    (axes,) = figures(untold([*ok, failed(point(MAMBA, 256), status=status)]))["ttft"].axes
    curve = line(axes, "mamba-130m")
    assert list(curve.get_xdata()) == [128, 256, 512]
    assert [math.isnan(y) for y in curve.get_ydata()] == [False, True, False]
    assert list(line(axes, "_failed").get_xdata()) == [256]
    assert any(t.get_text() in (f"mamba-130m: {word}", word) for t in axes.texts)


def test_points_still_to_be_measured_are_left_out_and_said() -> None:
    at = point(MAMBA, 4096)
    ok = [replicate(MAMBA, point(MAMBA, n)) for n in (128, 512)]
    swept = build_speed_table("latency", "a sweep", ok, [], {}, expected=(at,))
    figure = figures(swept)["ttft"]
    assert list(line(figure.axes[0], "mamba-130m").get_xdata()) == [128, 512]
    assert not lines(figure.axes[0], "_failed")
    assert "partial" in figure.description


def test_ceilings_are_those_that_shares_are_of() -> None:
    (axes,) = drawn("throughput")["decode_tokens_per_s"].axes
    copies = lines(axes, "_ceiling: bandwidth of a copy")
    sheets = lines(axes, "_ceiling: data sheet")
    for model, by_copy, by_sheet in zip(table("throughput").models, copies, sheets, strict=True):
        ceilings = dict(zip(by_copy.get_xdata(), by_copy.get_ydata(), strict=True))
        # Where nothing could be measured there is a ceiling all the same.
        assert list(ceilings) == [1, 2, 4, 8, 16, 32, 64, 128]
        for row in rows_of(table("throughput"), model):
            if row.decode_tokens_per_s and row.decode_ceiling_share:
                expected = row.decode_tokens_per_s.value / row.decode_ceiling_share.value
                assert ceilings[row.point.batch_size] == pytest.approx(expected, rel=1e-9)
        # The sheet says 60 GB/s, the copy reached 21 at best.
        np.testing.assert_allclose(by_sheet.get_ydata(), np.array(by_copy.get_ydata()) * 60 / 21, rtol=1e-12)
        assert by_copy.get_color() == line(axes, model).get_color()


def test_peaks_have_the_weights_below_and_the_budget_above() -> None:
    def budgeted(budget_bytes: int) -> SpeedTable:
        found = [replicate(MAMBA, point(MAMBA, n)) for n in (128, 512, 65536)]
        return untold(
            [
                r.model_copy(update={"memory": r.memory.model_copy(update={"budget_bytes": budget_bytes})})
                for r in found
                if r.memory is not None
            ]
        )

    (axes,) = figures(budgeted(2_000_000_000))["peak_memory"].axes
    assert set(line(axes, "_weights alone").get_ydata()) == {516_000_000}
    assert set(line(axes, "_budget of 2 GB").get_ydata()) == {2_000_000_000}
    assert axes.get_ylim()[1] > 2_000_000_000
    far = figures(budgeted(80_000_000_000))["peak_memory"]
    assert not lines(far.axes[0], "_budget of 80 GB")
    assert "budget of 80 GB is above the axis" in far.description


def test_the_budget_is_drawn_where_only_what_failed_tells_it() -> None:
    ok = [replicate(MAMBA, point(MAMBA, n)) for n in (128, 65536)]
    swept = untold([*ok, failed(point(MAMBA, 131072), budget_bytes=2_000_000_000)])
    (axes,) = figures(swept)["peak_memory"].axes
    assert set(line(axes, "_budget of 2 GB").get_ydata()) == {2_000_000_000}


def test_state_bytes_are_lines_of_the_spec_markers_as_measured_and_break_even_rings() -> None:
    (axes,) = drawn("large")["state_bytes"].axes
    layout = layout_for("mambabench", "float32")
    for model in table("large").models:
        by_spec = line(axes, model)
        for x, y in zip(by_spec.get_xdata(), by_spec.get_ydata(), strict=True):
            assert y == tables.sizes(model).state_bytes(layout, length_tokens=x)
        measured = line(axes, f"_measured {model}")
        # The last id is generated and never read.
        seen = {r.point.prompt_len_tokens + 63 for r in rows_of(table("large"), model) if r.memory}
        assert list(measured.get_xdata()) == sorted(seen)
        for x, y in zip(measured.get_xdata(), measured.get_ydata(), strict=True):
            assert y == tables.sizes(model).state_bytes(layout, length_tokens=x)
    rings = sorted(ring.get_xdata()[0] for ring in lines(axes, "_break-even"))
    expected = [
        break_even_tokens(tables.sizes(a), layout, tables.sizes(b), layout)
        for a in ("mamba-130m", "mamba-1.4b", "mamba2-1.3b")
        for b in ("pythia-160m", "pythia-1.4b", "tinyllama-1.1b")
    ]
    assert rings == sorted(n for n in expected if n is not None)
    assert "2,290" in [t.get_text() for t in axes.texts]


def test_state_bytes_are_of_one_sequence() -> None:
    found = [replicate(PYTHIA, point(PYTHIA, n, batch_size=8)) for n in (128, 512)]
    (axes,) = figures(untold(found))["state_bytes"].axes
    measured = line(axes, "_measured pythia-160m")
    assert list(measured.get_xdata()) == [191, 575]
    assert list(measured.get_ydata()) == [n * PYTHIA.kv_bytes_per_token for n in (191, 575)]


def test_positions_are_steps_from_the_second_token_on_of_few_lengths() -> None:
    figure = drawn("usual")["itl_position"]
    (axes,) = figure.axes
    for model, (length, text) in itertools.product(
        table("usual").models, [(128, "128"), (512, "512"), (4096, "4k")]
    ):
        (row,) = [r for r in rows_of(table("usual"), model) if r.point.prompt_len_tokens == length]
        curve = line(axes, f"{model}, prompt of {text}")
        assert list(curve.get_xdata()) == list(range(2, 65))
        assert tuple(curve.get_ydata()) == row.itl_s_by_position
    assert sum(not str(curve.get_label()).startswith("_") for curve in axes.lines) == 6
    assert "3 of 6 prompt lengths" in figure.description


def test_steps_far_above_all_others_end_at_the_frame_and_are_marked() -> None:
    record = replicate(MAMBA, point(MAMBA, 128))
    spiked = [
        repeat.model_copy(update={"itl_s": (*repeat.itl_s[:10], 1.5, *repeat.itl_s[11:])})
        for repeat in record.repeats
    ]
    figure = figures(untold([record.model_copy(update={"repeats": tuple(spiked)})]))["itl_position"]
    (axes,) = figure.axes
    assert axes.get_ylim()[1] < 0.05
    assert list(line(axes, "_beyond").get_xdata()) == [12]
    assert "up to 1.5 s" in figure.description


def test_one_length_is_drawn_as_rows_with_figures_in_words() -> None:
    for key, name in QUANTITIES.items():
        (axes,) = drawn("one_length")[key].axes
        labels = [t.get_text() for t in axes.get_yticklabels()]
        assert labels[:2] == ["mamba-130m", "pythia-160m, sdpa attention"]
        for y, row in enumerate(table("one_length").rows):
            estimate = getattr(row, name)
            words = next(t.get_text() for t in axes.texts if t.xy[1] == y)  # type: ignore[attr-defined]
            if estimate is None:
                assert words == "oom"
                assert list(line(axes, "_failed").get_ydata()) == [y]
            else:
                dot = line(axes, labels[y])
                assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([estimate.value], [y])
                unit = {"peak_memory": "bytes", "decode_tokens_per_s": "tokens/s"}.get(key, "s")
                assert words.startswith(quantity(estimate.value, unit))  # type: ignore[arg-type]


def test_attention_and_arms_differ_by_line_style_alone() -> None:
    found = [replicate(MAMBA, point(MAMBA, n)) for n in (128, 512)]
    found += [replicate(PYTHIA, point(PYTHIA, n, attention=a)) for n in (128, 512) for a in ("sdpa", "eager")]
    figure = figures(untold(found))["ttft"]
    (axes,) = figure.axes
    sdpa, eager = (line(axes, f"pythia-160m, {a} attention") for a in ("sdpa", "eager"))
    assert sdpa.get_color() == eager.get_color() != line(axes, "mamba-130m").get_color()
    assert sdpa.get_linestyle() != eager.get_linestyle()
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["mamba-130m", "pythia-160m", "sdpa attention", "eager attention"]


def test_many_lines_have_a_panel_for_each_model_with_the_others_behind() -> None:
    for key in QUANTITIES:
        figure = drawn("large")[key]
        assert [a.get_title(loc="left") for a in figure.axes] == list(table("large").models)
        for axes in figure.axes:
            named = [curve for curve in axes.lines if not str(curve.get_label()).startswith("_")]
            assert len(named) <= 2
            assert len({curve.get_color() for curve in named}) == 1
            assert len(lines(axes, "_muted")) == 5
        assert len({a.get_ylim() for a in figure.axes}) == 1


def test_batches_and_lengths_together_have_a_panel_for_each_batch() -> None:
    figure = drawn("grid")["itl_depth"]
    assert [a.get_title(loc="left") for a in figure.axes] == ["batch 1", "batch 8", "batch 64"]
    assert "pythia-160m, batch 64: " in figure.description


@pytest.mark.parametrize(
    ("records", "keys"),
    [
        ([], set()),
        ([failed(point(MAMBA, 128))], set()),
        ([replicate(MAMBA, point(MAMBA, 128))], set(KEYS)),
        ([replicate(MAMBA, point(MAMBA, 128, gen_len=1))], {"ttft", "peak_memory", "state_bytes"}),
        ([replicate(MAMBA, point(MAMBA, 128), memory=None)], set(KEYS) - {"peak_memory", "state_bytes"}),
    ],
)
def test_only_what_was_measured_is_drawn(records: list[Any], keys: set[str]) -> None:
    assert set(figures(untold(records))) == keys


def test_figures_without_prefill_have_no_time_to_first_token() -> None:
    record = replicate(MAMBA, point(MAMBA, 128))
    decoded = tuple(r.model_copy(update={"ttft_s": None}) for r in record.repeats)
    assert "ttft" not in figures(untold([record.model_copy(update={"repeats": decoded})]))


@pytest.mark.parametrize("case", tables.CASES)
def test_nothing_is_cut_off_and_no_words_touch(case: str) -> None:
    for key, figure in drawn(case).items():
        check_words(figure, key)
        for axes in figure.axes:
            assert axes.bbox.height > 30, key


def test_equal_tables_give_equal_files_that_describe_themselves(tmp_path: Path) -> None:
    files: list[dict[str, bytes]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths = save_figures(tables.usual(), tmp_path / name)
        assert [p.name for p in paths] == [f"{key}.{ending}" for key in KEYS for ending in ("png", "svg")]
        files.append({p.name: p.read_bytes() for p in paths})
    assert files[0] == files[1]
    for key in KEYS:
        drawing = ET.fromstring(files[0][f"{key}.svg"])
        title, text, *_ = drawing
        assert (title.tag.rpartition("}")[2], text.tag.rpartition("}")[2]) == ("title", "desc")
        assert f"{title.text}\n{text.text}" == drawn("usual")[key].description
        assert drawing.get("aria-label") == title.text
        assert not drawing.findall(".//{http://purl.org/dc/elements/1.1/}date")


def test_names_of_any_kind_are_written_as_they_are(tmp_path: Path) -> None:
    models = [replace(MAMBA, name="_a$x_1$<&>"), replace(PYTHIA, name="/very/long/" * 5 + "checkpoint-1")]
    swept = untold([replicate(m, point(m, n)) for m in models for n in (128, 512)])
    (path, *_) = save_figures(swept, tmp_path, ("svg",))
    texts = drawn_texts(figures(swept)["ttft"])
    assert "_a$x_1$<&>" in texts
    assert max(map(len, (t for t in texts if t.endswith("checkpoint-1")))) <= 28
    written = ["".join(t.itertext()) for t in ET.fromstring(path.read_bytes()).iter(f"{SVG}text")]
    assert "_a$x_1$<&>" in written


def test_a_bad_format_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written as"):
        save_figures(tables.small(), tmp_path, ("png", "bmp"))
    assert not list(tmp_path.iterdir())


def test_neither_matplotlib_nor_torch_is_imported_before_figures_are_asked_for() -> None:
    code = "import sys, mambabench.plots.speed; print({'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
