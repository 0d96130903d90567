"""How a total epsilon of 1 is split: what every split buys and costs, exact arithmetic on the noise that is drawn.

`python benchmarks/budget.py` prints one JSON object, `--table` the table of `docs/privacy.md`. The host: eight GPUs of
one class, clip range 0 to 700 W, windows of 60 s at 10 Hz, panes of 1 s. All figures are standard deviations of the
noise alone, or the time after which a fault stands three of them above it, as windows are averaged.

pane_kw       sum of one pane over 32 hosts, as mean power, kW: what the fleet's swing is read from
transitions   one cell of the transition counts of one host and window
bin_ppm       share of the fleet's readings in one bin of the histogram, over 32 hosts, millionths
energy_kj     energy residual of one host and window, kJ
drift_minutes a sensor that reads 1 % too much at 500 W per GPU is seen
glitches      spikes of one host and window
broken_hours  a sensor with one spike in 400 readings is seen
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass

import numpy as np

from power_model.noise import discrete_laplace_variance
from producers.config import ClassProfile, Schedule
from producers.privacy import MICRO, Budget, default_budget, privacy_parameters
from producers.sample.source import NO_CONDITIONS, Conditions, Readings

GPUS, LEVEL_W, HOSTS = 8, 500, 32
SCHEDULE = Schedule()
SIGMAS, DRIFT, SPIKE_EVERY = 3, 0.01, 400
WANTED_DRIFT_MINUTES, WANTED_BROKEN_HOURS = 60, 24
"""What the two small releases are for: an hour, a day."""


@dataclass(frozen=True)
class _Unread:
    """A source of the right shape that nobody reads."""

    gpus: int = GPUS
    kind: str = "nvml"
    sampler_mode: str = "instant"

    def window(self, start_ms: int, end_ms: int) -> Readings:
        return np.zeros((self.gpus, SCHEDULE.ticks), dtype=np.float32)

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        return NO_CONDITIONS


CLASS = ClassProfile(model="H100", capacity_w=700, edges_w=(100, 600), clip_low_w=0, clip_high_w=700, source=_Unread())
SPLITS = (
    default_budget(energy=False),
    default_budget(energy=True),
    *(
        Budget(transitions_micro=MICRO - panes - histogram, pane_sums_micro=panes, histogram_micro=histogram)
        for panes, histogram in ((700_000, 0), (700_000, 200_000), (350_000, 350_000))
    ),
    *(
        Budget(
            transitions_micro=100_000,
            pane_sums_micro=580_000 - energy - glitches,
            histogram_micro=320_000,
            energy_residual_micro=energy,
            glitches_micro=glitches,
        )
        for energy, glitches in ((10_000, 10_000), (30_000, 20_000), (100_000, 50_000), (200_000, 100_000))
    ),
)


def figures(budget: Budget) -> dict[str, float | None]:
    """Epsilons of a split and what they mean; None for a release that it leaves out."""
    stated = privacy_parameters(budget, [CLASS], SCHEDULE).releases
    spread = {one.release: math.sqrt(discrete_laplace_variance(one.scale_micro / MICRO)) for one in stated}
    found: dict[str, float | None] = {one.release: one.epsilon_micro / MICRO for one in stated}
    joules, spikes = spread.get("energy_residual"), spread.get("glitches")
    window_s = SCHEDULE.window_ms / 1000
    drift_kj = DRIFT * LEVEL_W * GPUS * window_s / 1000
    found["pane_kw"] = spread["pane_sums"] / 10 / SCHEDULE.ticks_per_pane * math.sqrt(HOSTS) / 1000
    found["transitions_sd"] = spread["transitions"]
    bins = spread.get("histogram")
    found["bin_ppm"] = bins and bins * MICRO / math.sqrt(HOSTS) / (GPUS * SCHEDULE.ticks)
    found["energy_kj"] = joules and joules / 1e6
    found["drift_minutes"] = joules and _windows(joules / 1e6, drift_kj) * window_s / 60
    found["glitches_sd"] = spikes
    found["broken_hours"] = spikes and _windows(spikes, GPUS * SCHEDULE.ticks / SPIKE_EVERY) * window_s / 3600
    return found


def _windows(spread: float, signal: float) -> int:
    """Windows to average until `signal` is `SIGMAS` spreads."""
    return math.ceil((SIGMAS * spread / signal) ** 2)


def table(rows: list[dict[str, float | None]]) -> str:
    """Markdown, one row per split."""
    columns = {
        "transitions": ".2f",
        "pane_sums": ".2f",
        "histogram": ".2f",
        "energy_residual": ".2f",
        "glitches": ".2f",
        "pane_kw": ".2f",
        "transitions_sd": ".0f",
        "bin_ppm": ".0f",
        "energy_kj": ".1f",
        "drift_minutes": ".0f",
        "glitches_sd": ".0f",
        "broken_hours": ".1f",
    }
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (("–" if (x := row.get(name)) is None else format(x, form)) for name, form in columns.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each split of the privacy budget buys.")
    parser.add_argument("--table", action="store_true", help="a markdown table")
    rows = [figures(budget) for budget in SPLITS]
    shipped = rows[1]
    if parser.parse_args().table:
        print(table(rows))
        return
    ok = (shipped["drift_minutes"] or math.inf) <= WANTED_DRIFT_MINUTES
    ok &= (shipped["broken_hours"] or math.inf) <= WANTED_BROKEN_HOURS
    print(json.dumps({"splits": rows, "shipped": shipped, "default_meets_its_purpose": ok}))


if __name__ == "__main__":
    main()
