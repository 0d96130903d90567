"""What is expected of hosts by the word of others, and how far those who speak for them can move it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stream_jobs.core.aside import JudgedClass
from stream_jobs.core.companions import MIN_COMPANIONS, Companions
from stream_jobs.core.history import Floats, Ints, References
from stream_jobs.core.reject import Judgement
from stream_jobs.core.roster import Groups, Roster
from stream_jobs.core.windows import Window


@dataclass(frozen=True, slots=True)
class Expected:
    """A host whose reference counts and has companions: `companions` host ids, and its own if it reports, `moves_w` of
    those that report, ascending; `low_w`, `high_w` ends of the clip range about its level; per GPU. `scale`: to the
    domain's power.
    """

    companions: tuple[str, ...]
    moves_w: tuple[float, ...]
    low_w: float
    high_w: float
    scale: float

    @property
    def range_w(self) -> float:
        """All that its reference can move by, W."""
        return (self.high_w - self.low_w) * self.scale

    def moved_w(self, liars: int) -> float:
        """How far `liars` of those asked can move its reference, W."""
        count = len(self.moves_w)
        first, last = (count - 1) // 2 - liars, count // 2 + liars
        low = self.moves_w[first] if first >= 0 else self.low_w
        high = self.moves_w[last] if last < count else self.high_w
        if count - liars <= MIN_COMPANIONS:  # then its own level may stand
            low, high = min(low, 0.0), max(high, 0.0)
        low, high = (min(max(end, self.low_w), self.high_w) for end in (low, high))
        return (high - low) * self.scale


def expected_of(window: Window, judgement: Judgement) -> list[Expected]:
    """Hosts whose references are in the figures, in place of a claim or of a part of it."""
    result = []
    for one, known, companions in _with_companions(window, judgement):
        rows = known.rows_of(one.total.host_ids)
        aside = (rows >= 0) & (one.absent | (one.weights < 1.0))
        silent = [known.index[host_id] for host_id in one.silent_w]
        targets = [*zip(rows[aside].tolist(), one.gpus[aside].tolist(), strict=True)]
        gpus, at = window.roster.models[one.key[0]].gpus, window.roster.row
        targets += [(row, float(gpus[at[host_id]])) for row, host_id in zip(silent, one.silent_w, strict=True)]
        if not targets:
            continue
        names = {row: host_id for host_id, row in known.index.items()}
        claims_w = np.full(len(known.level_w), np.nan)
        told = (rows >= 0) & ~one.absent
        claims_w[rows[told]] = (one.claim_w / one.gpus)[told]
        moves_w = claims_w - companions.level_w
        model = window.view.models[one.key[0]]
        for row, count in targets:
            mates = [mate for mate in companions.rows[row].tolist() if mate >= 0]
            if known.proven[row] and mates:
                asked = [*mates, row]
                level_w = float(known.level_w[row])
                result.append(
                    Expected(
                        companions=tuple(names[mate] for mate in asked),
                        moves_w=tuple(sorted(move for move in moves_w[asked].tolist() if not math.isnan(move))),
                        low_w=model.clip_low_w - level_w,
                        high_w=model.clip_high_w - level_w,
                        scale=count * one.factor,
                    )
                )
    return result


def _with_companions(window: Window, judgement: Judgement) -> Iterator[tuple[JudgedClass, References, Companions]]:
    """Classes whose references know companions."""
    for one in judgement.classes:
        known = window.history.references.get(one.key) if window.history else None
        if known is not None and known.companions is not None:
            yield one, known, known.companions


def companions_moved(expected: Sequence[Expected], led: Sequence[Led], roster: Roster, groups: Groups) -> Floats:
    """How far each group moves, by what it says of them, hosts that are absent, set aside, or may come to be, W."""
    moved: dict[int, list[float]] = defaultdict(list)
    for one in expected:
        liars = Counter(int(groups.codes[roster.row[mate]]) for mate in one.companions if mate in roster.row)
        for number, count in liars.items():
            moved[number].append(one.moved_w(count))
    largest = int(np.bincount(groups.codes).max(initial=0))
    for hosts in led:
        count = np.count_nonzero(hosts.mates >= 0, axis=1)
        sought = []
        for needed, moved_w in (
            ((count + 2) // 2, hosts.range_w),  # half, with its own
            (count - MIN_COMPANIONS + 1, hosts.alone_w),
        ):
            wanted = (moved_w > 0) & (count > 0) & (needed <= largest)
            if wanted.any():
                sought.append((np.where(wanted, needed, 0), moved_w))
        if not sought:
            continue
        seats = np.array([roster.row.get(host_id, -1) for host_id in hosts.names], np.int64)
        group = np.where(seats >= 0, groups.codes[seats], -1)
        votes = np.sort(np.where(hosts.mates >= 0, group[hosts.mates], -1), axis=1)
        for needed, moved_w in sought:
            for number, place in _holders(votes, needed):
                moved[number].append(float(moved_w[place]))
    result = np.zeros(len(groups.names))
    for number, values in moved.items():
        result[number] = math.fsum(values)
    return result


@dataclass(frozen=True, slots=True)
class Led:
    """Hosts of one class that report and have companions. `mates` [hosts, companions]: companions that report, by their
    place in `names`, else -1. `range_w`: clip range, W; `alone_w`: what is set aside if its companions leave it alone.
    """

    names: list[str]
    mates: Ints
    range_w: Floats
    alone_w: Floats
    capacity_w: Ints


def led_by(window: Window, judgement: Judgement) -> list[Led]:
    """Hosts that report and whose companions may say what is expected of them, by class."""
    result = []
    for one, known, companions in _with_companions(window, judgement):
        model = window.view.models[one.key[0]]
        rows = known.rows_of(one.total.host_ids)
        there = (rows >= 0) & ~one.absent
        told = np.zeros(len(known.level_w), np.bool_)
        told[rows[there]] = True
        chosen = np.flatnonzero(there)
        chosen = chosen[(companions.rows[rows[chosen]] >= 0).any(axis=1) & known.proven[rows[chosen]]]
        if not chosen.size:
            continue
        mates = companions.rows[rows[chosen]]
        own_w, row = (one.claim_w / one.gpus)[chosen], rows[chosen]
        outside = (own_w > known.high_w[row]) | (own_w < known.low_w[row])
        to_w = one.gpus[chosen] * one.factor
        result.append(
            Led(
                names=list(known.index),  # in the order of its rows
                mates=np.where((mates >= 0) & told[mates], mates, -1),
                range_w=(model.clip_high_w - model.clip_low_w) * to_w,
                alone_w=np.where(outside, np.abs(own_w - known.level_w[row]) * to_w, 0.0),
                capacity_w=one.capacity_w[chosen],
            )
        )
    return result


def _holders(votes: Ints, needed: Ints) -> list[tuple[int, int]]:
    """Groups that hold so many places of a row: (group, row). `votes` [rows, places], sorted, -1: nobody's."""
    found: set[tuple[int, int]] = set()
    for count in np.unique(needed[needed > 0]).tolist():
        here = np.flatnonzero(needed == count)
        first, last = votes[here][:, : max(0, votes.shape[1] - count + 1)], votes[here][:, count - 1 :]
        for place, column in zip(*np.nonzero((first == last) & (first >= 0)), strict=True):
            found.add((int(first[place, column]), int(here[place])))
    return sorted(found)


def followers(led: Sequence[Led], limit_w: int) -> list[float]:
    """Clip ranges of hosts that report and have companions, the widest per capacity, as many as `limit_w` outvotes, W.

    Who holds half of a host's companions has a capacity like the hosts that it leads.
    """
    ranges_w = np.concatenate([np.zeros(0), *(one.range_w for one in led)])
    capacity_w = np.concatenate([np.zeros(0, np.int64), *(one.capacity_w for one in led)])
    order = np.argsort(-ranges_w / np.maximum(1, capacity_w), kind="stable")
    left_w = np.maximum(0, limit_w - (np.cumsum(capacity_w[order]) - capacity_w[order]))
    part = np.minimum(1.0, left_w / np.maximum(1, capacity_w[order]))
    result: list[float] = (ranges_w[order] * part).tolist()
    return result
