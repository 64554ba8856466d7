"""Figures hold what their tables hold, and equal tables give equal files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mambabench.errors import UsageError
from mambabench.plots import check_figure_path, save
from mambabench.plots.profile import zeroshot_profile
from mambabench.tables.zeroshot import Row, ZeroshotTable

ROW = Row(
    model="a", task="piqa", label="PIQA", metric="acc", filter="none", headline=True, value=64.5,
    unit="%", low=62.0, high=67.0, n=1838,
    n_total=1838, chance=50.0, reference=64.0, source="mamba", difference=0.5, verdict="differs",
    higher_is_better=True,
)  # fmt: skip
TABLE = ZeroshotTable(
    suite="s",
    title="Two models",
    models=("a", "b"),
    partial=False,
    rows=(
        ROW,
        replace(ROW, model="b", value=0.0, low=0.0, high=0.2, reference=None),
        replace(ROW, task="lambada", label="LAMBADA", metric="perplexity", unit="ppl", value=16.0),
        replace(
            ROW, task="arc", label="ARC-E", value=100.0, low=99.0, high=100.0, chance=None, reference=None
        ),
        replace(ROW, task="arc", label="ARC-E", model="b", value=None, unit="", verdict="failed"),
    ),
    averages=(),
)


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_equal_tables_give_equal_files(tmp_path: Path, ending: str) -> None:
    files = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}{ending}"
        save(zeroshot_profile(TABLE), path)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) > 5000


def test_the_drawing_holds_every_accuracy_with_its_interval_and_no_perplexity() -> None:
    (axes,) = zeroshot_profile(TABLE).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["PIQA (acc)", "ARC-E (acc)"]
    drawn = {str(c.get_label()): c for c in (*axes.lines, *axes.collections)}
    assert list(drawn["a"].get_xdata()) == [64.5, 100.0]
    ends = [sorted(x for x, _ in segment) for segment in drawn["_interval a"].get_segments()]
    assert ends == [[62.0, 67.0], [99.0, 100.0]]
    assert list(drawn["b"].get_xdata()) == [0.0]
    assert list(drawn["_published a"].get_xdata()) == [64.0]
    assert "_published b" not in drawn
    assert list(drawn["_chance"].get_xdata()) == [50.0, 50.0]


def test_a_partial_table_says_so_in_the_drawing() -> None:
    figure = zeroshot_profile(replace(TABLE, partial=True))
    assert any("partial" in text.get_text() for text in figure.texts)


def test_names_of_any_length_keep_the_drawing_readable(tmp_path: Path) -> None:
    names = tuple(f"/a/very/long/directory/name/that/goes/on/and/on/checkpoint-{i}" for i in range(7))
    rows = tuple(replace(ROW, model=n, task=f"task number {t}") for n in names for t in range(20))
    figure = zeroshot_profile(replace(TABLE, models=names, rows=rows))
    save(figure, tmp_path / "long.png")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0].endswith("checkpoint-0")
    assert max(map(len, labels)) <= 28


def test_a_table_without_accuracies_cannot_be_drawn() -> None:
    with pytest.raises(UsageError, match="no accuracies"):
        zeroshot_profile(replace(TABLE, rows=(replace(ROW, unit="ppl"),)))


@pytest.mark.parametrize(("name", "words"), [("x.jpeg", "End it in .svg"), ("gone/x.svg", "does not exist")])
def test_a_bad_path_is_found_before_anything_slow(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_figure_path(tmp_path / name)
