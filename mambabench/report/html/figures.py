"""Pictures of a report as drawings in its page, each with its words for who cannot see it.

view = figure_view(picture)     # view.svg stands in the page as it is
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from markupsafe import Markup

from mambabench.plots import STYLE
from mambabench.report.html.svg import fitted
from mambabench.report.html.text import shown

if TYPE_CHECKING:
    from mambabench.report.document import Picture

_NO_METADATA: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_SMALL_PIXELS, _WIDE_PIXELS = 480, 1000
"""Up to where a figure is not scrolled on any screen, and from where it is on all of them: made smaller, its
words could not be read."""


@dataclass(frozen=True)
class FigureView:
    """A figure in a page."""

    key: str
    title: str
    titled: bool
    """Whether the drawing says its title itself."""
    sentences: tuple[str, ...]
    """What it shows."""
    svg: Markup
    size: str
    """"small", "wide" or neither."""
    rules: tuple[tuple[str, str, str, str], ...]
    """As of `Fitted`."""


def figure_view(picture: Picture) -> FigureView:
    """Draw a picture and make it fit for the page."""
    prefix = f"figure_{picture.key}"
    found = fitted(_drawing(picture), prefix)
    title, description = ElementTree.Element("title"), ElementTree.Element("desc")
    title.text, description.text = shown(picture.title), shown(picture.description)
    names = {"id": f"{prefix}_title"}, {"id": f"{prefix}_desc"}
    title.attrib, description.attrib = names
    found.root.attrib |= {"role": "img", "aria-labelledby": " ".join(name["id"] for name in names)}
    found.root[:0] = [title, description]
    lines = tuple(line for line in picture.description.split("\n") if line.strip())
    # The title stands above the figure already.
    sentences = lines[1:] if lines and lines[0].strip(" .") == picture.title.strip(" .") else lines
    svg = Markup(ElementTree.tostring(found.root, encoding="unicode"))
    width = found.width_pixels
    size = "small" if width <= _SMALL_PIXELS else "wide" if width > _WIDE_PIXELS else ""
    titled = any(text.text == title.text for text in found.root.iter("text"))
    return FigureView(picture.key, picture.title, titled, sentences, svg, size, found.rules)


def _drawing(picture: Picture) -> str:
    from matplotlib import rc_context

    written = io.StringIO()
    figure = picture.draw()
    with rc_context(STYLE), warnings.catch_warnings():
        # The reader's browser has the fonts that matplotlib lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(written, format="svg", transparent=True, metadata=_NO_METADATA)
    return written.getvalue()
