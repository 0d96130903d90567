"""Figures as SVG for a page that forbids style attributes."""

from __future__ import annotations

import pytest
from lxml import etree
from matplotlib.figure import Figure

from enclavescale.report.svg import COLOURS, INKS, clean_svg
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


def test_every_ink_has_a_style() -> None:
    css = (ROOT / "enclavescale" / "report" / "templates" / "report.css").read_text()
    for ink in INKS.values():
        assert f".f-{ink}{{fill:var(" in css
        if not (ink.startswith("c") and ink[1:].isdigit()):
            assert f".s-{ink}{{stroke:var(" in css
