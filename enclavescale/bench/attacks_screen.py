"""The screen of `enclavescale bench attacks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from enclavescale.screen_parts import BAD, GOOD, NONE, QUIET, Row, block, titled

MAX_CODES = 3
"""Codes of a class that are shown where there is room, otherwise one; --json has them all."""

ROOMY = 130


def attacks_screen(result: Mapping[str, Any], width: int) -> RenderableType:
    """A row per class, what succeeded, how long a revocation takes, and what was run; `width` in columns."""
    codes = MAX_CODES if width >= ROOMY else 1
    parts: list[RenderableType] = [titled("Attacks", _classes(result["classes"], codes))]
    failures = [(name, text) for name, one in result["classes"].items() for text in one["failures"]]
    if failures:
        parts.append(block("Succeeded", [(name, Text(text, BAD)) for name, text in failures]))
    parts.append(block("Measured", _measured(result)))
    return Group(*parts)


def _classes(classes: Mapping[str, Mapping[str, Any]], codes: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    table.add_column("class", no_wrap=True)
    for name in ("trials", "won", "≤ (95 %)", "found in"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("refused as", style=QUIET, no_wrap=codes == 1, overflow="ellipsis" if codes == 1 else "fold")
    for name, one in classes.items():
        hits, bound = one["successes"], one["upper_bound_95"]
        table.add_row(
            name,
            f"{one['trials']:,}",
            Text(f"{hits:,}", BAD if hits else GOOD),
            NONE if bound is None else f"{100 * bound:.2g} %",
            _detection(one["detection"]),
            _codes(one["codes"], codes),
        )
    return table


def _detection(detection: Mapping[str, Any]) -> str:
    if "ms_p50" in detection:
        return f"{detection['ms_p50']:,} ms"
    if "us_p50" in detection:
        return f"{detection['us_p50'] / 1000:.2f} ms"
    return "its window" if "windows" in detection else NONE


def _codes(codes: Mapping[str, int], most: int) -> str:
    if most == 1:
        return next(iter(codes), NONE)
    shown = [f"{code} {count:,}" for code, count in list(codes.items())[:most]]
    return ", ".join(shown) + (f" and {len(codes) - most} more" if len(codes) > most else "")


def _measured(result: Mapping[str, Any]) -> list[Row]:
    refused = result["honest_refused"]
    rows: list[Row] = [
        ("trials", f"{result['trials']:,} in {len(result['classes'])} classes, {result['seconds']:,.0f} s"),
        ("successes", Text(f"{result['successes']:,}", BAD if result["successes"] else GOOD)),
        ("honest refused", Text(f"{refused:,}", BAD if refused else GOOD)),
    ]
    latency = result.get("revocation")
    if latency:
        text = f"{latency['windows']} outputs with the revoked host behind it, in {latency['trials']} trials"
        rows.append(("revocation", Text(text, GOOD if latency["met"] else BAD)))
    live = result.get("live")
    if live:
        changed = len(live["outputs_changed"])
        text = f"{live['outputs']} compared, {changed} changed"
        rows.append(("outputs", Text(text, BAD if changed else GOOD)))
    rows.append(("where", result["where"]))
    rows.append(("seed", str(result["seed"])))
    return rows
