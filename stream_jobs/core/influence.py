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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from power_model import exact
from schemas.records import Influence
from stream_jobs.core.aside import JudgedClass
from stream_jobs.core.balance import Balance
from stream_jobs.core.history import Floats, Ints
from stream_jobs.core.leading import companions_moved, expected_of, followers, led_by
from stream_jobs.core.reject import USUAL_NOISE_RATIO, Judgement
from stream_jobs.core.roster import Groups
from stream_jobs.core.tails import draw_excess, sum_excess
from stream_jobs.core.windows import Window

SWING_PEAK = 3.0
"""Peak of a swing over its mean, in standard deviations: the normal law's at 99.9 %, rounded."""

AHEAD = "the margin looks ahead: what is claimed in any window of the history may move it by up to the capacity"
"""Why a margin with a horizon has no bound: it rests on how the raw panes of the past have swung, and one host's swing
may be all that there is."""

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
    expected, led = expected_of(window, judgement), led_by(window, judgement)
    limit_w = roster.total_capacity_w * window.rule.max_colluding_ppm // _PPM
    hosts = Groups(tuple(roster.row), np.arange(len(roster.hosts), dtype=np.int64))
    each = _bounds(models, None)
    result = []
    for subject, groups in (("host", hosts), ("tenant", roster.tenants), ("failure_domain", roster.failure_domains)):
        alone = len(groups.names) == len(hosts.names)
        moved_w = companions_moved(expected, led, roster, groups)
        bounds = each if alone else _bounds(models, groups)
        mean_w, margin_w = (one + moved_w for one in bounds)
        largest_w = int(_summed(roster.capacity_w, groups).max(initial=0))
        result.append(_influence(subject, mean_w, margin_w, judgement, limit_w, largest_w, window.rule.horizon_ms))
    moved = [*(one.range_w for one in expected), *followers(led, limit_w)]
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
    subject: str, mean_w: Floats, margin_w: Floats, judgement: Judgement, limit_w: int, own_w: int, horizon_ms: int
) -> Influence:
    reach_w = float(margin_w.max(initial=0.0))
    up, down, swing = (
        _tipped_w(one, limit_w, own_w, reach_w) for one in (judgement.up, judgement.down, judgement.swing)
    )
    bound_w = math.ceil(float(margin_w.max(initial=0.0)) + up + down + SWING_PEAK * swing)
    return Influence(
        subject=subject,
        mean_w=math.ceil(float(mean_w.max(initial=0.0)) + up + down),
        margin_w=None if horizon_ms else bound_w,
        margin_w_absent_reason=AHEAD if horizon_ms else None,
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
        window.rule.horizon_ms,
    )


def _bounds(models: Sequence[_Model], groups: Groups | None) -> tuple[Floats, Floats]:
    """Bounds on mean and margin of every group of hosts, W, or of every host.

    A GPU model of which nothing is known follows the others: it adds its share to all that moves them.
    """
    enrolled_w = [model.totals[7] for model in models]
    known_w = [model.totals[7] for model in models if model.totals[3] + model.totals[5] > 0.0]
    follow = math.fsum(enrolled_w) / math.fsum(known_w) if known_w else 1.0
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
    return mean_w * follow, margin_w * follow


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
    """Every enrolled GPU model, sorted: one of whose hosts may report although none does."""
    names = sorted(window.roster.models)
    return [_model(window, judgement, name, [one for one in judgement.classes if one.key[0] == name]) for name in names]


def _model(window: Window, judgement: Judgement, name: str, classes: Sequence[JudgedClass]) -> _Model:
    rule, roster = window.rule, window.roster
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
    panes = rule.window_ms // rule.pane_ms
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
