"""What is drawn: at every width whole, of one height, with signs that need no colour."""

from __future__ import annotations

import dataclasses
import io
import itertools

import pytest
from rich.console import Console, RenderableType

from enclavescale.live import (
    DomainView,
    Pace,
    Picture,
    bounds,
    domain_table,
    margin_style,
    number,
    refused_line,
    screen,
    spread,
    summary_screen,
)
from enclavescale.progress import PaceMeter, open_show, plain_line
from schemas.records import FleetPower, Interval
from tests.cli.conftest import DemoRun
from tests.schemas.examples import example

REFUSED = {"DUPLICATE": 20, "MEASUREMENT_UNKNOWN": 20, "SIGNATURE_INVALID": 20}
OUTPUT: FleetPower = example(FleetPower, "SignedFleetPower", full=True)


def output(mean_w: int, margin: tuple[int, int, int]) -> FleetPower:
    """An output with the figures given."""
    value, low, high = margin
    return dataclasses.replace(
        OUTPUT,
        domain="hall-a",
        window_end_ms=1_790_000_000_000,
        mean=Interval(value_w=mean_w, low_w=mean_w - 1000, high_w=mean_w + 1000),
        margin=dataclasses.replace(
            OUTPUT.margin, limit_w=mean_w + value, margin=Interval(value_w=value, low_w=low, high_w=high)
        ),
    )


def picture(view: DomainView | None, refused: dict[str, int] | None = None, done: int = 312) -> Picture:
    """Two domains, of which the second has nothing yet."""
    return Picture(
        hosts=512,
        gpus=64,
        speed=10_000,
        phase="running",
        done=done,
        total=500,
        domains=("hall-a", "hall-b"),
        views={"hall-a": view} if view else {},
        refused=refused or {},
        embedded=True,
    )


def drawn(what: RenderableType, width: int) -> list[str]:
    """The lines on a terminal without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(what)
    return out.getvalue().splitlines()


def view_of(*outputs: FleetPower) -> DomainView:
    """A view that has taken these outputs."""
    view = DomainView()
    for index in range(60):
        view.take(dataclasses.replace(outputs[index % len(outputs)], window_start_ms=index))
    return view


@pytest.mark.parametrize("width", [80, 90, 100, 120, 140, 200])
def test_nothing_is_cut_and_the_height_never_changes(width: int) -> None:
    heights = set()
    figures = [(24_530_000, (-530_000, -1_470_000, 120_000)), (19_530, (1_530, -70, 2_370))]
    for mean, margin in figures:
        for refused, pace in itertools.product(({}, REFUSED), (Pace(), Pace(12.3, 75.0))):
            lines = drawn(screen(picture(view_of(output(mean, margin)), refused), pace, width), width)
            assert max(len(line) for line in lines) < width
            text = "\n".join(lines)
            assert "…" not in text
            for part in ("SIMULATED TEE", "MOCK BROKER", "margin", "hall-a", "hall-b", "312/500 windows"):
                assert part in text
            assert f"{'MW' if mean > 10**6 else 'kW'}" in text
            assert ("MEASUREMENT_UNKNOWN 20" in text) is bool(refused)
            heights.add(len(lines))
    heights.add(len(drawn(screen(picture(None, done=0), Pace(), width), width)))
    assert len(heights) == 1


def test_wide_screens_show_more() -> None:
    heads = {
        width: drawn(domain_table(picture(view_of(output(19_530, (1_530, -70, 2_370)))), width - 1), width)[0]
        for width in (80, 100, 140)
    }
    assert "limit" not in heads[80]
    assert "limit" in heads[100]
    assert heads[140].count("95 % interval") == 2


def test_a_missing_margin_has_a_sign_and_a_colour() -> None:
    below = Interval(value_w=-530, low_w=-1470, high_w=120)
    doubtful = Interval(value_w=530, low_w=-70, high_w=1200)
    assert [margin_style(one) for one in (below, doubtful, None)] == ["bold red", "dark_orange3", ""]
    assert margin_style(Interval(value_w=2, low_w=1, high_w=3)) == "green"
    assert number(-530, 1000, signed=True) == "−0.53"
    assert bounds(doubtful, 1000, signed=True) == "[−0.07, +1.20]"
    assert spread(below, signed=True) == "−0.53 kW [−1.47, +0.12]"
    assert spread(Interval(value_w=24_530_000, low_w=24_000_000, high_w=25_000_000)) == "24.530 MW [24.000, 25.000]"


def test_refusals_that_do_not_fit_are_counted() -> None:
    assert refused_line({}, 60) == "nothing"
    assert refused_line(REFUSED, 70) == "DUPLICATE 20 · MEASUREMENT_UNKNOWN 20 · SIGNATURE_INVALID 20"
    assert refused_line(REFUSED, 50) == "DUPLICATE 20 and 2 more codes"
    assert refused_line(REFUSED, 20) == "60 by 3 codes"


def test_pace_is_that_of_the_last_seconds() -> None:
    now = [0.0]
    meter = PaceMeter(lambda: now[0])
    assert meter.take(0, 100) == Pace()
    for second in range(1, 31):
        now[0] = float(second)
        pace = meter.take(second if second < 20 else 20 + 2 * (second - 20), 100)
    assert pace.per_s == pytest.approx(2.0, abs=0.1)
    assert pace.left_s == pytest.approx(30, abs=2)
    assert Pace(2.0, 75.0).text() == "2.0 windows/s, 1 min 15 s left"


def test_plain_lines_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with open_show(Console(file=io.StringIO(), force_terminal=True)) as show:
        show(lambda: picture(view_of(output(19_530, (1_530, -70, 2_370))), REFUSED), at_once=True)
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert plain_line(picture(None, REFUSED), Pace()) in said


@pytest.mark.parametrize("width", [80, 140])
def test_summary_says_what_became_of_the_liars(demo_run: DemoRun, width: int) -> None:
    lines = drawn(summary_screen(demo_run.summary, width), width)
    text = "\n".join(lines)
    assert max(len(line) for line in lines) <= width
    assert "SIGNATURE_INVALID      20  hall-a-host000, changed on the way" in text
    assert "SIMULATED TEE" in text
    assert f"{demo_run.summary['accepted']:,} reports of 8 hosts" in text
    odd = drawn(summary_screen({**demo_run.summary, "refused": {"LATE": 3}}, width), width)
    assert any("LATE" in line and "unexpected" in line for line in odd)
