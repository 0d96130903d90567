"""What an output must state of the reports that count, from first principles; see `reference`."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from schemas.codec import DecodedRecord
from schemas.records import GpuClass, HostEnrolment, Policy, WindowReport

Refusal = tuple[int, str, bytes]
"""Position, code, digest (empty if there is none)."""


class Taken(NamedTuple):
    """An accepted report: where, whether its window was published before, its flag, and who enrolled it."""

    at: int
    record: DecodedRecord
    body: WindowReport
    late: bool
    flag: str
    host: HostEnrolment


def facts(policy: Policy, inside: list[Taken], refused: list[Refusal]) -> dict[str, Any]:
    rule, everyone, hosts = policy.domains[0], policy.hosts, [t.host for t in inside]
    enrolled_w, reporting_w, tenants = power_w(everyone), power_w(hosts), {host.tenant for host in hosts}
    met = len(hosts) >= rule.k_min_hosts and len(tenants) >= rule.k_min_tenants
    quorum = reporting_w * 10**6 >= enrolled_w * rule.quorum_ppm
    largest = [
        max(power_w([one]) for one in hosts),
        max(power_w([h for h in hosts if h.tenant == t]) for t in tenants),
    ]
    codes = Counter(code for _, code, _ in refused)
    digests = [t.record.digest for t in inside]
    return {
        "accepted": len(inside),
        "late_accepted": sum(t.late for t in inside),
        "duplicates": codes["DUPLICATE"],
        "late_refused": codes["LATE"],
        "refused": dict(codes),
        "flagged": dict(Counter(t.flag for t in inside if t.flag)),
        "coverage": (len(everyone), len(hosts), gpus(everyone), gpus(hosts), enrolled_w, reporting_w, quorum),
        "dilution": (len(hosts), len(tenants), *(one * 10**6 // reporting_w for one in largest), met),
        "epsilon_micro": max(t.body.privacy.epsilon_total_micro for t in inside),
        "withheld": (not met, not met or not quorum),
        "classes": sums(policy, inside) if met else [],
        "digests": b"".join(digests),
        "roots": (merkle(digests), merkle([digest for _, _, digest in refused if digest])),
    }


def sums(policy: Policy, inside: list[Taken]) -> list[tuple[Any, ...]]:
    """Per class: hosts, GPUs, capacity, the enrolled capacity it stands for, readings, transitions, pane sums."""
    reports = [one for t in inside for one in t.body.classes]
    result = []
    for key in sorted({(one.model, one.sampler_mode) for one in reports}):
        mine = [one for one in reports if (one.model, one.sampler_mode) == key]
        of_model = sum(one.capacity_w for one in reports if one.model == key[0])
        enrolled_w = sum(one.capacity_w for host in policy.hosts for one in host.classes if one.model == key[0])
        capacity_w = sum(one.capacity_w for one in mine)
        readings = sum(one.readings_taken for one in mine)
        scaled_w = enrolled_w * capacity_w // of_model
        counted = (len(mine), sum(one.gpus for one in mine), capacity_w, scaled_w, readings)
        result.append((*key, *counted, total(mine, "transitions"), total(mine, "pane_sums")))
    return result


def total(reports: list[GpuClass], name: str) -> tuple[int, ...]:
    return tuple(map(sum, zip(*(np.frombuffer(getattr(one, name), "<i4").tolist() for one in reports), strict=True)))


def power_w(hosts: Any) -> int:
    return sum(one.capacity_w for host in hosts for one in host.classes)


def gpus(hosts: Any) -> int:
    return sum(one.gpus for host in hosts for one in host.classes)


def merkle(entries: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if len(entries) < 2:
        return hashlib.sha256(b"".join(b"\x00" + one for one in entries)).digest()
    k = 1 << ((len(entries) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + merkle(entries[:k]) + merkle(entries[k:])).digest()
