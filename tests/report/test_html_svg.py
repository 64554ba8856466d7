"""Drawings in a page: well-formed, described, apart from each other, in colours that follow the scheme."""

from __future__ import annotations

import re
import warnings
from functools import cache
from xml.etree import ElementTree

import long_records
import made_reports
import pytest
import speed_plot_tables

from mambabench.plots import longcontext, speed
from mambabench.plots.palette import ON_CELL_DARK, ON_CELL_LIGHT, ON_DARK
from mambabench.plots.speed.described import DescribedFigure
from mambabench.report.document import Picture
from mambabench.report.html.figures import FigureView, figure_view
from mambabench.report.html.palette import DARK, contrast

SVG = "{http://www.w3.org/2000/svg}"


@cache
def views() -> dict[str, FigureView]:
    drawn = speed.figures(speed_plot_tables.usual()) | longcontext.figures(long_records.usual())
    pictures = [Picture(key.replace("_", "-"), key, f.description, lambda f=f: f) for key, f in drawn.items()]  # type: ignore[misc]
    pictures += [made_reports.picture(), made_reports.grid_picture()]
    return {picture.key: figure_view(picture) for picture in pictures}


def keys() -> list[str]:
    return ["ttft", "peak-memory", "recall-grid", "loss-by-context", "quality-and-cost", "lines", "grid"]


@pytest.mark.parametrize("key", keys())
def test_a_drawing_is_well_formed_described_and_free_of_styles(key: str) -> None:
    view = views()[key]
    root = ElementTree.fromstring(view.svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert [child.tag for child in root[:2]] == [f"{SVG}title", f"{SVG}desc"]
    assert root.get("aria-labelledby") == " ".join(str(child.get("id")) for child in root[:2])
    assert all(child.text for child in root[:2])
    for element in root.iter():
        assert element.tag not in (f"{SVG}style", f"{SVG}metadata")
        assert "style" not in element.attrib
        name = element.get("id")
        assert name is None or name.startswith(f"figure_{key}_")
    assert not re.search(r"<\?|<!|xlink", view.svg)


@pytest.mark.parametrize("key", keys())
def test_links_within_a_drawing_find_their_ends(key: str) -> None:
    root = ElementTree.fromstring(views()[key].svg)
    ids = {e.get("id") for e in root.iter()}
    links = [e.get("href", "")[1:] for e in root.iter() if e.get("href", "").startswith("#")]
    links += re.findall(r"url\(#([^)]+)\)", views()[key].svg)
    assert links
    assert set(links) <= ids


@pytest.mark.parametrize("key", keys())
def test_words_and_marks_can_be_seen_in_the_dark(key: str) -> None:
    view = views()[key]
    dark = {(kind, colour): other for _, kind, colour, other in view.rules}
    kept = set(re.findall(r'<text(?![^>]*class)[^>]* fill="(#\w+)"[^>]*>', view.svg))
    kept -= {ON_CELL_DARK, ON_CELL_LIGHT}
    assert all(contrast(colour, DARK["paper"]) >= 4.5 for colour in kept)
    for name, kind, colour, other in view.rules:
        assert name[2:] == colour[1:]
        if name.startswith("t-") and contrast(colour, "#ffffff") >= 4.5:
            assert contrast(other, DARK["paper"]) >= 4.5, (kind, colour, other)
    assert dark["fill", "#000000"] == ON_DARK["#000000"]


def test_every_colour_with_another_in_the_dark_has_its_class() -> None:
    view = views()["ttft"]
    named = {name for name, *_ in view.rules}
    used = {name for names in re.findall(r'class="([^"]*)"', view.svg) for name in names.split()}
    assert used == named


def test_what_lies_on_cells_of_a_map_keeps_its_colours() -> None:
    root = ElementTree.fromstring(views()["grid"].svg)
    texts = {e.text: e for e in root.iter(f"{SVG}text")}
    assert (texts["10"].get("fill"), texts["10"].get("class")) == (ON_CELL_LIGHT, None)
    assert (texts["90"].get("fill"), texts["90"].get("class")) == (ON_CELL_DARK, None)
    # The title has no colour of its own, so that the drawing's applies: ink.
    assert (texts["recall"].get("fill"), texts["recall"].get("class")) == (None, None)
    assert root.get("class") == "f-000000"


def test_texts_stay_texts_and_shapes_where_they_were() -> None:
    view = views()["lines"]
    root = ElementTree.fromstring(view.svg)
    assert {"mamba-130m", "pythia", "faster", "prompt (tokens)"} <= {e.text for e in root.iter(f"{SVG}text")}
    assert (root.get("width"), root.get("height")) == ("576", "288")
    assert root.get("viewBox") == "0 0 432 216"
    numbers = [float(n) for p in root.iter(f"{SVG}path") for n in re.findall(r"-?[\d.]+", p.get("d", ""))]
    assert max(numbers) <= 432
    assert not re.search(r"\.\d{3,}", "".join(p.get("d", "") for p in root.iter(f"{SVG}path")))


def test_words_that_cannot_be_in_xml_are_shown() -> None:
    view = figure_view(made_reports.picture(label="a\x00<b> 語"))
    with_label = ElementTree.fromstring(view.svg)
    assert "a\\x00<b> 語" in {e.text for e in with_label.iter(f"{SVG}text")}


def test_fonts_that_matplotlib_lacks_are_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure_view(made_reports.picture(label="語"))


def test_equal_pictures_give_equal_drawings_with_a_size() -> None:
    def draw() -> DescribedFigure:
        figure = DescribedFigure(figsize=(16, 2))
        figure.add_subplot().plot([1, 2])
        return figure

    wide = Picture("wide", "Wide", "Wide\nIt is wide.", draw)
    assert figure_view(wide) == figure_view(wide)
    assert [figure_view(wide).size, views()["grid"].size, views()["lines"].size] == ["wide", "small", ""]
    assert figure_view(wide).sentences == ("It is wide.",)
