"""Who speaks for a domain in a window, and how much is not known of the rest.

A host speaks for its domain with the classes whose readings count: what it claims without readings, or with so few that
its past stands for it, covers nothing and hides nobody.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from power_model import exact
from power_model.swing import variance
from schemas.records import Coverage, Dilution
from stream_jobs.core.aggregate import ClassFigures, HostFigures
from stream_jobs.core.reject import Judgement
from stream_jobs.core.windows import Window

ANYTHING = 1 / 12
"""Variance of a utilisation that may be anything from 0 to 1, all equally likely."""


def coverage_of(window: Window, hosts: HostFigures) -> Coverage:
    """How much of the enrolled domain the figures rest on."""
    roster = window.roster
    reporting_w = int(hosts.counted_w.sum())
    return Coverage(
        enrolled_hosts=len(roster.hosts),
        reporting_hosts=int(np.count_nonzero(hosts.counted_w)),
        enrolled_gpus=roster.total_gpus,
        reporting_gpus=int(hosts.counted_gpus.sum()),
        enrolled_capacity_w=roster.total_capacity_w,
        reporting_capacity_w=reporting_w,
        quorum_ppm=window.rule.quorum_ppm,
        quorum_met=reporting_w * 1_000_000 >= roster.total_capacity_w * window.rule.quorum_ppm,
    )


def dilution_of(window: Window, hosts: HostFigures) -> Dilution:
    """How many hosts and tenants hide each other in the figures."""
    rows = np.flatnonzero(hosts.counted_w)
    tenant = window.roster.tenants.codes[rows]
    by_tenant = np.zeros(len(window.roster.tenants.names), np.int64)
    np.add.at(by_tenant, tenant, hosts.counted_w[rows])
    total = max(1, int(by_tenant.sum()))
    rule, tenants = window.rule, len(np.unique(tenant))
    return Dilution(
        hosts=rows.size,
        tenants=tenants,
        k_min_hosts=rule.k_min_hosts,
        k_min_tenants=rule.k_min_tenants,
        largest_host_share_ppm=int(hosts.counted_w.max(initial=0)) * 1_000_000 // total,
        largest_tenant_share_ppm=int(by_tenant.max(initial=0)) * 1_000_000 // total,
        met=rows.size >= rule.k_min_hosts and tenants >= rule.k_min_tenants,
    )


@dataclass(frozen=True, slots=True)
class Unseen:
    """What no reading tells: `power_w` of classes without figures, W; `variance_w2` of all that does not count, W^2."""

    power_w: float
    variance_w2: float


def unseen(window: Window, hosts: HostFigures, judgement: Judgement, figures: Sequence[ClassFigures]) -> Unseen:
    """Power and variance of what is not in the readings.

    Hosts with a past count at its level; a GPU model of which nothing is known is used as much as the others. Where
    others of the class report, hosts are as different as these, and those with a past range as far as it did, all the
    same way. A class of which nobody reports has no witness: it may have been switched off, or have begun a job, and
    draws anything up to its capacity, whatever is taken for it.
    """
    enrolled_w = window.roster.enrolled_w
    told = {(one.record.model, one.record.sampler_mode) for one in figures}
    counted_w: Counter[str] = Counter()
    at_level_w: Counter[str] = Counter()
    for one in judgement.classes:
        counted_w[one.key[0]] += int(one.capacity_w[~one.absent].sum())
        at_level_w[one.key[0]] += judgement.corrections[one.key].absent_capacity_w
    levels_w = [
        judgement.corrections[one.key].absent_w * one.factor for one in judgement.classes if one.key not in told
    ]
    unknown_w = sum(watts for model, watts in enrolled_w.items() if not counted_w[model] and not at_level_w[model])
    known_w = math.fsum([*(one.mean_w for one in figures), *levels_w])
    share = known_w / max(1, sum(enrolled_w.values()) - unknown_w)
    alone_w = sum(watts for model, watts in enrolled_w.items() if not counted_w[model])
    taken_w, ranges_w = [share * unknown_w], [0.0]
    for one in judgement.classes:
        correction = judgement.corrections[one.key]
        if not one.absent.all():
            ranges_w.append(one.absent_range_w * one.factor)
            continue
        taken_w.append(correction.absent_w * one.factor)
        alone_w += correction.absent_capacity_w if counted_w[one.key[0]] else 0
    missing_w = sum(enrolled_w.values()) - sum(counted_w.values()) - alone_w
    range_w, off_w = math.fsum(ranges_w), math.fsum(taken_w) - alone_w / 2
    return Unseen(
        power_w=math.fsum(levels_w) + share * unknown_w,
        variance_w2=coverage_variance_w2(hosts, missing_w)
        + ANYTHING * (alone_w * alone_w + range_w * range_w)
        + off_w * off_w,
    )


def coverage_variance_w2(hosts: HostFigures, missing_w: int) -> float:
    """Variance (W^2) of what hosts of `missing_w` capacity may draw, given those whose readings count.

    Between-host variance of power per capacity, less the known noise, and beside the hosts that are seen one that may
    draw anything; hosts are taken as exchangeable, and as large as those that are seen.
    """
    rows = np.flatnonzero((hosts.counted_w > 0) & (hosts.counted_w == hosts.capacity_w))
    if missing_w <= 0:
        return 0.0
    between, size_w = ANYTHING, float(missing_w)
    if rows.size:
        size_w = int(hosts.counted_w[rows].sum()) / rows.size
    if rows.size > 1:
        capacity_w = hosts.capacity_w[rows].astype(np.float64)
        noise = exact.total(hosts.variance_w2[rows] / (capacity_w * capacity_w)) / rows.size
        seen = max(0.0, variance(hosts.mean_w[rows] / capacity_w) - noise)
        between = (seen * (rows.size - 1) + ANYTHING) / rows.size
    missing = max(1.0, missing_w / size_w)
    return missing_w**2 * between * (1 / missing + 1 / max(1, rows.size))
