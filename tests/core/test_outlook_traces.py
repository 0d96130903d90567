"""Forecasts and ramps of fleets built from real traces, where there are any: `../shared/traces`.

Fleets as `bench margin` draws them, with noise of the hosts' law; forecasts of windows with three to six before them.
A job that starts or stops without notice is a variant of its own: what no history foretells is missed more often.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from enclavescale.bench.estimators import discrete_laplace
from enclavescale.bench.trace_files import BenchTrace, read_traces
from enclavescale.bench.trace_fleet import TraceFleet, draw_fleet, model_rules, pools_of
from power_model.noise import discrete_laplace_variance
from schemas.records import ModelRule
from stream_jobs.core.outlook import PaneHistory, forecasts, ramps
from tests.results import write_result

Floats = npt.NDArray[np.float64]

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
HOSTS, GPUS, WINDOWS, RUN_UP = 32, 8, 7, 3
WINDOW_S, TICKS_PER_S = 60, 10
HORIZONS_S = (1, 10, 60)
PANE_EPSILON, QUANTUM_W = 0.7, 0.1
P99 = 0.99
TICKS = (WINDOWS * WINDOW_S + max(HORIZONS_S) + 1) * TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Drawn:
    """A fleet's power at every tick, its noise per pane and that noise's variance, W and W^2."""

    power_w: Floats
    noise_w: Floats
    noise_w2: float
    capacity_w: int


def draw(mode: str | None, switching: bool, index: int) -> Drawn:
    traces, rules = _traces()
    rng = np.random.default_rng([61, sum((mode or "").encode()), switching, index])
    pools = pools_of(traces, mode)
    fleet = draw_fleet(pools, rules, rng, hosts=HOSTS, gpus=GPUS, ticks=TICKS)
    running = {job: _running(rng) if switching else np.ones(TICKS, dtype=np.bool_) for job in ("job-a", "job-b")}
    power, noise, variance = np.zeros(TICKS), np.zeros(TICKS // TICKS_PER_S), 0.0
    for host in fleet.hosts:
        drawn = host.power_w(0, TICKS).astype(np.float64).sum(axis=0)
        idle = 0.15 * host.trace.tdp_w * GPUS
        power += drawn if host.group is None else np.where(running[host.group], drawn, idle)
        scale = _clip_w(fleet, host.trace.model) / QUANTUM_W / PANE_EPSILON
        to_w = QUANTUM_W / TICKS_PER_S
        noise += discrete_laplace(rng, scale, (noise.size,)) * to_w
        variance += discrete_laplace_variance(scale) * to_w * to_w
    return Drawn(power, noise, variance, fleet.capacity_w)


@cache
def _traces() -> tuple[tuple[BenchTrace, ...], dict[str, ModelRule]]:
    traces = read_traces(TRACES).traces
    return traces, model_rules(traces)


def _clip_w(fleet: TraceFleet, model: str) -> int:
    return next(rule.clip_high_w for rule in fleet.rules if rule.model == model)


def _running(rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A job that runs, or rests, for half a minute to five at some time, and does the other before and after."""
    first = int(rng.integers(WINDOW_S * TICKS_PER_S, TICKS))
    there = np.zeros(TICKS, dtype=np.bool_)
    there[first : first + int(rng.integers(300, 3_000))] = True
    return there if rng.random() < 0.5 else ~there


def windows(drawn: Drawn) -> Iterator[tuple[list[PaneHistory], PaneHistory, Floats, int]]:
    """For every measured window: its history, itself, its true panes, and the tick after it."""
    panes = drawn.power_w.reshape(-1, TICKS_PER_S).mean(axis=1)
    noisy = panes + drawn.noise_w
    made = [
        PaneHistory(1000 * first, 1000, tuple(noisy[first : first + WINDOW_S].tolist()), drawn.noise_w2)
        for first in range(0, WINDOWS * WINDOW_S, WINDOW_S)
    ]
    for index in range(RUN_UP, WINDOWS):
        yield made[:index], made[index], panes[: (index + 1) * WINDOW_S], (index + 1) * WINDOW_S * TICKS_PER_S


def loss(came: float, forecast: float) -> float:
    """Pinball loss of a p99."""
    return max(P99 * (came - forecast), (P99 - 1.0) * (came - forecast))


@pytest.mark.accept
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not TRACES.is_dir(), reason="needs the evaluation traces beside the checkout")
@pytest.mark.parametrize(
    ("name", "mode", "switching", "most"),
    [("any", None, False, 0.02), ("instant", "instant", False, 0.02), ("switching", None, True, 0.06)],
)
def test_forecasts_and_ramps_of_real_fleets(name: str, mode: str | None, switching: bool, most: float) -> None:
    fleets, count, held, sides = 550, 0, 0, 0
    exceeded = dict.fromkeys(HORIZONS_S, 0)
    losses = {horizon: np.zeros(3) for horizon in HORIZONS_S}
    for index in range(fleets):
        drawn = draw(mode, switching, index)
        mw = 100.0 / drawn.capacity_w
        for history, now, panes, end in windows(drawn):
            count += 1
            inside = drawn.power_w[end - WINDOW_S * TICKS_PER_S : end].reshape(-1, TICKS_PER_S)
            fast_w = float(np.sqrt(np.mean(np.square(inside - inside.mean(axis=1)[:, None]))))
            coming = forecasts(
                history,
                now,
                fast_w=fast_w,
                capacity_w=drawn.capacity_w,
                horizons_ms=[1000 * horizon for horizon in HORIZONS_S],
            )
            p99_w = {one.horizon_ms // 1000: one.estimate.value_w for one in coming if one.quantile_ppm == 990_000}
            for horizon, forecast_w in p99_w.items():
                came_w = float(drawn.power_w[end + horizon * TICKS_PER_S])
                rises = panes[horizon:] - panes[:-horizon]
                rise_w = float(np.sort(rises)[math.ceil(P99 * rises.size) - 1])
                exceeded[horizon] += came_w > forecast_w
                naive = (forecast_w, float(panes[-1]), float(panes[-1]) + rise_w)
                losses[horizon] += [mw * loss(came_w, one) for one in naive]
            steps = np.diff(panes[-WINDOW_S:])
            for sign, ramp in zip((1.0, -1.0), ramps(now, hosts=HOSTS), strict=True):
                true_w = max(float(np.sort(sign * steps)[math.ceil(P99 * steps.size) - 1]), 0.0)
                assert ramp.low_w_per_s is not None
                assert ramp.high_w_per_s is not None
                held += ramp.low_w_per_s - 1 <= true_w <= ramp.high_w_per_s + 1
                sides += 1
    shares = {horizon: found / count for horizon, found in exceeded.items()}
    write_result(
        f"outlook-{name}",
        {
            "windows": count,
            "p99_exceeded": {str(horizon): share for horizon, share in shares.items()},
            "pinball_mw": {str(horizon): (one / count).tolist() for horizon, one in losses.items()},
            "pinball_of": ["forecast", "the last second", "the last second and its usual rise"],
            "ramp_interval_coverage": held / sides,
        },
        seeds={"fleets": 61},
    )
    assert count >= 2_000
    for horizon in HORIZONS_S:
        ours, last, last_and_rise = losses[horizon].tolist()
        assert ours < min(last, last_and_rise), horizon
        assert shares[horizon] <= most, shares
        assert switching or shares[horizon] >= 0.005, shares
    assert held >= 0.95 * sides
