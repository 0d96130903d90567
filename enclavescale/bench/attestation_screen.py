"""The screen of `enclavescale bench attestation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from enclavescale.screen_parts import BAD, GOOD, NONE, QUIET, Row, block, titled

NAMES = {"cpu": "CPU evidence", "eight_gpus": "CPU and eight GPUs"}
PARTS = ("generation", "evidence", "repeated_evidence", "signing", "verification")


def attestation_screen(result: Mapping[str, Any]) -> RenderableType:
    """The curve as a table for each kind of evidence, the costs behind it, hardware apart, ceilings."""
    parts: list[RenderableType] = [
        titled(f"{NAMES[kind]}: own cost, µs of CPU time per sample", _curve(kind, result["curve"]))
        for kind in result["kinds"]
    ]
    if result["goals"]:
        parts.append(block("At 60-s windows and hourly sessions", _goals(result)))
    for kind, one in result["kinds"].items():
        parts.append(block(f"{NAMES[kind]}, µs", _costs(one)))
    parts.append(block("Not ours", _hardware(result)))
    return Group(*parts)


def _curve(kind: str, curve: Sequence[Mapping[str, Any]]) -> Table:
    mine = [one for one in curve if one["kind"] == kind]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    for name in ("session", "window", "session's", "report's", "total", "first session", "hardware"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in mine:
        us, hardware = one["us"], one["hardware_us"]
        table.add_row(
            span(one["session_s"]),
            span(one["window_s"]),
            f"{us['generation'] + us['evidence'] + us['repeated_evidence']:.4f}",
            f"{us['signing'] + us['verification']:.4f}",
            Text(f"{us['total']:.4f}", "bold"),
            f"{us['total_first']:.4f}",
            NONE if hardware is None else f"{hardware:.4f}",
        )
    return table


def span(seconds: int) -> str:
    """A length of time in its largest whole unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _goals(result: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for kind, one in result["goals"].items():
        figure = Text(f"{one['us_per_sample']:.4f}", GOOD if one["met"] else BAD)
        rows.append((NAMES[kind], Text.assemble(figure, (f"   ≤ {one['goal']:g}", QUIET))))
    rows.append(("research", f"{result['research_us_per_sample']:g}"))
    return rows


def _costs(one: Mapping[str, Any]) -> list[Row]:
    us = one["us"]
    return [
        ("session made", f"{us['generate']:,.0f}, and {one['evidence_bytes']:,} bytes of evidence"),
        (
            "verified",
            f"{us['verify_first']:,.0f} the first time, {us['verify_renewed']:,.0f} once the machine is known",
        ),
        ("repeated", f"{us['repeat']:,.1f}"),
        ("report", f"signed {us['sign']:,.1f}, verified {us['verify']:,.1f}"),
    ]


def _hardware(result: Mapping[str, Any]) -> list[Row]:
    machine, limits = result["hardware"], result["ceilings_us"]
    quote = "not known here: give --quote-ms" if machine["quote_ms"] is None else f"{machine['quote_ms']:g} ms"
    if machine["quote_ms"] is not None:
        quote += f" ({machine['quote']})"
    gpu = machine["gpu_report_ms"]
    return [
        ("quote", quote),
        ("GPU report", "not known here: give --gpu-report-ms" if gpu is None else f"{gpu:g} ms (entered)"),
        ("P-256", f"signs in {limits['p256_sign']:g} µs, verifies in {limits['p256_verify']:g} µs"),
        ("P-384", f"verifies in {limits['p384_verify']:g} µs"),
    ]
