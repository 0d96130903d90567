"""The comparison of traces against SciPy and theory; and it tells a model of independent samples from a chain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal, stats

from power_model.spectrum import (
    BANDS_HZ,
    autocorrelation,
    compare,
    fill_gaps,
    ks_distance,
    ramps_w_per_s,
    spectral_difference_db,
    spectrum,
)
from power_model.synthesis import synthesise
from producers.sample.trace import load_bundled
from schemas.errors import ConfigError
from tests.power_model.test_synthesis import release, toy_trace

REAL = toy_trace(6_000, 11)


def test_the_spectrum_is_welchs() -> None:
    noise = np.random.default_rng(1).normal(100, 10, (2, 4_096))
    found = spectrum(noise, 10)
    hz, density = signal.welch(noise, 10, window="hann", nperseg=256, noverlap=128, detrend="constant")
    lowest, width = found.frequency_hz[0], found.frequency_hz[1] / found.frequency_hz[0]
    inside = (hz >= lowest / np.sqrt(width)) & (hz < lowest * np.sqrt(width))
    assert found.density_w2_hz[0] == pytest.approx(density[:, inside].mean())
    # White noise of 10 W: 100 W^2 spread over 5 Hz.
    assert found.density_w2_hz.mean() == pytest.approx(20.0, rel=0.1)
    assert found.frequency_hz.min() >= 0.1
    assert found.frequency_hz.max() <= 5.0


def test_a_tone_stands_at_its_frequency() -> None:
    ticks = np.arange(4_000)
    found = spectrum(200 + 50 * np.sin(2 * np.pi * 1.3 * ticks / 10)[None], 10)
    assert found.frequency_hz[np.argmax(found.density_w2_hz)] == pytest.approx(1.3, rel=0.13)


def test_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 1, 500), rng.normal(0.3, 1.2, 700)
    assert ks_distance(first, second) == pytest.approx(stats.ks_2samp(first, second).statistic)
    with pytest.raises(ValueError, match="no values"):
        ks_distance(first, np.array([]))


def test_autocorrelation_of_a_first_order_process() -> None:
    rng = np.random.default_rng(3)
    process = signal.lfilter([1], [1, -0.9], rng.normal(0, 1, 60_000))
    assert autocorrelation(process[None], 20) == pytest.approx(0.9 ** np.arange(20), abs=0.06)
    assert autocorrelation(np.full((1, 100), 5.0), 3).tolist() == [0.0, 0.0, 0.0]


def test_ramps_and_gaps() -> None:
    rows = np.array([[0.0, 1.0, np.nan, 3.0, 7.0]])
    assert ramps_w_per_s(rows, 1, 10).tolist() == [10.0, 40.0]
    assert ramps_w_per_s(rows, 2, 10).tolist() == [10.0]
    assert fill_gaps(rows).tolist() == [[0.0, 1.0, 2.0, 3.0, 7.0]]
    with pytest.raises(ConfigError, match="no reading"):
        fill_gaps(np.full((1, 3), np.nan))


def test_a_trace_agrees_with_itself_and_the_lengths_may_differ() -> None:
    same = compare(REAL, REAL, 10)
    assert all(one.rms_db == 0 for one in same.bands.values())
    assert same.acf_rmse == 0
    assert all(one.ks == 0 for one in same.ramps.values())
    shorter = compare(REAL, REAL[:, :200], 10)
    assert shorter.bands["2-5"].rms_db < 6
    with pytest.raises(ConfigError, match="too short"):
        compare(REAL, REAL[:, :100], 10)


def test_a_floor_keeps_a_constant_comparable() -> None:
    constant, moving = spectrum(np.full((1, 600), 80.0), 10), spectrum(REAL, 10)
    difference = spectral_difference_db(moving, constant, 10)
    assert np.isfinite(difference).all()
    assert difference.max() < -20


@pytest.mark.parametrize("real", [REAL, load_bundled("v100_square").power_w[:, :2_000]], ids=["chain", "v100_square"])
def test_independent_samples_fail_where_the_model_passes(real: np.ndarray) -> None:
    """The spectrum tells: readings drawn anew at every tick, with the right distribution, are white."""
    scaled = real * (380 / float(real.max()))  # into the toy grid
    drawn = synthesise(release(scaled), seed=1).power_w
    broken = np.random.default_rng(1).permuted(scaled, axis=1)
    good, bad = compare(scaled, drawn, 10), compare(scaled, broken, 10)
    for name in BANDS_HZ:
        assert good.bands[name].rms_db < 4.0, name
    assert max(one.rms_db for one in bad.bands.values()) > 6.0
    assert good.acf_rmse < 0.1
    ramps = good.ramps["tick"]
    real_p99, good_p99, bad_p99 = ramps.real_w_per_s[-1], ramps.model_w_per_s[-1], bad.ramps["tick"].model_w_per_s[-1]
    assert abs(good_p99 - real_p99) < abs(bad_p99 - real_p99)
    assert good.mean_w[1] == pytest.approx(good.mean_w[0], abs=0.5)
    document = good.as_json()
    assert document["spectral_distance_db"].keys() == BANDS_HZ.keys()
    assert document["ramps"]["1s"]["real_w_per_s"] == sorted(document["ramps"]["1s"]["real_w_per_s"])
