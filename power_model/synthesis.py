"""Synthetic power traces from a released model: pane means from the pane sums, what is between them from the chain.

A release has integers only: per window the noisy sums of panes, and noisy counts of transitions, both over all GPUs of
a class. Synthesis reverses that:

1. Counts of all windows are summed, what does not stand out of its noise is dropped, and the rest projected once.
2. The chain is refined inside its states (`power_model.fine_chain`).
3. Panes follow one another as released; beyond the last one, whole windows are drawn again (bootstrap).
4. Paths are drawn from the chain given the panes (`power_model.pane_bridge`): GPUs in step share one path, the others
   have paths of their own, drawn in turns given all others (Gibbs sampling), so that the mean over the GPUs meets the
   panes.
5. What the grid left over of a pane's mean is added as a smooth curve; with a noisy release only its share that is not
   noise.

The same release, options and seed give the same trace. Nothing here reaches a signed output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from power_model.fine_chain import FineChain, fine_chain
from power_model.grid import Grid
from power_model.interpolation import pane_means, to_ticks
from power_model.pane_bridge import PaneBridge
from power_model.transitions import Counts, project_counts
from schemas.errors import ConfigError

Floats = npt.NDArray[np.float64]

AUTO, COMONOTONE, INDEPENDENT = SYNCHRONY = ("auto", "comonotone", "independent")
SIGNIFICANT_STDS = 3.0
"""A count below so many standard deviations of its noise is taken for noise."""
SWEEPS = 1
"""Rounds of Gibbs sampling after every group got a path: the start already knows the panes."""
IN_STEP_STDS = 6.0
"""How far the panes' variance must exceed that of independent GPUs, relative to it, in units of 1 / sqrt(panes): two
standard deviations where neighbouring panes are as alike as in real traces."""
DITHER_SHARE = 0.5
"""White noise inside a fine cell, in what the quiet panes would allow: half of it, as for the step sizes."""
MAX_TICKS = 10_000_000
"""Longest trace times its GPUs: 80 MB of readings."""


@dataclass(frozen=True, slots=True)
class ReleasedWindow:
    """Pane means of one window, W per GPU, float64[panes], and the variance of the known noise in each, W^2."""

    start_ms: int
    pane_w: Floats
    noise_w2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModel:
    """What outputs publish of one GPU class: grid, summed noisy `transitions` int64[k+2, k+2], and its windows.

    `transitions_total`: how many there were, whatever the noise. `transitions_noise`: variance of the noise in one
    count. `gpus`: how many GPUs the release stands for. Windows in the order of time. Raises `ConfigError` for a
    release without panes or with another shape.
    """

    edges_w: tuple[int, ...]
    low_w: int
    high_w: int
    sample_hz: int
    ticks_per_pane: int
    gpus: int
    transitions: Counts
    transitions_total: int
    transitions_noise: float
    windows: tuple[ReleasedWindow, ...]

    def __post_init__(self) -> None:
        cells = Grid(self.edges_w).cells
        if self.transitions.shape != (cells, cells):
            raise ConfigError("the counts do not fit the grid", field="transitions")
        if not self.low_w < self.edges_w[0] or not self.high_w > self.edges_w[-1]:
            raise ConfigError("the bounds of power must enclose the grid's edges", field="clip_high_w")
        if not self.windows or not all(window.pane_w.size for window in self.windows):
            raise ConfigError("the release has no panes", field="pane_sums")
        if self.gpus < 1 or self.ticks_per_pane < 1:
            raise ConfigError("a release stands for at least one GPU and one tick per pane", field="gpus")

    @property
    def seconds(self) -> float:
        """Time that the windows cover, s."""
        return sum(window.pane_w.size for window in self.windows) * self.ticks_per_pane / self.sample_hz

    @property
    def bounds_w(self) -> Floats:
        """Clip bounds and edges, W, float64[k+2]."""
        return np.array([self.low_w, *self.edges_w, self.high_w], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """`power_w` float64[gpus, ticks]; `slow_w` [panes]: mean over the GPUs that every pane has.

    `in_step`: GPUs that share one path. `synchrony`: estimated share of the released class that moves in step.
    `bootstrapped_s`: time beyond the released windows. `chain`: what it was drawn from.
    """

    power_w: Floats
    slow_w: Floats
    in_step: int
    synchrony: float
    bootstrapped_s: float
    chain: FineChain


def significant_counts(model: ReleasedModel) -> Floats:
    """Projected counts, float64[k+2, k+2], zero where a pair of states does not stand out of the noise.

    Raises `ConfigError` for counts beyond what can be projected exactly.
    """
    try:
        projected = project_counts(model.transitions, model.transitions_total)
    except ValueError as error:
        raise ConfigError(str(error), field="transitions") from error
    # A pair (i, j), (j, i) together: a way in without a way out would trap the chain.
    pairs = model.transitions + model.transitions.T
    return np.where(pairs > SIGNIFICANT_STDS * math.sqrt(2 * model.transitions_noise), projected, 0.0)


def synthesise(
    model: ReleasedModel, *, seconds: float | None = None, gpus: int = 1, seed: int = 0, synchrony: str = AUTO
) -> Synthetic:
    """Draw a trace of `gpus` GPUs, `seconds` long (None: as long as the release), from a released model.

    `synchrony`: comonotone (all GPUs in step), independent, or auto (as many in step as the panes' variance asks
    for). Raises `ConfigError` for options out of range or a release that is nothing but noise.
    """
    if synchrony not in SYNCHRONY:
        raise ConfigError(f"synchrony is one of {', '.join(SYNCHRONY)}", field="synchrony")
    ticks = round((model.seconds if seconds is None else seconds) * model.sample_hz)
    if gpus < 1 or ticks < 1 or seed < 0 or gpus * ticks > MAX_TICKS:
        raise ConfigError(
            f"need at least one GPU and tick, at most {MAX_TICKS:,} readings, a seed >= 0", field="seconds"
        )
    released = np.concatenate([window.pane_w for window in model.windows])
    noise = np.concatenate([np.full(window.pane_w.size, window.noise_w2) for window in model.windows])
    chain = fine_chain(significant_counts(model), model.bounds_w, released, float(noise.mean()), model.ticks_per_pane)
    bridge = PaneBridge(chain, model.ticks_per_pane)
    share = synchrony_of(released, float(noise.mean()), bridge.pane_moments_w()[1], model.gpus)
    in_step = {AUTO: round(share * gpus), COMONOTONE: gpus, INDEPENDENT: 0}[synchrony]
    rng = np.random.Generator(np.random.PCG64(seed))
    panes = -(-ticks // model.ticks_per_pane)
    pane_w, pane_noise = _timeline(model, released, noise, panes, rng)
    groups = ([in_step] if in_step else []) + [1] * (gpus - in_step)
    paths = _paths(bridge, pane_w, pane_noise, groups, rng)
    power_w = np.repeat(bridge.values_w[paths], groups, axis=0)
    amplitude = DITHER_SHARE * math.sqrt(12) * np.repeat(chain.jitter_w[paths], groups, axis=0)
    power_w += (rng.random(power_w.shape) - 0.5) * amplitude
    power_w += _left_over(pane_w, pane_noise, power_w, model.ticks_per_pane)
    power_w = np.clip(power_w, model.low_w, model.high_w)
    return Synthetic(
        power_w=power_w[:, :ticks],
        slow_w=_pane_means(power_w, model.ticks_per_pane),
        in_step=in_step,
        synchrony=share,
        bootstrapped_s=max(0.0, ticks / model.sample_hz - model.seconds),
        chain=chain,
    )


def synchrony_of(pane_w: Floats, noise_w2: float, single_w2: float, gpus: int) -> float:
    """Share f of a class of n = `gpus` GPUs that moves in step, 0 to 1, from the variance of its pane means, W^2.

    f n of them in step and the others independent give (f^2 + (1 - f) / n) V, V = `single_w2`: the variance of one
    GPU's pane means. `noise_w2`: known noise in a pane mean. 0 where the variance may be that of independent GPUs.
    """
    seen = max(0.0, float(pane_w.var()) - noise_w2)
    if gpus == 1:
        return 1.0
    ratio = min(1.0, seen / single_w2) if single_w2 > 0 else 0.0
    share = (1 / gpus + math.sqrt(max(0.0, 1 / gpus**2 - 4 * (1 / gpus - ratio)))) / 2
    chance = (1 + IN_STEP_STDS / math.sqrt(pane_w.size)) / gpus
    return share if ratio > chance and share * gpus >= 1.5 else 0.0


def _timeline(
    model: ReleasedModel, released: Floats, noise: Floats, panes: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Means and noise variances of `panes` panes: as released, then whole windows drawn with replacement."""
    means, variances, have = [released], [noise], released.size
    while have < panes:
        window = model.windows[int(rng.integers(len(model.windows)))]
        means.append(window.pane_w)
        variances.append(np.full(window.pane_w.size, window.noise_w2))
        have += window.pane_w.size
    return np.concatenate(means)[:panes], np.concatenate(variances)[:panes]


def _paths(
    bridge: PaneBridge, pane_w: Floats, noise_w2: Floats, groups: list[int], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Cells of every group, int64[groups, ticks]; the mean over the GPUs meets the panes up to noise and grid."""
    weights = np.array(groups) / sum(groups)
    mean_w, variance_w2 = bridge.pane_moments_w()
    grid_w2 = bridge.rounding_w2
    panes_of = np.full((len(groups), pane_w.size), mean_w)
    variance_of = np.full(len(groups), variance_w2)
    cells = np.empty((len(groups), pane_w.size * bridge.ticks_per_pane), dtype=np.int64)
    for _ in range(1 + SWEEPS if len(groups) > 1 else 1):
        for one, weight in enumerate(weights):
            others = np.arange(weights.size) != one
            target = (pane_w - (weights[others, None] * panes_of[others]).sum(axis=0)) / weight
            error = (noise_w2 + float((weights[others] ** 2 * variance_of[others]).sum())) / weight**2
            cells[one] = bridge.sample(target, np.sqrt(error + grid_w2), rng)
            panes_of[one] = _pane_means(bridge.values_w[cells[one]][None], bridge.ticks_per_pane)
            variance_of[one] = 0.0
    return cells


def _pane_means(power_w: Floats, ticks_per_pane: int) -> Floats:
    return np.asarray(pane_means(power_w, ticks_per_pane).mean(axis=0))


def _left_over(pane_w: Floats, noise_w2: Floats, power_w: Floats, ticks_per_pane: int) -> Floats:
    """What pane means still lack, as a curve, W per tick: Wiener's share of it where the release is noisy."""
    lack = pane_w - _pane_means(power_w, ticks_per_pane)
    power = float((lack**2).mean())
    share = max(0.0, 1.0 - float(noise_w2.mean()) / power) if power > 0 else 0.0
    return smooth_curve(share * lack, ticks_per_pane)


def smooth_curve(pane_w: Floats, ticks_per_pane: int) -> Floats:
    """Return a curve over all ticks, float64[panes * ticks], with exactly these pane means.

    The line of `to_ticks`; what it leaves over is added pane by pane.
    """
    curve = to_ticks(pane_w, ticks_per_pane)
    return np.asarray(curve + np.repeat(pane_w - pane_means(curve, ticks_per_pane), ticks_per_pane))
