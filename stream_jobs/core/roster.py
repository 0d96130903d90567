"""Who is enrolled in a domain, host by host in the policy's order: what a close asks of every host, as arrays.

Made once per policy and domain: a close of thousands of hosts then walks no enrolment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from schemas.records import HostEnrolment
from stream_jobs.core.policies import PolicyView

Value = TypeVar("Value")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """A partition of the hosts, by tenant for one: `names`, and for every host the place of its group's name."""

    names: tuple[str, ...]
    codes: Ints


@dataclass(frozen=True, slots=True, eq=False)
class ModelShare:
    """What is enrolled of one GPU model: `gpus`, `capacity_w` int64[hosts], W, 0 where a host has none of it."""

    gpus: Ints
    capacity_w: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """Hosts of one domain; arrays by `row`, a host's place in the policy.

    `names`: host ids. `gpus`, `capacity_w`: of all classes of a host, W. `widest_w`: widest clip range of its classes,
    W. `models`: by name. `enrolled_w`: capacity by model, W.
    """

    hosts: tuple[HostEnrolment, ...]
    names: tuple[str, ...]
    row: dict[str, int]
    gpus: Ints
    capacity_w: Ints
    widest_w: Ints
    tenants: Groups
    failure_domains: Groups
    models: dict[str, ModelShare]
    enrolled_w: Counter[str]

    @property
    def total_gpus(self) -> int:
        """GPUs enrolled."""
        return int(self.gpus.sum())

    @property
    def total_capacity_w(self) -> int:
        """Capacity enrolled, W."""
        return int(self.capacity_w.sum())

    def names_of(self, rows: npt.NDArray[np.integer[Any]]) -> list[str]:
        """IDs of the hosts at some rows."""
        names = self.names
        return [names[row] for row in rows.tolist()]

    def rows_of(self, host_ids: Iterable[str]) -> Ints:
        """Rows of some hosts of the domain. Raises KeyError for another."""
        row = self.row
        return np.array([row[host_id] for host_id in host_ids], np.int64)


def coded(values: Iterable[Value], known: Iterable[Value] = ()) -> tuple[list[Value], Ints]:
    """The distinct values, `known` ones first, and for every one of `values` its place among them, int64[values]."""
    places = {value: place for place, value in enumerate(known)}
    codes = [places.setdefault(value, len(places)) for value in values]
    return list(places), np.array(codes, np.int64)


def _groups(names: list[str]) -> Groups:
    distinct, codes = coded(names)
    return Groups(tuple(distinct), codes)


def roster_of(view: PolicyView, domain: str) -> Roster:
    """Who is enrolled in `domain` under a policy."""
    hosts = view.members.get(domain, ())
    widths = {rule.model: rule.clip_high_w - rule.clip_low_w for rule in view.models.values()}
    enrolled: Counter[str] = Counter()
    models: dict[str, ModelShare] = {}
    for row, host in enumerate(hosts):
        for one in host.classes:
            enrolled[one.model] += one.capacity_w
            if one.model not in models:
                models[one.model] = ModelShare(np.zeros(len(hosts), np.int64), np.zeros(len(hosts), np.int64))
            share = models[one.model]
            if not share.gpus[row]:  # of a model named twice, the first
                share.gpus[row], share.capacity_w[row] = one.gpus, one.capacity_w
    return Roster(
        hosts=hosts,
        names=tuple(host.host_id for host in hosts),
        row={host.host_id: row for row, host in enumerate(hosts)},
        gpus=np.array([sum(one.gpus for one in host.classes) for host in hosts], np.int64),
        capacity_w=np.array([sum(one.capacity_w for one in host.classes) for host in hosts], np.int64),
        widest_w=np.array([max((widths[one.model] for one in host.classes), default=0) for host in hosts], np.int64),
        tenants=_groups([host.tenant for host in hosts]),
        failure_domains=_groups([host.failure_domain for host in hosts]),
        models=models,
        enrolled_w=enrolled,
    )
