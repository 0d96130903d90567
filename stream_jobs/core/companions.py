"""Companions: hosts that have moved together, so that what one of them should draw now can be told from the others.

A job moves its hosts in step: from window to window by a large part of their capacity (a checkpoint, an evaluation, a
stall), from host to host hardly at all. For such a host its own past range bounds nothing, but its companions do: the
hosts of its class whose claims over the older half of the history lay closest to its own. Expected of a host is its
own median level, moved as most of them have moved: by the median of what its companions and itself are away from
theirs, and where half say one thing and half another, by what is nearer to its level. It stands while no more than
half of them lie, whether the job stays inside its past range or leaves it.

Order of hosts does not matter: ties are broken by the order that the caller gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

COMPANIONS = 15
"""Companions of a host, at most."""

MIN_COMPANIONS = 3
"""Companions that a host needs, with claims in the window in question; with fewer its own level is expected of it."""

REACH = 4.0
"""Companions are at most so many times as far from a host as the `MIN_COMPANIONS` closest: those of its own job."""

WORTH = 0.5
"""Companions count if they leave less than this share of a host's own range open. A steady host needs none, and would
only lend its neighbours, steady as well, a hand in its reference."""

LEAF_HOSTS = 64
"""Hosts among which companions are sought; larger classes are halved along the window that spreads them most."""


@dataclass(frozen=True, slots=True)
class Companions:
    """Companions and past residuals of the hosts of one class, by row; powers per GPU, W, NaN for hosts without claims.

    `rows` int64[hosts, COMPANIONS], -1 for none; `level_w`: median of the host's own past claims; `low_w`, `high_w`:
    range of the past differences between its claims and what was expected of it.
    """

    rows: Ints
    level_w: Floats
    low_w: Floats
    high_w: Floats

    def expected_w(self, now_w: Floats) -> Floats:
        """What every host should draw, W per GPU, given what all claim now: float64[hosts], NaN = no claim."""
        return self.level_w + self.moved_w(now_w - self.level_w)

    def moved_w(self, moves_w: Floats) -> Floats:
        """How far each host moved as its companions and itself have it, given how far all did: float64[hosts], W."""
        return _consensus(self.rows, moves_w)

    def followed(self, now_w: Floats) -> Flags:
        """Hosts with enough companions that claim anything now: float64[hosts], NaN = no claim."""
        return _claiming(self.rows, now_w) >= MIN_COMPANIONS


def companions_of(claims_w: Floats, order: Ints) -> Companions:
    """Find every host's companions in its past claims, float64[hosts, windows], W per GPU, NaN = none.

    `order` int64[hosts]: the rows in an order that does not depend on the log, such as that of the hosts' names. Hosts
    with a gap have no companions, nor are they any.
    """
    hosts, windows = claims_w.shape
    rows = np.full((hosts, COMPANIONS), -1, np.int64)
    if not windows:
        nothing = np.full(hosts, np.nan)
        return Companions(rows, nothing, nothing, nothing)
    ordered = np.sort(claims_w, axis=1)
    known = np.count_nonzero(~np.isnan(claims_w), axis=1)
    level_w, last = _median(ordered, known)
    for leaf in _leaves(claims_w, order[known[order] == windows]):
        rows[leaf] = _closest(claims_w[leaf], leaf)
    moves_w = claims_w - level_w[:, np.newaxis]
    past_w = np.stack([moves_w[:, w] - _consensus(rows, moves_w[:, w]) for w in range(windows)], axis=1)
    own_low, own_high = ordered[:, 0] - level_w, ordered[np.arange(hosts), last] - level_w
    low, high = np.fmin.reduce(past_w, axis=1), np.fmax.reduce(past_w, axis=1)
    with np.errstate(invalid="ignore"):  # NaN, nothing known, is not narrower than anything
        worth = high - low < WORTH * (own_high - own_low)
    rows[~worth] = -1
    return Companions(rows, level_w, np.where(worth, low, own_low), np.where(worth, high, own_high))


def _leaves(claims_w: Floats, hosts: Ints) -> list[Ints]:
    """Split hosts into groups of at most LEAF_HOSTS that were alike: in halves, along the window of widest spread."""
    if len(hosts) <= LEAF_HOSTS:
        return [hosts] if len(hosts) > MIN_COMPANIONS else []
    here = claims_w[hosts]
    ordered = np.sort(here, axis=0)
    rim = len(hosts) // 20  # a few wild hosts do not say where a class divides
    axis = int(np.argmax(ordered[-1 - rim] - ordered[rim]))
    halves = hosts[np.argsort(here[:, axis], kind="stable")]
    middle = len(halves) // 2
    return _leaves(claims_w, halves[:middle]) + _leaves(claims_w, halves[middle:])


def _closest(claims_w: Floats, hosts: Ints) -> Ints:
    """The hosts whose largest distance over all windows is least, int64[hosts, COMPANIONS], -1 for none."""
    count = len(hosts)
    far_w = np.zeros((count, count))
    for window in range(claims_w.shape[1]):
        column = claims_w[:, window]
        np.maximum(far_w, np.abs(column[:, np.newaxis] - column[np.newaxis, :]), out=far_w)
    np.fill_diagonal(far_w, np.inf)
    nearest = np.argsort(far_w, axis=1, kind="stable")[:, : min(COMPANIONS, count - 1)]
    reach_w = np.take_along_axis(far_w, nearest, axis=1)
    close = reach_w <= REACH * reach_w[:, [MIN_COMPANIONS - 1]]
    rows = np.full((count, COMPANIONS), -1, np.int64)
    rows[:, : nearest.shape[1]] = np.where(close, hosts[nearest], -1)
    return rows


def _claiming(rows: Ints, moves_w: Floats) -> Ints:
    """How many companions of every host claim anything."""
    result: Ints = np.count_nonzero((rows >= 0) & ~np.isnan(moves_w[rows]), axis=1)
    return result


def _consensus(rows: Ints, moves_w: Floats) -> Floats:
    """How most of its companions and the host itself moved, W; 0 for hosts with too few companions that claim anything.

    Of an even number, the point between the two in the middle that is nearest to 0.
    """
    votes = np.concatenate([np.where(rows >= 0, moves_w[rows], np.nan), moves_w[:, np.newaxis]], axis=1)
    votes.sort(axis=1)
    last = np.maximum(np.count_nonzero(~np.isnan(votes), axis=1), 1) - 1
    places = np.arange(len(votes))
    low, high = votes[places, last // 2], votes[places, (last + 1) // 2]
    middle = np.maximum(np.minimum(high, 0.0), low)
    return np.where(_claiming(rows, moves_w) >= MIN_COMPANIONS, middle, 0.0)


def _median(ordered: Floats, known: Ints) -> tuple[Floats, Ints]:
    """Median of the first `known` of every sorted row, and the place of the last of them."""
    last = np.maximum(known, 1) - 1
    places = np.arange(len(ordered))
    return (ordered[places, last // 2] + ordered[places, (last + 1) // 2]) / 2, last
