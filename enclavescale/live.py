"""The live table of the demo and of `tail`: one row per power domain, in MW."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from schemas.records import FleetPower, Interval

MW = 1_000_000
TREND = "▁▂▃▄▅▆▇█"


def mw(watts: int | float) -> float:
    """Watts as megawatts."""
    return watts / MW


def spread(estimate: Interval | None) -> str:
    """An interval as text, kW below one MW."""
    if estimate is None:
        return "—"
    unit, size = ("MW", MW) if abs(estimate.value_w) >= MW else ("kW", 1000)
    half = (estimate.high_w - estimate.low_w) / 2
    return f"{estimate.value_w / size:.2f} ± {half / size:.2f} {unit}"


@dataclass(slots=True)
class DomainView:
    """What is shown of one domain: its newest output and how its mean went."""

    newest: FleetPower | None = None
    means: list[int] = field(default_factory=list)
    windows: int = 0

    def take(self, output: FleetPower) -> None:
        """Take one output."""
        if output.revision == 0:
            self.windows += 1
        if self.newest is None or output.window_start_ms >= self.newest.window_start_ms:
            self.newest = output
            if output.mean is not None:
                self.means = [*self.means[-23:], output.mean.value_w]

    def trend(self) -> str:
        """The last means as a line of bars."""
        if not self.means:
            return ""
        low, high = min(self.means), max(self.means)
        width = max(1, high - low)
        return "".join(TREND[(value - low) * (len(TREND) - 1) // width] for value in self.means)


def quantile_of(output: FleetPower, ppm: int) -> Interval | None:
    """The quantile of an output at `ppm`, None if it has none."""
    return next((one.estimate for one in output.quantiles if one.quantile_ppm == ppm), None)


def table(
    views: Mapping[str, DomainView], refused: Mapping[str, int], *, notes: tuple[str, ...], progress: str
) -> RenderableType:
    """The whole picture: notes that must be seen, the domains, what was refused."""
    grid = Table(expand=True, header_style="bold", border_style="dim")
    for name, justify in (
        ("domain", "left"),
        ("window (UTC)", "left"),
        ("mean, 95 %", "right"),
        ("p99", "right"),
        ("margin below limit", "right"),
        ("hosts", "right"),
        ("trend", "left"),
    ):
        grid.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name in sorted(views):
        output = views[name].newest
        if output is None:
            grid.add_row(name, "waiting", "—", "—", "—", "—", "")
            continue
        margin = output.margin.margin
        style = "red bold" if margin is not None and margin.low_w < 0 else "green"
        text = spread(margin) if margin else (output.margin.margin_absent_reason or "—")
        p99 = quantile_of(output, 990_000)
        grid.add_row(
            name,
            datetime.fromtimestamp(output.window_end_ms / 1000, UTC).strftime("%H:%M:%S"),
            spread(output.mean),
            spread(p99).split(" ±")[0] + (" MW" if p99 and abs(p99.value_w) >= MW else " kW") if p99 else "—",
            Text(text, style=style),
            f"{output.coverage.reporting_hosts}/{output.coverage.enrolled_hosts}",
            views[name].trend(),
        )
    parts: list[RenderableType] = [Text(note, style="bold black on yellow") for note in notes]
    shown = ", ".join(f"{code} {count}" for code, count in sorted(refused.items())) or "nothing"
    parts += [grid, Text(f"refused: {shown}", style="dim"), Text(progress, style="dim")]
    return Panel(Group(*parts), title="EnclaveScale", border_style="cyan")


def refusals(outputs: Mapping[tuple[str, int, int], FleetPower]) -> Counter[str]:
    """Refusals by code over outputs."""
    total: Counter[str] = Counter()
    for output in outputs.values():
        for one in output.refused:
            total[one.code] += one.count
    return total
