"""Adding to what a policy revokes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from enclavescale.policy.issue import unissued
from schemas.errors import ConfigError
from schemas.records import AggregatorEnrolment, HostEnrolment, Policy, RevokedSubject
from verifier.policy.subjects import GPU_KIND, PLATFORM_KIND, SESSION_KIND, Subject, revoked_by, subject

DIGEST_KINDS = (SESSION_KIND, GPU_KIND)
"""Kinds whose identifiers are digests of 32 bytes."""


def named(kind: str, identifier: str) -> Subject:
    """A subject as a policy names it. Raises ConfigError for a digest that is none."""
    if kind in (*DIGEST_KINDS, PLATFORM_KIND):
        try:
            data = bytes.fromhex(identifier)
        except ValueError:
            data = b""
        if not data or len(data) * 2 != len(identifier) or (kind in DIGEST_KINDS and len(data) != 32):
            shape = "hexadecimal" if kind == PLATFORM_KIND else "64 hexadecimal digits"
            raise ConfigError(f"{identifier!r:.90} is no {kind}", field=kind, remedy=f"Give {shape}.")
    if not identifier:
        raise ConfigError(f"a {kind} has a name", field=kind)
    return subject(kind, identifier)


def with_revoked(policy: Policy, subjects: Sequence[Subject], reason: str) -> tuple[Policy, tuple[Subject, ...]]:
    """The policy with these subjects revoked, to be signed anew, and those of them that it did not revoke before.

    What is revoked already stays with its reason.
    """
    known = revoked_by(policy)
    new = tuple(dict.fromkeys(one for one in subjects if one not in known))
    added = tuple(RevokedSubject(kind=kind, id=one, reason=reason) for kind, one in new)
    return replace(unissued(policy), revoked=(*policy.revoked, *added)), new


def unknown_to(policy: Policy, subjects: Sequence[Subject]) -> Iterator[Subject]:
    """Those that the policy names nowhere else: a slip of the pen, maybe. Sessions are never named."""
    enrolled: tuple[HostEnrolment | AggregatorEnrolment, ...] = (*policy.hosts, *policy.aggregators)
    there = {("host", one.host_id) for one in enrolled}
    there |= {subject(PLATFORM_KIND, one) for host in enrolled for one in host.platform_ids}
    there |= {subject(GPU_KIND, one) for host in policy.hosts for one in host.gpu_key_digests}
    there |= {("measurement", one.label) for one in policy.measurements}
    # The vendors' own roots stand in no policy.
    for one in subjects:
        if one not in there and one[0] not in (SESSION_KIND, "root"):
            yield one
