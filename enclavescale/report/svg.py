"""A figure as SVG for the page: no style attributes, so that the page's policy can forbid them; colours by class.

Figures are drawn in the colours of `INKS`, which stand for themselves only here: each becomes a class, and the page's
style sheet says how it looks in light, in the dark and on paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from lxml import etree
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INKS = {
    "#010101": "ink",
    "#020202": "soft",
    "#030303": "grid",
    "#101010": "power",
    "#111111": "band",
    "#121212": "limit",
    "#200000": "identical",
    "#210000": "differs",
    "#220000": "missing",
    "#230000": "extra",
    "#240000": "lost",
    "#250000": "pending",
    "#300000": "c0",
    "#310000": "c1",
    "#320000": "c2",
    "#330000": "c3",
    "#340000": "c4",
    "#350000": "c5",
    "#360000": "c6",
}
"""Colour in a figure -> class on the page (`f-…` for filled, `s-…` for drawn)."""

COLOURS = {name: colour for colour, name in INKS.items()}

SETTINGS: Any = {
    "svg.fonttype": "none",
    "path.simplify": False,
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "axes.unicode_minus": True,
}

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_KEPT = {
    "fill", "stroke", "stroke-width", "stroke-linejoin", "stroke-linecap", "stroke-dasharray", "stroke-dashoffset",
    "stroke-opacity", "stroke-miterlimit", "fill-opacity", "opacity", "text-anchor", "font-size",
}  # fmt: skip
"""Style properties that are attributes of SVG, too."""

_DROPPED = {"font-family", "font-stretch", "font-style", "font-variant", "font-weight", "white-space"}
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def clean_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an SVG element. `name` begins every id in it: letters, digits and dashes, one of its own per page.

    The same figure gives the same text. `title` and `description` are read out by screen readers.
    """
    buffer = io.BytesIO()
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": name}):
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True)
    root = etree.fromstring(buffer.getvalue(), parser)
    for unwanted in root.xpath("//*[local-name()='metadata' or local-name()='style']"):
        unwanted.getparent().remove(unwanted)
    used = set(_references(root))
    for element in root.iter():
        _style(element)
        _identity(element, name, used)
        for key in ("d", "transform", "points", "x", "y", "width", "height"):
            if key in element.attrib:
                text = " ".join(element.get(key, "").split())
                element.set(key, _path(text) if key == "d" else _NUMBER.sub(_hundredths, text))
    for empty in root.xpath("//*[local-name()='defs'][not(*)]"):
        empty.getparent().remove(empty)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for position, (tag, label) in enumerate((("title", title), ("desc", description))):
        element = etree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = label
        root.insert(position, element)
    etree.cleanup_namespaces(root)
    made: str = etree.tostring(root, encoding="unicode")
    return made.replace("\n", "")


def _references(root: etree._Element) -> Iterator[str]:
    for element in root.iter():
        for value in element.attrib.values():
            yield from _REFERENCE.findall(value)
        if (link := element.get(_HREF)) is not None:
            yield link.removeprefix("#")


def _identity(element: etree._Element, name: str, used: set[str]) -> None:
    """Ids that something refers to begin with `name`; the others go."""
    known = element.attrib.pop("id", None)
    if known in used:
        element.set("id", f"{name}-{known}")
    link = element.attrib.pop(_HREF, None)
    if link is not None:
        element.set("href", f"#{name}-{link.removeprefix('#')}")
    for key, value in element.attrib.items():
        if "url(#" in value:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))


def _style(element: etree._Element) -> None:
    """Style properties as attributes and classes. Raises ValueError for one that neither can say."""
    declared = element.attrib.pop("style", "")
    classes = []
    for declaration in filter(None, (part.strip() for part in declared.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = re.search(r"([\d.]+)px", value)
            element.set("font-size", size.group(1) if size else "10")
        elif key in {"fill", "stroke"} and value != "none":
            classes.append(f"{key[0]}-{INKS[value]}")
        elif key in _KEPT:
            element.set(key, value.removesuffix("px"))
        elif key not in _DROPPED:
            raise ValueError(declaration)
    if classes:
        element.set("class", " ".join(classes))


def _path(data: str) -> str:
    """A path in tenths, with short commands where it runs level or upright, as steps do, and no point twice."""
    made: list[str] = []
    here: tuple[str, str] | None = None
    for command, points in re.findall(r"([A-Za-z])([^A-Za-z]*)", _NUMBER.sub(_tenths, data)):
        numbers = points.split()
        if command == "L" and here is not None and len(numbers) == 2:
            x, y = numbers
            if (x, y) == here:
                continue
            made.append(f"V{y}" if x == here[0] else f"H{x}" if y == here[1] else f"L{x} {y}")
        else:
            made.append(command + " ".join(numbers))
        here = (numbers[-2], numbers[-1]) if len(numbers) >= 2 and command in "MLQC" else None
    return "".join(made)


def _tenths(number: re.Match[str]) -> str:
    text = f"{float(number.group()):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _hundredths(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")
