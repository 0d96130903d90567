"""Figures as SVG for a page that forbids style attributes."""

from __future__ import annotations

import pytest
from lxml import etree
from matplotlib.figure import Figure

from enclavescale.report.svg import COLOURS, INKS, _path, clean_svg
from tests.house.source import ROOT


def drawn(colour: str) -> Figure:
    figure = Figure(figsize=(2, 1))
    axis = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    for one in (axis.xaxis, axis.yaxis):
        one.set_tick_params(colors=COLOURS["soft"])
    axis.plot([0, 1], [0, 1], color=colour)
    figure.patch.set_visible(False)
    axis.patch.set_visible(False)
    for spine in axis.spines.values():
        spine.set_color(COLOURS["grid"])
    return figure


def test_a_colour_becomes_a_class() -> None:
    root = etree.fromstring(clean_svg(drawn(COLOURS["power"]), "p", "a <title>", "a & description"))
    classes = {name for one in root.iter() for name in (one.get("class") or "").split()}
    assert classes == {"s-power", "f-soft", "s-soft", "s-grid"}
    assert root[0].text == "a <title>"
    assert not root.xpath("//@style")
    assert all(one.get("id", "p-").startswith("p-") for one in root.iter())


def test_a_colour_that_is_no_ink_is_refused() -> None:
    with pytest.raises(KeyError):
        clean_svg(drawn("#123456"), "p", "t", "d")


@pytest.mark.parametrize(
    ("data", "short"),
    [
        ("M 1.04 2 L 3.0 2.0 L 3 4.26 L 3 4.26 L 5 6 z", "M1 2H3V4.3L5 6z"),
        ("M 0 0 Q 1 2 3 4 L 3 5.5 M 9 5.5 L 9 6", "M0 0Q1 2 3 4V5.5M9 5.5V6"),
        ("M 0 0 L 1 0 z L 1 2", "M0 0H1zL1 2"),
        ("M -0.04 1 L 2 1", "M0 1H2"),
    ],
)
def test_paths_are_short_and_the_same_line(data: str, short: str) -> None:
    assert _path(data) == short


def test_every_ink_has_a_style() -> None:
    css = (ROOT / "enclavescale" / "report" / "templates" / "report.css").read_text()
    for ink in INKS.values():
        assert f".f-{ink}{{fill:var(" in css
        if not (ink.startswith("c") and ink[1:].isdigit()):
            assert f".s-{ink}{{stroke:var(" in css
