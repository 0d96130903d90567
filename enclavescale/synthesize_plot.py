"""The plot of `enclavescale synthesize`: an excerpt, spectra, ramps and autocorrelation, real beside synthetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from enclavescale.synthesize import PLOT_SUFFIXES, Run, check_target, total_w
from power_model.spectrum import BANDS_HZ, LAG_S, autocorrelation, fill_gaps, ramps_w_per_s, spectrum
from schemas.errors import ConfigError

REAL, MODEL, GRID, TEXT, SOFT = "#3b4252", "#d9622b", "#e6e8ec", "#2e3440", "#8a919e"
EXCERPT_S = 60.0
Floats = npt.NDArray[np.float64]


def plot(path: Path, run: Run) -> None:
    """Draw a run into a .png, .svg or .pdf file. Raises ConfigError for another suffix or if it cannot be written."""
    check_target(path, PLOT_SUFFIXES, "plot")
    figure = Figure(figsize=(11.0, 7.4), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, gridspec_kw={"hspace": 0.40, "wspace": 0.22})
    figure.subplots_adjust(left=0.07, right=0.975, top=0.855, bottom=0.075)
    made = run.synthetic.power_w
    series = [(made, MODEL, "synthetic", 3)]
    if run.real_w is not None:
        series.insert(0, (run.real_w.astype(np.float64), REAL, "real", 2))
    comparison = run.comparison()
    found = comparison["gpu"] if comparison else None
    _excerpt(axes[0, 0], series, run.sample_hz)
    _spectra(axes[0, 1], series, run.sample_hz, found)
    _ramps(axes[1, 0], series, run.sample_hz, found)
    _correlation(axes[1, 1], series, run.sample_hz, found)
    _heading(figure, run)
    try:
        # No date inside: the same run gives the same file.
        figure.savefig(path, dpi=144, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be written: {error.strerror or error}", field="plot") from error


def _heading(figure: Figure, run: Run) -> None:
    drawn = run.synthetic
    gpus, ticks = drawn.power_w.shape
    figure.text(0.07, 0.955, run.name, fontsize=14, fontweight="bold", color=TEXT, va="center")
    facts = [
        run.released.gpu_model if run.released.gpu_model not in {"GPU", "unknown"} else "",
        f"{gpus} GPU{'s' if gpus > 1 else ''}, {ticks / run.sample_hz:g} s",
        f"{drawn.in_step} of {gpus} in step" if gpus > 1 else "",
        f"from {run.released.origin}",
    ]
    figure.text(0.07, 0.918, "  ·  ".join(filter(None, facts)), fontsize=9.5, color=SOFT, va="center")
    at = 0.975
    for label, colour in (("synthetic", MODEL), ("real", REAL)):
        if label == "synthetic" or run.real_w is not None:
            figure.text(at, 0.955, f"— {label}", fontsize=11, color=colour, ha="right", va="center", fontweight="bold")
            at -= 0.105


def _dress(axis: Axes, title: str, note: str = "") -> None:
    axis.set_title(title, loc="left", fontsize=10.5, color=TEXT, fontweight="bold", pad=8)
    if note:
        axis.text(1.0, 1.025, note, transform=axis.transAxes, ha="right", va="bottom", fontsize=8.5, color=SOFT)
    axis.grid(True, color=GRID, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(colors=SOFT, labelsize=8.5, length=0)
    for name, spine in axis.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(GRID)


def _excerpt(axis: Axes, series: list[tuple[Floats, str, str, int]], hz: int) -> None:
    """The minute in which the first series moves most."""
    length = min([round(EXCERPT_S * hz), *(power_w.shape[1] for power_w, *_ in series)])
    first = fill_gaps(total_w(fill_gaps(series[0][0])))[0]
    last = min(power_w.shape[1] for power_w, *_ in series) - length
    starts = range(0, last + 1, max(1, length // 4))
    start = max(starts, key=lambda at: float(first[at : at + length].std()))
    seconds = np.arange(start, start + length) / hz
    for power_w, colour, _, order in series:
        shown = total_w(fill_gaps(power_w))[0, start : start + length]
        axis.plot(seconds, shown, color=colour, zorder=order, alpha=0.9, drawstyle="steps-post", linewidth=1.1)
    axis.set_xlim(seconds[0], seconds[-1])
    low, high = axis.get_ylim()
    axis.set_ylim(max(0.0, low), high)
    axis.set_xlabel("s", color=SOFT, fontsize=9)
    _dress(axis, "Power, W per GPU", "mean of all GPUs")


def _spectra(axis: Axes, series: list[tuple[Floats, str, str, int]], hz: int, found: dict[str, Any] | None) -> None:
    for power_w, colour, _, order in series:
        one = spectrum(power_w, hz)
        axis.loglog(
            one.frequency_hz, one.density_w2_hz, color=colour, zorder=order, marker="o", markersize=2.6, linewidth=1.3
        )
    axis.set_xlim(0.1, 5.0)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * 4)
    for name, (start, end) in BANDS_HZ.items():
        axis.axvline(end, color=GRID, linewidth=1.4, zorder=1)
        if found:
            text = f"{found['spectral_distance_db'][name]:.1f} dB"
            axis.text(np.sqrt(start * end), high * 3.2, text, ha="center", va="top", fontsize=9, color=TEXT)
    ticks = [0.1, 0.2, 0.5, 1, 2, 5]
    axis.set_xticks(ticks, [f"{one:g}" for one in ticks])
    axis.minorticks_off()
    axis.set_xlabel("Hz", color=SOFT, fontsize=9)
    _dress(axis, "Spectrum, W²/Hz", "distance per band, one GPU" if found else "one GPU")


def _ramps(axis: Axes, series: list[tuple[Floats, str, str, int]], hz: int, found: dict[str, Any] | None) -> None:
    for ticks, style in ((1, "-"), (hz, (0, (4, 1.6)))):
        for power_w, colour, _, order in series:
            steps = np.sort(np.abs(ramps_w_per_s(power_w, ticks, hz)))
            share = 1 - np.arange(steps.size) / steps.size
            axis.plot(np.maximum(steps, 0.5), share, color=colour, zorder=order, linestyle=style, linewidth=1.3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(1e-3, 1.3)
    axis.set_xlim(left=0.5)
    axis.minorticks_off()
    axis.set_xlabel("W/s, solid: over one tick, dashed: over 1 s", color=SOFT, fontsize=9)
    note = f"KS {found['ramps']['tick']['ks']:.2f} and {found['ramps']['1s']['ks']:.2f}" if found else "one GPU"
    _dress(axis, "Share of ramps beyond", note)


def _correlation(axis: Axes, series: list[tuple[Floats, str, str, int]], hz: int, found: dict[str, Any] | None) -> None:
    lags = min([round(LAG_S * hz), *(power_w.shape[1] // 2 for power_w, *_ in series)])
    for power_w, colour, _, order in series:
        axis.plot(np.arange(lags) / hz, autocorrelation(power_w, lags), color=colour, zorder=order, linewidth=1.3)
    axis.axhline(0, color=SOFT, linewidth=0.8, zorder=1)
    axis.set_xlim(0, lags / hz)
    axis.set_xlabel("lag, s", color=SOFT, fontsize=9)
    _dress(axis, "Autocorrelation", f"RMS difference {found['acf_rmse']:.3f}" if found else "one GPU")
