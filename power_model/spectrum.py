"""How alike two power traces are: spectrum, ramps, autocorrelation, mean and spread.

Nothing here reaches a signed output: numpy's FFT and reductions are used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

Floats = npt.NDArray[np.float64]
Powers = npt.NDArray[np.floating[Any]]

BANDS_HZ: Mapping[str, tuple[float, float]] = {"0.1-0.5": (0.1, 0.5), "0.5-2": (0.5, 2.0), "2-5": (2.0, 5.0)}
"""Bands of the comparison: above a window's resolution, below a reading's. Panes of 1 s speak up to 0.5 Hz."""
SEGMENT_S = 25.6
"""Longest segment of a spectrum: four bins of a Hann window's main lobe lie below 0.16 Hz."""
MIN_SEGMENTS_S = 12.8
"""Shortest trace that is compared."""
POINTS = 18
"""Logarithmic bins between the lowest and the highest band edge: about three per octave."""
READING_STEP_W = 0.1
"""Resolution of a reading, W: its rounding noise is the floor of every spectrum."""
LAG_S = 30.0
RAMP_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Power spectral density, W^2/Hz, at logarithmically spaced frequencies, Hz."""

    frequency_hz: Floats
    density_w2_hz: Floats


@dataclass(frozen=True, slots=True)
class BandDistance:
    """Two spectra in one band, dB: root mean square of the differences, and their mean (model over real)."""

    rms_db: float
    bias_db: float


@dataclass(frozen=True, slots=True)
class RampDistance:
    """Two distributions of ramps, W/s: quantiles p1 to p99 and the two-sample Kolmogorov-Smirnov distance."""

    real_w_per_s: tuple[float, ...]
    model_w_per_s: tuple[float, ...]
    ks: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A synthetic trace beside a real one, W per GPU.

    `bands` by name of `BANDS_HZ`; `ramps` by interval ("tick", "1s"); `acf_rmse` over lags up to 30 s.
    """

    bands: Mapping[str, BandDistance]
    ramps: Mapping[str, RampDistance]
    acf_rmse: float
    mean_w: tuple[float, float]
    std_w: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready document; pairs are (real, model)."""
        return {
            "spectral_distance_db": {name: round(one.rms_db, 2) for name, one in self.bands.items()},
            "spectral_bias_db": {name: round(one.bias_db, 2) for name, one in self.bands.items()},
            "ramps": {
                name: {
                    "quantiles": list(RAMP_QUANTILES),
                    "real_w_per_s": [round(x, 1) for x in one.real_w_per_s],
                    "model_w_per_s": [round(x, 1) for x in one.model_w_per_s],
                    "ks": round(one.ks, 4),
                }
                for name, one in self.ramps.items()
            },
            "acf_rmse": round(self.acf_rmse, 4),
            "mean_w": {"real": round(self.mean_w[0], 2), "model": round(self.mean_w[1], 2)},
            "mean_error_w": round(self.mean_w[1] - self.mean_w[0], 3),
            "std_w": {"real": round(self.std_w[0], 2), "model": round(self.std_w[1], 2)},
            "std_error_w": round(self.std_w[1] - self.std_w[0], 3),
        }


def fill_gaps(power_w: Powers) -> Floats:
    """Replace missing readings (NaN) by straight lines between their neighbours, float64[gpus, ticks], W.

    For spectra and autocorrelation only. Raises `ConfigError` for a GPU without any reading.
    """
    filled = np.array(power_w, dtype=np.float64, ndmin=2)
    ticks = np.arange(filled.shape[1])
    for row in filled:
        missing = np.isnan(row)
        if missing.all():
            raise ConfigError("a GPU of the trace has no reading", field="trace")
        row[missing] = np.interp(ticks[missing], ticks[~missing], row[~missing])
    return filled


def spectrum(power_w: Powers, sample_hz: int) -> Spectrum:
    """Welch's estimate, averaged over the GPUs of float[gpus, ticks], W, and over logarithmic bins.

    Hann windows of 25.6 s (shorter for a short trace), half overlapping, each without its mean. Raises `ConfigError`
    for less than 12.8 s. Source: Welch (1967).
    """
    rows = fill_gaps(power_w)
    ticks = rows.shape[1]
    if ticks < MIN_SEGMENTS_S * sample_hz:
        raise ConfigError(f"{ticks / sample_hz:g} s are too short for a spectrum", field="trace")
    length = min(int(SEGMENT_S * sample_hz), ticks)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    starts = range(0, ticks - length + 1, length // 2)
    segments = np.concatenate([rows[:, start : start + length] for start in starts])
    lines = np.fft.rfft((segments - segments.mean(axis=1, keepdims=True)) * window, axis=1)
    density = 2 * np.mean(np.abs(lines) ** 2, axis=0) / (sample_hz * np.sum(window**2))
    return _logarithmic(np.fft.rfftfreq(length, 1 / sample_hz), density)


def _logarithmic(frequency_hz: Powers, density: Powers) -> Spectrum:
    bounds = [edge for band in BANDS_HZ.values() for edge in band]
    edges = np.geomspace(min(bounds), max(bounds) * 1.0001, POINTS + 1)
    found = []
    for low, high in itertools.pairwise(edges):
        inside = (frequency_hz >= low) & (frequency_hz < high)
        if inside.any():
            found.append((math.sqrt(low * high), float(density[inside].mean())))
    return Spectrum(np.array([one[0] for one in found]), np.array([one[1] for one in found]))


def spectral_difference_db(real: Spectrum, model: Spectrum, sample_hz: int) -> Floats:
    """Model over real at each frequency of two spectra with the same bins, dB; a reading's rounding is the floor."""
    floor = READING_STEP_W**2 / 12 * 2 / sample_hz
    return np.asarray(10 * np.log10((model.density_w2_hz + floor) / (real.density_w2_hz + floor)), dtype=np.float64)


def autocorrelation(power_w: Powers, lags: int) -> Floats:
    """Autocorrelation at lags 0 to `lags` - 1 ticks, pooled over GPUs, each around its mean; zeros if none moves.

    float[gpus, ticks] in W; a lag's sum is divided by all ticks (biased: the tail shrinks rather than jumps).
    """
    rows = fill_gaps(power_w)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lines = np.fft.rfft(rows, 2 * rows.shape[1], axis=1)
    pooled = np.fft.irfft(np.abs(lines) ** 2, axis=1)[:, :lags].sum(axis=0)
    # Rounding leaves a constant with some 1e-20 of its square.
    return pooled / pooled[0] if pooled[0] > 1e-12 * rows.size else np.zeros(lags)


def ramps_w_per_s(power_w: Powers, ticks: int, sample_hz: int) -> Floats:
    """Changes over `ticks` ticks of float[gpus, all ticks], W/s; a change to or from a missing reading is none."""
    rows = np.array(power_w, dtype=np.float64, ndmin=2)
    steps = ((rows[:, ticks:] - rows[:, :-ticks]) * sample_hz / ticks).ravel()
    return steps[~np.isnan(steps)]


def ks_distance(first: Floats, second: Floats) -> float:
    """Largest difference of two empirical distribution functions, 0 to 1. Raises `ValueError` for no values."""
    if not first.size or not second.size:
        raise ValueError("no values to compare")
    at = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(one), at, side="right") / one.size for one in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def compare(real_w: Powers, model_w: Powers, sample_hz: int) -> Comparison:
    """Compare a synthetic trace with a real one, float[gpus, ticks] in W per GPU, each GPU by itself.

    Numbers of GPUs and ticks may differ. Raises `ConfigError` for traces shorter than 12.8 s.
    """
    real, model = spectrum(real_w, sample_hz), spectrum(model_w, sample_hz)
    if real.frequency_hz.size != model.frequency_hz.size:  # a short one has wider bins: compare at its length
        shorter = min(np.atleast_2d(real_w).shape[1], np.atleast_2d(model_w).shape[1])
        real = spectrum(np.atleast_2d(real_w)[:, :shorter], sample_hz)
        model = spectrum(np.atleast_2d(model_w)[:, :shorter], sample_hz)
    difference = spectral_difference_db(real, model, sample_hz)
    bands = {}
    for name, (low, high) in BANDS_HZ.items():
        inside = difference[(real.frequency_hz >= low) & (real.frequency_hz < high)]
        bands[name] = BandDistance(float(np.sqrt(np.mean(inside**2))), float(np.mean(inside)))
    lags = min(round(LAG_S * sample_hz), np.atleast_2d(real_w).shape[1] // 2, np.atleast_2d(model_w).shape[1] // 2)
    gap = autocorrelation(real_w, lags) - autocorrelation(model_w, lags)
    filled = fill_gaps(real_w), fill_gaps(model_w)
    return Comparison(
        bands=bands,
        ramps={name: _ramps(real_w, model_w, n, sample_hz) for name, n in (("tick", 1), ("1s", sample_hz))},
        acf_rmse=float(np.sqrt(np.mean(gap**2))),
        mean_w=(float(filled[0].mean()), float(filled[1].mean())),
        std_w=(float(filled[0].std()), float(filled[1].std())),
    )


def _ramps(real_w: Powers, model_w: Powers, ticks: int, sample_hz: int) -> RampDistance:
    real, model = ramps_w_per_s(real_w, ticks, sample_hz), ramps_w_per_s(model_w, ticks, sample_hz)
    return RampDistance(
        tuple(map(float, np.quantile(real, RAMP_QUANTILES))),
        tuple(map(float, np.quantile(model, RAMP_QUANTILES))),
        ks_distance(real, model),
    )
