"""From sums to figures: mean, quantiles, ramps and margin of one domain and window, each with its interval.

This is the first estimator: the slow component from pane sums with the known noise variance subtracted, the fast one
from the chains with GPUs taken as independent, a normal law for their sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from power_model.quantiles import normal_quantile, variance_interval
from schemas.records import Interval, Margin, Quantile, Ramp
from stream_jobs.core.aggregate import ClassFigures
from stream_jobs.core.windows import Entry, Window

CONFIDENCE = 0.95
"""Confidence of the intervals of mean and quantiles; the margin's comes from the policy."""

QUANTILES_PPM = (500_000, 900_000, 950_000, 990_000, 999_000)

RAMP_QUANTILE = 0.99
"""Ramps are given as the change between panes that one in a hundred exceeds."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean (W) with its variance, and the variance of power around it with bounds (W^2)."""

    mean_w: float
    mean_variance_w2: float
    variance_w2: float
    variance_low_w2: float
    variance_high_w2: float


def _variance(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def coverage_variance_w2(window: Window, missing_capacity_w: int, missing_hosts: int) -> float:
    """Variance (W^2) of what the hosts that did not report may draw, given those that did.

    Between-host variance of power per capacity, less the known noise; hosts are taken as exchangeable. With fewer
    than two hosts the whole range of utilisation stands for it (uniform on 0..1: 1/12).
    """
    if missing_capacity_w <= 0:
        return 0.0
    entries = [entry for entry in window.entries.values() if entry.capacity_w]
    if len(entries) < 2:
        between = 1 / 12
    else:
        share = [entry.mean_w / entry.capacity_w for entry in entries]
        noise = math.fsum(entry.mean_variance_w2 / entry.capacity_w**2 for entry in entries) / len(entries)
        between = max(0.0, _variance(share) - noise)
    return missing_capacity_w**2 * between * (1 / max(1, missing_hosts) + 1 / max(1, len(entries)))


def spread_of(figures: Sequence[ClassFigures], coverage_w2: float, confidence: float) -> Spread:
    """Join the classes: panes add up across classes, fast variances add up, known noise is subtracted."""
    panes = [math.fsum(column) for column in zip(*(one.panes_w for one in figures), strict=True)]
    noise = math.fsum(one.pane_variance_w2 for one in figures)
    fast = math.fsum(one.fast_w2 for one in figures)
    seen = _variance(panes)
    low, high = variance_interval(seen, max(1, len(panes) - 1), confidence) if seen > 0 else (0.0, noise)
    return Spread(
        mean_w=math.fsum(one.mean_w for one in figures),
        mean_variance_w2=math.fsum(one.mean_variance_w2 for one in figures) + coverage_w2,
        variance_w2=max(0.0, seen - noise) + fast,
        variance_low_w2=max(0.0, low - noise) + fast,
        variance_high_w2=max(0.0, high - noise) + fast,
    )


def interval(value: float, low: float, high: float) -> Interval:
    """Quantise to 1 W; an infinite end means that the data do not bound it and is given as ten times the value."""
    low = low if math.isfinite(low) else value - 10 * abs(value)
    high = high if math.isfinite(high) else value + 10 * abs(value)
    return Interval(value_w=round(value), low_w=math.floor(low), high_w=math.ceil(high))


def mean_interval(spread: Spread, confidence: float = CONFIDENCE) -> Interval:
    """Mean with its two-sided interval."""
    half = normal_quantile(0.5 + confidence / 2) * math.sqrt(spread.mean_variance_w2)
    return interval(spread.mean_w, spread.mean_w - half, spread.mean_w + half)


def quantile_interval(spread: Spread, probability: float, confidence: float) -> Interval:
    """Quantile of a normal law with the interval's ends of mean and variance taken together (conservative)."""
    z = normal_quantile(probability)
    half = normal_quantile(0.5 + confidence / 2) * math.sqrt(spread.mean_variance_w2)
    # Few panes do not bound the variance; at the median (z = 0) nothing of it counts, not even an infinite one.
    ends = sorted(z * math.sqrt(end) if z else 0.0 for end in (spread.variance_low_w2, spread.variance_high_w2))
    return interval(
        spread.mean_w + z * math.sqrt(spread.variance_w2),
        spread.mean_w - half + ends[0],
        spread.mean_w + half + ends[1],
    )


def quantiles(spread: Spread) -> tuple[Quantile, ...]:
    """p50 to p99.9."""
    return tuple(
        Quantile(quantile_ppm=ppm, estimate=quantile_interval(spread, ppm / 1e6, CONFIDENCE)) for ppm in QUANTILES_PPM
    )


def ramps(figures: Sequence[ClassFigures], pane_ms: int) -> tuple[Ramp, ...]:
    """Change of power from pane to pane that one in a hundred exceeds, both ways, W/s; noise subtracted."""
    panes = [math.fsum(column) for column in zip(*(one.panes_w for one in figures), strict=True)]
    if len(panes) < 3:
        reason = "needs at least three panes"
        return tuple(Ramp(direction=way, rate_w_per_s_absent_reason=reason) for way in ("up", "down"))
    steps = [later - earlier for earlier, later in itertools.pairwise(panes)]
    noise = 2 * math.fsum(one.pane_variance_w2 for one in figures)
    spread = math.sqrt(max(0.0, math.fsum(step * step for step in steps) / len(steps) - noise))
    rate = round(normal_quantile(RAMP_QUANTILE) * spread * 1000 / pane_ms)
    return (Ramp(direction="up", rate_w_per_s=rate), Ramp(direction="down", rate_w_per_s=rate))


def margin_of(window: Window, spread: Spread | None, reason: str | None) -> Margin:
    """Limit minus quantile with the policy's confidence, which `spread` must have been made with, too.

    Without figures a reason instead of a number.
    """
    rule = window.rule
    estimate = None
    if spread is not None and reason is None:
        power = quantile_interval(spread, rule.quantile_ppm / 1e6, rule.confidence_ppm / 1e6)
        estimate = Interval(
            value_w=rule.limit_w - power.value_w,
            low_w=rule.limit_w - power.high_w,
            high_w=rule.limit_w - power.low_w,
        )
    return Margin(
        limit_w=rule.limit_w,
        quantile_ppm=rule.quantile_ppm,
        confidence_ppm=rule.confidence_ppm,
        horizon_ms=rule.horizon_ms,
        margin=estimate,
        margin_absent_reason=reason,
    )


def entries_mean_w(entries: Sequence[Entry]) -> int:
    """Mean power of some hosts, W, as reported (not scaled by coverage)."""
    return round(math.fsum(entry.mean_w for entry in entries))
