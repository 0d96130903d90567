"""What the demo shows: one row per power domain while it runs, and the summary at its end. Also the words of `tail`.

Everything is laid out for the width there is: columns are left out, never cut. Heights do not change while it runs.
Colours are those of the terminal's own palette that read on dark and on light; each also has a sign of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attester.simulated import SIMULATED_BANNER
from schemas.records import FleetPower, Interval

MW = 1_000_000
KW = 1_000
MINUS = "\N{MINUS SIGN}"
TREND = "▁▂▃▄▅▆▇█"
TREND_LENGTH = 40
P99_PPM = 990_000
BANNER = "bold black on yellow"
SIMULATED_SHORT = "SIMULATED TEE: it proves nothing about this machine."
MOCK = "EMBEDDED MOCK BROKER: nothing is durable; producers' timestamps stand in for append times (unsafe)."
MOCK_SHORT = "MOCK BROKER: nothing is durable; append times are the producers' (unsafe)."
NONE = "—"
WITHHELD = "withheld"
"""In place of an interval; the output states the reason."""


def mw(watts: int | float) -> float:
    """Watts as megawatts."""
    return watts / MW


def unit_of(watts: Iterable[int | float]) -> tuple[str, int]:
    """Name and size of the unit for figures that stand in one column: MW from one MW on, kW below."""
    return ("MW", MW) if max((abs(one) for one in watts), default=0) >= MW else ("kW", KW)


def number(watts: int | float, size: int, *, signed: bool = False) -> str:
    """Watts in a unit of `size` W, with a true minus sign; `signed` writes the plus, too."""
    places = Decimal(1).scaleb(-3 if size == MW else -2)
    text = f"{(Decimal(str(abs(watts))) / size).quantize(places, ROUND_HALF_UP):,}"  # as browsers round, ties up
    return (MINUS if watts < 0 else "+" if signed else "") + text


def bounds(estimate: Interval, size: int, *, signed: bool = False) -> str:
    """An interval's ends, `[low, high]`."""
    return f"[{number(estimate.low_w, size, signed=signed)}, {number(estimate.high_w, size, signed=signed)}]"


def spread(estimate: Interval | None, *, signed: bool = False) -> str:
    """A figure with its interval and unit, for a line of text."""
    if estimate is None:
        return NONE
    unit, size = unit_of((estimate.value_w,))
    return f"{number(estimate.value_w, size, signed=signed)} {unit} {bounds(estimate, size, signed=signed)}"


def margin_style(margin: Interval | None) -> str:
    """Red below nought, orange where the interval reaches below it, green above."""
    if margin is None:
        return ""
    return "bold red" if margin.value_w < 0 else "dark_orange3" if margin.low_w < 0 else "green"


def quantile_of(output: FleetPower, ppm: int) -> Interval | None:
    """The quantile of an output at `ppm`, None if it has none."""
    return next((one.estimate for one in output.quantiles if one.quantile_ppm == ppm), None)


LAST_MS = 253_402_300_799_999
"""End of the year 9999, UTC milliseconds."""


def moment(ms: int) -> str:
    """UTC milliseconds as ISO 8601; whatever a record claims, this returns a text."""
    if not 0 <= ms <= LAST_MS:
        return f"{ms} ms"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class DomainView:
    """What is shown of one domain: its newest output and how its mean went."""

    newest: FleetPower | None = None
    means: list[int] = field(default_factory=list)

    def take(self, output: FleetPower) -> None:
        """Take one output."""
        if self.newest is None or output.window_start_ms >= self.newest.window_start_ms:
            self.newest = output
            if output.mean is not None:
                self.means = [*self.means[1 - TREND_LENGTH :], output.mean.value_w]

    def trend(self, length: int) -> str:
        """The last `length` means as a line of bars."""
        means = self.means[-length:] if length > 0 else []
        if not means:
            return ""
        low, width = min(means), max(1, max(means) - min(means))
        return "".join(TREND[(value - low) * (len(TREND) - 1) // width] for value in means)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The demo at one moment. `done` of `total` windows have an output; `phase` is what it does now."""

    hosts: int
    gpus: int
    speed: int
    phase: str
    done: int
    total: int
    domains: tuple[str, ...]
    views: Mapping[str, DomainView]
    refused: Mapping[str, int]
    embedded: bool


def notes(width: int, embedded: bool) -> list[str]:
    """What must be seen on screen, in the longest form that fits on one line."""
    found = [SIMULATED_BANNER if width >= len(SIMULATED_BANNER) + 2 else SIMULATED_SHORT]
    if embedded:
        found.append(MOCK if width >= len(MOCK) + 2 else MOCK_SHORT)
    return found


def _notes(width: int, embedded: bool) -> list[RenderableType]:
    return [
        Text(f" {note} ".ljust(width), style=BANNER, no_wrap=True, overflow="crop") for note in notes(width, embedded)
    ]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a table: its key in a row, its head, its width in cells, when it is left out (0: never)."""

    key: str
    head: str
    cells: int
    justify: str = "right"
    drop: int = 0


GAP = 2
MIN_TREND, MAX_LABEL = 6, 14


def _label_cells(names: Iterable[str]) -> int:
    return min(MAX_LABEL, max([len("domain"), *map(len, names)]))


def _columns(width: int, unit: str, names: Iterable[str]) -> list[_Column]:
    wanted = [
        _Column("domain", "domain", _label_cells(names), "left"),
        _Column("until", "until, UTC", 10, "left", drop=2),
        _Column("mean", f"mean, {unit}", 8),
        _Column("mean interval", "95 % interval", 16, "left", drop=3),
        _Column("p99", f"p99, {unit}", 8),
        _Column("limit", f"limit, {unit}", 9, drop=1),
        _Column("margin", f"margin, {unit}", 10),
        _Column("margin interval", "95 % interval", 18, "left"),
        _Column("hosts", "hosts", 7),
    ]
    for step in (3, 1, 2):
        if sum(one.cells + GAP for one in wanted) + MIN_TREND > width:
            wanted = [one for one in wanted if one.drop != step]
    left = width - sum(one.cells + GAP for one in wanted)
    return [*wanted, _Column("trend", "trend", min(left, TREND_LENGTH), "left")] if left >= MIN_TREND else wanted


def _label(name: str, cells: int) -> str:
    """A name in a column of `cells`; a long one keeps its end, where names differ."""
    return name if len(name) <= cells else "…" + name[1 - cells :]


def _grid(columns: Iterable[_Column]) -> Table:
    # The box itself puts one cell between columns.
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for one in columns:
        justify: Any = one.justify
        grid.add_column(one.head, justify=justify, width=one.cells, no_wrap=True, overflow="crop")
    return grid


def _row(output: FleetPower, size: int) -> dict[str, str | Text]:
    margin, p99 = output.margin.margin, quantile_of(output, P99_PPM)
    style = margin_style(margin)
    interval = bounds(margin, size, signed=True) if margin else WITHHELD
    return {
        "until": moment(output.window_end_ms)[11:19],
        "mean": number(output.mean.value_w, size) if output.mean else NONE,
        "mean interval": bounds(output.mean, size) if output.mean else "",
        "p99": number(p99.value_w, size) if p99 else NONE,
        "limit": number(output.margin.limit_w, size),
        "margin": Text(number(margin.value_w, size, signed=True) if margin else NONE, style=style),
        "margin interval": Text(interval, style=style),
        "hosts": f"{output.coverage.reporting_hosts}/{output.coverage.enrolled_hosts}",
    }


def domain_table(picture: Picture, width: int) -> Table:
    """One row per domain, at most `width` cells wide."""
    newest = {name: view.newest for name, view in picture.views.items() if view.newest is not None}
    unit, size = unit_of(one.margin.limit_w for one in newest.values())
    columns = _columns(width, unit, picture.domains)
    grid = _grid(columns)
    for name in picture.domains:
        row = _row(newest[name], size) if name in newest else {}
        row["domain"] = _label(name, columns[0].cells)
        if columns[-1].key == "trend" and name in picture.views:
            row["trend"] = Text(picture.views[name].trend(columns[-1].cells), style="cyan")
        grid.add_row(*(row.get(one.key, NONE if one.justify == "right" else "") for one in columns))
    return grid


def refused_line(refused: Mapping[str, int], width: int) -> str:
    """Refusals by code on one line; codes that do not fit are counted."""
    if not refused:
        return "nothing"
    items = [f"{code} {count}" for code, count in sorted(refused.items())]
    for shown in range(len(items), 0, -1):
        rest = f" and {len(items) - shown} more codes" if shown < len(items) else ""
        text = " · ".join(items[:shown]) + rest
        if len(text) <= width:
            return text
    return f"{sum(refused.values())} by {len(items)} codes"


@dataclass(frozen=True, slots=True)
class Pace:
    """Windows per second and the time left, s; None before they are known."""

    per_s: float | None = None
    left_s: float | None = None

    def text(self) -> str:
        """In words."""
        if self.per_s is None or self.left_s is None:
            return ""
        minutes, seconds = divmod(round(self.left_s), 60)
        left = f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
        return f"{self.per_s:.1f} windows/s, {left} left"


def _progress(picture: Picture, pace: Pace, width: int) -> Text:
    words = f" {picture.done}/{picture.total} windows  {pace.text() or picture.phase}"
    cells = min(30, max(0, width - len(words) - 1))
    full = cells * min(picture.done, picture.total) // max(1, picture.total)
    return Text.assemble(("━" * full, "bold cyan"), ("─" * (cells - full), "dim"), words, no_wrap=True, overflow="crop")


def screen(picture: Picture, pace: Pace, width: int) -> RenderableType:
    """The whole picture: what must be seen, the domains, what was refused, how far it is."""
    width -= 1  # terminals differ on a character in the last column
    title = Text("EnclaveScale demo", style="bold", no_wrap=True)
    title.append(
        f"   {picture.hosts} hosts × {picture.gpus} GPUs, real power traces at {picture.speed}× speed", style=""
    )
    return Group(
        title,
        *_notes(width, picture.embedded),
        Text(),
        domain_table(picture, width),
        Text(),
        Text.assemble(("refused   ", "bold"), refused_line(picture.refused, width - 10), no_wrap=True, overflow="crop"),
        Text.assemble(("progress  ", "bold"), _progress(picture, pace, width - 10), no_wrap=True, overflow="crop"),
    )


# -- the summary -------------------------------------------------------------------------------------------------


def _watts(figure: float | None) -> float | None:
    return None if figure is None else figure * MW


def _summary_table(domains: Mapping[str, Mapping[str, Any]]) -> Table:
    unit, size = unit_of(one["limit_mw"] * MW for one in domains.values())
    cells = _label_cells(domains)
    grid = _grid(
        (
            _Column("domain", "domain", cells, "left"),
            _Column("mean", f"mean, {unit}", 8),
            _Column("truth", "traces say", 10),
            _Column("p99", f"p99, {unit}", 8),
            _Column("margin", f"margin, {unit}", 10),
            _Column("margin interval", "95 % interval", 20, "left"),
        )
    )
    for name, one in domains.items():
        figures = [_watts(one[key]) for key in ("mean_mw", "truth_mw", "p99_mw")]
        margin, ends = _watts(one["margin_mw"]), one["margin_ci_mw"]
        style, interval = "", WITHHELD
        if margin is not None and ends is not None:
            estimate = Interval(value_w=round(margin), low_w=round(ends[0] * MW), high_w=round(ends[1] * MW))
            style, interval = margin_style(estimate), bounds(estimate, size, signed=True)
        grid.add_row(
            _label(name, cells),
            *(NONE if one is None else number(one, size) for one in figures),
            Text(NONE if margin is None else number(margin, size, signed=True), style=style),
            Text(interval, style=style),
        )
    return grid


LIARS = {
    "SIGNATURE_INVALID": "changed on the way",
    "DUPLICATE": "sent again",
    "MEASUREMENT_UNKNOWN": "modified agent",
}


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    interval = summary["interval_95"]
    share = 100 * interval["covered"] / max(1, interval["windows"])
    facts = [
        ("accepted", f"{summary['accepted']:,} reports of {summary['hosts']} hosts with {summary['gpus']:,} GPUs"),
        (
            "",
            f"{summary['samples']:,} samples in {summary['elapsed_s']:.1f} s: "
            f"{summary['samples_per_s']:,.0f} per second",
        ),
    ]
    liars = summary["dishonest"]
    for index, (code, count) in enumerate(summary["refused"].items()):
        who = f"{liars[code]}, {LIARS[code]}" if code in liars else "unexpected"
        facts.append(("refused" if index == 0 else "", f"{code:<20} {count:>4}  {who}"))
    if not summary["refused"]:
        facts.append(("refused", "nothing"))
    if interval["windows"]:
        found = f"{interval['covered']} of {interval['windows']} windows ({share:.1f} %)"
        facts.append(("95 %", f"intervals held the raw traces' mean in {found}"))
    reasons = {one["margin_absent_reason"]: name for name, one in summary["domains"].items()}
    if not summary["embedded_broker"]:
        facts.append(("topics", f"{summary['topic_prefix']}.… stay on the cluster"))
    facts += [(WITHHELD, f"{name}: {reason}") for reason, name in reasons.items() if reason]
    return facts


def summary_screen(summary: Mapping[str, Any], width: int) -> RenderableType:
    """The end of the demo, for people."""
    width -= 1
    title = f"EnclaveScale demo: {summary['windows']} windows; the last one of each domain"
    lines: list[RenderableType] = [
        Text(title, style="bold"),
        Text(),
        _summary_table(summary["domains"]),
        Text(),
    ]
    for name, text in _facts(summary):
        lines.append(Text.assemble((f"{name:<10}", "bold"), text))
    return Group(*lines, Text(), *_notes(width, summary["embedded_broker"]))
