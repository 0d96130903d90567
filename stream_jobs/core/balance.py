"""What counts of claims that lie outside their hosts' bands: as far as enough others bear them out, and up to a cap.

See `core.reject`, which says whose claims these are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_jobs.core.aside import Flags, JudgedClass
from stream_jobs.core.history import Floats, Ints

CAP_SIGMAS = 5.0
"""The drift cap holds what hosts gain over their true level: so many deviations of the known noise are taken off for
every host outside its band, one by one, because liars can all lean the same way. Where more hosts than may lie have
left their bands, those of the sum: what is beyond the last of them is noise for the most part."""

LEANING = frozenset({"DRIFT_UP", "DRIFT_DOWN"})
"""Codes of hosts inside their bands."""

LEAST_ASIDE_W = 0.5
"""Less is not set aside: outputs are in W."""

LEAN_SIGMAS = 2.0
"""A steady host that is this far from its reference, in deviations of the noise, and further than ever, leans."""

LEAN_MEAN, LEAN_DEVIATION, LEAN_TAIL = 0.06, 0.37, 5.0
"""Mean and standard deviation of what an honest steady host leans by, in deviations of the noise (E[Z; Z > 2] = 0.054
and E[Z^2; Z > 2] = 0.131 of the normal law, rounded up), and how many of the sum's deviations are taken as noise."""

_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Balance:
    """What hosts outside their bands move in one direction. `shares`: deviation per capacity, largest first, of hosts
    with `capacity_w`, whose unit moves the figure by `watts`; `cap_w`: what is admitted of what nobody bears out where
    no more of them have left their bands than may lie, and where more have. `leaning_w`: what steady hosts lean by that
    noise may explain.
    """

    shares: Floats
    capacity_w: Ints
    watts: Floats
    cap_w: tuple[float, float]
    leaning_w: float

    def admitted_w(self, limit_w: int) -> float:
        """What counts of it, W, if hosts of a capacity up to `limit_w` may lie."""
        borne_w, beyond_w = self._split_w(limit_w)
        return borne_w + _free_w(beyond_w, self.cap_w[int(self.capacity_w.sum()) > limit_w])

    def range_w(self, limit_w: int, own_w: int, reach_w: float) -> float:
        """How far a subject of `own_w` capacity that claims up to `reach_w` more or less may change what counts of
        others' claims, W: it may bear them out, and it may use up the cap, or leave it to them. Its noise, which is
        less than its reach, is taken off the cap or not.
        """
        low_w, high_w = max(0.0, self.cap_w[0] - reach_w), self.cap_w[1] + reach_w
        most_w, beyond_w = self._split_w(limit_w - own_w)
        most_w += min(beyond_w, high_w if beyond_w - reach_w <= high_w else _free_w(beyond_w - reach_w, high_w))
        least_w, beyond_w = self._split_w(limit_w)
        if beyond_w > 0:
            least_w += _free_w(beyond_w + reach_w, low_w) * beyond_w / (beyond_w + reach_w)
        return most_w - least_w

    def _split_w(self, limit_w: int) -> tuple[float, float]:
        """What is borne out of the claims, and what is not, W."""
        borne = self.borne_out(limit_w)
        return (
            math.fsum((np.minimum(self.shares, borne) * self.watts).tolist()),
            math.fsum((np.maximum(self.shares - borne, 0.0) * self.watts).tolist()),
        )

    def borne_out(self, limit_w: int) -> float:
        """Deviation per capacity that hosts of more than `limit_w` reach: some of them are honest."""
        reached = np.cumsum(self.capacity_w)
        first = int(np.searchsorted(reached, max(0, limit_w), side="right"))
        return float(self.shares[first]) if first < len(self.shares) else 0.0


def _free_w(beyond_w: float, cap_w: float) -> float:
    """What counts of claims that nobody bears out, W."""
    return max(0.0, min(beyond_w, 2 * cap_w - beyond_w))


@dataclass(frozen=True, slots=True)
class Side:
    """One class in one direction: `flags` hosts that share the drift cap, by `codes`; `moved_w` deviation of their
    claims from their references that way; `base_w` what a weight acts on beside it. W, NaN without references.
    """

    one: JudgedClass
    codes: dict[str, Flags]
    flags: Flags
    moved_w: Floats
    base_w: Floats


def directed(
    classes: Sequence[JudgedClass], codes: tuple[str, ...], moved_w: Sequence[Floats], base_w: Sequence[Floats]
) -> tuple[list[Side], float]:
    """Hosts with one of `codes`, with the last of several also those that drift; and what leaning moves otherwise."""
    past_w = [one.rise_w if codes[0].endswith("_UP") else one.fall_w for one in classes]
    drift, leaning_w = _drifting(classes, moved_w, past_w, codes[0]) if len(codes) > 1 else (None, 0.0)
    sides = []
    for number, (one, moved, base) in enumerate(zip(classes, moved_w, base_w, strict=True)):
        mine = {code: one.codes[code] for code in codes}
        if drift is not None:
            mine[codes[-1]] = drift[number]
        sides.append(Side(one, mine, np.logical_or.reduce(list(mine.values())), moved, base))
    return sides, leaning_w


def _drifting(
    classes: Sequence[JudgedClass], moved_w: Sequence[Floats], past_w: Sequence[Floats], code: str
) -> tuple[list[Flags] | None, float]:
    """Steady hosts that lean to one side inside their bands; None where noise alone makes them, and by how much, W.

    `past_w`: how far each was away on that side in the past.
    """
    masks, leans, noise = [], [], []
    for one, moved, past in zip(classes, moved_w, past_w, strict=True):
        with np.errstate(invalid="ignore"):
            lean = one.steady & ~one.codes[code] & (moved > np.maximum(LEAN_SIGMAS * one.noise_w, past))
        masks.append(lean)
        leans += (moved[lean] * one.factor).tolist()
        noise += (one.noise_w[one.steady] * one.factor).tolist()
    leaning_w = math.fsum(leans)
    if len(leans) < 2:
        return None, leaning_w
    deviation_w = LEAN_DEVIATION * math.sqrt(math.fsum(one * one for one in noise)) + max(noise)
    by_noise_w = LEAN_MEAN * math.fsum(noise) + LEAN_TAIL * deviation_w
    return (masks, 0.0) if leaning_w > by_noise_w else (None, leaning_w)


def weigh(sides: Sequence[Side], leaning_w: float, limit_w: int, cap_w: float) -> Balance:
    """Lower the weights of flagged hosts until what nobody bears out is within the cap; `limit_w` may collude, W."""
    shares: list[Floats] = [np.zeros(0)]
    capacity: list[Ints] = [np.zeros(0, np.int64)]
    watts: list[Floats] = [np.zeros(0)]
    under: list[Floats] = [np.zeros(0)]
    noise: list[float] = []
    for side in sides:
        one, flags = side.one, side.flags
        upwards: Floats = np.maximum(0.0, side.moved_w[flags]) / np.maximum(1, one.capacity_w[flags])
        shares.append(upwards)
        capacity.append(one.capacity_w[flags])
        watts.append(one.capacity_w[flags].astype(np.float64) * one.factor)
        under.append(side.base_w[flags] * one.factor)
        leaving = np.logical_or.reduce([one.codes[code] for code in side.codes if code not in LEANING])
        noise += (one.noise_w[leaving] * one.factor).tolist()
    order = np.argsort(-np.concatenate(shares), kind="stable")
    balance = Balance(
        shares=np.concatenate(shares)[order],
        capacity_w=np.concatenate(capacity)[order],
        watts=np.concatenate(watts)[order],
        cap_w=(
            max(0.0, cap_w - CAP_SIGMAS * math.fsum(noise)),
            max(0.0, cap_w - CAP_SIGMAS * math.sqrt(math.fsum(one * one for one in noise))),
        ),
        leaning_w=leaning_w,
    )
    claimed_w = math.fsum((balance.shares * balance.watts).tolist())
    admitted_w = balance.admitted_w(limit_w)
    base_w = math.fsum(np.concatenate(under).tolist())
    if claimed_w - admitted_w < LEAST_ASIDE_W:
        return balance
    weight = math.floor(_PPM * (base_w + admitted_w) / (base_w + claimed_w)) / _PPM
    for side in sides:
        one = side.one
        lower = side.flags & (weight < one.weights)
        one.weights = np.where(lower, weight, one.weights)
        one.flat_w = np.where(lower, one.level_w, one.flat_w)
        for code, flags in side.codes.items():
            one.codes[code] = flags
            one.reason[lower & flags] = code
    return balance
