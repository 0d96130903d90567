"""Outlier layers 2 to 4: claims against the host's own history, its cohort, and what any host may contribute.

Nobody is refused here, and the integer sums hold every accepted claim. A claim that neither its host's past nor enough
other hosts bear out counts in part: the rest is the host's reference. What is set aside is published, and the intervals
reach to the claim.

**Borne out.** Of the hosts that leave their own band in one direction, those with the largest deviations per
capacity, up to `max_colluding_ppm` of the enrolled capacity, may be liars. As far as others leave theirs, too, their
claims count in full: a job that starts on more hosts than may collude is real, at any speed, and liars who ride on it
gain no more than its hosts moved. Beyond that, the claims of hosts outside their own band count up to the drift cap in
all, `drift_cap_ppm` of the enrolled capacity, less what fits into the bands: for rising power, for falling power and
for swing. The further they claim beyond the cap, the less they count: at twice the cap nothing does (ADR 21).

**References.** A host is expected to draw its own median, moved as its companions (`core.companions`) have moved.

**Drift.** Steady hosts that now lean to one side, further than ever lately but each within its band, are taken
together: where that many cannot lean by noise alone, they share the drift cap with those outside their bands.

**Noise as an excuse.** What noise explains is judged by the class's usual budget: a host that states much more noise
than others is given little more room, and beyond `MAX_NOISE_RATIO` its claims are no information and do not count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from schemas.records import SetAside
from stream_jobs.core.aside import ABSENT, MAX_NOISE_RATIO, Correction, Flags, JudgedClass, absent_capacity_w, corrected
from stream_jobs.core.balance import Balance, directed, weigh
from stream_jobs.core.history import Claims, ClassKey, Floats, References, claims_of, enrolled_capacity_w
from stream_jobs.core.tails import draw_excess, square_sum_excess, sum_excess
from stream_jobs.core.windows import ClassSum, Window

CODES: dict[str, str] = {
    "HISTORY_UP": "A host draws more than it ever did lately: a new job, or a lie. Look at the host.",
    "HISTORY_DOWN": "A host draws less than it ever did lately: a job that ended, or a lie. Look at the host.",
    "DRIFT_UP": "Many hosts that were steady draw a little more, together more than noise can: drift, or a lie.",
    "DRIFT_DOWN": "Many hosts that were steady draw a little less, together more than noise can: drift, or a lie.",
    "HISTORY_SWING": "A host swings more inside the window than it ever did lately. Look at the host.",
    "COHORT_UP": "A host without a history draws more than others of its GPU model and power limit.",
    "COHORT_DOWN": "A host without a history draws less than others of its GPU model and power limit.",
    "INFLUENCE_CAPPED": "A claim beyond what the host's GPUs can draw at most or at least counts as that.",
    "NOISE_EXCESS": "A host states far less privacy budget than others of its class: its claims are mostly noise.",
    "ABSENT": "Enrolled hosts that did not report, or hardly, count at their own past level.",
}

LAYERS: dict[str, str] = {
    "HISTORY_UP": "history",
    "HISTORY_DOWN": "history",
    "DRIFT_UP": "history",
    "DRIFT_DOWN": "history",
    "HISTORY_SWING": "history",
    "COHORT_UP": "cohort",
    "COHORT_DOWN": "cohort",
    "INFLUENCE_CAPPED": "influence",
    "NOISE_EXCESS": "influence",
}
"""Layer of every code that an accepted report can get."""

UP, DOWN = ("HISTORY_UP", "COHORT_UP", "DRIFT_UP"), ("HISTORY_DOWN", "COHORT_DOWN", "DRIFT_DOWN")
SWING = ("HISTORY_SWING",)
"""Codes whose claims share one drift cap."""

DRIFT_SHARE = 0.005
"""Drift of an honest host beyond its past range that is no reason to flag it, as a share of its capacity."""

SWING_GROWTH = 1.21
"""Growth of a host's variance within windows beyond its past that is no reason to flag it: a tenth in amplitude."""

MIN_READINGS_SHARE = 0.5
"""A host with references that has taken fewer of its readings counts as absent."""

STEADY_SIGMAS = 8.0
"""A host whose past claims lie this close to its references, in deviations of the noise, was steady."""

USUAL_NOISE_RATIO = 1.5
"""Noise of a host in that of the class's median host: up to this its own counts in full, beyond `MAX_NOISE_RATIO` its
claims do not count."""

COHORT_HOSTS = 3
"""Hosts with references that make a cohort."""

_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the layers found. `hosts`, `capacity_w` by code: flagged, set aside or not. `classes`: host by host.

    `up`, `down`, `swing`: how claims outside the bands were weighed.
    """

    corrections: dict[ClassKey, Correction]
    set_aside: tuple[SetAside, ...]
    hosts: Counter[str]
    capacity_w: Counter[str]
    classes: tuple[JudgedClass, ...]
    up: Balance
    down: Balance
    swing: Balance


def judge(window: Window) -> Judgement:
    """Layers 2 to 4 over the accepted reports of `window`, which has its history if there is one."""
    classes = [_flag(window, key, total) for key, total in _classes(window)]
    _count_silent(window, classes)
    classes = [one for one in classes if one.total.hosts or one.silent_hosts]
    enrolled = enrolled_capacity_w(window)
    present: Counter[str] = Counter()
    for one in classes:
        present[one.key[0]] += int(one.capacity_w[~one.absent].sum()) + absent_capacity_w(one)
    for one in classes:
        one.factor = enrolled[one.key[0]] / max(1, present[one.key[0]])
    enrolled_w = sum(enrolled.values())
    limit_w = enrolled_w * window.rule.max_colluding_ppm // _PPM
    cap_w = max(0.0, enrolled_w * window.rule.drift_cap_ppm / _PPM - DRIFT_SHARE * limit_w)
    still = [np.zeros(len(one.gpus)) for one in classes]
    up = [one.claim_w - one.level_w for one in classes]
    rising = weigh(*directed(classes, UP, up, still), limit_w, cap_w)
    falling = weigh(*directed(classes, DOWN, [-moved for moved in up], still), limit_w, cap_w)
    swung = [one.swing_w - one.swing_level_w for one in classes]
    swinging = weigh(*directed(classes, SWING, swung, [one.swing_level_w for one in classes]), limit_w, cap_w)
    for one in classes:
        _hold_capped(one)
    figures = [corrected(one) for one in classes]
    return Judgement(
        corrections={one.key: correction for one, (correction, _) in zip(classes, figures, strict=True)},
        set_aside=tuple(entry for _, entries in figures for entry in entries),
        hosts=Counter({code: sum(int(np.count_nonzero(one.codes[code])) for one in classes) for code in LAYERS}),
        capacity_w=Counter(
            {code: sum(int(one.capacity_w[one.codes[code]].sum()) for one in classes) for code in LAYERS}
        ),
        classes=tuple(classes),
        up=rising,
        down=falling,
        swing=swinging,
    )


# -- flags -----------------------------------------------------------------------------------------------------


def _classes(window: Window) -> list[tuple[ClassKey, ClassSum]]:
    """Classes that report, and those of which hosts have references and nobody reports; sorted."""
    sums, roster = dict(window.sums), window.roster
    if len(window.entries) < len(roster.hosts):
        panes = window.rule.window_ms // window.rule.pane_ms
        for key in window.history.references if window.history else {}:
            if key not in sums and key[0] in roster.models:
                sums[key] = ClassSum.empty(window.view.models[key[0]].edges_w, panes, roster)
    return sorted(sums.items())


def _flag(window: Window, key: ClassKey, total: ClassSum) -> JudgedClass:
    """Compare every host of a class with the model's range, its own history and its cohort."""
    ticks = window.view.policy.sample_hz * window.rule.window_ms // 1000
    claims = claims_of(total, ticks)
    hosts = total.hosts
    gpus = total.gpus_of.astype(np.float64)
    one = JudgedClass(
        key=key,
        total=total,
        gpus=gpus,
        capacity_w=total.capacity_of_w,
        claim_w=claims.mean_w * gpus,
        noise_w=claims.window_scale_w * math.sqrt(2 * claims.panes) * gpus,
        swing_w=np.sqrt(np.maximum(0.0, claims.swing_w2)) * gpus,
        level_w=np.full(hosts, np.nan),
        swing_level_w=np.full(hosts, np.nan),
        codes={code: np.zeros(hosts, np.bool_) for code in LAYERS},
        weights=np.ones(hosts),
        flat_w=np.zeros(hosts),
        reason=np.zeros(hosts, "U16"),
        steady=np.zeros(hosts, np.bool_),
        rise_w=np.full(hosts, np.nan),
        fall_w=np.full(hosts, np.nan),
        expected_w=np.zeros(0),
    )
    claims = _usual_noise(one, claims)
    readings = total.readings_of.astype(np.float64)
    one.reason[readings == 0] = ABSENT
    slack_w = claims.window_scale_w * sum_excess(claims.panes)
    with np.errstate(invalid="ignore"):  # a comparison with what a host has not, NaN, is False as it should be
        _cap_influence(window, one, claims, slack_w)
        known = window.history.references.get(key) if window.history else None
        if known is None:
            return one
        rows = known.rows_of(total.host_ids)
        proven = (rows >= 0) & known.proven[rows]
        one.reason[proven & (readings < MIN_READINGS_SHARE * gpus * ticks)] = ABSENT
        told = proven & ~one.absent
        expected_w, low_w, high_w = known.bands_w(rows[told], (one.claim_w / gpus)[told])
        model = window.view.models[key[0]]
        one.expected_w = np.minimum(np.maximum(expected_w, model.clip_low_w), model.clip_high_w)
        one.level_w = np.where(proven, one.expected_w[rows] * gpus, np.nan)
        swing_w = known.expected_swing_w(rows[told], np.sqrt(np.maximum(0.0, claims.swing_w2))[told])
        one.swing_level_w = np.where(proven, swing_w[rows] * gpus, np.nan)
        free = slack_w + DRIFT_SHARE * one.capacity_w / gpus
        counts = proven & ~one.absent
        near = STEADY_SIGMAS * one.noise_w / gpus
        one.steady = counts & ((high_w - low_w)[rows] <= 2 * near)
        one.rise_w, one.fall_w = (high_w - expected_w)[rows] * gpus, (expected_w - low_w)[rows] * gpus
        one.codes["HISTORY_UP"] = counts & (claims.mean_w > high_w[rows] + free)
        one.codes["HISTORY_DOWN"] = counts & (claims.mean_w < low_w[rows] - free)
        past_w2 = np.maximum(known.swing_high_w2, swing_w * swing_w)[rows]
        drift_w2 = (SWING_GROWTH - 1) * past_w2 + (DRIFT_SHARE * one.capacity_w / gpus) ** 2
        one.codes["HISTORY_SWING"] = counts & (claims.swing_w2 > past_w2 + drift_w2 + _swing_slack_w2(claims, past_w2))
        _compare_cohort(window, one, known, ~proven & ~one.absent, free)
        one.band_w = np.nan_to_num(high_w - low_w)
        gone = proven & one.absent
        one.absent_range_w = math.fsum((one.band_w[rows] * gpus)[gone].tolist())
    return one


def _usual_noise(one: JudgedClass, claims: Claims) -> Claims:
    """Claims with the noise that is believed; hosts that state far more than the class's median do not count."""
    epsilons = np.array(one.total.pane_epsilons_micro, np.float64)
    if not epsilons.size:
        return claims
    ratio = np.sort(epsilons)[(len(epsilons) - 1) // 2] / np.maximum(1.0, epsilons)
    one.codes["NOISE_EXCESS"] = ratio > MAX_NOISE_RATIO
    one.reason[one.codes["NOISE_EXCESS"]] = ABSENT
    believed = np.minimum(1.0, USUAL_NOISE_RATIO / np.maximum(ratio, 1e-9))
    return replace(claims, window_scale_w=claims.window_scale_w * believed, pane_scale_w=claims.pane_scale_w * believed)


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


def _cap_influence(window: Window, one: JudgedClass, claims: Claims, slack_w: Floats) -> None:
    """No host counts with more than its GPUs can draw, lowered to their power limits, nor with a wilder swing.

    Panes are held against the range by the schedule, so that missing readings make none of them higher.
    """
    model = window.view.models[one.key[0]]
    share = one.total.effective_of_w / np.maximum(1, one.capacity_w)
    top_w, bottom_w = (model.clip_high_w * share + slack_w) * one.gpus, (model.clip_low_w - slack_w) * one.gpus
    half_w = (model.clip_high_w - model.clip_low_w) / 2
    widest_w2 = half_w * half_w * claims.panes / max(1, claims.panes - 1)
    wild = claims.swing_w2 > widest_w2 + _swing_slack_w2(claims, widest_w2)
    spike_w = claims.spike_scale_w * draw_excess(claims.panes)
    peaks = (claims.peak_w > model.clip_high_w + spike_w) | (claims.trough_w < min(0, model.clip_low_w) - spike_w)
    beyond = (one.claim_w > top_w) | (one.claim_w < bottom_w) | wild | peaks
    one.codes["INFLUENCE_CAPPED"] = beyond & ~one.absent
    one.claim_w = np.minimum(np.maximum(one.claim_w, bottom_w), top_w)


def _compare_cohort(window: Window, one: JudgedClass, known: References, unproven: Flags, free_w: Floats) -> None:
    """Hosts without references against those with: same GPU model, sampler mode and power limit.

    The range that liars among them cannot stretch, from the history alone: in this window nobody moves it.
    """
    limits = one.total.effective_of_w // np.maximum(1, one.gpus.astype(np.int64))
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


def _count_silent(window: Window, classes: Sequence[JudgedClass]) -> None:
    """Enrolled hosts without a report that have references: they count at these, in a class that reports if any."""
    if len(window.entries) == len(window.roster.hosts):
        return
    references = window.history.references if window.history else {}
    classes = sorted(classes, key=lambda one: (not one.total.hosts, one.key))
    for host in window.roster.hosts:
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
                    one.silent_w[host.host_id] = float(one.expected_w[row]) * stated.gpus
                    one.absent_range_w += float(one.band_w[row]) * stated.gpus
                    break


# -- weights ---------------------------------------------------------------------------------------------------


def _hold_capped(one: JudgedClass) -> None:
    """Claims beyond the range count as its end, without swing; in part, where they are set aside as well."""
    capped = one.codes["INFLUENCE_CAPPED"] & ~one.absent
    if capped.any():
        flat = np.where(one.weights < 1.0, one.weights * one.claim_w + (1.0 - one.weights) * one.flat_w, one.claim_w)
        one.flat_w = np.where(capped, flat, one.flat_w)
        one.weights = np.where(capped, 0.0, one.weights)
        one.reason[capped] = "INFLUENCE_CAPPED"
