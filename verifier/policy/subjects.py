"""What a verified session is, in the words in which a policy revokes: host, session, code, machine, devices, roots."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.records import Policy
from verifier.claims import SessionClaims
from verifier.policy.base import AllOf, failures_of
from verifier.policy.default import code_rules
from verifier.policy.devices import Alternative, one_holds

HOST_KIND, SESSION_KIND, MEASUREMENT_KIND, PLATFORM_KIND, GPU_KIND, ROOT_KIND = (
    "host",
    "session",
    "measurement",
    "platform",
    "gpu",
    "root",
)
"""Kinds of what a policy revokes; named by host id, session id (hex), label, platform id (hex), digest of the leaf key
(hex), label."""

KINDS = (HOST_KIND, SESSION_KIND, MEASUREMENT_KIND, PLATFORM_KIND, GPU_KIND, ROOT_KIND)
_HEX = frozenset((SESSION_KIND, PLATFORM_KIND, GPU_KIND))

Subject = tuple[str, str]
"""Kind and identifier."""


def subject(kind: str, identifier: str) -> Subject:
    """A subject in the one form in which it is compared: hexadecimal in small letters."""
    return kind, identifier.lower() if kind in _HEX else identifier


def revoked_by(policy: Policy) -> frozenset[Subject]:
    """What a policy revokes."""
    return frozenset(subject(one.kind, one.id) for one in policy.revoked)


def subjects_of(claims: SessionClaims, policy: Policy, role: str, session_id: bytes) -> tuple[Subject, ...]:
    """Everything that a session is under a policy, sorted: revoking any of it revokes the session."""
    return tuple(sorted(set(_subjects(claims, policy, role, session_id))))


def _subjects(claims: SessionClaims, policy: Policy, role: str, session_id: bytes) -> Iterator[Subject]:
    yield HOST_KIND, claims.binding.host_id
    yield SESSION_KIND, session_id.hex()
    yield ROOT_KIND, claims.quote.root_label
    for platform_id in claims.quote.platform_ids:
        yield subject(PLATFORM_KIND, platform_id)
    for device in claims.devices:
        yield GPU_KIND, device.key_digest.hex()
        yield ROOT_KIND, device.evidence.root_label
    for one in policy.measurements:
        if one.role != role:
            continue
        if one.tee == claims.quote.tee:
            if not failures_of(AllOf(code_rules(one, policy), one.label), claims):
                yield MEASUREMENT_KIND, one.label
            continue
        firmware = Alternative(label=one.label, registers=one.registers)
        if any(device.kind == one.tee and one_holds(firmware, device.evidence) for device in claims.devices):
            yield MEASUREMENT_KIND, one.label
