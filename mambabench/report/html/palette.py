"""The colours of a page, in light and dark, and what figures' colours become in the dark.

Contrast is that of WCAG 2.2: text needs 4.5, marks and borders of controls 3.

    >>> round(contrast("#000000", "#ffffff"), 6)
    21.0
    >>> contrast(in_the_dark("#004e79", 4.5), DARK["paper"]) >= 4.5
    True
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mambabench.plots.palette import ON_CELL_DARK, ON_CELL_LIGHT, ON_DARK, PAPER

LIGHT: Final = {
    "paper": PAPER,
    "wash": "#f4f5f7",
    "ink": "#1b1e23",
    "soft": "#565c66",
    "line": "#d9dce1",
    "edge": "#7b828d",
    "link": "#0b57a4",
    "good": "#14693a",
    "bad": "#a8201a",
    "doubt": "#7d4e00",
    "found": "#fff0b3",
}
DARK: Final = {
    "paper": ON_DARK[PAPER],
    "wash": "#212225",
    "ink": "#e6e6e8",
    "soft": "#a9acb2",
    "line": "#3a3c40",
    "edge": "#83868c",
    "link": "#84bbf4",
    "good": "#6fce96",
    "bad": "#ff958b",
    "doubt": "#e7b75e",
    "found": "#5c4a00",
}
"""Both have the paper of the figures, so that hollow marks are hollow."""
_GREY_SPREAD = 12
"""Largest difference between channels of a grey."""
_PALE = 0.62
"""Luminance above which a colour is a tint that lies behind other marks."""


def channels(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of "#rrggbb", 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours' luminances, 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def in_the_dark(colour: str, least: float) -> str:
    """Return what a figure's colour becomes on dark paper.

    What `mambabench.plots.palette` says of it; else greys go from ink to paper as they do on white, tints
    become as dark as they were pale, and other colours are lightened as far as they have to be. Those upon
    cells of a map stay.

    Args:
        colour: "#rrggbb".
        least: contrast that other colours need.
    """
    if colour in ON_DARK or colour in (ON_CELL_LIGHT, ON_CELL_DARK):
        return ON_DARK.get(colour, colour)
    rgb = channels(colour)
    if max(rgb) - min(rgb) <= _GREY_SPREAD:
        return _mixed(DARK["ink"], DARK["paper"], sum(rgb) / 3 / 255)
    if _luminance(colour) > _PALE:
        # The hue of a tint is what white lacks; the same share of its full colour lies on dark paper.
        share = min(rgb) / 255
        full = "#" + "".join(f"{round((c - min(rgb)) / (1 - share)):02x}" for c in rgb)
        return _mixed(full, DARK["paper"], max(share, 0.5))
    for step in range(20):
        lighter = _mixed(colour, "#ffffff", step / 20)
        if contrast(lighter, DARK["paper"]) >= least:
            return lighter
    return "#ffffff"


def scheme_rules(figure_rules: Iterable[tuple[str, str, str, str]]) -> str:
    """Return the style rules of both schemes: the reader's wish, else the system's; paper is always light.

    Args:
        figure_rules: class, property, colour and colour in the dark, for what is another one there. They are
            properties of the page with the colour as it was drawn to fall back on, since what a drawing uses
            again inherits such properties but does not see the page around it.
    """
    rules = list(figure_rules)
    light = ";".join(f"--{name}:{colour}" for name, colour in LIGHT.items())
    dark = ";".join(
        [
            "color-scheme:dark",
            *(f"--{name}:{colour}" for name, colour in DARK.items()),
            *(f"--{name}:{dark}" for name, _, _, dark in rules),
        ]
    )
    marks = "".join(f".{name}{{{kind}:var(--{name},{colour})}}\n" for name, kind, colour, _ in rules)
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-scheme=light]){{{dark}}}}}\n"
        f"@media screen{{:root[data-scheme=dark]{{{dark}}}}}\n{marks}"
    )


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _shares(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _shares(colour: str) -> list[float]:
    return [c / 255 for c in channels(colour)]


def _mixed(one: str, other: str, share: float) -> str:
    pairs = zip(channels(one), channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
