"""Outlier layers 2 to 4: claims against the host's own history, its cohort, and what any host may contribute.

Nobody is refused here, and the integer sums hold every accepted claim. A claim that neither its host's past nor enough
other hosts bear out counts in part: the rest is the host's reference. What is set aside is published, and the intervals
reach to the claim.

**Borne out.** Of the hosts that leave their own band in one direction, those with the largest deviations per
capacity, up to `max_colluding_ppm` of the enrolled capacity, may be liars. As far as others leave theirs, too, their claims
count in full: a job that starts on more hosts than may collude is real, at any speed, and liars who ride on it gain
no more than its hosts moved. Beyond that, the claims of hosts outside their own band count up to the drift cap in all,
`drift_cap_ppm` of the enrolled capacity: for rising power, for falling power and for swing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from power_model.noise import discrete_laplace_variance
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.records import SetAside
from stream_jobs.core.history import Claims, ClassKey, Floats, Ints, References, claims_of
from stream_jobs.core.tails import square_sum_excess, sum_excess
from stream_jobs.core.windows import ClassSum, Window

Flags = npt.NDArray[np.bool_]

CODES: dict[str, str] = {
    "HISTORY_UP": "A host draws more than it ever did lately: a new job, or a lie. Look at the host.",
    "HISTORY_DOWN": "A host draws less than it ever did lately: a job that ended, or a lie. Look at the host.",
    "HISTORY_SWING": "A host swings more inside the window than it ever did lately. Look at the host.",
    "COHORT_UP": "A host without a history draws more than others of its GPU model and power limit.",
    "COHORT_DOWN": "A host without a history draws less than others of its GPU model and power limit.",
    "INFLUENCE_CAPPED": "A claim beyond what the host's GPUs can draw at most or at least counts as that.",
    "ABSENT": "Enrolled hosts that did not report, or hardly, count at their own past level.",
}

LAYERS: dict[str, str] = {
    "HISTORY_UP": "history",
    "HISTORY_DOWN": "history",
    "HISTORY_SWING": "history",
    "COHORT_UP": "cohort",
    "COHORT_DOWN": "cohort",
    "INFLUENCE_CAPPED": "influence",
}
"""Layer of every code that an accepted report can get."""

UP, DOWN, SWING = ("HISTORY_UP", "COHORT_UP"), ("HISTORY_DOWN", "COHORT_DOWN"), ("HISTORY_SWING",)
"""Codes whose claims share one drift cap."""

DRIFT_SHARE = 0.01
"""Drift of an honest host beyond its past range that is no reason to flag it, as a share of its capacity."""

SWING_GROWTH = 1.21
"""Growth of a host's variance within windows beyond its past that is no reason to flag it: a tenth in amplitude."""

MIN_READINGS_SHARE = 0.5
"""A host with references that has taken fewer of its readings counts as absent."""

CAP_SIGMAS = 3.0
"""The drift cap holds what hosts gain over their true level: known noise, this many deviations of it, is taken off."""

COHORT_HOSTS = 3
"""Hosts with references that make a cohort."""

_PPM = 1_000_000
_QUANTUM_W = PANE_SUM_QUANTUM_MW / 1000


@dataclass(frozen=True, slots=True)
class Correction:
    """What the figures of one class rest on in place of its raw sums.

    `pane_sums` float64[panes], units of the raw sums: claims set aside are replaced by references. `pane_variance`:
    variance of the noise in each of them. `gpus`, `capacity_w`, `readings`: of the hosts in them. `absent_w`,
    `absent_capacity_w`: power and capacity of hosts that count at their references without a claim. `factor`: from the
    capacity of both to all that is enrolled of the model. `aside`
    float64[panes], `aside_up_w`, `aside_down_w`: what the claims set aside would add to the pane sums, and to the mean
    in W. `weights`, `flat_w` float64[hosts], by place in the class's lists: share of the claim that counts, and power
    of the host in place of the rest, W.
    """

    pane_sums: Floats
    pane_variance: float
    gpus: int
    capacity_w: int
    readings: int
    absent_w: int
    absent_capacity_w: int
    factor: float
    aside: Floats
    aside_up_w: float
    aside_down_w: float
    weights: Floats
    flat_w: Floats


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the layers found. `hosts`, `capacity_w` by code: flagged, set aside or not."""

    corrections: dict[ClassKey, Correction]
    set_aside: tuple[SetAside, ...]
    hosts: Counter[str]
    capacity_w: Counter[str]


@dataclass(slots=True)
class _Class:
    """One class under judgement; arrays by place in the class's lists, powers per host in W.

    `claim_w`, `swing_w`: mean and standard deviation of the panes, NaN without readings; the mean is held inside the
    range. `noise_w`: standard deviation of the noise in the mean. `level_w`, `swing_level_w`: references, NaN without. `codes`: hosts by code. `weights`, `flat_w`, `reason`:
    see `Correction`, and the code of the lowest weight, empty where all counts.
    """

    key: ClassKey
    total: ClassSum
    gpus: Floats
    capacity_w: Ints
    claim_w: Floats
    noise_w: Floats
    swing_w: Floats
    level_w: Floats
    swing_level_w: Floats
    codes: dict[str, Flags]
    weights: Floats
    flat_w: Floats
    reason: npt.NDArray[np.str_]
    silent_hosts: int = 0
    silent_gpus: int = 0
    silent_w: float = 0.0
    silent_capacity_w: int = 0
    factor: float = 1.0

    @property
    def absent(self) -> Flags:
        """Hosts that reported, but count as absent."""
        result: Flags = self.reason == "ABSENT"
        return result


def judge(window: Window) -> Judgement:
    """Layers 2 to 4 over the accepted reports of `window`, which has its history if there is one."""
    classes = [_flag(window, key) for key in sorted(window.sums)]
    _count_silent(window, classes)
    enrolled: Counter[str] = Counter()
    for host in window.view.members[window.rule.domain]:
        for stated in host.classes:
            enrolled[stated.model] += stated.capacity_w
    present: Counter[str] = Counter()
    for one in classes:
        present[one.key[0]] += int(one.capacity_w[~one.absent].sum()) + _absent_capacity_w(one)
    for one in classes:
        one.factor = enrolled[one.key[0]] / max(1, present[one.key[0]])
    enrolled_w = sum(enrolled.values())
    limit_w = enrolled_w * window.rule.max_colluding_ppm // _PPM
    cap_w = enrolled_w * window.rule.drift_cap_ppm / _PPM
    still = [np.zeros(len(one.gpus)) for one in classes]
    _weigh(classes, UP, [one.claim_w - one.level_w for one in classes], still, limit_w, cap_w)
    _weigh(classes, DOWN, [one.level_w - one.claim_w for one in classes], still, limit_w, cap_w)
    moved = [one.swing_w - one.swing_level_w for one in classes]
    _weigh(classes, SWING, moved, [one.swing_level_w for one in classes], limit_w, cap_w)
    for one in classes:
        _hold_capped(one)
    corrected = [_corrected(one) for one in classes]
    return Judgement(
        corrections={one.key: correction for one, (correction, _) in zip(classes, corrected, strict=True)},
        set_aside=tuple(entry for _, entries in corrected for entry in entries),
        hosts=Counter({code: sum(int(np.count_nonzero(one.codes[code])) for one in classes) for code in LAYERS}),
        capacity_w=Counter(
            {code: sum(int(one.capacity_w[one.codes[code]].sum()) for one in classes) for code in LAYERS}
        ),
    )


# -- flags -----------------------------------------------------------------------------------------------------


def _flag(window: Window, key: ClassKey) -> _Class:
    """Compare every host of a class with the model's range, its own history and its cohort."""
    total = window.sums[key]
    ticks = window.view.policy.sample_hz * window.rule.window_ms // 1000
    claims = claims_of(total, ticks)
    hosts = total.hosts
    gpus = np.array(total.host_gpus, np.float64)
    one = _Class(
        key=key,
        total=total,
        gpus=gpus,
        capacity_w=np.array(total.host_capacity_w, np.int64),
        claim_w=claims.mean_w * gpus,
        noise_w=claims.window_scale_w * math.sqrt(2 * claims.panes) * gpus,
        swing_w=np.sqrt(np.maximum(0.0, claims.swing_w2)) * gpus,
        level_w=np.full(hosts, np.nan),
        swing_level_w=np.full(hosts, np.nan),
        codes={code: np.zeros(hosts, np.bool_) for code in LAYERS},
        weights=np.ones(hosts),
        flat_w=np.zeros(hosts),
        reason=np.zeros(hosts, "U16"),
    )
    readings = np.array(total.host_readings, np.float64)
    one.reason[readings == 0] = "ABSENT"
    slack_w = claims.window_scale_w * sum_excess(claims.panes)
    with np.errstate(invalid="ignore"):  # a comparison with what a host has not, NaN, is False as it should be
        _cap_influence(window, one, claims, slack_w)
        known = window.history.references.get(key) if window.history else None
        if known is None:
            return one
        rows = known.rows_of(total.host_ids)
        proven = (rows >= 0) & known.proven[rows]
        one.reason[proven & (readings < MIN_READINGS_SHARE * gpus * ticks)] = "ABSENT"
        one.level_w = np.where(proven, known.level_w[rows] * gpus, np.nan)
        one.swing_level_w = np.where(proven, known.swing_w[rows] * gpus, np.nan)
        free = slack_w + DRIFT_SHARE * one.capacity_w / gpus
        counts = proven & ~one.absent
        one.codes["HISTORY_UP"] = counts & (claims.mean_w > known.high_w[rows] + free)
        one.codes["HISTORY_DOWN"] = counts & (claims.mean_w < known.low_w[rows] - free)
        past_w2 = known.swing_high_w2[rows]
        drift_w2 = (SWING_GROWTH - 1) * past_w2 + (DRIFT_SHARE * one.capacity_w / gpus) ** 2
        one.codes["HISTORY_SWING"] = counts & (claims.swing_w2 > past_w2 + drift_w2 + _swing_slack_w2(claims, past_w2))
        _compare_cohort(window, one, known, ~proven & ~one.absent, free)
    return one


def _swing_slack_w2(claims: Claims, true_w2: Floats | float) -> Floats:
    """How far the estimated variance of panes exceeds the true one, W^2: the noise squared, across it, and gaps."""
    if claims.panes < 2:
        return np.full_like(claims.mean_w, np.inf)
    scale_w2 = claims.pane_scale_w * claims.pane_scale_w
    squared = scale_w2 * ((square_sum_excess(claims.panes) + 2) / (claims.panes - 1))
    # The sum across weighs the noise by the power's own deviations; a quarter of the panes may hold all of them.
    few = max(1, claims.panes // 4)
    across = 2 * np.sqrt(true_w2 * scale_w2) * (sum_excess(few) / math.sqrt(few * (claims.panes - 1)))
    result: Floats = squared + across + claims.stalls_w2
    return result


def _cap_influence(window: Window, one: _Class, claims: Claims, slack_w: Floats) -> None:
    """No host counts with more than its GPUs can draw, lowered to their power limits, nor with a wilder swing."""
    model = window.view.models[one.key[0]]
    share = np.array(one.total.host_effective_w, np.float64) / np.maximum(1, one.capacity_w)
    top_w, bottom_w = (model.clip_high_w * share + slack_w) * one.gpus, (model.clip_low_w - slack_w) * one.gpus
    half_w = (model.clip_high_w - model.clip_low_w) / 2
    widest_w2 = half_w * half_w * claims.panes / max(1, claims.panes - 1)
    wild = claims.swing_w2 > widest_w2 + _swing_slack_w2(claims, widest_w2)
    beyond = (one.claim_w > top_w) | (one.claim_w < bottom_w) | wild
    one.codes["INFLUENCE_CAPPED"] = beyond & ~one.absent
    one.claim_w = np.minimum(np.maximum(one.claim_w, bottom_w), top_w)


def _compare_cohort(window: Window, one: _Class, known: References, unproven: Flags, free_w: Floats) -> None:
    """Hosts without references against those with: same GPU model, sampler mode and power limit.

    The range that liars among them cannot stretch, from the history alone: in this window nobody moves it.
    """
    limits = np.array(one.total.host_effective_w, np.int64) // np.maximum(1, one.gpus.astype(np.int64))
    for limit_w in np.unique(limits[unproven]).tolist():
        cohort = known.proven & (known.limit_w == limit_w)
        count = int(np.count_nonzero(cohort))
        if count < COHORT_HOSTS:
            continue
        trim = min((count - 1) // 2, count * window.rule.max_colluding_ppm // _PPM)
        low = float(np.sort(known.low_w[cohort])[trim])
        high = float(np.sort(known.high_w[cohort])[count - 1 - trim])
        levels = np.sort(known.level_w[cohort])
        level = float(levels[(count - 1) // 2] + levels[count // 2]) / 2
        mean_w = one.claim_w / one.gpus
        here = unproven & (limits == limit_w)
        up, down = here & (mean_w > high + free_w), here & (mean_w < low - free_w)
        one.codes["COHORT_UP"] = one.codes["COHORT_UP"] | up
        one.codes["COHORT_DOWN"] = one.codes["COHORT_DOWN"] | down
        one.level_w = np.where(up | down, level * one.gpus, one.level_w)


def _count_silent(window: Window, classes: Sequence[_Class]) -> None:
    """Enrolled hosts without a report that have references: they count at these."""
    references = window.history.references if window.history else {}
    for host in window.view.members[window.rule.domain]:
        if host.host_id in window.entries:
            continue
        for stated in host.classes:
            for one in classes:
                known = references.get(one.key)
                row = known.index.get(host.host_id, -1) if known and one.key[0] == stated.model else -1
                if known and 0 <= row < len(known.level_w) and known.proven[row]:
                    one.silent_hosts += 1
                    one.silent_gpus += stated.gpus
                    one.silent_capacity_w += stated.capacity_w
                    one.silent_w = math.fsum((one.silent_w, float(known.level_w[row]) * stated.gpus))
                    break


# -- weights ---------------------------------------------------------------------------------------------------


def _weigh(
    classes: Sequence[_Class],
    codes: tuple[str, ...],
    moved: Sequence[Floats],
    base: Sequence[Floats],
    limit_w: int,
    cap_w: float,
) -> None:
    """Lower the weights of the hosts with one of `codes` until what nobody bears out is within the cap.

    `moved`: deviation of every host's claim from its reference, W, in the direction asked about, NaN without a
    reference; `base`: what the weight acts on beside it. `limit_w`: capacity that may collude, W.
    """
    flags = [np.logical_or.reduce([one.codes[code] for code in codes]) for one in classes]
    if not any(flag.any() for flag in flags):
        return
    shares = [
        np.where(flag, np.maximum(0.0, by), 0.0) / np.maximum(1, one.capacity_w)
        for one, flag, by in zip(classes, flags, moved, strict=True)
    ]
    borne = _borne_out([one.capacity_w for one in classes], shares, limit_w)
    within, beyond, under, noise = [], [], [], []
    for one, share, flag, below in zip(classes, shares, flags, base, strict=True):
        watts = one.capacity_w[flag] * one.factor
        within += (np.minimum(share[flag], borne) * watts).tolist()
        beyond += (np.maximum(share[flag] - borne, 0.0) * watts).tolist()
        under += (below[flag] * one.factor).tolist()
        noise += ((one.noise_w[flag] * one.factor) ** 2).tolist()
    cap_w = max(0.0, cap_w - CAP_SIGMAS * math.sqrt(math.fsum(noise)))
    rest_w = math.fsum(beyond)
    if rest_w <= cap_w:
        return
    fixed_w = math.fsum(within) + math.fsum(under)
    weight = math.floor(_PPM * (fixed_w + cap_w) / (fixed_w + rest_w)) / _PPM
    for one, flag in zip(classes, flags, strict=True):
        lower = flag & (weight < one.weights)
        one.weights = np.where(lower, weight, one.weights)
        one.flat_w = np.where(lower, one.level_w, one.flat_w)
        for code in codes:
            one.reason[lower & one.codes[code]] = code


def _borne_out(capacity_w: Sequence[Ints], shares: Sequence[Floats], limit_w: int) -> float:
    """Deviation per capacity that hosts of more than `limit_w` reach: some of them are honest."""
    share = np.concatenate(shares)
    order = np.argsort(-share, kind="stable")
    reached = np.cumsum(np.concatenate(capacity_w)[order])
    first = int(np.searchsorted(reached, limit_w, side="right"))
    return float(share[order[first]]) if first < len(order) else 0.0


def _hold_capped(one: _Class) -> None:
    """Claims beyond the range count as its end, without swing; in part, where they are set aside as well."""
    capped = one.codes["INFLUENCE_CAPPED"] & ~one.absent
    if capped.any():
        flat = np.where(one.weights < 1.0, one.weights * one.claim_w + (1.0 - one.weights) * one.flat_w, one.claim_w)
        one.flat_w = np.where(capped, flat, one.flat_w)
        one.weights = np.where(capped, 0.0, one.weights)
        one.reason[capped] = "INFLUENCE_CAPPED"


# -- figures ---------------------------------------------------------------------------------------------------


def _absent_capacity_w(one: _Class) -> int:
    with_level = one.absent & ~np.isnan(one.level_w)
    return one.silent_capacity_w + int(one.capacity_w[with_level].sum())


def _noise_variance(scales_micro: Sequence[int]) -> float:
    """Variance of the sum of one draw per host, exact in any order of the hosts."""
    return math.fsum(
        count * discrete_laplace_variance(scale / 1e6) for scale, count in sorted(Counter(scales_micro).items())
    )


def _corrected(one: _Class) -> tuple[Correction, list[SetAside]]:
    """Replace what is set aside, from published figures alone: an auditor gets the same with the entries in hand."""
    total, absent = one.total, one.absent
    panes = len(total.pane_sums)
    sums = total.pane_sums.astype(np.float64)
    aside = np.zeros(panes)
    scales = [scale for scale, gone in zip(total.pane_scales_micro, absent.tolist(), strict=True) if not gone]
    variance = [_noise_variance(scales)]
    up_w, down_w = [0.0], [0.0]
    entries = []
    for code in sorted(
        {str(code) for code in one.reason[one.reason != ""]} | ({"ABSENT"} if one.silent_hosts else set())
    ):
        chosen = np.flatnonzero(one.reason == code).tolist()
        entry = _entry(one, code, chosen)
        entries.append(entry)
        raw = np.frombuffer(entry.pane_sums_sum, "<i8").astype(np.float64)
        if code == "ABSENT":
            sums = sums - raw
            continue
        rest = 1.0 - entry.weight_ppm / _PPM
        # The reference's power as pane sums of the readings taken.
        flat = entry.reference_w * (entry.readings_taken / (entry.gpus * panes * _QUANTUM_W))
        sums = sums - rest * (raw - flat)
        variance.append(-_noise_variance([total.pane_scales_micro[i] for i in chosen]) * rest * (2.0 - rest))
        if code != "INFLUENCE_CAPPED":  # what no GPU can draw is not a claim to reach for
            aside = aside + rest * (raw - flat)
            more_w = rest * (entry.claimed_w - entry.reference_w) * one.factor
            (up_w if more_w > 0 else down_w).append(abs(more_w))
    absent_entry = next((entry for entry in entries if entry.code == "ABSENT"), None)
    keep = ~absent
    correction = Correction(
        pane_sums=sums,
        pane_variance=max(0.0, math.fsum(variance)),
        gpus=int(np.array(total.host_gpus, np.int64)[keep].sum()),
        capacity_w=int(one.capacity_w[keep].sum()),
        readings=int(np.array(total.host_readings, np.int64)[keep].sum()),
        absent_w=absent_entry.reference_w if absent_entry else 0,
        absent_capacity_w=_absent_capacity_w(one),
        factor=one.factor,
        aside=aside,
        aside_up_w=math.fsum(up_w),
        aside_down_w=math.fsum(down_w),
        weights=np.where(absent, 0.0, one.weights),
        flat_w=one.flat_w,
    )
    return correction, entries


def _entry(one: _Class, code: str, chosen: list[int]) -> SetAside:
    """Publish one group of hosts; those that hardly report stand together with those that do not at all."""
    total = one.total
    raw = np.zeros(len(total.pane_sums), np.int64)
    for i in chosen:
        raw += np.frombuffer(total.panes[i], "<i4")
    instead = one.level_w if code == "ABSENT" else one.flat_w
    silent = code == "ABSENT"
    with_level = [i for i in chosen if not np.isnan(instead[i])]
    return SetAside(
        model=one.key[0],
        sampler_mode=one.key[1],
        code=code,
        hosts=len(chosen) + (one.silent_hosts if silent else 0),
        gpus=sum(total.host_gpus[i] for i in chosen) + (one.silent_gpus if silent else 0),
        capacity_w=sum(total.host_capacity_w[i] for i in chosen) + (one.silent_capacity_w if silent else 0),
        readings_taken=sum(total.host_readings[i] for i in chosen),
        pane_sums_sum=raw.astype("<i8").tobytes(),
        claimed_w=round(math.fsum(float(one.claim_w[i]) for i in chosen if not np.isnan(one.claim_w[i]))),
        reference_w=round(math.fsum([float(instead[i]) for i in with_level] + ([one.silent_w] if silent else []))),
        weight_ppm=0 if silent else round(float(one.weights[chosen[0]]) * _PPM),
    )
