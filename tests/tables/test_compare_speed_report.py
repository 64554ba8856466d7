"""Compared sweeps and gates as printed and drawn: every verdict, what is no interval, what is not alike."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from speed_records import MAMBA, PYTHIA, failed, point, sweep
from stored_sweeps import ENVIRONMENT, side_of, store_sweep, stored_side

from mambabench.compare.gates import check_gates, parse_gate
from mambabench.compare.result import CompareOptions
from mambabench.compare.speed import compare_speed
from mambabench.compare.speed_result import SpeedComparison
from mambabench.plots import save
from mambabench.plots.compare.speed import draw_speed_ratios
from mambabench.plots.palette import PAPER
from mambabench.tables.compare import gates as gate_report
from mambabench.tables.compare import speed as speed_report
from mambabench.tables.compare.gates import gate_lines
from mambabench.tables.compare.speed import as_text

OPTIONS = CompareOptions(replicates=400)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> SpeedComparison:
    run = store_sweep(tmp_path_factory.mktemp("paired") / "run", sweep(prompt_lens=(128, 2048)))
    base = side_of(run, "mamba", MAMBA.name)
    return compare_speed([side_of(run, "[red]pythia", PYTHIA.name)], base, OPTIONS)


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> SpeedComparison:
    """Two candidates: one on another machine that runs out of memory, one of few processes."""
    folder = tmp_path_factory.mktemp("unpaired")
    lens = {"prompt_lens": (128, 512)}
    base = stored_side(folder / "a", [*sweep(models=[MAMBA], processes=10, **lens)], "base")
    records = sweep(models=[MAMBA], processes=10, seed=1, prompt_lens=(128,))
    elsewhere = stored_side(
        folder / "b",
        [*records, failed(point(MAMBA, 512))],
        "moved",
        environment={"processor": {**ENVIRONMENT["processor"], "name": "another"}, "python": "3.12"},
    )
    few = stored_side(folder / "c", sweep(models=[MAMBA], processes=2, seed=2, prompt_lens=(128,)), "few")
    return compare_speed([elsewhere, replace(few, partial=True)], base, OPTIONS)


def cells(text: str, figure: str) -> list[str]:
    """Return the words of the lines of a figure."""
    return [" ".join(line.split(figure)[1].split()) for line in text.splitlines() if f" {figure} " in line]


def test_pairs(paired: SpeedComparison) -> None:
    text = as_text(paired)
    first, second = cells(text, "time per token")
    tpot = [c for c in paired.contrasts if c.figure == "tpot"]
    assert first.split()[4] == f"{tpot[0].ratio:.3f}"
    assert f"{tpot[1].low:.3f} to {tpot[1].high:.3f} 6 pairs <0.001 slower" in second
    assert "exact" in cells(text, "state and KV")[0]
    assert cells(text, "state and KV")[0].endswith("more")
    assert text.startswith("[red]pythia against mamba: of 16 figures at 2 places ")
    assert "Student's t on the logarithms of pairs" in text
    assert "(speed), p-values adjusted by Holm, 5% in all." in text
    # Of the places only what is not the same for all is said, once a place.
    lines = [line for line in text.splitlines() if line.startswith(" prompt ")]
    assert [line.split()[1] for line in lines] == ["128", "2,048"]


def test_separate_runs(unpaired: SpeedComparison) -> None:
    text = " ".join(as_text(unpaired).split())
    assert "NOT ALIKE: processor of base a processor, 4 cores, of moved another, 4 cores" in text
    assert "Also different, base -> moved: python: 3.11.7 -> 3.12." in text
    assert "prompt 512: base ran; moved ran out of memory (wanted 6.7 GB)." in text
    assert "a bootstrap over processes (400 resamples)" in text
    assert "Fewer than 6 processes a side give no interval and no verdict" in text
    assert "few is partial" in text
    assert "10 / 2" in text
    ranges = [c for c in unpaired.contrasts if c.method == "range"]
    for contrast in ranges:
        shown = f"range {contrast.low:.3f} to {contrast.high:.3f}"
        assert shown in text


def test_a_range_is_never_called_an_interval(unpaired: SpeedComparison) -> None:
    few = [c for c in unpaired.contrasts if c.match.candidate == "few"]
    only = replace(unpaired, candidates=(unpaired.candidates[1],), contrasts=tuple(few), families=())
    text = as_text(replace(only, outcomes=(), differences=(), remarks=()))
    assert "95%" not in text
    assert "range" in text
    assert "not tested" in text


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_terminals_keep_verdicts(
    width: int, paired: SpeedComparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_report, "_WIDTH_OF_FILES", width)
    text = as_text(paired)
    assert "No room for p adj." in text
    table = [line for line in text.splitlines() if "exact" in line]
    assert all(line.rstrip().endswith("more") for line in table if "state" in line)


def test_a_comparison_of_failures_alone(unpaired: SpeedComparison) -> None:
    text = as_text(replace(unpaired, contrasts=(), families=()))
    assert "moved against base: nothing could be compared." in text
    assert "ran out of memory" in text


def test_small_differences_are_called_so(paired: SpeedComparison) -> None:
    first = replace(paired.contrasts[0], verdict="slower", within_margin=True)
    text = as_text(replace(paired, contrasts=(first,)))
    assert "slower (small)" in text
    assert "(small): a difference, and within 2%." in text


def test_gates(unpaired: SpeedComparison) -> None:
    results = check_gates(
        [parse_gate(g) for g in ("tpot > 50%", "tpot@128 < 50%", "state@128 >= 0%")], None, unpaired
    )
    lines = gate_lines(results)
    assert [status for status, _ in lines] == ["failed", "passed", "passed", *["failed"] * 4]
    oom, passed, few, below, _, state, _ = (line for _, line in lines)
    assert oom == "tpot > 50%  moved: tpot at prompt 512: base ran; moved ran out of memory (wanted 6.7 GB)"
    assert passed.startswith("tpot > 50%  moved: tpot at prompt 128 ")
    assert "(95% interval " in passed
    assert few.endswith("; 2 processes a side: no interval")
    assert ", certainly" in below
    assert state.endswith("state at prompt 128 +0.00%, certainly")
    stream = io.StringIO()
    gate_report.render(results, stream)
    assert stream.getvalue().count("FAILED  ") == 5
    assert stream.getvalue().count("passed  ") == 2


def test_of_many_that_passed_the_nearest_is_shown(paired: SpeedComparison) -> None:
    for gate, choose in (("tpot > 900%", max), ("tpot < -99%", min)):
        results = check_gates([parse_gate(gate)], None, paired)
        nearest = choose(r.value for r in results if r.value is not None)
        ((status, line),) = gate_lines(results)
        assert status == "passed"
        assert f"{nearest:+.2f}%" in line
        assert line.endswith("nearest of 2 results")


def test_the_figure(paired: SpeedComparison, unpaired: SpeedComparison, tmp_path: Path) -> None:
    drawn = draw_speed_ratios(unpaired)
    assert drawn is not None
    (axes,) = drawn.axes
    shown = [c for c in unpaired.contrasts if c.figure not in ("itl", "itl_p99", "decode")]
    ratios = [line for line in axes.lines if line.get_label() == "_ratio"]
    ends = [line for line in axes.lines if line.get_label() == "_ends"]
    assert [float(line.get_xdata()[0]) for line in ratios] == [c.ratio for c in shown]
    assert [tuple(map(float, line.get_xdata())) for line in ends] == [(c.low, c.high) for c in shown]
    hollow = [line.get_markerfacecolor() == PAPER for line in ratios]
    assert hollow == [c.method == "range" for c in shown]
    heights = [float(line.get_ydata()[0]) for line in ratios]
    assert len(set(heights)) == len(heights)
    assert "NOT ALIKE" in drawn.description
    assert "ran out of memory" in drawn.description
    save(drawn, tmp_path / "ratios.svg")
    assert (tmp_path / "ratios.svg").stat().st_size > 5000
    assert draw_speed_ratios(replace(paired, contrasts=())) is None


def test_of_many_places_some_are_drawn(paired: SpeedComparison) -> None:
    first = next(c for c in paired.contrasts if c.figure == "tpot")
    many = tuple(
        replace(first, match=replace(first.match, place=replace(first.match.place, prompt_len_tokens=2**i)))
        for i in range(25)
    )
    drawn = draw_speed_ratios(replace(paired, contrasts=many))
    assert drawn is not None
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert (len(labels), labels[0], labels[-1]) == (
        10, "time per token, prompt 1", "time per token, prompt 16,777,216",
    )  # fmt: skip
    assert "10 of 25 places" in drawn.description


@pytest.mark.parametrize("ratio", [0.96, 1.0, 1.6, 4.8, 90.0, 0.004])
def test_numbers_of_the_scale_do_not_touch(paired: SpeedComparison, ratio: float) -> None:
    first = replace(paired.contrasts[0], ratio=ratio, low=ratio / 1.02, high=ratio * 1.02)
    drawn = draw_speed_ratios(replace(paired, contrasts=(first,)))
    assert drawn is not None
    drawn.draw_without_rendering()
    low, high = drawn.axes[0].get_xlim()
    boxes = [
        label.get_window_extent()
        for label, at in zip(drawn.axes[0].get_xticklabels(), drawn.axes[0].get_xticks(), strict=True)
        if low <= at <= high
    ]
    assert len(boxes) >= 2
    assert all(a.x1 + 2 < b.x0 for a, b in itertools.pairwise(boxes))
