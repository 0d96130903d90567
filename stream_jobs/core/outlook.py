"""What comes: forecasts and ramps of a domain, from the panes of this window and of the windows before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from power_model.forecast import PaneSeries
from power_model.ramps import RampRate, ramp_rate
from schemas.records import Forecast, Interval, Ramp

FORECAST_QUANTILES_PPM = (500_000, 900_000, 990_000)
CONFIDENCE = 0.95
MAX_PANES = 3600
"""Newest panes that forecasts look at; what is older costs time and says little."""
LAPLACE_EXCESS_KURTOSIS = 3.0
"""Of one host's noise; that of a sum over equal hosts is so many times smaller."""


@dataclass(frozen=True, slots=True)
class PaneHistory:
    """What forecasts keep of a window's first revision: the domain's power in panes of `pane_ms` from `start_ms` on.

    `panes_w`: noisy power, W, scaled to the enrolled capacity; `pane_noise_w2`: variance of the known noise in each.
    """

    start_ms: int
    pane_ms: int
    panes_w: tuple[float, ...]
    pane_noise_w2: float


def pane_series(
    history: Sequence[PaneHistory], now: PaneHistory, *, fast_w: float, capacity_w: float
) -> PaneSeries | None:
    """Join the windows on one grid of panes, in any order; None if `now` has no panes.

    Windows that are missing leave a hole; windows with other panes, or off the grid, or not before `now`, are left
    out, as is what lies more than `MAX_PANES` back. Of two windows with one start the first counts.
    """
    if not now.panes_w:
        return None
    size = len(now.panes_w)
    reach = MAX_PANES - size
    usable: dict[int, PaneHistory] = {}
    for one in history:
        back, off = divmod(now.start_ms - one.start_ms, now.pane_ms)
        if one.pane_ms == now.pane_ms and not off and len(one.panes_w) <= back <= reach:
            usable.setdefault(back, one)
    first = max(usable, default=0)
    panes, noise = np.full(first + size, math.nan), np.full(first + size, math.nan)
    for back, one in [*sorted(usable.items(), reverse=True), (0, now)]:
        at = slice(first - back, first - back + len(one.panes_w))
        panes[at], noise[at] = one.panes_w, one.pane_noise_w2
    return PaneSeries(panes, noise, size, fast_w, capacity_w)


def forecasts(
    history: Sequence[PaneHistory],
    now: PaneHistory,
    *,
    fast_w: float,
    capacity_w: int,
    horizons_ms: Sequence[int],
    coverage_w2: float = 0.0,
    aside_w: tuple[float, float] = (0.0, 0.0),
) -> tuple[Forecast, ...]:
    """Quantiles of the domain's power at every horizon (ms) after the end of `now`.

    `fast_w`: standard deviation of the power inside panes, W. `coverage_w2`: variance of what the hosts that did not
    report may draw, W^2; it widens the intervals. `aside_w`: how far claims that are set aside reach down and up, W:
    they are as likely to be true later. None of it without panes.
    """
    series = pane_series(history, now, fast_w=fast_w, capacity_w=float(capacity_w))
    if series is None:
        return ()
    shares = [ppm / 1e6 for ppm in FORECAST_QUANTILES_PPM]
    result: list[Forecast] = []
    for horizon_ms in horizons_ms:
        law = series.after(horizon_ms / now.pane_ms)
        found = law.estimates_w(shares, CONFIDENCE, coverage_w2)
        result.extend(
            Forecast(
                horizon_ms=horizon_ms,
                quantile_ppm=ppm,
                estimate=Interval(
                    value_w=round(value),
                    low_w=math.floor(min(value, max(0.0, low - aside_w[0]))),
                    high_w=math.ceil(high + aside_w[1]),
                ),
            )
            for ppm, (value, low, high) in zip(FORECAST_QUANTILES_PPM, found, strict=True)
        )
    return tuple(result)


def power_ahead(
    history: Sequence[PaneHistory],
    now: PaneHistory,
    *,
    fast_w: float,
    capacity_w: int,
    horizon_ms: int,
    quantile_ppm: int,
    confidence_ppm: int,
    coverage_w2: float = 0.0,
) -> Interval | None:
    """One quantile of the power `horizon_ms` after the end of `now`, for a margin that looks ahead; as `forecasts`."""
    series = pane_series(history, now, fast_w=fast_w, capacity_w=float(capacity_w))
    if series is None:
        return None
    law = series.after(horizon_ms / now.pane_ms)
    ((value, low, high),) = law.estimates_w([quantile_ppm / 1e6], confidence_ppm / 1e6, coverage_w2)
    return Interval(value_w=round(value), low_w=math.floor(low), high_w=math.ceil(high))


def ramps(now: PaneHistory, *, hosts: int, missing_ppm: int = 0) -> tuple[Ramp, ...]:
    """Ramps of the window both ways, W/s, with their intervals.

    `hosts`: hosts that add noise. `missing_ppm`: share of the enrolled capacity that did not report; for all that is
    known it stands still or moves twice as fast as the rest.
    """
    lag = max(1, round(1000 / now.pane_ms))
    panes = np.array(now.panes_w, dtype=np.float64)
    changes = (panes[lag:] - panes[:-lag]) * (1000.0 / (lag * now.pane_ms))
    if changes.size < 2:
        reason = "needs at least two changes over a second"
        return tuple(
            Ramp(
                direction=way,
                rate_w_per_s_absent_reason=reason,
                low_w_per_s_absent_reason=reason,
                high_w_per_s_absent_reason=reason,
            )
            for way in ("up", "down")
        )
    per_second = 1000.0 / (lag * now.pane_ms)
    noise = 2.0 * now.pane_noise_w2 * per_second * per_second
    kurtosis = LAPLACE_EXCESS_KURTOSIS / 2.0 / max(hosts, 1)
    rates = (ramp_rate(way, noise, confidence=CONFIDENCE, excess_kurtosis=kurtosis) for way in (changes, -changes))
    return tuple(_ramp(way, rate, missing_ppm / 1e6) for way, rate in zip(("up", "down"), rates, strict=True))


def _ramp(direction: str, rate: RampRate, missing: float) -> Ramp:
    return Ramp(
        direction=direction,
        rate_w_per_s=round(rate.rate),
        low_w_per_s=round(rate.low * (1.0 - missing)),
        high_w_per_s=round(rate.high * (1.0 + missing)),
    )
