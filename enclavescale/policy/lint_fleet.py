"""Lint of what is enrolled: domains, hosts, GPU models, and whether they fit each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from enclavescale.policy.finding import Finding, caution, fault
from enclavescale.policy.issue import DAY_MS
from schemas.records import DomainRule, HostEnrolment, ModelRule, Policy

HALF_PPM = 500_000
MAX_EPSILON_MICRO = 10_000_000
"""Privacy loss per window beyond which a warning is due: odds that change by a factor of 22,000."""


def lint_fleet(policy: Policy, partitions: int | None) -> Iterator[Finding]:
    """Findings on domains, hosts, models and limits; `partitions` of the reports topic, where known."""
    for name, code in (
        ("domains", "POLICY_DOMAINS_EMPTY"),
        ("hosts", "POLICY_HOSTS_EMPTY"),
        ("aggregators", "POLICY_AGGREGATORS_EMPTY"),
    ):
        if not getattr(policy, name):
            yield fault(code, name, f"no {name}: nothing can be accepted")
    yield from _twice("domains", (one.domain for one in policy.domains))
    yield from _twice("models", (one.model for one in policy.models))
    members: dict[str, list[HostEnrolment]] = defaultdict(list)
    known = {rule.domain for rule in policy.domains}
    models = {rule.model: rule for rule in policy.models}
    for number, host in enumerate(policy.hosts):
        members[host.domain].append(host)
        if host.domain not in known:
            yield fault("POLICY_DOMAIN_UNKNOWN", f"hosts[{number}].domain", f"{host.host_id} is in {host.domain}")
        yield from _classes(f"hosts[{number}]", host, models)
    yield from _partitions(policy.domains, partitions)
    for number, rule in enumerate(policy.domains):
        yield from _domain(policy, f"domains[{number}]", rule, members[rule.domain])
    for name in ("max_beacon_age_ms", "max_collateral_age_ms"):
        age_ms = getattr(policy.limits, name)
        if age_ms is not None and age_ms <= 0:
            yield fault("POLICY_TIMING", f"limits.{name}", f"{age_ms} ms: all evidence is too old")
    if policy.limits.max_epsilon_micro > MAX_EPSILON_MICRO:
        epsilon = policy.limits.max_epsilon_micro / 1_000_000
        yield caution("POLICY_EPSILON", "limits.max_epsilon_micro", f"ε up to {epsilon:g} per window")


def _twice(where: str, names: Iterable[str]) -> Iterator[Finding]:
    for name, count in Counter(names).items():
        if count > 1:
            yield fault("POLICY_DUPLICATE", where, f"{name} stands {count} times")


def _classes(where: str, host: HostEnrolment, models: dict[str, ModelRule]) -> Iterator[Finding]:
    if not host.classes:
        yield fault("POLICY_CLASSES", f"{where}.classes", f"{host.host_id} has no GPUs")
    yield from _twice(f"{where}.classes", (one.model for one in host.classes))
    for number, one in enumerate(host.classes):
        rule = models.get(one.model)
        if rule is not None and one.capacity_w > one.gpus * rule.clip_high_w:
            found = f"{one.capacity_w} W for {one.gpus} GPUs, each cut at {rule.clip_high_w} W"
            yield caution("POLICY_CAPACITY", f"{where}.classes[{number}].capacity_w", found)


def _partitions(domains: tuple[DomainRule, ...], partitions: int | None) -> Iterator[Finding]:
    first: dict[int, str] = {}
    for number, rule in enumerate(domains):
        where, other = f"domains[{number}].partition", first.setdefault(rule.partition, rule.domain)
        if other != rule.domain:
            found = f"{rule.domain} shares partition {rule.partition} with {other}: each waits for the other's records"
            yield caution("POLICY_PARTITION", where, found)
        if partitions is not None and rule.partition >= partitions:
            found = f"partition {rule.partition}; the reports topic has {partitions}, numbered from 0"
            yield fault("POLICY_PARTITION", where, found)


def _domain(policy: Policy, where: str, rule: DomainRule, hosts: list[HostEnrolment]) -> Iterator[Finding]:
    limits, name = policy.limits, rule.domain
    if not hosts:
        yield caution("POLICY_DOMAIN_EMPTY", where, f"{name} has no hosts")
    else:
        tenants = len({host.tenant for host in hosts})
        for field, has in (("k_min_hosts", len(hosts)), ("k_min_tenants", tenants)):
            least = getattr(rule, field)
            if least > has:
                found = f"{name} enrols {has}, {least} are demanded: its figures are always withheld"
                yield caution("POLICY_K_MIN", f"{where}.{field}", found)
        capacity_w = sum(one.capacity_w for host in hosts for one in host.classes)
        if rule.limit_w >= capacity_w:
            yield caution("POLICY_LIMIT", f"{where}.limit_w", f"{rule.limit_w} W for {capacity_w} W enrolled")
    if rule.k_min_hosts <= 1:
        yield caution("POLICY_K_MIN_LOW", f"{where}.k_min_hosts", f"k_min_hosts {rule.k_min_hosts}")
    if rule.window_ms > 0 and DAY_MS % rule.window_ms:
        yield caution("POLICY_WINDOW", f"{where}.window_ms", f"{rule.window_ms} ms do not divide a day")
    if limits.max_idle_ms <= rule.window_ms + rule.grace_ms:
        found = f"{limits.max_idle_ms} ms; {name} takes {rule.window_ms + rule.grace_ms} ms to close a window"
        yield caution("POLICY_TIMING", "limits.max_idle_ms", found)
    if limits.lateness_ms < rule.window_ms:
        found = f"{limits.lateness_ms} ms is less than a window of {name}: nothing late is ever counted"
        yield caution("POLICY_TIMING", "limits.lateness_ms", found)
    if limits.clock_skew_tolerance_ms >= rule.window_ms:
        found = f"{limits.clock_skew_tolerance_ms} ms: windows of {name} may be reported before they begin"
        yield caution("POLICY_TIMING", "limits.clock_skew_tolerance_ms", found)
    beacon_ms = limits.max_beacon_age_ms
    if beacon_ms is not None and 0 < beacon_ms < 2 * rule.window_ms:
        found = f"{beacon_ms} ms; a host of {name} takes up to two windows to answer a beacon"
        yield caution("POLICY_TIMING", "limits.max_beacon_age_ms", found)
    if rule.quorum_ppm < HALF_PPM:
        yield caution("POLICY_QUORUM", f"{where}.quorum_ppm", f"{rule.quorum_ppm / 10_000:g} % of the capacity will do")
    if rule.max_colluding_ppm >= HALF_PPM:
        found = f"{rule.max_colluding_ppm / 10_000:g} % of the capacity may lie together"
        yield caution("POLICY_COLLUDING", f"{where}.max_colluding_ppm", found)
