"""Hosts of a domain that swung in step in the windows before, from raw claims alone (`docs/adr/0024`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from power_model.groups import synchronised_groups, unlike_noise
from power_model.noise import discrete_laplace_variance
from schemas.contract import PANE_SUM_QUANTUM_MW
from stream_jobs.core.columns import ClassSum, Ints

if TYPE_CHECKING:
    from stream_jobs.core.windows import Window

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]
ClassKey = tuple[str, str]

GROUP_WINDOWS = 5
"""Windows for which a group is remembered. Jobs last longer; but a host that left one is soon not taken for part of it.
"""


@dataclass(frozen=True, slots=True)
class PastGroups:
    """Groups of the windows before: by class the number of every row's group, int8[rows of `index`, windows], the
    newest first, -1 for none. Numbers of one window are the same in all classes.
    """

    index: Mapping[str, int]
    classes: Mapping[ClassKey, Labels]

    def of(self, key: ClassKey, host_ids: Sequence[str]) -> Labels | None:
        """Groups of some hosts, int8[hosts, windows]; None if no host of the class was in one."""
        known = self.classes.get(key)
        if known is None:
            return None
        rows = np.array([self.index.get(host_id, -1) for host_id in host_ids], np.int64)
        there = (rows >= 0) & (rows < len(known))  # the index has grown since
        result = np.full((len(rows), known.shape[1]), -1, np.int8)
        result[there] = known[rows[there]]
        return result


def past_groups(
    index: Mapping[str, int], windows: Sequence[Mapping[ClassKey, tuple[npt.NDArray[np.int32], Labels]]]
) -> PastGroups:
    """Join the groups of some windows, oldest first: by class the hosts' rows in `index`, and what group each is in."""
    rows = len(index)
    classes: dict[ClassKey, Labels] = {}
    for place, one in enumerate(reversed(windows)):
        for key, (at, groups) in one.items():
            if groups.size and int(groups.max()) >= 0:
                known = classes.setdefault(key, np.full((rows, len(windows)), -1, np.int8))
                known[at, place] = groups
    return PastGroups(index, classes)


def noise_std_of(total: ClassSum, place: int) -> Floats:
    """Standard deviation of discrete Laplace noise by host, unit of the release at `place` of `ClassSum.scales`; 0
    where there is none.
    """
    stated = (one[place] for one in total.scales)
    known = [math.sqrt(discrete_laplace_variance(scale / 1e6)) if scale else 0.0 for scale in stated]
    return np.array(known, dtype=np.float64)[total.scale_codes]


def pane_unit_w(readings: Ints, gpus: Ints, panes: int, ticks_per_pane: int) -> Floats:
    """W per unit of the pane sums of hosts with `readings` > 0 of their `gpus`, float64[hosts]."""
    return np.asarray(PANE_SUM_QUANTUM_MW / 1000 / (ticks_per_pane * (readings / (gpus * (ticks_per_pane * panes)))))


def power_of(total: ClassSum, rows: Ints, ticks_per_pane: int) -> tuple[Floats, Floats]:
    """Power in the panes of some of a class's hosts, W [rows, panes], and W per unit of their pane sums [rows].

    `rows`: places in the class's lists, ascending, of hosts with readings. Of all hosts it is worked out once and not
    to be written to.
    """

    def made() -> tuple[Floats, Floats]:
        unit_w = pane_unit_w(total.readings_of[rows], total.gpus_of[rows], total.panes.shape[1], ticks_per_pane)
        matrix = total.panes if len(rows) == total.hosts else total.panes[rows]
        return matrix * unit_w[:, np.newaxis], unit_w

    return total.remembered(f"power {ticks_per_pane}", made) if len(rows) == total.hosts else made()


def raw_groups(window: Window) -> dict[ClassKey, Labels]:
    """Number of the group that every host's claims show it in, int8[hosts] by class, -1 for none.

    By panes alone: what hosts say of their jobs counts where they say it. Numbers go through all classes.
    """
    ticks_per_pane = window.view.policy.sample_hz * window.rule.pane_ms // 1000
    result = {key: np.full(total.hosts, -1, np.int8) for key, total in window.sums.items()}
    panes_w, noise_w, places = [], [], []
    for key, total in sorted(window.sums.items()):
        unnamed = np.array([label is None for label in total.labels], np.bool_)
        rows = np.flatnonzero(unnamed & (total.readings_of > 0))
        gpus = total.gpus_of[rows]
        power_w, unit_w = power_of(total, rows, ticks_per_pane)
        panes_w.append(power_w)
        clip_w = float(window.view.models[key[0]].clip_high_w)
        noise_w.append(unlike_noise(noise_std_of(total, 2)[rows] * unit_w, gpus, clip_w))
        places.append((key, rows))
    if not panes_w:
        return result
    found = synchronised_groups(panes_w[0] if len(panes_w) == 1 else np.concatenate(panes_w), np.concatenate(noise_w))
    begin = 0
    for key, rows in places:
        end = begin + len(rows)
        for number, members in enumerate(found):
            mine = members[(members >= begin) & (members < end)] - begin
            result[key][rows[mine]] = number
        begin = end
    return result
