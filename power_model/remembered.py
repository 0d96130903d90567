"""Hosts that were in step in the windows before, and may be now although this window's panes do not show it.

A job that swings about as fast as panes follow one another leaves next to nothing in them, and noise hides it in many
a window; in others it is found. Hosts that were found in step a few minutes ago are taken to be so still, unless what
they state now speaks against it: their readings are not alike any more, they do not follow those of the group that are
found now, they move more than these, or they move, but not together. No single host decides that for the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from power_model import exact
from power_model.groups import ALIKE, MAX_GROUPS, MIN_HOSTS, Counts, Floats
from power_model.interpolation import row_means
from power_model.pooled import TAIL, ClassRows, tail_noise

Labels = npt.NDArray[np.int8]

OVERLAP = 4
"""A group is one of an earlier window if at least one in so many of the hosts of that one are in it."""
FOLLOWS = 0.25
"""A host follows its group if it goes at least this far where the group goes, within noise."""
SURE = 2.0
"""Standard deviations of noise within which a host may seem not to follow."""
MOVES = 4.0
"""Standard deviations of noise beyond which a host moves of its own, or hosts move."""
TOGETHER = 0.5
"""Hosts that move are in step if their sum moves at least this part of what it would."""
LIKE = 0.03
"""Distributions of readings are alike if they lie (Wasserstein-1) no further apart than this share of the clip bound,
and what noise makes of it: twice its mean, a cell times the noise's standard deviation for each of them."""
CLEAR = 0.6
"""Largest standard deviation of the noise in the upper percent of a group's readings, as a multiple of that percent:
beyond it noise is read as a swing, and no group is better than one that may be."""
_UNIT = 256
_CLIP = 1 << 20


def with_past(found: Sequence[Counts], past: Labels, free: npt.NDArray[np.bool_]) -> list[tuple[Counts, Counts]]:
    """Return groups as (rows found now, rows that were with them before), each ascending; no row is in two.

    `found`: groups of this window. `past` [rows, windows]: the group of every row in the windows before, the newest
    first; below 0 for none. Only rows that are `free` [rows] are taken by what was before.
    """
    owner = np.full(len(past), -1, dtype=np.int64)
    for number, rows in enumerate(found):
        owner[rows] = number
    count = len(found)
    for labels in past.T:
        for label in range(int(labels.max(initial=-1)) + 1):
            rows = np.flatnonzero(labels == label)
            left = rows[(owner[rows] < 0) & free[rows]]
            if not left.size:
                continue
            owners = np.bincount(owner[rows][owner[rows] >= 0], minlength=1)
            most, all_owned = int(np.argmax(owners)), int(owners.sum())
            if OVERLAP * int(owners[most]) >= rows.size and 2 * int(owners[most]) > all_owned:
                owner[left] = most
            elif OVERLAP * all_owned < rows.size and left.size >= MIN_HOSTS and count < MAX_GROUPS:
                owner[left] = count
                count += 1
    result = []
    for number in range(count):
        now = found[number] if number < len(found) else np.zeros(0, dtype=np.int64)
        rows = np.flatnonzero(owner == number)
        result.append((now, rows[~np.isin(rows, now)]))
    return result


def still_in_step(series: Floats, noise_std: Floats, now: Counts, before: Counts) -> Counts:
    """Return the rows of `before` that the panes `series` [rows, panes] do not speak against, ascending.

    `noise_std` [rows] > 0; `now`: rows of the same group that are found in step. Products are of whole numbers, exact.
    """
    if not before.size:
        return before
    panes = series.shape[1]
    loose = math.sqrt(5 * panes)  # of a variance times `panes`: Laplace's law has an excess kurtosis of 3
    own = _whole(series, noise_std, before)
    energy = (own * own).sum(axis=1) / _UNIT**2
    if now.size:
        group = _whole(series, noise_std, now).sum(axis=0)
        length2 = int((group * group).sum()) / (now.size * _UNIT) ** 2
        if length2 <= 0.0:
            return before[:0]
        along = (own * group).sum(axis=1) / (now.size * _UNIT**2)
        goes = max(0.0, length2 - (panes - 1) / now.size)
        keep = along >= FOLLOWS * goes - SURE * math.sqrt(length2)
        keep &= energy - along * along / length2 <= panes - 2 + MOVES * loose
        keep &= energy - (panes - 1) <= ALIKE * ALIKE * goes + MOVES * loose
        before, own, energy = before[keep], own[keep], energy[keep]
    if before.size < 2:
        return before
    moved = energy - (panes - 1)
    usual = float(np.partition(moved, moved.size // 2)[moved.size // 2])
    keep = moved <= ALIKE * ALIKE * max(0.0, usual) + MOVES * loose
    before, own = before[keep], own[keep]
    count = before.size
    together = own.sum(axis=0)
    seen = int((together * together).sum()) / _UNIT**2 - count * (panes - 1)
    if usual * math.sqrt(count) > MOVES * 1.25 * loose and seen < TOGETHER * usual * count * count:
        return before[:0]
    return before


def _whole(series: Floats, noise_std: Floats, rows: Counts) -> Counts:
    """Series of some rows about their means, in units of their noise, as whole numbers [rows, panes]."""
    chosen = series[rows]
    away = (chosen - row_means(chosen)[:, np.newaxis]) * (_UNIT / noise_std[rows])[:, np.newaxis]
    return np.asarray(np.clip(np.rint(away), -_CLIP, _CLIP).astype(np.int64))


def clear(one: ClassRows, now: Counts, before: Counts) -> bool:
    """Whether the histograms of a group's rows tell how far it swings."""
    return tail_noise(one, np.concatenate([now, before])) <= CLEAR * (1.0 - TAIL)


def readings_alike(one: ClassRows, now: Counts, before: Counts) -> Counts:
    """Return the rows of `before` whose readings are distributed like those of `now`, or like most of their own.

    Rows without a histogram are kept.
    """
    known = one.counted & (one.readings > 0)
    asked, now = before[known[before]], now[known[now]]
    if one.histograms is None or asked.size + now.size < 2 or not asked.size:
        return before
    width_w, cells = float(one.edges_w[1] - one.edges_w[0]), one.histograms.shape[1]
    unit_w = width_w * cells * math.sqrt(cells)
    noise_w = unit_w * one.histogram_noise[asked] / one.readings[asked]
    below = np.cumsum(one.histograms[asked], axis=1, dtype=np.int64) / one.readings[asked][:, np.newaxis]
    if now.size:
        summed = one.histograms[now].sum(axis=0, dtype=np.int64)
        centre = np.cumsum(summed) / int(one.readings[now].sum())
        drawn = math.sqrt(exact.total(one.histogram_noise[now] ** 2))
        noise_w = noise_w + unit_w * drawn / int(one.readings[now].sum())
    else:
        centre = np.partition(below, below.shape[0] // 2, axis=0)[below.shape[0] // 2]
    apart_w = row_means(np.abs(below - centre)) * (width_w * cells)
    far = asked[apart_w > LIKE * float(one.edges_w[-1]) + noise_w]
    return before[~np.isin(before, far)]
