"""The screen of `enclavescale synthesize`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from enclavescale.screen_parts import QUIET, Row, block, titled
from power_model.spectrum import BANDS_HZ

NOTE = (
    "One GPU's series. dB: distance of the spectra per band; KS: of the distributions of ramps, over one tick and over "
    "1 s; ACF: of the autocorrelations up to 30 s; halves: the real trace's first half against its second."
)
HEADERS = (*(f"dB\n{band}" for band in BANDS_HZ), "KS\ntick", "KS\n1 s", "\nACF", "mean\nW", "σ\nW")
NAME_COLUMNS = 26


def synthesis_screen(result: Mapping[str, Any], files: list[str]) -> RenderableType:
    """What was drawn, how far it is from the real trace, and where it was written."""
    runs = result["runs"]
    parts: list[RenderableType] = [block(run["name"], _facts(run)) for run in runs[:1] if len(runs) == 1]
    if result["median"]:
        parts.append(titled("Synthetic against real", Group(_table(result), Text(NOTE, QUIET))))
    if result["skipped"]:
        parts.append(block("", [("skipped", f"{one['file']}: {one['reason']}") for one in result["skipped"]]))
    if files:
        parts.append(block("", [("written", name) for name in files]))
    return Group(*parts)


def _facts(run: Mapping[str, Any]) -> list[Row]:
    beyond = f", {run['bootstrapped_s']:g} s of them bootstrapped" if run["bootstrapped_s"] else ""
    return [
        ("released", f"{run['origin']}, {run['released_s']:g} s"),
        ("noise", f"{run['pane_noise_w']:.2f} W per GPU in a pane's mean"),
        ("drawn", f"{run['gpus']} GPUs × {run['seconds']:g} s at {run['sample_hz']} Hz{beyond}, seed {run['seed']}"),
        ("in step", f"{run['gpus_in_step']} of {run['gpus']} GPUs (synchrony {run['synchrony']:.2f})"),
        ("power", f"mean {run['mean_w']:.1f} W, p99 {run['p99_w']:.1f} W per GPU"),
    ]


def _table(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style=QUIET, pad_edge=False)
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=NAME_COLUMNS)
    for name in HEADERS:
        table.add_column(name, justify="right", no_wrap=True)
    for run in result["runs"]:
        if run["comparison"]:
            table.add_row(run["name"], *_cells(run["comparison"]["gpu"]))
            if len(result["runs"]) == 1:
                if run["gpus"] > 1:
                    table.add_row("sum of its GPUs", *_cells(run["comparison"]["total"]))
                if run["comparison"]["halves"]:
                    table.add_row(Text("halves", QUIET), *_cells(run["comparison"]["halves"]), style=QUIET)
    if result["median"]["traces"] > 1:
        middle = result["median"]
        table.add_row(
            f"median of {middle['traces']}",
            *(f"{middle['spectral_distance_db'][band]:.1f}" for band in BANDS_HZ),
            *(f"{middle['ks'][step]:.2f}" for step in ("tick", "1s")),
            f"{middle['acf_rmse']:.3f}",
            f"{middle['mean_error_w']:.2f}",
            f"{middle['std_error_w']:.1f}",
            style="bold",
        )
    return table


def _cells(one: Mapping[str, Any]) -> list[str]:
    return [
        *(f"{one['spectral_distance_db'][band]:.1f}" for band in BANDS_HZ),
        *(f"{one['ramps'][step]['ks']:.2f}" for step in ("tick", "1s")),
        f"{one['acf_rmse']:.3f}",
        f"{one['mean_error_w']:+.2f}",
        f"{one['std_error_w']:+.1f}",
    ]
