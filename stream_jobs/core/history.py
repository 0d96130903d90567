"""Histories: what the hosts of a domain claimed in the windows before, rebuilt from the log by every reader.

A window's references are a function of the first revisions of the windows that start in the H window lengths before
it, and of nothing else (H = `DomainRule.history_windows`): raw claims only, never weights or other references, so that
the reader of a log needs to begin no more than H windows earlier (`docs/adr/0020`).

References come from the older half of that span. A level that a host has held for less than half of it is not yet its
own: liars gain nothing by what they claimed a minute ago, and a new job is a level of its own after H / 2 windows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from power_model.noise import discrete_laplace_variance
from schemas.contract import PANE_SUM_QUANTUM_MW
from stream_jobs.core.companions import Companions, companions_of
from stream_jobs.core.in_step import GROUP_WINDOWS, Labels, PastGroups, past_groups, raw_groups
from stream_jobs.core.outlook import PaneHistory

if TYPE_CHECKING:
    from stream_jobs.core.windows import ClassSum, Window

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ClassKey = tuple[str, str]
"""GPU model and sampler mode."""

PROVEN_WINDOWS = 5
"""Claims in the older half of its history that give a host references of its own; fewer where that half is shorter."""

COMPANION_WINDOWS = 10
"""Windows that tell hosts that move together from hosts that happened to."""

COMPACT_ABOVE = 1024
"""Hosts in the index from which on it is looked through for hosts that are gone."""

BLOCK_ROWS = 512
"""Hosts whose panes are gone through at a time: what is made of them stays in a processor's cache."""

_QUANTUM_W = PANE_SUM_QUANTUM_MW / 1000
_SHIFTED_BITS = 24
"""Deviations of panes are squared as integers of this many bits, so that the sum over panes fits 64."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the hosts of one class claim in one window, per GPU; one place per host, in the order of the class's lists.

    `mean_w` W, NaN without readings; `swing_w2` variance of the panes' power around it, W^2, known noise subtracted,
    may be negative; `window_scale_w`, `pane_scale_w`: scale of the noise of one pane sum as it enters the mean of the
    window and of the pane, W; `peak_w`, `trough_w`: highest and lowest pane, by the schedule, W, `spike_scale_w` the
    noise in them; `stalls_w2`: variance that missing readings alone can make, W^2; `panes`: their number.
    """

    mean_w: Floats
    swing_w2: Floats
    window_scale_w: Floats
    pane_scale_w: Floats
    peak_w: Floats
    trough_w: Floats
    spike_scale_w: Floats
    stalls_w2: Floats
    panes: int


def claims_of(total: ClassSum, ticks: int) -> Claims:
    """Claims of one class in a window of `ticks` samples; remembered until its window's output is made."""
    return total.remembered(f"claims {ticks}", lambda: _claims(total, ticks))


def _claims(total: ClassSum, ticks: int) -> Claims:
    panes = total.panes.shape[1]
    sums, highest, lowest, variance = _moments(total.panes)
    readings = total.readings_of.astype(np.float64)
    readings[readings == 0] = np.nan
    scales, which = np.unique(np.array(total.pane_scales_micro, np.int64), return_inverse=True)
    scale = (scales / 1e6)[which]
    noise = np.array([discrete_laplace_variance(one) for one in (scales / 1e6).tolist()])[which]
    to_w = _QUANTUM_W / readings
    pane_to_w = to_w * panes
    mean_w = sums * to_w
    swing_w2 = (variance - noise) * pane_to_w * pane_to_w if panes > 1 else np.zeros_like(mean_w)
    gpus = total.gpus_of.astype(np.float64)
    scheduled_w = _QUANTUM_W * panes / (gpus * ticks)
    missing = 1.0 - readings / (gpus * ticks)
    return Claims(
        mean_w=mean_w,
        swing_w2=swing_w2,
        window_scale_w=scale * to_w,
        pane_scale_w=scale * pane_to_w,
        peak_w=highest * scheduled_w,
        trough_w=lowest * scheduled_w,
        spike_scale_w=scale * scheduled_w,
        stalls_w2=missing / (1.0 - missing) * mean_w * mean_w,
        panes=panes,
    )


def _moments(panes: npt.NDArray[np.int32]) -> tuple[Ints, Ints, Ints, Floats]:
    """Sum, largest, smallest and variance of every row of int32[hosts, panes]; 0 as the variance of a single pane."""
    hosts, count = panes.shape
    sums, variance = np.zeros(hosts, np.int64), np.zeros(hosts)
    for start in range(0, hosts, BLOCK_ROWS):
        here = slice(start, start + BLOCK_ROWS)
        matrix = panes[here].astype(np.int64)
        sums[here] = matrix.sum(axis=1)
        if count > 1:
            variance[here] = _variance(matrix, sums[here])
    return sums, panes.max(axis=1).astype(np.int64), panes.min(axis=1).astype(np.int64), variance


def _variance(matrix: Ints, sums: Ints) -> Floats:
    """Variance of every row of int64[hosts, panes], by integers as far as they reach: no sum of floats."""
    panes = matrix.shape[1]
    away = matrix - (sums // panes)[:, np.newaxis]
    _, bits = np.frexp(np.abs(away).max(axis=1).astype(np.float64))
    shift = np.maximum(0, bits - _SHIFTED_BITS)
    away >>= shift[:, np.newaxis]
    rest = away.sum(axis=1)
    squares = (away * away).sum(axis=1) - rest * (rest / panes)
    result: Floats = np.ldexp(squares / (panes - 1), 2 * shift)
    return result


@dataclass(frozen=True, slots=True)
class ClassMemory:
    """One class in one window's first revision: `rows` of the index, claims per GPU, effective capacity per GPU (W).

    `groups`: number of the group that each is in, -1 for none.
    """

    rows: npt.NDArray[np.int32]
    mean_w: Floats
    swing_w2: Floats
    limit_w: Ints
    groups: Labels


@dataclass(frozen=True, slots=True)
class Memory:
    """One window's first revision; `panes` is None if no class has readings."""

    start_ms: int
    classes: dict[ClassKey, ClassMemory]
    panes: PaneHistory | None


@dataclass(frozen=True)
class References:
    """References of one class, one place per row of `index`, per GPU; NaN for hosts without enough claims.

    `level_w`: median of a host's claims in the older half of the history, W; `low_w`, `high_w`: their range;
    `swing_w`: standard deviation within windows, W, in the median; `swing_high_w2`: largest variance, W^2;
    `limit_w`: effective capacity last seen, W. `companions`: hosts that moved together, None after too few windows.
    """

    index: Mapping[str, int]
    companions: Companions | None
    level_w: Floats
    low_w: Floats
    high_w: Floats
    swing_w: Floats
    swing_high_w2: Floats
    limit_w: Ints

    @cached_property
    def proven(self) -> npt.NDArray[np.bool_]:
        """Rows with references of their own."""
        return ~np.isnan(self.level_w)

    def bands_w(self, rows: Ints, now_w: Floats) -> tuple[Floats, Floats, Floats]:
        """What every host of the index should draw now, and at least and at most, W per GPU, by what `rows` claim.

        Its level, moved as its companions have moved, and around it what it was away from that in the past; without
        enough companions its own level and range.
        """
        if self.companions is None:
            return self.level_w, self.low_w, self.high_w
        claims_w = np.full(len(self.level_w), np.nan)
        claims_w[rows] = now_w
        expected_w, followed = self.companions.expected_w(claims_w), self.companions.followed(claims_w)
        return (
            expected_w,
            np.where(followed, expected_w + self.companions.low_w, self.low_w),
            np.where(followed, expected_w + self.companions.high_w, self.high_w),
        )

    def expected_swing_w(self, rows: Ints, now_w: Floats) -> Floats:
        """How far every host of the index should swing inside the window, W per GPU, by what those at `rows` claim."""
        if self.companions is None:
            return self.swing_w
        moves_w = np.full(len(self.level_w), np.nan)
        moves_w[rows] = now_w - self.swing_w[rows]
        result: Floats = np.maximum(0.0, self.swing_w + self.companions.moved_w(moves_w))
        return result

    def rows_of(self, host_ids: list[str]) -> npt.NDArray[np.int64]:
        """Rows of some hosts, -1 for one the history has not met."""
        rows = np.fromiter(map(self.index.get, host_ids, repeat(-1)), np.int64, len(host_ids))
        return np.where(rows < len(self.level_w), rows, -1)  # the index has grown since


@dataclass(frozen=True, slots=True)
class History:
    """What a window's judgement and forecasts rest on: `references` by class, `windows` the number of windows
    remembered, `panes` the domain's power in them, `groups` who swung in step in the newest of them.
    """

    references: dict[ClassKey, References]
    windows: int
    panes: tuple[PaneHistory, ...]
    groups: PastGroups


@dataclass(slots=True)
class Histories:
    """First revisions of a domain's closed windows, as many as later windows need."""

    _memories: dict[int, Memory] = field(default_factory=dict)
    _index: dict[str, int] = field(default_factory=dict)

    def close(self, window: Window) -> None:
        """At the first close of `window`: give it its history, and keep its claims for the windows after it.

        To be called in the order of the log, windows that close together by start.
        """
        span = window.rule.history_windows
        width = window.rule.window_ms
        first = window.start_ms - span * width
        starts = sorted(start for start in self._memories if first <= start < window.start_ms)[
            -span or len(self._memories) :
        ]
        older = [self._memories[start] for start in starts if start < window.start_ms - span // 2 * width]
        newest = [start for start in starts if span and start >= window.start_ms - GROUP_WINDOWS * width]
        needed = min(PROVEN_WINDOWS, span - span // 2)
        keys = sorted({key for memory in older for key in memory.classes})
        window.history = History(
            references={
                key: _references(self._index, [m.classes[key] for m in older if key in m.classes], needed)
                for key in keys
            },
            windows=len(starts) if span else 0,
            panes=tuple(panes for start in starts if span and (panes := self._memories[start].panes) is not None),
            groups=past_groups(
                self._index,
                [
                    {key: (one.rows, one.groups) for key, one in self._memories[start].classes.items()}
                    for start in newest[-GROUP_WINDOWS:]
                ],
            ),
        )
        if span:
            self._memories[window.start_ms] = self._remember(window)

    def forget(self, before_ms: int) -> None:
        """Drop windows that start before `before_ms`, and hosts that none of the others knows."""
        for start in [start for start in self._memories if start < before_ms]:
            del self._memories[start]
        if not self._memories:
            self._index = {}
        elif len(self._index) > COMPACT_ABOVE:
            self._compact()

    def _compact(self) -> None:
        """Number the hosts anew once most of the index is of hosts that are gone."""
        used = np.zeros(len(self._index), np.bool_)
        for memory in self._memories.values():
            for one in memory.classes.values():
                used[one.rows] = True
        if 2 * int(used.sum()) > len(self._index):
            return
        rows = (np.cumsum(used) - 1).astype(np.int32)
        self._index = {host_id: int(rows[row]) for host_id, row in self._index.items() if used[row]}
        for start, memory in self._memories.items():
            moved = {key: replace(one, rows=rows[one.rows]) for key, one in memory.classes.items()}
            self._memories[start] = Memory(start, moved, memory.panes)

    def _remember(self, window: Window) -> Memory:
        ticks = window.view.policy.sample_hz * window.rule.window_ms // 1000
        classes, groups = {}, raw_groups(window)
        for key, total in window.sums.items():
            claims = claims_of(total, ticks)
            rows = list(map(self._index.get, total.host_ids))
            if None in rows:
                rows = [self._index.setdefault(host_id, len(self._index)) for host_id in total.host_ids]
            limits = total.effective_of_w // np.maximum(1, total.gpus_of)
            classes[key] = ClassMemory(np.array(rows, np.int32), claims.mean_w, claims.swing_w2, limits, groups[key])
        return Memory(window.start_ms, classes, _domain_panes(window))


def _domain_panes(window: Window) -> PaneHistory | None:
    """Raw claims of all hosts, every class scaled by capacity to all that is enrolled of it."""
    rule = window.rule
    panes_w, noise_w2 = [], []
    for _, total, share_w in enrolled_shares(window):
        panes = len(total.pane_sums)
        unit_w = _QUANTUM_W * total.gpus * panes / total.readings_taken * share_w / total.capacity_w
        panes_w.append([one * unit_w for one in total.pane_sums.tolist()])
        scales = sorted(Counter(total.pane_scales_micro).items())
        noise_w2 += [count * discrete_laplace_variance(scale / 1e6) * unit_w * unit_w for scale, count in scales]
    if not panes_w:
        return None
    columns = zip(*panes_w, strict=True)
    return PaneHistory(window.start_ms, rule.pane_ms, tuple(map(math.fsum, columns)), math.fsum(noise_w2))


def enrolled_capacity_w(window: Window) -> Counter[str]:
    """Capacity enrolled in the window's domain by GPU model, W."""
    return Counter(window.roster.enrolled_w)


def enrolled_shares(window: Window) -> list[tuple[ClassKey, ClassSum, int]]:
    """Classes with readings, sorted, and the enrolled capacity each stands for, W.

    A model seen in two sampler modes: each stands for its share of the enrolled capacity.
    """
    enrolled = enrolled_capacity_w(window)
    reported: Counter[str] = Counter()
    told = [
        (key, total)
        for key, total in sorted(window.sums.items())
        if total.gpus and total.capacity_w and total.readings_taken
    ]
    for (model, _), total in told:
        reported[model] += total.capacity_w
    return [(key, total, enrolled[key[0]] * total.capacity_w // reported[key[0]]) for key, total in told]


def _references(index: dict[str, int], memories: list[ClassMemory], needed: int) -> References:
    """References from the claims of the older windows, in order of time."""
    hosts = 1 + max((int(one.rows.max(initial=-1)) for one in memories), default=-1)
    means = np.full((hosts, len(memories)), np.nan)
    swings = np.full((hosts, len(memories)), np.nan)
    limit_w = np.zeros(hosts, np.int64)
    for place, one in enumerate(memories):
        means[one.rows, place] = one.mean_w
        swings[one.rows, place] = one.swing_w2
        limit_w[one.rows] = one.limit_w
    order = np.array([row for _, row in sorted(index.items()) if row < hosts], np.int64)
    companions = companions_of(means, order) if len(memories) >= COMPANION_WINDOWS else None
    means.sort(axis=1)
    swings.sort(axis=1)
    known = np.count_nonzero(~np.isnan(means), axis=1)
    enough = known >= needed
    last = np.maximum(known, 1) - 1

    def at(ordered: Floats, place: npt.NDArray[np.int64]) -> Floats:
        taken = np.take_along_axis(ordered, place[:, np.newaxis], axis=1)[:, 0]
        result: Floats = np.where(enough, taken, np.nan)
        return result

    return References(
        index=index,
        companions=companions,
        level_w=(at(means, last // 2) + at(means, (last + 1) // 2)) / 2,
        low_w=at(means, np.zeros_like(last)),
        high_w=at(means, last),
        swing_w=np.sqrt(np.maximum(0.0, (at(swings, last // 2) + at(swings, (last + 1) // 2)) / 2)),
        swing_high_w2=np.maximum(0.0, at(swings, last)),
        limit_w=limit_w,
    )
