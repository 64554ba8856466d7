"""A drawing made fit to stand in a page: small, without styles or names that leak, with colours for the dark.

matplotlib writes a document of its own: a style sheet, names that other figures have too, a `style` on every
element, which a strict policy of a page forbids. What is left here is shapes, texts and presentation
attributes, which any style sheet overrides: a class on each colour that is another one on dark paper.

    >>> fitted('<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="6pt" viewBox="0 0 9 6">'
    ...        '<g id="a"><text style="fill: #666666" x="1.2345" y="2">x</text></g></svg>', "f").rules
    (('f-000000', 'fill', '#000000', '#f5f5f5'), ('t-666666', 'fill', '#666666', '#a8a8a8'))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final
from xml.etree import ElementTree

from mambabench.report.html.palette import in_the_dark
from mambabench.report.html.text import shown

SVG: Final = "http://www.w3.org/2000/svg"
_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_PIXELS_PER_POINT = 4 / 3
_TEXT_CONTRAST, _MARK_CONTRAST = 4.5, 3.0
_NUMBER: Final = re.compile(r"-?\d*\.\d+(?:e[-+]?\d+)?")
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")
_LINK: Final = re.compile(r"url\(#([^)]+)\)")
_UNTURNED: Final = re.compile(r"\s*rotate\(-?0(?:\.0+)?(?: [^)]*)?\)\s*")
_FONT: Final = re.compile(r"(?P<before>.*?)(?P<size>[\d.]+px)\s+(?P<family>.*)")
_WEIGHTS: Final = {"bold", "600", "700", "800", "900"}


@dataclass(frozen=True)
class Fitted:
    """A drawing to stand in a page."""

    root: ElementTree.Element
    """Its `svg` element, without names that are of no use outside."""
    width_pixels: float
    rules: tuple[tuple[str, str, str, str], ...]
    """Class, property, colour and colour on dark paper, for what is another one there; sorted."""


def fitted(drawing: str, prefix: str) -> Fitted:
    """Return a drawing by matplotlib as one that can stand in a page with others.

    Args:
        drawing: SVG, texts as texts.
        prefix: begins all names in it, so that they are unique in the page.

    Raises:
        xml.etree.ElementTree.ParseError: it is not XML.
    """
    root = ElementTree.fromstring(shown(drawing))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        _without_style(element)
    rules = {("f-000000", "fill", "#000000", in_the_dark("#000000", _MARK_CONTRAST))}
    for element in root.iter():
        rules.update(_classed(element))
    _tidied(root)
    _renamed(root, prefix)
    width = _pixels(root.get("width", "0"))
    height = _pixels(root.get("height", "0"))
    view_box = root.get("viewBox", f"0 0 {width} {height}")
    root.attrib.clear()
    root.attrib |= {
        "xmlns": SVG, "width": f"{width:.0f}", "height": f"{height:.0f}", "viewBox": view_box,
        "class": "f-000000", "stroke-linejoin": "round",
    }  # fmt: skip
    return Fitted(root, width, tuple(sorted(rules)))


def _pixels(length: str) -> float:
    return float(length.removesuffix("pt")) * _PIXELS_PER_POINT


def _without_style(element: ElementTree.Element) -> None:
    """Turn an element's style into presentation attributes."""
    for part in element.attrib.pop("style", "").split(";"):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if name == "font":
            found = _FONT.fullmatch(value)
            if found:
                element.set("font-size", found["size"].removesuffix("px"))
                _set_family(element, found["family"])
                weight = next((w for w in found["before"].split() if w in _WEIGHTS), "")
                element.attrib |= {"font-weight": weight} if weight else {}
                element.attrib |= {"font-style": "italic"} if "italic" in found["before"] else {}
        elif name == "font-family":
            _set_family(element, value)
        elif name == "font-size":
            element.set(name, value.removesuffix("px"))
        elif name:
            element.set(name, value)


def _set_family(element: ElementTree.Element, families: str) -> None:
    # The page's own fonts, but for what has to line up.
    if "Mono" in families.partition(",")[0]:
        element.set("font-family", "monospace")


def _classed(element: ElementTree.Element) -> Iterator[tuple[str, str, str, str]]:
    """Give each colour that is another one in the dark a class, and return what it says."""
    names = []
    for kind, letter in (("fill", "f"), ("stroke", "s"), ("stop-color", "g")):
        colour = element.get(kind, "").lower()
        if not _COLOUR.fullmatch(colour):
            continue
        is_text = element.tag in ("text", "tspan")
        dark = in_the_dark(colour, _TEXT_CONTRAST if is_text else _MARK_CONTRAST)
        if dark != colour:
            names.append(f"{'t' if is_text and kind == 'fill' else letter}-{colour[1:]}")
            yield names[-1], kind, colour, dark
    if names:
        element.set("class", " ".join(names))


def _tidied(root: ElementTree.Element) -> None:
    """Drop what shows nothing and digits that nobody sees."""
    used = {name for e in root.iter() for name in _links(e)}
    for element in root.iter():
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if _UNTURNED.fullmatch(element.get("transform", "")):
            del element.attrib["transform"]
        for name, value in element.attrib.items():
            if name == "d":
                value = " ".join(value.split())
            if name in ("d", "x", "y", "width", "height", "points", "transform", "stroke-dasharray"):
                digits = 4 if name == "transform" else 2
                element.set(name, _NUMBER.sub(partial(_short, digits=digits), value))
    _unwrap(root)


def _short(number: re.Match[str], digits: int) -> str:
    return f"{float(number[0]):.{digits}f}".rstrip("0").rstrip(".")


def _unwrap(parent: ElementTree.Element) -> None:
    children: list[ElementTree.Element] = []
    for child in list(parent):
        _unwrap(child)
        if child.tag in ("metadata", "style", "title", "desc") or _is_invisible(child):
            continue
        if child.tag == "g" and not child.attrib:
            children.extend(child)
        elif child.tag != "defs" or len(child):
            children.append(child)
    parent[:] = children


def _is_invisible(element: ElementTree.Element) -> bool:
    return element.tag == "path" and element.get("fill") == "none" and not element.get("stroke")


def _links(element: ElementTree.Element) -> Iterator[str]:
    for name, value in element.attrib.items():
        if name in (_HREF, "href") and value.startswith("#"):
            yield value[1:]
        yield from _LINK.findall(value)


def _renamed(root: ElementTree.Element, prefix: str) -> None:
    for element in root.iter():
        if element.get("id"):
            element.set("id", f"{prefix}_{element.get('id')}")
        target = element.attrib.pop(_HREF, None) or element.attrib.pop("href", None)
        if target is not None:
            element.set("href", f"#{prefix}_{target[1:]}" if target.startswith("#") else target)
        for name, value in element.attrib.items():
            element.set(name, _LINK.sub(rf"url(#{prefix}_\1)", value))
