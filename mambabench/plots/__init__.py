"""Figures: tables and frames in, matplotlib figures out; one style for all.

Colours are told apart by people with any colour vision (`plots.palette`), and models differ by marker as
well. Nothing here opens a window: figures are made without pyplot's global state.
"""

from __future__ import annotations

import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from mambabench.errors import UsageError
from mambabench.plots.palette import PAPER, RULE, TEXT
from mambabench.tables.compare.format import harmless

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".svg", ".png", ".pdf")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.facecolor": PAPER,
    "axes.labelcolor": TEXT,
    "axes.titlecolor": TEXT,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": PAPER,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "savefig.facecolor": PAPER,
    "svg.hashsalt": "mambabench",
    "svg.fonttype": "none",
    "text.color": TEXT,
    # Names of models may hold dollar signs.
    "text.parse_math": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
}
MOST_NAME_LETTERS = 28
_RUN_LETTERS = 9
"""Of a run's name at least: the digest that it ends with."""


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
    with rc_context(STYLE), warnings.catch_warnings():
        # Names are of any script; what a font lacks is drawn as a box, in an .svg by the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
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


def shortened(name: str) -> str:
    """Return the end of a name, which tells checkpoints apart, on one line that a legend holds.

    A model's name with its run's behind it keeps the model's, as far as there is room.

    >>> shortened("mamba-tiny (zeroshot-smoke-mamba-tiny-75c8b06c)")
    'mamba-tiny (…-tiny-75c8b06c)'
    """
    line = harmless(name)
    if width_letters(line) <= MOST_NAME_LETTERS:
        return line
    model, bracket, run = line.removesuffix(")").rpartition(" (")
    if not (line.endswith(")") and bracket and len(run) > _RUN_LETTERS):
        return _end(line, MOST_NAME_LETTERS)
    run = _end(run, max(_RUN_LETTERS, MOST_NAME_LETTERS - width_letters(model) - len(" ()")))
    return f"{_end(model, MOST_NAME_LETTERS - width_letters(run) - len(' ()'))} ({run})"


def width_letters(text: str) -> int:
    """Return how wide a text is in letters: those of East Asian scripts and pictures are as wide as two.

    >>> width_letters("mamba"), width_letters("模型")
    (5, 4)
    """
    return len(text) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def _end(text: str, letters: int) -> str:
    if width_letters(text) <= letters:
        return text
    while width_letters(text) >= letters:
        text = text[1:]
    return f"…{text}"
