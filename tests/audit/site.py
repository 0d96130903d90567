"""Topics in memory, as a worker fills them from a story's log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attester.session import Session
from attester.signing import public_point, sign_raw
from schemas.codec import SINGLE_OBJECT, encode_policy, encode_signed_policy, policy_preimage
from schemas.topics import TopicNames
from stream_jobs.audit.check import Checker
from stream_jobs.audit.prove import Prover
from stream_jobs.audit.topics import AuditTopics
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.replay.source import Extent
from tests.core.fleet import AGGREGATORS, session_of
from tests.core.replay import CACHE
from tests.core.story import Story

NAMES = TopicNames()


@cache
def signer(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """A policy signer's key."""
    return ec.generate_private_key(ec.SECP256R1())


def signer_point(number: int = 0) -> bytes:
    return public_point(signer(number).public_key())


def signed_policy(view: PolicyView, number: int = 0) -> bytes:
    data = encode_policy(view.policy)
    return encode_signed_policy(data, sign_raw(signer(number), policy_preimage(data)), signer_point(number))


@dataclass
class Topics:
    """A record source in memory: (topic, partition) -> records, offsets without gaps unless a test makes some."""

    records: dict[tuple[str, int], list[LogRecord]] = field(default_factory=dict)

    def extents(self, topic: str) -> Sequence[Extent]:
        return [
            Extent(name, number, held[0].offset, held[-1].offset + 1) if held else Extent(name, number, 0, 0)
            for (name, number), held in sorted(self.records.items())
            if name == topic
        ]

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        return (one for one in self.records.get((topic, partition), ()) if first <= one.offset < end)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        held = self.records.get((topic, partition), [])
        found = (one.offset for one in held if one.timestamp_ms >= time_ms)
        return next(found, held[-1].offset + 1 if held else 0)

    def close(self) -> None:
        """Nothing is held."""

    def append(
        self,
        topic: str,
        partition: int,
        at_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> LogRecord:
        held = self.records.setdefault((topic, partition), [])
        offset = held[-1].offset + 1 if held else 0
        held.append(LogRecord(topic, partition, offset, at_ms, 1, key, value, tuple(headers)))
        return held[-1]

    def replace(self, record: LogRecord, **changes: Any) -> None:
        held = self.records[record.topic, record.partition]
        held[held.index(record)] = replace(record, **changes)

    def of(self, topic: str) -> list[LogRecord]:
        return [one for (name, _), held in sorted(self.records.items()) if name == topic for one in held]


class _Producer:
    """Writes at once what a publisher produces."""

    def __init__(self, topics: Topics, now_ms: Callable[[], int]):
        self._topics, self._now_ms = topics, now_ms

    def produce(self, topic: str, **given: Any) -> None:
        key, headers = given["key"], [(name, value.encode()) for name, value in given["headers"]]
        raw = key.encode() if isinstance(key, str) else key
        self._topics.append(topic, given["partition"], self._now_ms(), raw, given["value"], headers)

    def poll(self, timeout_s: float) -> None:
        """Nothing to wait for."""

    def flush(self, timeout_s: float) -> int:
        """All is written."""
        return 0


@dataclass
class Site:
    """What a worker published of a story."""

    topics: Topics
    story: Story

    @property
    def audit(self) -> AuditTopics:
        return AuditTopics(self.topics, NAMES)

    @property
    def checker(self) -> Checker:
        return checker()

    @property
    def prover(self) -> Prover:
        return Prover(self.audit, self.checker.check)

    def outputs(self) -> list[LogRecord]:
        return self.topics.of(NAMES.output)


def checker(number: int = 0) -> Checker:
    """Checks under one trusted signer."""
    trust = PolicyTrust((signer_point(number),))
    return Checker(open_policy=lambda value: open_policy(value, trust), verify=CACHE.verify)


def worker_session(number: int = 0) -> Session:
    return session_of(AGGREGATORS[number], None)


def publish(topics: Topics, story: Story, worker: int = 0, *, effects: Sequence[Any] | None = None) -> None:
    """What a worker writes of a story's decisions, in the order of the log; `effects` instead of all."""
    at: dict[int, LogRecord] = {one.offset: one for one in story.run.log}
    made = [(offset, one) for offset, one in story.run.emissions]
    decided: list[tuple[int, Emission | Rejection]] = [*made, *((one.offset, one) for one in story.run.rejections)]
    now = [0]
    publisher = OutputPublisher(
        {},
        NAMES,
        WorkerIdentityFacts(worker_session(worker), AGGREGATORS[worker]),
        framing=SINGLE_OBJECT,
        make_producer=lambda _: _Producer(topics, lambda: now[0]),
    )
    for offset, one in sorted(decided, key=lambda pair: pair[0]):
        if effects is not None and one not in effects:
            continue
        now[0] = at[offset].timestamp_ms + 10
        if isinstance(one, Rejection):
            publisher.reject(at[offset], one)
        else:
            publisher.emit(one)


def site_of(story: Story, *, worker: int = 0) -> Site:
    """All topics of a story: log, policies, and what one worker made of it."""
    topics = Topics()
    for record in story.run.log:
        topics.records.setdefault((record.topic, record.partition), []).append(record)
    for view in story.policies:
        key = f"policy/{view.policy.counter}".encode()
        topics.append(NAMES.policy, 0, view.policy.issued_at_ms, key, signed_policy(view))
    publish(topics, story, worker)
    return Site(topics, story)
