"""An honest fleet whose jobs start and stop: how many of its host-windows the layers refuse, set aside or flag.

Hosts run in jobs of one to many hosts. Every job is on and off in turns, for as many windows as chance has it, and
starts and stops at any tick; a host without work draws what its trace draws at its lowest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from enclavescale.bench.byzantine_trial import ByzantineSpec, Trial, physics
from enclavescale.bench.margin_core import HostReport
from enclavescale.bench.presence import idle_w
from enclavescale.bench.trace_fleet import Pools
from schemas.records import ModelRule
from stream_jobs.core.refusals import Refused

HOSTS, WINDOWS = 128, 100
"""Hosts and windows of one fleet; larger counts are made of several."""
FIRST = 1_000_000
"""Number of the first fleet: none of those that are attacked."""
MEAN_WINDOWS = 10.0
"""How long a job runs, or its hosts stand idle, on average."""
MEAN_JOB_HOSTS = 4.0
STATISTICAL = ("POWER_IMPLAUSIBLE", "COUNTS_IMPLAUSIBLE", "ENERGY_IMPLAUSIBLE")
"""Codes of refusals that rest on statistics."""


@dataclass(slots=True)
class HonestCount:
    """Host-windows that were honest, and what became of them."""

    host_windows: int = 0
    job_changes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    layers: Counter[str] = field(default_factory=Counter)
    set_aside: int = 0
    held_back_w: list[float] = field(default_factory=list)
    honest_rate_pico: dict[str, int] = field(default_factory=dict)

    def add(self, other: HonestCount) -> None:
        """Take over another fleet's."""
        self.host_windows += other.host_windows
        self.job_changes += other.job_changes
        self.refused += other.refused
        self.layers += other.layers
        self.set_aside += other.set_aside
        self.held_back_w += other.held_back_w
        self.honest_rate_pico.update(other.honest_rate_pico)

    def document(self) -> dict[str, Any]:
        """Figures for the JSON document."""
        refused = sum(self.refused[code] for code in STATISTICAL)
        return {
            "host_windows": self.host_windows,
            "job_changes": self.job_changes,
            "refused": refused,
            "refused_rate": refused / max(1, self.host_windows),
            "refused_by_code": dict(sorted(self.refused.items())),
            "layers": dict(sorted(self.layers.items())),
            "honest_rate_pico": dict(sorted(self.honest_rate_pico.items())),
            "set_aside_host_windows": self.set_aside,
        }


def fleets_for(host_windows: int) -> int:
    """Fleets that have at least so many host-windows."""
    return -(-host_windows // (HOSTS * WINDOWS))


def honest_fleet(spec: ByzantineSpec, pools: Pools, rules: dict[str, ModelRule], index: int) -> HonestCount:
    """Run one honest fleet through physics and core and count."""
    fleet_spec = replace(spec, hosts=HOSTS, windows=WINDOWS, history=0)
    trial = Trial(fleet_spec, pools, rules, FIRST + index)
    work = Work(trial, np.random.default_rng([spec.seed, index, HOSTS]))
    core, count = trial.core(), HonestCount()
    for window in range(WINDOWS):
        reports: list[HostReport | None] = []
        for host in range(HOSTS):
            report = trial.report(host, window, work.power_w(host, window))
            try:
                physics(core, host, report)
                reports.append(report)
            except Refused as why:
                reports.append(None)
                count.refused[why.code] += 1
        output = core.output(reports)
        for one in output.layers:
            count.layers[one.code] += one.hosts
            count.honest_rate_pico[one.code] = one.honest_rate_pico
        count.set_aside += sum(one.hosts for one in output.set_aside)
    count.host_windows = HOSTS * WINDOWS
    count.job_changes = work.changes
    return count


class Work:
    """Which hosts have work at which tick."""

    def __init__(self, trial: Trial, rng: np.random.Generator) -> None:
        self._trial = trial
        self._ticks = trial.spec.schedule.ticks
        total = WINDOWS * self._ticks
        self._busy: dict[int, npt.NDArray[np.bool_]] = {}
        self.changes = 0
        for members in _jobs(trial, rng):
            busy, at, on = np.zeros(total, dtype=np.bool_), 0, bool(rng.random() < 0.5)
            while at < total:
                length = 1 + int(rng.exponential(MEAN_WINDOWS * self._ticks))
                busy[at : at + length] = on
                at, on = at + length, not on
                self.changes += at < total
            self._busy.update(dict.fromkeys(members, busy))

    def power_w(self, host: int, window: int) -> npt.NDArray[np.float64]:
        """What the host's GPUs draw, float64[gpus, ticks], W."""
        busy = self._busy[host][window * self._ticks : (window + 1) * self._ticks]
        return np.where(busy, self._trial.own_w(host, window), idle_w(self._trial.fleet.hosts[host]))


def _jobs(trial: Trial, rng: np.random.Generator) -> list[Sequence[int]]:
    """Hosts by job: the two large ones, and small ones among the rest."""
    groups: dict[str, list[int]] = {}
    alone: list[int] = []
    for index, host in enumerate(trial.fleet.hosts):
        groups.setdefault(host.group, []).append(index) if host.group else alone.append(index)
    jobs: list[Sequence[int]] = list(groups.values())
    while alone:
        size = int(rng.geometric(1 / MEAN_JOB_HOSTS))
        jobs.append(alone[:size])
        alone = alone[size:]
    return jobs
