"""Which rows of a speed table make which line of which panel; nothing here draws.

A line is one model in one variant (arm, attention and whatever else the sweep varied). More than eight lines
in one pair of axes cannot be told apart: then each model, or of many models each few, has a panel, with the
others faint behind it.

>>> few((1, 2, 4, 8, 16, 32, 64), 3)
(1, 8, 64)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mambabench.plots import shortened

if TYPE_CHECKING:
    from mambabench.speed_schema import PointRecord
    from mambabench.tables.speed.table import SpeedRow

Axis = Literal["prompt_len_tokens", "batch_size"]

MOST_LINES = 8
MOST_MODEL_PANELS = 12
"""Of more models several share a panel."""
_MOST_PANELS = 12
_VARYING: dict[str, Callable[[PointRecord], str]] = {
    "arm": lambda p: f"{p.arm} arm",
    "attention": lambda p: "" if p.attention == "none" else f"{p.attention} attention",
    "prefill_chunk": lambda p: "one piece" if p.prefill_chunk_tokens is None else (
        f"pieces of {p.prefill_chunk_tokens:,}"
    ),
    "gen_len": lambda p: f"{p.gen_len_tokens:,} tokens generated",
    "dtype": lambda p: p.dtype,
    "device": lambda p: p.device,
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One line."""

    model: str
    variant: str
    """What sets it apart from other lines of the model, as the legend says it; empty where nothing does."""
    rows: tuple[SpeedRow, ...]
    """In the order of the axis; those that failed among them."""
    facet: str = ""
    """Batch or length of the panel, where the sweep varied both."""

    @property
    def label(self) -> str:
        """Name of the line within its panel."""
        return ", ".join(filter(None, (shortened(self.model), self.variant)))

    @property
    def full_label(self) -> str:
        """Name of the line within the figure."""
        return ", ".join(filter(None, (self.label, self.facet)))


@dataclass(frozen=True)
class Panel:
    """The lines of one pair of axes."""

    title: str
    series: tuple[Series, ...]
    muted: tuple[Series, ...] = ()
    """Drawn faint, to compare with."""


@dataclass(frozen=True)
class Plan:
    """The panels of a figure."""

    x: Axis
    panels: tuple[Panel, ...]
    n_columns: int
    models: tuple[str, ...]
    """Of the whole table: a model has its colour in every figure."""
    variants: tuple[str, ...]
    """Those with a name, in order."""
    notes: tuple[str, ...] = ()
    """What is the same everywhere, and what is left out."""
    by_model: bool = False
    """Whether each panel is of one model, which its title names."""

    @property
    def xs(self) -> tuple[int, ...]:
        """All values of the axis, in order."""
        return tuple(sorted({at(r, self.x) for r in self.rows}))

    @property
    def rows(self) -> tuple[SpeedRow, ...]:
        """Every row that is drawn."""
        return tuple(r for s in self.series for r in s.rows)

    @property
    def series(self) -> tuple[Series, ...]:
        """Every line, panel by panel."""
        return tuple(s for panel in self.panels for s in panel.series)


def at(row: SpeedRow, axis: Axis) -> int:
    """Return a row's place on an axis."""
    return row.point.prompt_len_tokens if axis == "prompt_len_tokens" else row.point.batch_size


def few(values: Sequence[int], most: int) -> tuple[int, ...]:
    """Return at most so many of the values in order, the smallest and the largest among them."""
    found = sorted(set(values))
    if len(found) <= most:
        return tuple(found)
    if most == 1:
        return (found[0],)
    return tuple(found[round(i * (len(found) - 1) / (most - 1))] for i in range(most))


def past_training(row: SpeedRow) -> bool:
    """Say whether prompt and generation together are longer than what the model was trained on."""
    length_tokens = row.point.prompt_len_tokens + row.point.gen_len_tokens
    return row.training_length_tokens is not None and length_tokens > row.training_length_tokens


def plan(models: Sequence[str], rows: Sequence[SpeedRow], preferred: Axis) -> Plan:
    """Lay out rows against an axis.

    Args:
        models: all of the table, in order.
        rows: those with a figure, and failures beside them; at least one.
        preferred: the axis, unless the rows vary in the other one alone.
    """
    other: Axis = "batch_size" if preferred == "prompt_len_tokens" else "prompt_len_tokens"
    n_values = {axis: len({at(r, axis) for r in rows}) for axis in (preferred, other)}
    x, facet = (other, preferred) if n_values[preferred] == 1 and n_values[other] > 1 else (preferred, other)
    names = variants(rows)
    facets = sorted({at(r, facet) for r in rows})
    groups = {
        f: _series(
            models,
            [r for r in rows if at(r, facet) == f],
            names,
            x,
            facet_words(facet, f) if len(facets) > 1 else "",
        )
        for f in facets
    }
    by_model = max(len(group) for group in groups.values()) > MOST_LINES
    n_models = len({r.point.model for r in rows})
    shown = few(facets, max(1, _MOST_PANELS // n_models) if by_model else 6)
    notes = _constants(rows, facet, facets, shown)
    panels: list[Panel] = []
    if by_model and n_models > MOST_MODEL_PANELS:
        by_model = False
        most = max(len(group) for group in groups.values())
        parts = chunks(list(dict.fromkeys(s.model for f in facets for s in groups[f])), most)
        shown = few(facets, max(1, _MOST_PANELS // len(parts)))
        panels = [_panel(groups[f], part) for part in parts for f in shown]
        notes = _constants(rows, facet, facets, shown)
    elif by_model:
        for model in dict.fromkeys(s.model for f in shown for s in groups[f]):
            for f in shown:
                title = ", ".join(filter(None, (shortened(model), groups[f][0].facet)))
                mine = tuple(s for s in groups[f] if s.model == model)
                others = {s.model: s for s in reversed(groups[f]) if s.model != model}
                panels.append(Panel(title, mine, tuple(others.values())))
    else:
        panels = [Panel(groups[f][0].facet, tuple(groups[f])) for f in shown]
    n_columns = len(shown) if by_model and 1 < len(shown) <= 3 else min(3, len(panels))
    if len(panels) == 4:
        n_columns = 2
    found = tuple(dict.fromkeys(filter(None, (names(r) for r in rows))))
    return Plan(x, tuple(panels), n_columns, tuple(models), found, notes, by_model)


def chunks(models: Sequence[str], n_lines: int) -> list[list[str]]:
    """Part models among panels, as evenly as can be, so that none has more lines than can be told apart.

    Args:
        models: in order.
        n_lines: of all of them together.

    >>> chunks(["a", "b", "c", "d", "e"], 15)
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    each = max(1, MOST_LINES * len(models) // n_lines)
    size = math.ceil(len(models) / math.ceil(len(models) / each))
    return [list(models[i : i + size]) for i in range(0, len(models), size)]


def _panel(group: Sequence[Series], models: Sequence[str]) -> Panel:
    """Return the panel of some models, the others faint behind them."""
    others = {s.model: s for s in reversed(group) if s.model not in models}
    return Panel(group[0].facet, tuple(s for s in group if s.model in models), tuple(others.values()))


def variants(rows: Sequence[SpeedRow]) -> Callable[[SpeedRow], str]:
    """Return what names a row's variant by all that differs between rows besides model, batch and length.

    Models without attention differ from the others in it by nature: that alone makes no variant.
    """
    varying = [
        words
        for words in _VARYING.values()
        if len({words(r.point) for r in rows} - {""}) > 1
    ]  # fmt: skip
    return lambda row: ", ".join(filter(None, (words(row.point) for words in varying)))


def constants(rows: Sequence[SpeedRow]) -> tuple[str, ...]:
    """Return in words what all rows share; a prefill in one piece goes unsaid."""
    shared = [{words(r.point) for r in rows} - {""} for words in _VARYING.values()]
    return tuple(next(iter(words)) for words in shared if len(words) == 1 and words != {"one piece"})


def facet_words(axis: Axis, value: int) -> str:
    """Return one value of an axis in words."""
    return f"batch {value:,}" if axis == "batch_size" else f"prompt of {value:,} tokens"


def _series(
    models: Sequence[str], rows: Sequence[SpeedRow], names: Callable[[SpeedRow], str], x: Axis, facet: str
) -> list[Series]:
    found: dict[tuple[str, str], list[SpeedRow]] = {}
    for row in rows:
        found.setdefault((row.point.model, names(row)), []).append(row)
    return [
        Series(model, variant, tuple(sorted(mine, key=lambda r: at(r, x))), facet)
        for (model, variant), mine in sorted(found.items(), key=lambda item: models.index(item[0][0]))
    ]


def _constants(
    rows: Sequence[SpeedRow], facet: Axis, facets: Sequence[int], shown: Sequence[int]
) -> tuple[str, ...]:
    notes = list(constants(rows))
    if len(facets) == 1:
        notes.append(facet_words(facet, facets[0]))
    elif len(shown) < len(facets):
        noun = "batch sizes" if facet == "batch_size" else "prompt lengths"
        notes.append(f"{noun} {', '.join(f'{f:,}' for f in shown)} of {len(facets)} measured")
    return tuple(notes)
