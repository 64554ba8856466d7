"""Contrast of the page's colours, and what the colours of figures become in the dark."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.plots.palette import COLOURS, ON_CELL_DARK, ON_CELL_LIGHT
from mambabench.report.html.palette import DARK, LIGHT, channels, contrast, in_the_dark, scheme_rules

COLOUR = st.tuples(*[st.integers(0, 255)] * 3).map(lambda rgb: "#{:02x}{:02x}{:02x}".format(*rgb))


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_words_are_told_from_their_ground(scheme: dict[str, str]) -> None:
    words = ("ink", "soft", "link", "good", "bad", "doubt")
    for word, ground in itertools.product(words, ("paper", "wash")):
        assert contrast(scheme[word], scheme[ground]) >= 4.5, (word, ground)
    assert contrast(scheme["ink"], scheme["found"]) >= 4.5
    assert contrast(scheme["edge"], scheme["paper"]) >= 3
    assert contrast(scheme["edge"], scheme["wash"]) >= 3


def test_both_schemes_have_all_colours() -> None:
    assert LIGHT.keys() == DARK.keys()


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    # As published: white and black, #767676 as the palest grey for text, blue and yellow.
    [("#ffffff", "#000000", 21.0), ("#767676", "#ffffff", 4.54), ("#0000ff", "#ffff00", 8.0)],
)
def test_contrast_is_that_of_the_guidelines(one: str, other: str, ratio: float) -> None:
    assert contrast(one, other) == contrast(other, one) == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_of_models_are_seen_on_both_papers(colour: str) -> None:
    assert contrast(in_the_dark(colour, 3), DARK["paper"]) >= 3


@given(COLOUR)
def test_what_can_be_read_on_white_can_be_read_in_the_dark(colour: str) -> None:
    if contrast(colour, LIGHT["paper"]) >= 4.5:
        assert contrast(in_the_dark(colour, 4.5), DARK["paper"]) >= 4.5


@given(st.integers(0, 255))
def test_greys_turn_round(grey: int) -> None:
    colour = f"#{grey:02x}{grey:02x}{grey:02x}"
    dark = sum(channels(in_the_dark(colour, 3))) / 3
    assert colour in (ON_CELL_LIGHT, ON_CELL_DARK) or abs(dark - (230 - grey * 207 / 255)) < 40


def test_black_becomes_ink_and_white_paper() -> None:
    assert contrast(in_the_dark("#000000", 3), DARK["paper"]) > 14
    assert in_the_dark("#ffffff", 3) == DARK["paper"]


def test_colours_that_can_be_seen_stay() -> None:
    assert in_the_dark("#e69f00", 3) == "#e69f00"


def test_rules_fall_back_on_the_colour_as_drawn() -> None:
    rules = scheme_rules([("t-123456", "fill", "#123456", "#abcdef")])
    assert ".t-123456{fill:var(--t-123456,#123456)}" in rules
    assert rules.count("--t-123456:#abcdef") == 2
