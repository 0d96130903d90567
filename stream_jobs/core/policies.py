"""What control records name by digest: policies, indexed for the core by name, and sets of collateral."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.records import DomainRule, HostEnrolment, ModelRule, Policy
from verifier.policy.subjects import Subject, revoked_by
from verifier.trust.store import Collateral

CORE_VERSION = "2"
"""Version of the deciding core. Any change of an output's bytes for the same log needs a new one."""


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A trusted policy with its digest and indexes by name."""

    policy: Policy
    digest: bytes
    hosts: dict[str, HostEnrolment] = field(init=False)
    domains: dict[str, DomainRule] = field(init=False)
    models: dict[str, ModelRule] = field(init=False)
    members: dict[str, tuple[HostEnrolment, ...]] = field(init=False)
    revoked: frozenset[Subject] = field(init=False)

    def __post_init__(self) -> None:
        policy = self.policy
        object.__setattr__(self, "hosts", {host.host_id: host for host in policy.hosts})
        object.__setattr__(self, "domains", {rule.domain: rule for rule in policy.domains})
        object.__setattr__(self, "models", {rule.model: rule for rule in policy.models})
        object.__setattr__(self, "revoked", revoked_by(policy))
        members: dict[str, list[HostEnrolment]] = {rule.domain: [] for rule in policy.domains}
        for host in policy.hosts:
            members.setdefault(host.domain, []).append(host)
        object.__setattr__(self, "members", {name: tuple(hosts) for name, hosts in members.items()})


PolicyLookup = Callable[[bytes], PolicyView | None]
"""Content-addressed policies, signature already checked against the trusted signers; None if not at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class CollateralView:
    """A set of collateral: `digest` names it (`schemas.collateral`), `held` is what verification picks from."""

    digest: bytes
    held: Collateral


CollateralLookup = Callable[[bytes], CollateralView | None]
"""Content-addressed sets of collateral; None if one is not at hand as a whole."""
