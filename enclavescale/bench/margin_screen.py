"""The screen of `enclavescale bench margin`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from enclavescale.bench.margin_score import off_p, too_low_p
from enclavescale.screen_parts import BAD, DOUBT, GOOD, NONE, QUIET, block, titled

GOALS = {32: (0.10, 0.75, 0.35), 512: (0.03, None, 0.12)}
"""What `edge` is held to at ε = 1 and 60 s, MW, by hosts: mean, margin, margin above that of `exact`."""
LEVEL = 0.01
"""Level of the test that says whether a low coverage may be chance."""
NOTES = {
    "paper": "every host's counts clamped and rows normalised, chains averaged, GPUs independent",
    "edge": "this product: noise on every host, sums projected once",
    "central": "the same statistics, noise once for the fleet (once per GPU class)",
    "exact": "the same statistics, no noise",
}


def margin_screen(result: Mapping[str, Any]) -> RenderableType:
    """Errors, coverage and forecasts as tables, with a line for every row that says what it is."""
    fleet = result["fleet"]
    shape = f"{fleet['hosts']} hosts × {fleet['gpus_per_host']} GPUs, {fleet['window_s']}-s windows"
    parts: list[RenderableType] = [
        titled(
            f"{shape}, ε = {result['epsilon']:g}: RMSE in MW per {fleet['nameplate_mw']:g} MW nameplate",
            Group(_estimators(result["estimators"], _goals(result)), _notes(result["estimators"])),
        ),
        titled("Forecast of the p99 from the window's end on", _forecast(result["forecast"])),
        *(
            titled(
                f"Fleets of {kind} readings alone, {one['fleet']['windows']:,} windows",
                _estimators(one["estimators"], None),
            )
            for kind, one in result["by_mode"].items()
        ),
        *_past(result["with_past"]),
        block(
            "Measured",
            [
                ("windows", f"{fleet['windows']:,} of {fleet['fleets']:,} fleets, seed {result['seed']}"),
                ("truth", f"mean {fleet['true_mean_mw']:.1f} MW, p99 − mean {fleet['true_margin_mw']:.2f} MW"),
                ("jobs", f"{fleet['job_traces']} traces of {fleet['jobs_from']}" + _alike(fleet)),
                ("others", f"{fleet['inference_traces']} of inference, {fleet['idle_traces']} idle"),
                ("skipped", f"{len(result['skipped'])} files" + _first_reason(result["skipped"])),
            ],
        ),
    ]
    return Group(*parts)


def _past(one: Mapping[str, Any] | None) -> list[RenderableType]:
    """The table of fleets whose hosts have references, if there are any."""
    if one is None:
        return []
    fleet, aside = one["fleet"], one["estimators"]["edge"]["set_aside_hosts"]
    said = (
        f"Fleets with a past of {fleet['run_up_windows']} windows, {fleet['windows']} windows, {aside} hosts set aside"
    )
    return [titled(said, _estimators(one["estimators"], None))]


def _goals(result: Mapping[str, Any]) -> tuple[float, float | None, float] | None:
    fleet = result["fleet"]
    usual = result["epsilon"] == 1.0 and fleet["window_s"] == 60 and fleet["gpus_per_host"] == 8
    return GOALS.get(fleet["hosts"]) if usual else None


def _estimators(estimators: Mapping[str, Any], goals: tuple[float, float | None, float] | None) -> Table:
    table = _table("", "mean", "margin", "bias", "p95", "coverage", "width", "of the mean", "width")
    for name, one in estimators.items():
        mean, margin = Text(_mw(one["mean_rmse_mw"])), Text(_mw(one["margin_rmse_mw"]))
        if goals and name == "edge" and None not in (one["mean_rmse_mw"], one["margin_rmse_mw"]):
            above = estimators["exact"]["margin_rmse_mw"]
            most = min(one for one in (goals[1], None if above is None else above + goals[2]) if one is not None)
            mean.stylize(GOOD if one["mean_rmse_mw"] <= goals[0] else BAD)
            margin.stylize(GOOD if one["margin_rmse_mw"] <= most else BAD)
        table.add_row(
            name,
            mean,
            margin,
            _mw(one["margin_bias_mw"], "+.2f"),
            _mw(one["margin_error_p95_mw"]),
            _coverage(one["coverage"], one["coverage_test"]),
            _mw(one["margin_width_mw"]),
            _coverage(one["mean_coverage"], one["mean_coverage_test"]),
            _mw(one["mean_width_mw"]),
        )
    return table


def _notes(estimators: Mapping[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style=QUIET)
    table.add_column(style=QUIET)
    for name in estimators:
        best = estimators[name].get("parameters")
        table.add_row(name, NOTES[name] + (f" (best of its kind: {best})" if best else ""))
    table.add_row(
        "coverage", "share of windows whose 95-% interval holds the true p99; red: too small, orange: too large"
    )
    table.add_row("width", "of the intervals of p99 and mean; p95: what 95 % of the margin's errors stay below")
    return Padding(table, (1, 0, 0, 0))


def _forecast(forecast: Mapping[str, Any]) -> RenderableType:
    table = _table("horizon", "exceeded", "pinball", "persistence", "with its rise")
    for horizon, one in forecast.items():
        table.add_row(
            f"{horizon} s",
            _percent(one["exceeded"]),
            _mw(one["pinball_mw"], ".3f"),
            _mw(one["persistence_pinball_mw"], ".3f"),
            _mw(one["persistence_and_rise_pinball_mw"], ".3f"),
        )
    note = "pinball loss in MW; persistence knows the true power up to the window's end, and its earlier rises"
    return Group(table, Text(f"\n{note}", QUIET))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _coverage(share: float | None, test: Mapping[str, Any] | None) -> Text:
    """A share of windows; red where it is below 95 % by more than chance, marked where it is above it so."""
    if share is None or test is None:
        return Text(NONE, QUIET)
    return Text(_percent(share), BAD if too_low_p(test) < LEVEL else DOUBT if off_p(test) < LEVEL else "")


def _mw(value: float | None, style: str = ".2f") -> str:
    return NONE if value is None else format(value, style)


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def _alike(fleet: Mapping[str, Any]) -> str:
    return ", one GPU's series for all of a job: no trace's GPUs move in step" if fleet["job_on_one_row"] else ""


def _first_reason(skipped: list[dict[str, str]]) -> str:
    return f"; the first: {skipped[0]['reason']}" if skipped else ""
