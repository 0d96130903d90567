"""How far one liar, one tenant, one failure domain, or all who may collude can move the mean and the margin.

The bound is the largest difference between the outputs of any two sets of reports that the subject may send for the
window, to send none included, whatever it sent before and with everybody else's reports unchanged. Per GPU model, let
the others that count hold the power U over the readings R of their G GPUs (R in GPUs at full schedule), W in those at
their references, of capacity C in all, and E be enrolled. A subject of g GPUs and capacity c makes the mean

    ((U + x) (G + g) / (R + r) + W) E / (C + c),    0 <= r <= g its readings, x its power over them,

or, absent and without a history, (U G / R + W) E / C. The middle layers leave x where it is or move it towards a
reference, which lies in the range as well; the influence layer holds x within r times the clip range, widened by what
noise makes of an honest host with probability `HONEST_TAIL`, at most. The expression is monotone in x and in r, so that
its extremes lie at the ends. Beside its own claim, a subject may bear out, or no longer bear out, what others have set
aside, or use up the cap that they share (`Balance.range_w`), tip hosts that lean over the edge, and say what it likes,
within the clip range, of hosts half of whose companions it holds.

Margin = limit - quantile. A quantile of the power moves by no more than the power at any tick does: the same bound for
a pane, once with the others at their mean and once at their peak; and what the others' swing set aside would add.
Noise lifts an upper quantile by what it explains of one pane, but lowers it only by what it explains of the window:
for that most of the panes must lie low.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from power_model import exact
from schemas.records import Influence
from stream_jobs.core.aside import JudgedClass
from stream_jobs.core.balance import Balance
from stream_jobs.core.companions import MIN_COMPANIONS
from stream_jobs.core.history import Floats, Ints
from stream_jobs.core.reject import USUAL_NOISE_RATIO, Judgement
from stream_jobs.core.roster import Groups, Roster
from stream_jobs.core.tails import draw_excess, sum_excess
from stream_jobs.core.windows import Window

SWING_PEAK = 3.0
"""Peak of a swing over its mean, in standard deviations: the normal law's at 99.9 %, rounded."""

_PPM = 1_000_000


@dataclass(frozen=True)
class _Model:
    """One GPU model; arrays by enrolled host in the policy's order, 0 where a host has none of it or is not counted.

    `power_w` U, `taken` R, `counted` G, `counted_w` of the C: of hosts whose reports count. `level_w` W and
    `level_capacity_w` of the C: of those at their references. `gpus`, `capacity_w` as enrolled. `slack_w`, `spike_w`:
    what noise adds to the range of a host's mean and of its panes, W. `peak`: highest pane over the mean.
    """

    power_w: Floats
    taken: Floats
    counted: Floats
    counted_w: Floats
    level_w: Floats
    level_capacity_w: Floats
    gpus: Floats
    capacity_w: Floats
    low_w: float
    high_w: float
    slack_w: Floats
    spike_w: Floats
    peak: float

    def arrays(self) -> tuple[Floats, ...]:
        """What a subject takes with it: U, R, G and its capacity, W and its capacity, g, c, noise."""
        return (
            self.power_w,
            self.taken,
            self.counted,
            self.counted_w,
            self.level_w,
            self.level_capacity_w,
            self.gpus,
            self.capacity_w,
            self.slack_w,
            self.spike_w,
        )

    @cached_property
    def totals(self) -> list[float]:
        """Their sums over all hosts."""
        return [exact.total(array) for array in self.arrays()]


def influence_of(window: Window, judgement: Judgement) -> tuple[Influence, ...]:
    """Bounds for the largest subject of every kind, and for any hosts of up to `max_colluding_ppm` of the capacity."""
    roster = window.roster
    models = _models(window, judgement)
    expected, led = _expected(window, judgement), _led(window, judgement)
    limit_w = roster.total_capacity_w * window.rule.max_colluding_ppm // _PPM
    hosts = Groups(tuple(roster.row), np.arange(len(roster.hosts), dtype=np.int64))
    each = _bounds(models, None)
    result = []
    for subject, groups in (("host", hosts), ("tenant", roster.tenants), ("failure_domain", roster.failure_domains)):
        alone = len(groups.names) == len(hosts.names)
        moved_w = _companions_moved(expected, led, roster, groups)
        bounds = each if alone else _bounds(models, groups)
        mean_w, margin_w = (one + moved_w for one in bounds)
        largest_w = int(_summed(roster.capacity_w, groups).max(initial=0))
        result.append(_influence(subject, mean_w, margin_w, judgement, limit_w, largest_w))
    moved = [*(one.range_w for one in expected), *_followers(led, limit_w)]
    result.append(_colluding(window, judgement, models, each, limit_w, math.fsum(moved)))
    return tuple(result)


def host_bounds_w(window: Window, judgement: Judgement) -> dict[str, tuple[float, float]]:
    """Bounds of every enrolled host on mean and margin, W, without what others have set aside."""
    mean_w, margin_w = _bounds(_models(window, judgement), None)
    bounds = zip(mean_w.tolist(), margin_w.tolist(), strict=True)
    return {host.host_id: bound for host, bound in zip(window.roster.hosts, bounds, strict=True)}


def _summed(values: Floats | Ints, groups: Groups) -> Floats:
    """Sums by group of values by host, added in the roster's order."""
    return exact.grouped(values.astype(np.float64), groups.codes, len(groups.names))


def _influence(
    subject: str, mean_w: Floats, margin_w: Floats, judgement: Judgement, limit_w: int, own_w: int
) -> Influence:
    reach_w = float(margin_w.max(initial=0.0))
    up, down, swing = (
        _tipped_w(one, limit_w, own_w, reach_w) for one in (judgement.up, judgement.down, judgement.swing)
    )
    return Influence(
        subject=subject,
        mean_w=math.ceil(float(mean_w.max(initial=0.0)) + up + down),
        margin_w=math.ceil(float(margin_w.max(initial=0.0)) + up + down + SWING_PEAK * swing),
    )


def _tipped_w(balance: Balance, limit_w: int, own_w: int, reach_w: float) -> float:
    """What a subject of `own_w` capacity, which moves `reach_w` itself, may change of others' claims set aside, W, and
    what leans and may tip.
    """
    return balance.range_w(limit_w, own_w, reach_w) + balance.leaning_w


def _colluding(
    window: Window,
    judgement: Judgement,
    models: Sequence[_Model],
    each: tuple[Floats, Floats],
    limit_w: int,
    moved_w: float,
) -> Influence:
    """The hosts that move most per capacity, as many as may collude; the last one in part. `each`: bounds by host.

    `moved_w`: what they move by what they say of others, W. What is expected of a host that is absent or set aside may
    lie anywhere in its clip range, and hosts that report, of as much capacity again, may have half of their companions
    among them.
    """
    mean_w, margin_w = each
    enrolled_w = window.roster.capacity_w
    order = np.argsort(-(margin_w / np.maximum(1, enrolled_w)), kind="stable")
    reached_w = np.cumsum(enrolled_w[order])
    whole = int(np.searchsorted(reached_w, limit_w, side="right"))
    colluding = np.zeros(len(order), np.int64)
    colluding[order[:whole]] = 1
    means, margins = _bounds(models, Groups(("others", "colluding"), colluding)) if whole else (np.zeros(2),) * 2
    part_mean_w = part_margin_w = 0.0
    if whole < len(order):
        last = order[whole]
        left = (limit_w - (int(reached_w[whole - 1]) if whole else 0)) / max(1, int(enrolled_w[last]))
        part_mean_w, part_margin_w = float(mean_w[last]) * left, float(margin_w[last]) * left
    return _influence(
        "colluding",
        means[1:] + (part_mean_w + moved_w),
        margins[1:] + (part_margin_w + moved_w),
        judgement,
        limit_w,
        limit_w,
    )


@dataclass(frozen=True, slots=True)
class _Expected:
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


def _expected(window: Window, judgement: Judgement) -> list[_Expected]:
    """Hosts whose references are in the figures, in place of a claim or of a part of it."""
    result = []
    for one in judgement.classes:
        known = window.history.references.get(one.key) if window.history else None
        if known is None or known.companions is None:
            continue
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
        moves_w = claims_w - known.companions.level_w
        model = window.view.models[one.key[0]]
        for row, count in targets:
            mates = [mate for mate in known.companions.rows[row].tolist() if mate >= 0]
            if known.proven[row] and mates:
                asked = [*mates, row]
                level_w = float(known.level_w[row])
                result.append(
                    _Expected(
                        companions=tuple(names[mate] for mate in asked),
                        moves_w=tuple(sorted(move for move in moves_w[asked].tolist() if not math.isnan(move))),
                        low_w=model.clip_low_w - level_w,
                        high_w=model.clip_high_w - level_w,
                        scale=count * one.factor,
                    )
                )
    return result


def _companions_moved(expected: Sequence[_Expected], led: Sequence[_Led], roster: Roster, groups: Groups) -> Floats:
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
class _Led:
    """Hosts of one class that report and have companions. `mates` [hosts, companions]: companions that report, by their
    place in `names`, else -1. `range_w`: clip range, W; `alone_w`: what is set aside if its companions leave it alone.
    """

    names: list[str]
    mates: Ints
    range_w: Floats
    alone_w: Floats
    capacity_w: Ints


def _led(window: Window, judgement: Judgement) -> list[_Led]:
    result = []
    for one in judgement.classes:
        known = window.history.references.get(one.key) if window.history else None
        if known is None or known.companions is None:
            continue
        model = window.view.models[one.key[0]]
        rows = known.rows_of(one.total.host_ids)
        there = (rows >= 0) & ~one.absent
        told = np.zeros(len(known.level_w), np.bool_)
        told[rows[there]] = True
        chosen = np.flatnonzero(there)
        chosen = chosen[(known.companions.rows[rows[chosen]] >= 0).any(axis=1) & known.proven[rows[chosen]]]
        if not chosen.size:
            continue
        mates = known.companions.rows[rows[chosen]]
        own_w, row = (one.claim_w / one.gpus)[chosen], rows[chosen]
        outside = (own_w > known.high_w[row]) | (own_w < known.low_w[row])
        to_w = one.gpus[chosen] * one.factor
        result.append(
            _Led(
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


def _followers(led: Sequence[_Led], limit_w: int) -> list[float]:
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


def _bounds(models: Sequence[_Model], groups: Groups | None) -> tuple[Floats, Floats]:
    """Bounds on mean and margin of every group of hosts, W, or of every host."""
    mean_w = margin_w = np.zeros(0)
    for model in models:
        arrays = model.arrays()
        own = arrays if groups is None else [_summed(array, groups) for array in arrays]
        moved_w = _span(model, model.totals, own, own[8], own[8], 1.0)
        at_mean, at_peak = (_span(model, model.totals, own, own[9], own[8], peak) for peak in (1.0, model.peak))
        higher_w = np.maximum(at_mean, at_peak)
        mean_w, margin_w = (moved_w, higher_w) if not mean_w.size else (mean_w + moved_w, margin_w + higher_w)
    if not mean_w.size:
        hosts = len(groups.names) if groups is not None else 0
        mean_w = margin_w = np.zeros(hosts)
    return mean_w, margin_w


def _span(
    model: _Model, totals: Sequence[float], own: Sequence[Floats], up_w: Floats, down_w: Floats, peak: float
) -> Floats:
    """Largest difference of the model's power that each subject can make, W; `peak` multiplies the others' power."""
    power, taken, counted, counted_w, level, level_capacity = (
        np.maximum(0.0, total - mine) for total, mine in zip(totals[:6], own[:6], strict=True)
    )
    gpus, capacity, enrolled = own[6], own[7], totals[7]
    power = power * peak
    others = counted_w + level_capacity
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(taken > 0, power / taken, 0.0)
        factor = np.where(others + capacity > 0, enrolled / (others + capacity), 0.0)
        alone = np.where(others > 0, enrolled / others, 0.0)
        spread = np.where(taken + gpus > 0, (counted + gpus) / (taken + gpus), 0.0)
    candidates = [
        ((power + gpus * model.high_w + up_w) * spread + level) * factor,
        ((power + gpus * model.low_w - down_w) * spread + level) * factor,
        (each * (counted + gpus) + level) * factor,
        (each * counted + level) * alone,
    ]
    there = np.where(gpus > 0, 1.0, 0.0)
    result: Floats = (np.maximum.reduce(candidates) - np.minimum.reduce(candidates)) * there
    return result


def _models(window: Window, judgement: Judgement) -> list[_Model]:
    """Every enrolled GPU model that a class reports, sorted."""
    names = sorted({one.key[0] for one in judgement.classes})
    return [_model(window, judgement, [one for one in judgement.classes if one.key[0] == name]) for name in names]


def _model(window: Window, judgement: Judgement, classes: Sequence[JudgedClass]) -> _Model:
    rule, name, roster = window.rule, classes[0].key[0], window.roster
    ticks = window.view.policy.sample_hz * rule.window_ms // 1000
    share = roster.models[name]
    columns = [np.zeros(len(roster.hosts)) for _ in range(6)]
    power_w, taken, counted, counted_w, level_w, level_capacity_w = columns
    peaks = [1.0]
    for one in classes:
        correction = judgement.corrections[one.key]
        rows, keep = one.total.rows, ~one.absent
        full = one.total.readings_of / ticks
        power = one.weights * np.nan_to_num(one.claim_w) + (1.0 - one.weights) * one.flat_w
        here = rows[keep]
        power_w[here] = (power * full / one.gpus)[keep]
        taken[here], counted[here] = full[keep], one.gpus[keep]
        counted_w[here] = one.capacity_w[keep]
        with_level = ~keep & ~np.isnan(one.level_w)
        level_w[rows[with_level]] = one.level_w[with_level]
        level_capacity_w[rows[with_level]] = one.capacity_w[with_level]
        for host_id, silent_w in one.silent_w.items():
            row = roster.row[host_id]
            level_w[row], level_capacity_w[row] = silent_w, share.capacity_w[row]
        mean = math.fsum(correction.pane_sums.tolist()) / len(correction.pane_sums)
        peaks.append(float(correction.pane_sums.max()) / mean if mean > 0 else 1.0)
    told = [one.total for one in classes if one.total.hosts]
    medians = [sorted(total.pane_epsilons_micro)[(total.hosts - 1) // 2] for total in told]
    epsilon = min(medians, default=window.view.policy.limits.max_epsilon_micro) / _PPM
    panes = len(classes[0].total.pane_sums)
    unit_w = np.where(share.gpus > 0, roster.widest_w, 0) / max(epsilon, 1e-6) * USUAL_NOISE_RATIO / ticks
    model = window.view.models[name]
    return _Model(
        power_w=power_w,
        taken=taken,
        counted=counted,
        counted_w=counted_w,
        level_w=level_w,
        level_capacity_w=level_capacity_w,
        gpus=share.gpus.astype(np.float64),
        capacity_w=share.capacity_w.astype(np.float64),
        low_w=float(model.clip_low_w),
        high_w=float(model.clip_high_w),
        slack_w=unit_w * sum_excess(panes),
        spike_w=unit_w * panes * draw_excess(panes),
        peak=max(peaks),
    )
