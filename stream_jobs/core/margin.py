"""From sums to figures: mean, quantiles, margin and synchrony of one domain and window, each with its interval.

`power_model.swing` says how power is distributed over the ticks; here are the intervals. They hold the known noise of
the panes, what hosts that did not report may draw, the claims that are set aside, and the model: that what moves
inside panes is in step as far as the histograms and panes tell. The model's part is measured on real traces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from power_model import exact
from power_model.quantiles import normal_quantile
from power_model.swing import Swing, swing_of
from schemas.records import DomainRule, Interval, Margin, Quantile, Synchrony
from stream_jobs.core.aggregate import ClassFigures
from stream_jobs.core.windows import Window

CONFIDENCE = 0.95
"""Confidence of the intervals of mean and quantiles; the margin's comes from the policy."""

QUANTILES_PPM = (500_000, 900_000, 950_000, 990_000, 999_000)

NOISE_SHARE = 0.8
"""Standard deviation of an upper quantile for the noise of the panes, in standard deviations of one pane's."""
GROUP_SHARE = 0.3
"""Part of that which remains where hosts are in step: there noise misplaces ticks, and adds nothing to them."""
MODEL_SHARE = 0.28
"""Standard deviation of an upper quantile for the model, as a share of what moves inside panes, W to W."""
REACH_SHARE = 0.03
"""The same as a share of the quantile's distance from the mean."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Power of the enrolled domain in one window.

    `mean_w` with `mean_variance_w2` of known noise, `coverage_w2` of what did not report; `silent_w` in it: power of
    the classes of which nobody reports. `quantiles_w`: quantiles of the power at a tick by probability in millionths,
    W. `aside_up_w`, `aside_down_w`: how far the mean would lie higher or lower with the claims that are set aside;
    `peak_up_w`, `peak_down_w`: the most they add to a pane or take of it.
    """

    mean_w: float
    mean_variance_w2: float
    coverage_w2: float
    silent_w: float
    quantiles_w: Mapping[int, float]
    swing: Swing
    aside_up_w: float
    aside_down_w: float
    peak_up_w: float
    peak_down_w: float


def estimate_of(
    figures: Sequence[ClassFigures], coverage_w2: float, ticks_per_pane: int, rule: DomainRule, silent_w: float = 0.0
) -> Estimate:
    """Join the classes of one domain, sorted by class. `silent_w`: power of classes of which nobody reports, W."""
    wanted = sorted({*QUANTILES_PPM, rule.quantile_ppm})
    mean_w = math.fsum([*(one.mean_w for one in figures), silent_w])
    swing = swing_of([one.rows for one in figures], ticks_per_pane)
    found = swing.quantiles_w([ppm / 1e6 for ppm in wanted])
    centre = exact.total(swing.paths_w) / swing.paths_w.size
    aside = [math.fsum(column) for column in zip(*(one.aside_panes_w for one in figures), strict=True)]
    return Estimate(
        mean_w=mean_w,
        mean_variance_w2=math.fsum(one.mean_variance_w2 for one in figures),
        coverage_w2=coverage_w2,
        silent_w=silent_w,
        quantiles_w={ppm: value + (mean_w - centre) for ppm, value in zip(wanted, found, strict=True)},
        swing=swing,
        aside_up_w=math.fsum(one.aside_up_w for one in figures),
        aside_down_w=math.fsum(one.aside_down_w for one in figures),
        peak_up_w=max(0.0, *aside),
        peak_down_w=max(0.0, *(-value for value in aside)),
    )


def interval(value: float, low: float, high: float) -> Interval:
    """Quantise to 1 W; an infinite end means that the data do not bound it and is given as ten times the value.

    GPUs give no power back: an interval reaches below 0 only where its value does.
    """
    low = low if math.isfinite(low) else value - 10 * abs(value)
    high = high if math.isfinite(high) else value + 10 * abs(value)
    low = max(low, min(0.0, value))
    return Interval(value_w=round(value), low_w=math.floor(low), high_w=math.ceil(high))


def mean_interval(estimate: Estimate, confidence: float = CONFIDENCE) -> Interval:
    """Mean with its two-sided interval."""
    half = normal_quantile(0.5 + confidence / 2) * math.sqrt(estimate.mean_variance_w2 + estimate.coverage_w2)
    mean = estimate.mean_w
    return interval(mean, mean - half - estimate.aside_down_w, mean + half + estimate.aside_up_w)


def quantile_interval(estimate: Estimate, ppm: int, confidence: float) -> Interval:
    """Quantile of the power at a tick with its two-sided interval; `ppm`: its probability, one of the estimate's."""
    value, probability = estimate.quantiles_w[ppm], ppm / 1e6
    swing = estimate.swing
    # An upper quantile hangs on few panes, the median on most of them.
    upper = min(1.0, abs(normal_quantile(probability)) / normal_quantile(0.99))
    inside_w = math.hypot(swing.in_step_w, swing.fast_w)
    model = math.hypot(MODEL_SHARE * inside_w, REACH_SHARE * (value - estimate.mean_w))
    in_groups_w2 = max(0.0, swing.noise_w**2 - swing.alone_noise_w**2)
    noise_w2 = NOISE_SHARE**2 * (swing.alone_noise_w**2 + GROUP_SHARE**2 * in_groups_w2)
    error_w2 = estimate.mean_variance_w2 + estimate.coverage_w2 + (0.5 + upper) ** 2 / 2.25 * (noise_w2 + model**2)
    # In doubt is a bound rather than a deviation; it counts as the end of a 95-% interval.
    doubt_w = abs(normal_quantile(probability)) * swing.in_doubt_w / normal_quantile(0.975)
    half = normal_quantile(0.5 + confidence / 2) * math.sqrt(error_w2 + doubt_w * doubt_w)
    return interval(value, value - half - estimate.peak_down_w, value + half + estimate.peak_up_w)


def quantiles(estimate: Estimate) -> tuple[Quantile, ...]:
    """p50 to p99.9; neither values nor ends decrease."""
    result: list[Quantile] = []
    low = -(2**62)
    for ppm in QUANTILES_PPM:
        one = quantile_interval(estimate, ppm, CONFIDENCE)
        low = max(low, one.low_w)
        high = max(one.high_w, result[-1].estimate.high_w if result else one.high_w)
        result.append(
            Quantile(quantile_ppm=ppm, estimate=Interval(value_w=one.value_w, low_w=min(low, one.value_w), high_w=high))
        )
    return tuple(result)


def synchrony_of(estimate: Estimate, reporting_gpus: int) -> Synchrony:
    """How far the domain swings in step."""
    swing = estimate.swing
    gpus = max(1, reporting_gpus)
    return Synchrony(
        groups=len(swing.groups),
        grouped_capacity_ppm=sum(swing.groups) * 1_000_000 // gpus,
        largest_group_ppm=max(swing.groups, default=0) * 1_000_000 // gpus,
        slow_w=round(swing.slow_w),
        fast_w=round(swing.fast_w),
        lag_ms=0,
    )


def margin_of(window: Window, estimate: Estimate | None, ahead: Interval | None, reason: str | None) -> Margin:
    """Limit minus quantile with the policy's confidence; without figures a reason instead of a number.

    `ahead`: that quantile of the power at the policy's horizon, None where the margin speaks of the window itself.
    """
    rule = window.rule
    margin = None
    if estimate is not None and reason is None:
        power = quantile_interval(estimate, rule.quantile_ppm, rule.confidence_ppm / 1e6)
        if ahead is not None:  # claims that are set aside are as likely to be true later
            high_w = math.ceil(ahead.high_w + estimate.peak_up_w)
            power = Interval(value_w=ahead.value_w, low_w=math.floor(ahead.low_w - estimate.peak_down_w), high_w=high_w)
        margin = Interval(
            value_w=rule.limit_w - power.value_w,
            low_w=rule.limit_w - power.high_w,
            high_w=rule.limit_w - power.low_w,
        )
    return Margin(
        limit_w=rule.limit_w,
        quantile_ppm=rule.quantile_ppm,
        confidence_ppm=rule.confidence_ppm,
        horizon_ms=rule.horizon_ms,
        margin=margin,
        margin_absent_reason=reason,
    )


def reported_mean(mean_w: float, variance_w2: float) -> Interval:
    """Mean power of some hosts as reported (not scaled by coverage), with the interval of its known noise."""
    half = normal_quantile(0.5 + CONFIDENCE / 2) * math.sqrt(variance_w2)
    return interval(mean_w, mean_w - half, mean_w + half)
