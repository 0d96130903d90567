"""The screen of `enclavescale bench byzantine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from enclavescale.screen_parts import BAD, GOOD, QUIET, Row, block, titled

GOAL_COST_MW = 0.05
GOALS_MW = {"stealth": 1.5, "frog_boiling": 0.75}
"""What the mean may move by at 15 %, MW: frog-boiling by the drift cap; 1 MW where nothing is said here."""
LAST = "best seen in"
GOAL_MW, GOAL_FRACTION = 1.0, 0.15
NOTES = {
    "max": "all GPUs at the top of their clip range and of what noise excuses",
    "zero": "all GPUs at the bottom of it",
    "sign_flip": "deviations from the fleet's mean change their sign",
    "stealth": "10 % more than is drawn, reached slowly",
    "frog_boiling": "a little more every window; the worst of several steps",
    "fake_swing": "the true mean, as a square wave that all follow in step",
    "capacity_inflation": "full power, and twice the capacity stated",
}


def byzantine_screen(result: Mapping[str, Any]) -> RenderableType:
    """A table per fraction, the honest fleet's cost, what an observer learns of one job, and what was run."""
    fleet = result["fleet"]
    parts: list[RenderableType] = [_fraction(name, one) for name, one in result["fractions"].items() if one["hosts"]]
    if parts:
        parts.append(block("", [(name, Text(text, QUIET)) for name, text in NOTES.items() if name in _names(result)]))
    parts.append(block("What the layers cost the honest fleet, MW", _costs(result["layers"])))
    if result["presence"]:
        parts.append(titled("What readers of the output learn of one job", _presence(result["presence"])))
    if result["honest"]["fleet"]:
        parts.append(block("Honest host-windows, job starts and stops included", _honest(result["honest"]["fleet"])))
    source = "bundled" if fleet["bundled"] else "given"
    parts.append(
        block(
            "Measured",
            [
                ("fleets", f"{fleet['trials']} of {fleet['hosts']} hosts × {fleet['gpus_per_host']} GPUs, 100 MW"),
                (
                    "windows",
                    f"{fleet['windows']} of {fleet['window_s']} s, {fleet['history_windows']} honest ones",
                ),
                ("traces", f"{fleet['traces']} {source}, ε = {result['epsilon']:g}, seed {result['seed']}"),
            ],
        )
    )
    return Group(*parts)


def _names(result: Mapping[str, Any]) -> set[str]:
    return {name for one in result["fractions"].values() for name in one["strategies"]}


def _fraction(name: str, one: Mapping[str, Any]) -> RenderableType:
    table = _table("", "mean", "bound", "margin", "bound", "true mean", "true margin")
    for strategy, figures in one["strategies"].items():
        mean = Text(f"{figures['mean_error_mw']:.2f}")
        margin = Text(f"{figures['margin_error_mw']:.2f}")
        if abs(float(name) - GOAL_FRACTION) < 1e-9:
            mean.stylize(GOOD if figures["mean_error_mw"] <= GOALS_MW.get(strategy, GOAL_MW) else BAD)
        if figures["exceeded"]:
            mean.stylize(BAD)
            margin.stylize(BAD)
        table.add_row(
            strategy,
            mean,
            Text(f"{figures['influence_bound_mw']:.1f}", QUIET),
            margin,
            Text(f"{figures['margin_influence_bound_mw']:.1f}", QUIET),
            f"{figures['true_mean_error_mw']:.2f}",
            f"{figures['true_margin_error_mw']:.2f}",
        )
    share = f"{100 * one['largest_capacity_share']:.0f} % of the capacity at most"
    counts = {strategy: figures["refused"] for strategy, figures in one["strategies"].items() if figures["refused"]}
    refused = [f"{strategy}: {_codes(codes)}" for strategy, codes in counts.items()]
    body = Group(table, Text(f"refused: {'; '.join(refused)}", QUIET)) if refused else table
    return titled(f"{one['hosts']} hosts lie ({100 * float(name):g} %; {share}): MW moved per 100 MW", body)


def _codes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in counts.items())


def _costs(layers: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for name, one in layers.items():
        good = max(one["mean_mw"], one["margin_mw"]) <= GOAL_COST_MW
        figures = Text(f"mean {one['mean_mw']:.3f}, margin {one['margin_mw']:.3f}", GOOD if good else BAD)
        rows.append((name, Text.assemble(figures, (f"   ≤ {GOAL_COST_MW:g}", QUIET))))
    return rows


def _presence(presence: list[Mapping[str, Any]]) -> Table:
    table = _table("hosts of the job", "largest share", "k_min met", "AUC", "advantage", LAST)
    for one in presence:
        table.add_row(
            f"{one['hosts']} of {one['of']}",
            f"{100 * one['share_of_capacity']:.0f} %",
            "yes" if one["dilution"]["met"] else "no",
            f"{one['auc']:.2f}",
            f"{one['advantage']:.2f}",
            one["feature"],
        )
    return table


def _honest(fleet: Mapping[str, Any]) -> list[Row]:
    return [
        ("counted", f"{fleet['host_windows']:,}, {fleet['job_changes']:,} starts and stops of jobs"),
        ("refused", Text(f"{fleet['refused']:,}", GOOD if fleet["refused"] == 0 else BAD)),
        ("flagged", _codes(fleet["layers"]) or "none"),
    ]


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 or name == LAST else "right", no_wrap=index == 0)
    return table
