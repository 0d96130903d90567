"""A bound from below on the privacy loss that anybody can see, and hosts that are broken in one place each.

Two neighbouring inputs go through the host's own code many times. Values that are equal for both carry noise that is
independent of everything else, so only those that differ are drawn. The attack is the best there is against Laplace
noise: the log likelihood ratio, sum of (z clamped between its two exact values) over the scale. Its threshold and its
direction are chosen on one half of the runs; on the other half the probabilities of the event are bounded by
Clopper-Pearson intervals. log(lower / upper) is then below the true epsilon, with the confidence stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from power_model.grid import Grid
from producers.config import ClassProfile
from producers.distil import Distilled, distil
from producers.privacy import MICRO, RELEASES, Budget, privacy_parameters
from producers.privatise import Privatiser
from producers.sample.source import EnergySpan
from schemas.records import PrivacyParameters
from tests.producers.forge import SCHEDULE, FakeSource, gpu_class

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
CHUNK = 50_000
THRESHOLDS = 60


@dataclass(frozen=True)
class Window:
    """One window as sampled: float32[gpus, ticks] in W and the energy counters."""

    readings: npt.NDArray[np.float32]
    energy: EnergySpan


@dataclass(frozen=True)
class Neighbours:
    """Two inputs that differ in `readings` readings in a row; the adversary sees the reports from `first_seen` on."""

    name: str
    before: tuple[Window, ...]
    after: tuple[Window, ...]
    readings: int = 1
    first_seen: int = 0
    only: tuple[str, ...] = RELEASES
    """Releases that are drawn: those for which this is the worst, or a worst."""


class Host:
    """The host's own way from windows to what leaves it."""

    copies = 1
    """Times the values of a window leave the host."""

    def __init__(self, budget: Budget, sampler_mode: str = "instant") -> None:
        self.profile: ClassProfile = gpu_class(FakeSource(gpus=1, kind="nvml", sampler_mode=sampler_mode))
        self.stated = privacy_parameters(budget, [self.profile], SCHEDULE)
        self.privatiser = Privatiser(self.used(self.stated))

    def used(self, stated: PrivacyParameters) -> PrivacyParameters:
        """What noise is really drawn."""
        return stated

    def distil(self, windows: Sequence[Window]) -> list[Distilled]:
        """Exact statistics of consecutive windows."""
        return [self._distil(window.readings, window.energy) for window in windows]

    def _distil(self, readings: npt.NDArray[np.float32], energy: EnergySpan) -> Distilled:
        of = self.profile
        per_pane = SCHEDULE.ticks_per_pane
        return distil(readings, Grid(of.edges_w), of.clip_low_w, of.clip_high_w, per_pane, energy=energy)

    def values(self, windows: Sequence[Window], first_seen: int) -> dict[str, Ints]:
        """Exact values of every release in the windows from `first_seen` on, flat."""
        exact = self.distil(windows)[first_seen:]
        residuals = [one.energy_residual_mj for one in exact]
        return {
            "transitions": np.concatenate([one.transitions.ravel() for one in exact]),
            "pane_sums": np.concatenate([one.pane_sums for one in exact]),
            "histogram": np.concatenate([one.histogram for one in exact]),
            "energy_residual": np.array([one for one in residuals if one is not None], dtype=np.int64),
            "glitches": np.array([one.glitches for one in exact], dtype=np.int64),
        }

    def leave(self, release: str, exact: Ints, runs: int) -> Ints:
        """What leaves of these values in `runs` runs, int64[runs, copies, values]; a copy resent is the same bytes."""
        noisy = self.privatiser.add_noise(release, np.tile(exact, (runs, 1)))
        return np.repeat(noisy[:, None, :], self.copies, axis=1)


class HalfTheNoise(Host):
    """States half the sensitivity for one release: half the noise."""

    release = "transitions"

    def used(self, stated: PrivacyParameters) -> PrivacyParameters:
        """Sensitivity and scale halved, so that epsilon looks kept."""
        return replace(
            stated,
            releases=tuple(
                replace(one, sensitivity_l1=one.sensitivity_l1 // 2, scale_micro=-(-one.scale_micro // 2))
                if one.release == self.release
                else one
                for one in stated.releases
            ),
        )


class CarriesTheState(Host):
    """Counts the transition over the edge of two windows in the second."""

    def distil(self, windows: Sequence[Window]) -> list[Distilled]:
        """Transitions of the window with the last reading before it."""
        found = super().distil(windows)
        for index in range(1, len(windows)):
            edge = np.column_stack([windows[index - 1].readings[:, -1], windows[index].readings[:, 0]])
            cells = Grid(self.profile.edges_w).assign(edge)[0]
            found[index].transitions[cells[0], cells[1]] += 1
        return found


class ResendsTheSame(Host):
    """Sends a window again after a crash, from the spool: the right thing."""

    copies = 2


class DrawsAgain(Host):
    """Privatises a window again after a crash."""

    copies = 2

    def leave(self, release: str, exact: Ints, runs: int) -> Ints:
        """Two draws of the same values."""
        return self.privatiser.add_noise(release, np.tile(exact, (runs, self.copies, 1)))


class HoldsTheReading(Host):
    """Fills a stale tick with the reading before it."""

    def _distil(self, readings: npt.NDArray[np.float32], energy: EnergySpan) -> Distilled:
        held = readings.copy()
        for tick in range(1, held.shape[1]):
            held[:, tick] = np.where(np.isnan(held[:, tick]), held[:, tick - 1], held[:, tick])
        return super()._distil(held, energy)


class FilesTheMissingByValue(HoldsTheReading):
    """Counts a tick without a reading in the bin of the reading before it, and does the rest right."""

    def _distil(self, readings: npt.NDArray[np.float32], energy: EnergySpan) -> Distilled:
        held = super()._distil(readings, energy)
        return replace(Host._distil(self, readings, energy), histogram=held.histogram)


def losses(
    host: Host, pair: Neighbours, runs: int, confidence: float, direction: Host | None = None
) -> dict[str, float]:
    """Lower bound on epsilon per release and in "total", from `runs` runs on each of the neighbours.

    `direction`: the host whose values the adversary expects, where it is not `host` itself.
    """
    guess = direction or host
    scores: dict[str, tuple[Floats, Floats]] = {}
    low, high = host.values(pair.before, pair.first_seen), host.values(pair.after, pair.first_seen)
    left, right = guess.values(pair.before, pair.first_seen), guess.values(pair.after, pair.first_seen)
    for one in (stated for stated in host.stated.releases if stated.release in pair.only):
        touched = left[one.release] != right[one.release]
        if touched.any():
            ends = left[one.release][touched], right[one.release][touched]
            scale = one.scale_micro / MICRO
            scores[one.release] = (
                _score(host, one.release, low[one.release][touched], ends, scale, runs),
                _score(host, one.release, high[one.release][touched], ends, scale, runs),
            )
    if not scores:
        raise ValueError(f"{pair.name}: the neighbours do not differ in anything that is released")
    scores["total"] = (
        np.sum([before for before, _ in scores.values()], axis=0),
        np.sum([after for _, after in scores.values()], axis=0),
    )
    return {name: lower_bound(before, after, confidence) for name, (before, after) in scores.items()}


def _score(host: Host, release: str, exact: Ints, ends: tuple[Ints, Ints], scale: float, runs: int) -> Floats:
    """Log likelihood ratio of every run: positive speaks for the second of the neighbours."""
    middle = (ends[0] + ends[1]) / 2
    sign = np.sign(ends[1] - ends[0])
    parts = []
    for begin in range(0, runs, CHUNK):
        seen = host.leave(release, exact, min(CHUNK, runs - begin))
        clamped = np.clip(seen, np.minimum(*ends), np.maximum(*ends)) - middle
        parts.append((clamped * sign).sum(axis=(1, 2)) * (2 / scale))
    return np.concatenate(parts)


def lower_bound(before: Floats, after: Floats, confidence: float) -> float:
    """Lower bound on epsilon from scores under either neighbour; the event is chosen on the first halves."""
    half = len(before) // 2
    pooled = np.concatenate([before[:half], after[:half]])
    # Half-way between values, so that an event takes all of an atom or nothing.
    values = np.unique(pooled)
    picked = values[np.unique(np.linspace(0, len(values) - 1, THRESHOLDS).round().astype(int))]
    best = (-math.inf, 1, 0.0)
    for threshold in picked:
        for sign in (1, -1):
            bound = _bound(before[:half], after[:half], sign, float(threshold), confidence)
            best = max(best, (bound, sign, float(threshold)))
    return _bound(before[half:], after[half:], best[1], best[2], confidence)


def _bound(before: Floats, after: Floats, sign: int, threshold: float, confidence: float) -> float:
    """log(lower bound of P(event | likelier) / upper bound of P(event | other)), event: score beyond the threshold."""
    likely, other = (after, before) if sign > 0 else (before, after)
    hits = int(np.count_nonzero(sign * likely >= sign * threshold))
    misses = int(np.count_nonzero(sign * other >= sign * threshold))
    error = (1.0 - confidence) / 2
    if not hits:
        return -math.inf
    lower = stats.beta.ppf(error, hits, len(likely) - hits + 1)
    upper = stats.beta.isf(error, misses + 1, len(other) - misses) if misses < len(other) else 1.0
    return math.log(lower / upper)
