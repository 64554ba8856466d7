"""Figures: tables in, matplotlib figures out; one style for all.

Colours are those of Okabe and Ito (2008), told apart by people with any colour vision; models differ by
marker as well. Nothing here opens a window: figures are made without pyplot's global state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from mambabench.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from mambabench.tables.zeroshot import Row, ZeroshotTable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".svg", ".png", ".pdf")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlelocation": "left",
    "svg.hashsalt": "mambabench",
    "svg.fonttype": "none",
}
_DASHES = (0, (2, 1.5))
_ROW_INCHES = 0.26
_MOST_NAME_LETTERS = 28


def check_figure_path(path: Path) -> None:
    """Check before anything slow that a figure can be written to a path; leaves nothing behind.

    Raises:
        UsageError: for an unknown ending, or a folder that does not exist or cannot be written to.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"a figure cannot be written as '{path.name}'", hint=f"End it in {', '.join(FORMATS)}."
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder of {path} does not exist", hint="Make it first.")
    if path.is_dir():
        raise UsageError(f"{path} is a directory", hint="Name a file for the figure.")
    try:
        if path.exists():
            path.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise _unwritable(path, error) from error


def zeroshot_profile(table: ZeroshotTable) -> Figure:
    """Draw each accuracy of a zero-shot table with its 95% interval, chance and published figure.

    Args:
        table: rows in percent are drawn, one a task; perplexities have no place on the axis.

    Raises:
        UsageError: when the table holds no accuracy.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = _accuracies(table)
    tasks = list(dict.fromkeys((r.task, r.metric) for r in rows))
    if not tasks:
        raise UsageError(f"suite {table.suite} has no accuracies to draw")
    n_models = len(table.models)
    pitch = max(1.0, 0.62 * n_models + 0.5)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.5 + _ROW_INCHES * pitch * len(tasks)), layout="constrained")
        axes = figure.add_subplot()
        for place, model in enumerate(table.models):
            offset = (place - (n_models - 1) / 2) * 0.62
            mine = [r for r in rows if r.model == model and r.value is not None]
            ys = [tasks.index((r.task, r.metric)) * pitch + offset for r in mine]
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            axes.errorbar(
                [r.value or 0.0 for r in mine],
                ys,
                xerr=_error_bars(mine),
                fmt=marker,
                color=colour,
                markersize=5.5,
                elinewidth=1.6,
                capsize=0,
                label=shortened(model),
            )
            published = [(r.reference, y) for r, y in zip(mine, ys, strict=True) if r.reference is not None]
            if published:
                axes.scatter(
                    [x for x, _ in published], [y for _, y in published], marker="|", s=110,
                    color=colour, linewidths=1.4,
                )  # fmt: skip
        _draw_chance(axes, rows, tasks, pitch, n_models)
        axes.set_yticks([i * pitch for i in range(len(tasks))])
        labels = {(r.task, r.metric): f"{r.label}  ({r.metric})" for r in rows}
        axes.set_yticklabels([labels[task] for task in tasks])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim((len(tasks) - 1) * pitch + pitch * 0.6, -pitch * 0.6)
        # Room for the markers at both ends of the scale.
        axes.set_xlim(-2, 102)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("% of items, with 95% interval")
        axes.grid(axis="x", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        partial = "  (partial: not all items were scored)" if table.partial else ""
        axes.set_title(f"{table.title or table.suite}{partial}", fontweight="bold")
        handles = [*axes.get_legend_handles_labels()[0], *_extra_handles(rows)]
        figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure; equal figures give equal files.

    Args:
        figure: what to write. The first line of a `description` that it carries is its title for readers who
            do not see it, the rest its text: in an .svg both are elements that screen readers look for.
        path: ends in .svg, .png or .pdf.

    Raises:
        UsageError: when it cannot be written.
    """
    from matplotlib import rc_context

    ending = path.suffix.lower()
    title, _, text = getattr(figure, "description", "").partition("\n")
    undated = {".svg": "Date", ".pdf": "CreationDate"}.get(ending)
    metadata: dict[str, str | None] = {undated: None} if undated else {}
    if title:
        metadata |= {"Title": title, "Subject" if ending == ".pdf" else "Description": text}
    with rc_context(STYLE):
        try:
            figure.savefig(path, dpi=160, metadata=metadata)
            if title and ending == ".svg":
                _describe(path, title, text)
        except OSError as error:
            raise _unwritable(path, error) from error


def save_all(
    draw: Callable[[], Mapping[str, Figure]], directory: Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write figures under their names, each in every format; return their paths, figure by figure.

    Args:
        draw: called once it is known that the formats and the directory will do.
        directory: exists.
        formats: of "png", "svg" and "pdf".

    Raises:
        UsageError: for another format, or a directory that cannot be written to.
    """
    for ending in formats:
        check_figure_path(directory / f"figure.{ending}")
    paths = []
    for key, figure in draw().items():
        for ending in formats:
            paths.append(directory / f"{key}.{ending}")
            save(figure, paths[-1])
    return paths


def _describe(path: Path, title: str, text: str) -> None:
    """Say in an SVG's first element what the figure shows; matplotlib says it only in RDF."""
    drawing = path.read_text("utf-8")
    label = escape(title, {'"': "&quot;"})
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    path.write_text(drawing.replace("</title>", f"</title>\n <desc>{escape(text)}</desc>", 1), "utf-8")


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"the figure {path} cannot be written: {error.strerror or error}", hint="Name another place for it."
    )


def _accuracies(table: ZeroshotTable) -> list[Row]:
    """Return one accuracy a task: the headline if it is one, else the first."""
    chosen: dict[tuple[str, str], Row] = {}
    for row in table.rows:
        if row.unit == "%":
            chosen.setdefault((row.model, row.task), row)
    return list(chosen.values())


def _error_bars(rows: Sequence[Row]) -> list[list[float]]:
    below = [(r.value or 0.0) - r.low if r.low is not None else 0.0 for r in rows]
    above = [r.high - (r.value or 0.0) if r.high is not None else 0.0 for r in rows]
    return [[max(0.0, x) for x in below], [max(0.0, x) for x in above]]


def _draw_chance(
    axes: object, rows: Sequence[Row], tasks: list[tuple[str, str]], pitch: float, n: int
) -> None:
    chance = {(r.task, r.metric): r.chance for r in rows if r.chance is not None}
    reach = 0.31 * n + 0.15
    for (task, metric), level in chance.items():
        y = tasks.index((task, metric)) * pitch
        axes.vlines(  # type: ignore[attr-defined]
            level, y - reach, y + reach, colors="#888888", linestyles=_DASHES, linewidth=1.3
        )  # fmt: skip


def _extra_handles(rows: Sequence[Row]) -> list[Line2D]:
    """Return what the legend says besides the models: one entry for all published figures, one for chance."""
    from matplotlib.lines import Line2D

    handles = []
    if any(r.reference is not None for r in rows):
        handles.append(
            Line2D([], [], color="#444444", marker="|", markersize=11, linestyle="none", label="published")
        )
    if any(r.chance is not None for r in rows):
        handles.append(Line2D([], [], color="#888888", linestyle=_DASHES, linewidth=1.3, label="chance"))
    return handles


def shortened(name: str) -> str:
    """Return the end of a name, which tells checkpoints apart, at a length that a legend holds."""
    return name if len(name) <= _MOST_NAME_LETTERS else f"…{name[-_MOST_NAME_LETTERS + 1 :]}"
