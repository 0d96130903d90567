"""The plot of `enclavescale bench attestation`: cost per sample over the length of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from enclavescale.bench.attestation_screen import NAMES


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the curve into a PNG or SVG file. Raises OSError."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for kind in result["kinds"]:
        for window_s in sorted({one["window_s"] for one in result["curve"]}):
            mine = [one for one in result["curve"] if (one["kind"], one["window_s"]) == (kind, window_s)]
            axes.plot(
                [one["session_s"] / 3600 for one in mine],
                [one["us"]["total"] for one in mine],
                marker="o",
                label=f"{NAMES[kind]}, windows of {window_s} s",
            )
    axes.axhline(result["research_us_per_sample"], color="grey", linestyle=":", label="research")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("session, h")
    axes.set_ylabel("µs of CPU time per sample")
    axes.legend()
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(path)
