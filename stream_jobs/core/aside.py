"""What the figures rest on in place of a class's raw sums, and the published entries that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from power_model.noise import summed_variance
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.records import SetAside
from stream_jobs.core.history import ClassKey, Floats, Ints
from stream_jobs.core.windows import ClassSum

Flags = npt.NDArray[np.bool_]

ABSENT = "ABSENT"
"""Code of hosts that count at their references without a claim."""

MAX_NOISE_RATIO = 4.0
"""Pane sums and histograms whose noise is more than so many times their class's lower median do not count: they tell
nothing, and added up they would drown the others."""

UNREAL = frozenset({"INFLUENCE_CAPPED"})
"""Codes of claims that no GPU can draw: the intervals do not reach for them."""

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


@dataclass(slots=True)
class JudgedClass:
    """One class under judgement; arrays by place in the class's lists, powers per host in W.

    `claim_w`, `swing_w`: mean and standard deviation of the panes, NaN without readings; the mean is held inside the
    range. `noise_w`: standard deviation of the noise in the mean. `level_w`, `swing_level_w`: references, NaN without.
    `codes`: hosts by code. `steady`: hosts whose past claims were away from their references by noise alone, by up to
    `rise_w` and `fall_w`. `weights`, `flat_w`: see `Correction`. `reason`: the code of the lowest weight, empty where
    all counts. `expected_w`: references of all rows of the history, W per GPU. `silent_*`: enrolled hosts without a
    report that have references, `silent_w` each at its reference. `band_w`: width of the band of all rows of the
    history, W per GPU; `absent_range_w`: of the hosts that count at their references, together, W. `factor`: see
    `Correction`.
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
    steady: Flags
    rise_w: Floats
    fall_w: Floats
    expected_w: Floats
    band_w: Floats = field(default_factory=lambda: np.zeros(0))
    absent_range_w: float = 0.0
    silent_hosts: int = 0
    silent_gpus: int = 0
    silent_w: dict[str, float] = field(default_factory=dict)
    silent_capacity_w: int = 0
    factor: float = 1.0

    @property
    def absent(self) -> Flags:
        """Hosts that reported, but count as absent."""
        result: Flags = self.reason == ABSENT
        return result


def absent_capacity_w(one: JudgedClass) -> int:
    """Capacity of the hosts that count at their references without a claim, W."""
    with_level = one.absent & ~np.isnan(one.level_w)
    return one.silent_capacity_w + int(one.capacity_w[with_level].sum())


def corrected(one: JudgedClass) -> tuple[Correction, list[SetAside]]:
    """Replace what is set aside, from published figures alone: an auditor gets the same with the entries in hand."""
    total, absent = one.total, one.absent
    panes = len(total.pane_sums)
    sums = total.pane_sums.astype(np.float64)
    aside = np.zeros(panes)
    scales = [scale for scale, gone in zip(total.pane_scales_micro, absent.tolist(), strict=True) if not gone]
    variance = [summed_variance(scales)]
    up_w, down_w = [0.0], [0.0]
    entries = []
    for code in sorted(
        {str(code) for code in one.reason[one.reason != ""]} | ({ABSENT} if one.silent_hosts else set())
    ):
        chosen = np.flatnonzero(one.reason == code).tolist()
        entry = _entry(one, code, chosen)
        entries.append(entry)
        raw = np.frombuffer(entry.pane_sums_sum, "<i8").astype(np.float64)
        if code == ABSENT:
            sums = sums - raw
            continue
        rest = 1.0 - entry.weight_ppm / _PPM
        # The reference's power as pane sums of the readings taken.
        flat = entry.reference_w * (entry.readings_taken / (entry.gpus * panes * _QUANTUM_W))
        sums = sums - rest * (raw - flat)
        variance.append(-summed_variance([total.pane_scales_micro[i] for i in chosen]) * rest * (2.0 - rest))
        if code not in UNREAL:
            aside = aside + rest * (raw - flat)
            more_w = rest * (entry.claimed_w - entry.reference_w) * one.factor
            (up_w if more_w > 0 else down_w).append(abs(more_w))
    absent_entry = next((entry for entry in entries if entry.code == ABSENT), None)
    keep = ~absent
    correction = Correction(
        pane_sums=sums,
        pane_variance=max(0.0, math.fsum(variance)),
        gpus=int(total.gpus_of[keep].sum()),
        capacity_w=int(one.capacity_w[keep].sum()),
        readings=int(total.readings_of[keep].sum()),
        absent_w=absent_entry.reference_w if absent_entry else 0,
        absent_capacity_w=absent_capacity_w(one),
        factor=one.factor,
        aside=aside,
        aside_up_w=math.fsum(up_w),
        aside_down_w=math.fsum(down_w),
        weights=np.where(absent, 0.0, one.weights),
        flat_w=one.flat_w,
    )
    return correction, entries


def _entry(one: JudgedClass, code: str, chosen: list[int]) -> SetAside:
    """Publish one group of hosts; those that hardly report stand together with those that do not at all."""
    total = one.total
    raw = total.panes[chosen].sum(axis=0, dtype=np.int64)
    instead = one.level_w if code == ABSENT else one.flat_w
    silent = code == ABSENT
    with_level = [i for i in chosen if not np.isnan(instead[i])]
    return SetAside(
        model=one.key[0],
        sampler_mode=one.key[1],
        code=code,
        hosts=len(chosen) + (one.silent_hosts if silent else 0),
        gpus=int(total.gpus_of[chosen].sum()) + (one.silent_gpus if silent else 0),
        capacity_w=int(total.capacity_of_w[chosen].sum()) + (one.silent_capacity_w if silent else 0),
        readings_taken=int(total.readings_of[chosen].sum()),
        pane_sums_sum=raw.astype("<i8").tobytes(),
        claimed_w=round(math.fsum(float(one.claim_w[i]) for i in chosen if not np.isnan(one.claim_w[i]))),
        reference_w=round(
            math.fsum([float(instead[i]) for i in with_level] + (list(one.silent_w.values()) if silent else []))
        ),
        weight_ppm=0 if silent else round(float(one.weights[chosen[0]]) * _PPM),
    )
