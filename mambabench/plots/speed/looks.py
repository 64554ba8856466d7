"""How lines look: colour and marker by model, line style by variant; the same in every figure of a table.

Figures of several tables shown together give a model one look in all of them:

    with shared_looks(places_of({"mamba-130m": "mamba", "pythia-160m": "pythia"})):
        figures(table)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mambabench.plots import MARKERS, MOST_NAME_LETTERS, shortened
from mambabench.plots.palette import COLOURS, MUTED, PAPER, darkened
from mambabench.tables.compare.format import harmless
from mambabench.tables.compare.names import apart

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

LINE_STYLES: tuple[Any, ...] = ("solid", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 1.2)), (0, (1.2, 1.2)))
_MARKER_POINTS = 5.0
_OPACITIES = ((4, 0.17), (9, 0.07))
"""By the number of lines at most."""
_PLACES: ContextVar[Mapping[str, int] | None] = ContextVar("places of models", default=None)


def band_opacity(n_lines: int) -> float:
    """Return how opaque a band of an interval is among so many lines: 0 where bands would hide them."""
    return next((opacity for most, opacity in _OPACITIES if n_lines <= most), 0.0)


def band_words(n_lines: int, words: str) -> str:
    """Return what is said of bands, or that there are none among so many lines."""
    return words if band_opacity(n_lines) else "so many intervals would hide each other and are left out"


def places_of(groups: Mapping[str, str]) -> dict[str, int]:
    """Give labels places of looks: a colour to each group of them, and a marker to each label within.

    Args:
        groups: what each label belongs with, such as its model's plain name, in order.

    >>> places_of({"m (first)": "m", "n": "n", "m (second)": "m"})
    {'m (first)': 0, 'n': 1, 'm (second)': 7}
    """
    order = {group: place for place, group in enumerate(dict.fromkeys(groups.values()))}
    places: dict[str, int] = {}
    taken: set[int] = set()
    for label, group in groups.items():
        place = order[group]
        if place in taken:
            # Of the same colour, and of no group's.
            alike = itertools.count(place, len(COLOURS))
            place = next(p for p in alike if p >= len(order) and p not in taken)
        places[label] = place
        taken.add(place)
    return places


@contextmanager
def shared_looks(places: Mapping[str, int]) -> Iterator[None]:
    """Draw with one look a model, whichever tables it stands in.

    Args:
        places: by the names that tables have for models: which look it is, from 0. Models of no place have
            those that their own table gives them.
    """
    token = _PLACES.set(places)
    try:
        yield
    finally:
        _PLACES.reset(token)


@dataclass(frozen=True)
class Looks:
    """The looks of a table's lines."""

    models: Sequence[str]
    variants: Sequence[str] = ()

    def colour(self, model: str) -> str:
        """Return the colour of a model; the eighth has the first one's again."""
        return COLOURS[self._place(model) % len(COLOURS)]

    def text_colour(self, model: str) -> str:
        """Return the colour of words about a model."""
        return darkened(self.colour(model))

    def marker(self, model: str) -> str:
        """Return the marker of a model; models of one colour have different ones."""
        place = self._place(model)
        return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]

    def line_style(self, variant: str) -> Any:
        """Return the line style of a variant; a line without a named one is solid."""
        place = self.variants.index(variant) if variant in self.variants else 0
        return LINE_STYLES[place % len(LINE_STYLES)]

    def marker_style(self, model: str, *, hollow: bool = False) -> dict[str, Any]:
        """Return matplotlib's settings of a marker: hollow ones lie past the training length."""
        colour = self.colour(model)
        return {
            "color": colour,
            "marker": self.marker(model),
            "markersize": _MARKER_POINTS,
            "markerfacecolor": PAPER if hollow else colour,
            "markeredgecolor": colour,
            "markeredgewidth": 1.3,
        }

    def handles(self, models: Sequence[str], *, lines: bool = True) -> list[Line2D]:
        """Return what the legend says of models, then of variants."""
        from matplotlib.lines import Line2D

        names = {m: shortened(m) for m in models}
        if len(set(names.values())) < len(names):
            shown = apart(map(harmless, models), MOST_NAME_LETTERS)
            names = {m: shown[harmless(m)] for m in models}
        found = [
            Line2D([], [], label=names[m], linestyle="solid" if lines else "none", **self.marker_style(m))
            for m in models
        ]
        if lines and len(self.variants) > 1:
            found += [
                Line2D([], [], color=MUTED, linewidth=1.6, linestyle=self.line_style(v), label=v)
                for v in self.variants
            ]
        return found

    @staticmethod
    def extra(label: str, **settings: Any) -> Line2D:
        """Return one further entry of the legend, in grey unless told otherwise."""
        from matplotlib.lines import Line2D

        return Line2D([], [], **{"color": MUTED, "linestyle": "none", "label": label, **settings})

    def _place(self, model: str) -> int:
        shared = (_PLACES.get() or {}).get(model)
        return self.models.index(model) if shared is None else shared
