"""What stands on the topics of policies and collateral, for the report of a replay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from schemas.codec import decode_collateral, decode_signed_policy
from schemas.collateral import SET, item_digest, set_members
from schemas.errors import EnclaveScaleError
from schemas.records import Policy
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import open_policy
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.source import RecordSource

SWITCHES = tuple(one.name for one in fields(Policy) if one.name.startswith("unsafe_"))
"""Names of a policy's unsafe switches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """A trusted policy on its topic. `unsafe`: names of the switches that are on."""

    counter: int
    digest: str
    signer: str
    issued_at_ms: int
    effective_from_ms: int
    not_after_ms: int
    core_version: str
    min_first_mile: str
    hosts: int
    aggregators: int
    domains: int
    max_epsilon_micro: int
    revoked: int
    unsafe: tuple[str, ...]
    partition: int
    offset: int


def policy_facts(source: RecordSource, request: ReplayRequest) -> tuple[PolicyFacts, ...]:
    """Every trusted policy of the policy topic, by counter. Raises ReadFailed."""
    found: dict[int, PolicyFacts] = {}
    for record in _records(source, request.topics.policy):
        value = record.value or b""
        try:
            view = open_policy(value, request.trust, request.framing)
            signer = decode_signed_policy(value, request.framing)[0].signer_public_key
        except EnclaveScaleError:
            continue  # a finding says so
        found.setdefault(view.policy.counter, _policy(record, view, signer))
    return tuple(found[counter] for counter in sorted(found))


def _policy(record: LogRecord, view: PolicyView, signer: bytes) -> PolicyFacts:
    policy = view.policy
    return PolicyFacts(
        counter=policy.counter,
        digest=view.digest.hex(),
        signer=signer.hex(),
        issued_at_ms=policy.issued_at_ms,
        effective_from_ms=policy.effective_from_ms,
        not_after_ms=policy.not_after_ms,
        core_version=policy.core_version,
        min_first_mile=policy.min_first_mile,
        hosts=len(policy.hosts),
        aggregators=len(policy.aggregators),
        domains=len(policy.domains),
        max_epsilon_micro=policy.limits.max_epsilon_micro,
        revoked=len(policy.revoked),
        unsafe=tuple(name for name in SWITCHES if getattr(policy, name)),
        partition=record.partition,
        offset=record.offset,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralFacts:
    """An item on the collateral topic, or a set of them (kind "set", whose id is its digest).

    Of a set `members` says how many items it has, None for one that is not well formed; `missing` how many of them are
    not on the topic, and `next_update_ms` when the first of the others is due. An item has neither.
    """

    kind: str
    id: str
    digest: str
    fetched_at_ms: int
    not_before_ms: int | None
    next_update_ms: int | None
    partition: int
    offset: int
    members: int | None = None
    missing: int | None = None


MAX_COLLATERAL = 5_000
"""Items of which facts are kept: the last ones, a renewal comes after what it renews."""


def collateral_facts(source: RecordSource, request: ReplayRequest) -> tuple[CollateralFacts, ...]:
    """Items of the collateral topic, each once, in the order of the topic; the last `MAX_COLLATERAL`.

    Raises ReadFailed.
    """
    found: dict[bytes, CollateralFacts] = {}
    sets: dict[bytes, tuple[bytes, ...]] = {}
    for record in _records(source, request.topics.collateral):
        value = record.value or b""
        try:
            item = decode_collateral(value, request.framing)
        except EnclaveScaleError:
            continue  # a finding says so
        digest = item_digest(item)
        found.pop(digest, None)
        found[digest] = CollateralFacts(
            kind=item.kind,
            id=item.id,
            digest=item.id if item.kind == SET else digest.hex(),
            fetched_at_ms=item.fetched_at_ms,
            not_before_ms=item.not_before_ms,
            next_update_ms=item.next_update_ms,
            partition=record.partition,
            offset=record.offset,
        )
        if item.kind == SET:
            with suppress(EnclaveScaleError):
                sets[digest] = set_members(item)
        if len(found) > MAX_COLLATERAL:
            sets.pop(next(iter(found)), None)
            found.pop(next(iter(found)))
    for digest, wanted in sets.items():
        there = [found[one] for one in wanted if one in found]
        due = [one.next_update_ms for one in there if one.next_update_ms is not None]
        found[digest] = replace(
            found[digest],
            members=len(wanted),
            missing=len(wanted) - len(there),
            next_update_ms=min(due, default=None),
        )
    return tuple(found.values())


def _records(source: RecordSource, topic: str) -> Iterator[LogRecord]:
    for extent in source.extents(topic):
        yield from source.read(extent.topic, extent.partition, extent.first, extent.end)
