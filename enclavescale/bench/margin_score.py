"""From measured windows to figures: errors in MW, coverage with its uncertainty, forecasts beside naive ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from enclavescale.bench.estimators import P99, Estimate
from enclavescale.bench.margin_trial import CORE_ESTIMATORS, FORECAST_S, PAPER, WindowFigures

NOMINAL = 0.95
"""Confidence of every interval in an output of the benchmark's policy."""
RESAMPLES = 4000
MIN_BLOCKS = 5
"""Fewer blocks than this say nothing about how much coverage varies between them."""
MIN_INDEPENDENT = 30
"""With fewer independent windows than this the test over blocks hardly sees a failure."""

Floats = npt.NDArray[np.float64]


def estimator_figures(windows: Sequence[WindowFigures], seed: int) -> dict[str, dict[str, Any]]:
    """Figures of every estimator over the windows, by name."""
    found = {name: _figures(windows, [one.estimates[name] for one in windows], seed) for name in CORE_ESTIMATORS}
    variants = paper_variants(windows)
    best = min(variants, key=lambda name: math.hypot(variants[name]["mean_rmse_mw"], variants[name]["margin_rmse_mw"]))
    return {PAPER: {**_figures(windows, [one.paper[best] for one in windows], seed), "parameters": best}, **found}


def paper_variants(windows: Sequence[WindowFigures]) -> dict[str, dict[str, float]]:
    """RMSE of the mean and of the margin of every variant of the paper's estimator, MW."""
    result = {}
    for name in windows[0].paper:
        error = _errors(windows, [one.paper[name] for one in windows])
        result[name] = {"mean_rmse_mw": _rms(error[0]) or 0.0, "margin_rmse_mw": _rms(error[1]) or 0.0}
    return result


def _errors(windows: Sequence[WindowFigures], estimates: Sequence[Estimate]) -> tuple[Floats, Floats]:
    """Errors of the mean and of p99 minus mean, MW; NaN where there is no estimate."""
    scale = np.array([one.mw_per_w for one in windows])
    mean = np.array([one.mean_w for one in estimates]) - np.array([one.mean_w for one in windows])
    p99 = np.array([one.p99_w for one in estimates]) - np.array([one.p99_w for one in windows])
    return mean * scale, (p99 - mean) * scale


def _figures(windows: Sequence[WindowFigures], estimates: Sequence[Estimate], seed: int) -> dict[str, Any]:
    mean, margin = _errors(windows, estimates)
    scale = np.array([one.mw_per_w for one in windows])
    covered_mean = _held(estimates, [one.mean_w for one in windows], "mean")
    covered_p99 = _held(estimates, [one.p99_w for one in windows], "p99")
    return {
        "mean_rmse_mw": _rms(mean),
        "margin_rmse_mw": _rms(margin),
        "coverage": _mean(covered_p99),
        "mean_bias_mw": _mean(mean),
        "margin_bias_mw": _mean(margin),
        "margin_error_p95_mw": _quantile(np.abs(margin), 0.95),
        "mean_coverage": _mean(covered_mean),
        "margin_coverage": _mean(covered_p99),
        "mean_width_mw": _mean(np.array([one.mean_high_w - one.mean_low_w for one in estimates]) * scale),
        "margin_width_mw": _mean(np.array([one.p99_high_w - one.p99_low_w for one in estimates]) * scale),
        "missed_low": _mean(np.array([one.p99_high_w < w.p99_w for one, w in zip(estimates, windows, strict=True)])),
        "withheld": int(np.count_nonzero(np.isnan(mean))),
        "set_aside_hosts": sum(one.set_aside for one in estimates),
        "coverage_test": coverage_test(covered_p99, [one.block for one in windows], seed),
        "mean_coverage_test": coverage_test(covered_mean, [one.block for one in windows], seed),
    }


def _held(estimates: Sequence[Estimate], truth: Sequence[float], which: str) -> Floats:
    """1 where the interval holds the truth, 0 where not, NaN where there is none."""
    low = np.array([getattr(one, f"{which}_low_w") for one in estimates])
    high = np.array([getattr(one, f"{which}_high_w") for one in estimates])
    true = np.array(truth)
    return np.where(np.isnan(low), np.nan, ((low <= true) & (true <= high)).astype(np.float64))


def coverage_test(covered: Floats, blocks: Sequence[str], seed: int) -> dict[str, Any] | None:
    """Is a coverage below `NOMINAL` chance? None without intervals.

    `binomial_p`: P(X <= hits) of Binomial(windows, 0.95), windows taken as independent; `two_sided_p` also finds a
    coverage too high, of intervals too wide. Windows of one trace are not independent: a bootstrap over blocks (every
    block drawn whole) gives the interval `low`..`high` (95 %) and the variance of the coverage; `block_binomial_p` and
    `block_two_sided_p` are the same tests with the number of independent windows that would have it. All of these are
    None with fewer than `MIN_BLOCKS` blocks.
    """
    known = ~np.isnan(covered)
    if not known.any():
        return None
    hits, count = int(covered[known].sum()), int(np.count_nonzero(known))
    shares = block_shares(covered, blocks, seed)
    result: dict[str, Any] = {
        "windows": count,
        "blocks": len({name for name, use in zip(blocks, known, strict=True) if use}),
        "binomial_p": binomial_tail(hits, count, NOMINAL),
        "two_sided_p": two_sided(hits, count, NOMINAL),
        "low": None,
        "high": None,
        "independent_windows": None,
        "block_binomial_p": None,
        "block_two_sided_p": None,
    }
    if shares is None:
        return result
    share, variance = hits / count, float(shares.var())
    spread = share * (1 - share)
    independent = max(1, min(count, round(spread / variance))) if variance > 0 and spread > 0 else count
    return {
        **result,
        "low": float(np.quantile(shares, 0.025)),
        "high": float(np.quantile(shares, 0.975)),
        "independent_windows": independent,
        "block_binomial_p": binomial_tail(round(share * independent), independent, NOMINAL),
        "block_two_sided_p": two_sided(round(share * independent), independent, NOMINAL),
    }


def too_low_p(test: Mapping[str, Any]) -> float:
    """The chance that a coverage this low is chance: by blocks where enough of them are independent."""
    return float(test["block_binomial_p"] if _by_blocks(test) else test["binomial_p"])


def off_p(test: Mapping[str, Any]) -> float:
    """The chance that a coverage this far off, either way, is chance."""
    return float(test["block_two_sided_p"] if _by_blocks(test) else test["two_sided_p"])


def _by_blocks(test: Mapping[str, Any]) -> bool:
    return test["independent_windows"] is not None and test["independent_windows"] >= MIN_INDEPENDENT


def block_shares(flags: Floats, blocks: Sequence[str], seed: int) -> Floats | None:
    """Shares of 1 in `RESAMPLES` draws of as many whole blocks as there are; None below `MIN_BLOCKS`. NaN: left out."""
    known = ~np.isnan(flags)
    names = sorted({name for name, use in zip(blocks, known, strict=True) if use})
    if len(names) < MIN_BLOCKS:
        return None
    label = np.array([names.index(name) if use else -1 for name, use in zip(blocks, known, strict=True)])
    size = np.array([np.count_nonzero(label == index) for index in range(len(names))])
    good = np.array([flags[label == index].sum() for index in range(len(names))])
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    shares: Floats = good[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    return shares


def binomial_tail(hits: int, count: int, share: float) -> float:
    """P(X <= hits) of Binomial(count, share), 0 < share < 1."""
    log_share, log_rest = math.log(share), math.log1p(-share)
    whole = math.lgamma(count + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * log_share + (count - k) * log_rest)
            for k in range(hits + 1)
        ),
    )


def two_sided(hits: int, count: int, share: float) -> float:
    """Twice the smaller of P(X <= hits) and P(X >= hits) of Binomial(count, share), at most 1."""
    return min(1.0, 2 * min(binomial_tail(hits, count, share), binomial_tail(count - hits, count, 1 - share)))


def forecast_figures(windows: Sequence[WindowFigures], seed: int) -> dict[str, dict[str, float | None]]:
    """By horizon in seconds: share of windows after which power exceeds the forecast p99, and pinball losses, MW.

    `exceeded_low`..`exceeded_high`: 95 % by a bootstrap over blocks. `persistence`: the last second's mean;
    `persistence_and_rise`: that plus the 99 % quantile of all earlier changes over the horizon. Both know the true
    power up to the window's end. None where the core gives no forecast.
    """
    result = {}
    for horizon in FORECAST_S:
        rows = [one.forecasts[horizon] for one in windows]
        came = np.array([one.came_mw for one in rows])
        given = np.array([one.forecast_mw for one in rows])
        last = np.array([one.last_mw for one in rows])
        risen = np.array([one.last_and_rise_mw for one in rows])
        over = np.where(np.isnan(given), np.nan, (came > given).astype(np.float64))
        shares = block_shares(over, [one.block for one in windows], seed)
        result[str(horizon)] = {
            "windows": int(np.count_nonzero(~np.isnan(given))),
            "exceeded": _mean(over),
            "exceeded_low": None if shares is None else float(np.quantile(shares, 0.025)),
            "exceeded_high": None if shares is None else float(np.quantile(shares, 0.975)),
            "pinball_mw": _pinball(came, given),
            "persistence_pinball_mw": _pinball(came, last),
            "persistence_and_rise_pinball_mw": _pinball(came, risen),
            "persistence_and_rise_exceeded": _mean(came > risen),
        }
    return result


def _pinball(came: Floats, forecast: Floats) -> float | None:
    over = came - forecast
    return _mean(np.where(over >= 0, P99 * over, (P99 - 1) * over))


def _known(values: npt.NDArray[Any]) -> Floats:
    wide = values.astype(np.float64)
    return wide[~np.isnan(wide)]


def _mean(values: npt.NDArray[Any]) -> float | None:
    known = _known(values)
    return float(known.mean()) if known.size else None


def _quantile(values: Floats, share: float) -> float | None:
    known = _known(values)
    return float(np.quantile(known, share)) if known.size else None


def _rms(values: Floats) -> float | None:
    known = _known(values)
    return math.sqrt(float((known * known).mean())) if known.size else None
