"""Colours of drawings: every grey is one that a dark page knows, and all can be seen on either ground."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from long_records import CASES as LONG
from quality_costs import quality_costs
from speed_plot_tables import CASES as SPEED

from mambabench.plots import save
from mambabench.plots.longcontext import DRAW as OF_LENGTHS
from mambabench.plots.palette import (
    COLOURS,
    FAINT,
    MUTED,
    ON_CELL_DARK,
    ON_CELL_LIGHT,
    ON_DARK,
    PAPER,
    RULE,
    TEXT,
    darkened,
)
from mambabench.plots.quality import draw_quality_cost
from mambabench.plots.speed import DRAW as OF_SWEEP
from mambabench.plots.speed.sheet import sheet_style

WORDS = (TEXT, MUTED, *map(darkened, COLOURS))


def light(colour: str) -> float:
    """Return the relative luminance of the Web Content Accessibility Guidelines."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    dark, bright = sorted((light(a), light(b)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", WORDS)
def test_words_can_be_read_on_either_ground(colour: str) -> None:
    # Sky blue and orange, darkened, reach the ratio for large letters.
    assert contrast(colour, PAPER) > 3.9
    assert contrast(ON_DARK[colour], ON_DARK[PAPER]) > 4.5


@pytest.mark.parametrize("colour", [RULE, *COLOURS])
def test_lines_can_be_seen_on_either_ground(colour: str) -> None:
    assert contrast(colour, PAPER) > 2
    assert contrast(ON_DARK.get(colour, colour), ON_DARK[PAPER]) > 3


def test_models_stay_apart_on_a_dark_ground() -> None:
    shown = [ON_DARK.get(colour, colour) for colour in COLOURS]
    for a, b in itertools.combinations(shown, 2):
        assert max(abs(int(a[i : i + 2], 16) - int(b[i : i + 2], 16)) for i in (1, 3, 5)) > 60
    assert not set(shown) & {ON_DARK[FAINT], ON_DARK[RULE], ON_DARK[TEXT]}


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (OF_SWEEP["peak_memory"], SPEED["usual"]),
        (OF_SWEEP["state_bytes"], SPEED["usual"]),
        (OF_LENGTHS["recall_grid"], LONG["small"]),
        (draw_quality_cost, quality_costs),
    ],
)
def test_every_grey_of_a_drawing_is_in_the_palette(draw: Any, table: Any, tmp_path: Path) -> None:
    with sheet_style():
        save(draw(table()), tmp_path / "drawn.svg")
    drawing = (tmp_path / "drawn.svg").read_text("utf-8")
    used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawing))
    greys = {c for c in used if c[1:3] == c[3:5] == c[5:7]}
    assert greys <= {*ON_DARK, ON_CELL_DARK, ON_CELL_LIGHT}
    assert {TEXT, MUTED, PAPER} <= greys
    # What has no colour of its own would be black on a dark page as well.
    assert all("fill: #" in style for style in re.findall(r'<text[^>]* style="([^"]*)"', drawing))
