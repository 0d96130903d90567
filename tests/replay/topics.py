"""Topics in memory: filled by the worker's own code from a run of the core, read by a replay."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attester.session import Session
from attester.signing import public_point
from enclavescale.fleet import sign_policy
from schemas.codec import SINGLE_OBJECT
from schemas.topics import TopicNames
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.log_record import LogRecord
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.partitions import ReplayResult, replay_source
from stream_jobs.replay.source import Extent
from stream_jobs.replay.verdicts import Finding, WindowVerdict
from tests.core.fleet import AGGREGATORS, PARTITION, session_of
from tests.core.replay import CACHE, Run
from tests.core.sets import SETS, judging

NAMES = TopicNames()
KEY = ec.generate_private_key(ec.SECP256R1())
SIGNER = public_point(KEY.public_key())
TRUST = PolicyTrust((SIGNER,))


class MemorySource:
    """A `RecordSource` over lists; offsets may have gaps."""

    def __init__(self, records: Iterable[LogRecord]):
        self.topics: dict[tuple[str, int], list[LogRecord]] = defaultdict(list)
        self.firsts: dict[tuple[str, int], int] = {}
        self.read_records = 0
        for record in records:
            self.topics[record.topic, record.partition].append(record)

    def extents(self, topic: str) -> Sequence[Extent]:
        return [
            Extent(topic, partition, self.firsts.get((name, partition), 0), records[-1].offset + 1 if records else 0)
            for (name, partition), records in sorted(self.topics.items())
            if name == topic
        ]

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        records = self.topics[topic, partition]
        at = bisect.bisect_left(records, first, key=lambda record: record.offset)
        while at < len(records) and records[at].offset < end:
            self.read_records += 1
            yield records[at]
            at += 1

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        records = self.topics[topic, partition]
        for record in records:
            if record.timestamp_ms >= time_ms:
                return record.offset
        return records[-1].offset + 1 if records else 0

    def close(self) -> None:
        pass

    # -- what tests do to it ------------------------------------------------------------------------------------

    def copy(self) -> MemorySource:
        made = MemorySource(record for records in self.topics.values() for record in records)
        made.firsts = dict(self.firsts)
        return made

    def put(self, record: LogRecord) -> None:
        """Put `record` in the place of the one with its offset, or at the end."""
        records = self.topics[record.topic, record.partition]
        at = bisect.bisect_left(records, record.offset, key=lambda one: one.offset)
        if at < len(records) and records[at].offset == record.offset:
            records[at] = record
        else:
            records.insert(at, record)

    def append(self, topic: str, value: bytes | None, key: bytes | None = None, **fields: Any) -> LogRecord:
        """Append to partition 0 of `topic`."""
        records = self.topics[topic, PARTITION]
        offset = records[-1].offset + 1 if records else 0
        stamp = records[-1].timestamp_ms if records else 0
        record = replace(LogRecord(topic, PARTITION, offset, stamp, 1, key, value, ()), **fields)
        records.append(record)
        return record

    def drop(self, topic: str, first: int) -> None:
        """Let retention take what lies below `first`."""
        self.topics[topic, PARTITION] = [one for one in self.topics[topic, PARTITION] if one.offset >= first]
        self.firsts[topic, PARTITION] = first


class _Producer:
    """Takes what a publisher sends, as a broker would."""

    def __init__(self, source: MemorySource):
        self._source = source
        self.now_ms = 0

    def produce(self, topic: str, *, value: bytes, key: bytes | None, headers: list[tuple[str, str]], **_: Any) -> None:
        pairs = tuple((name, text.encode()) for name, text in headers)
        self._source.append(topic, value, key, headers=pairs, timestamp_ms=self.now_ms, timestamp_type=0)

    def poll(self, _timeout_s: float) -> int:
        return 0

    def flush(self, _timeout_s: float) -> int:
        return 0


class ToySets:
    """The sets that toy fleets are judged under, in place of a topic."""

    def lookup(self, digest: bytes) -> CollateralView | None:
        return SETS.get(digest)

    def judging(self, digest: bytes | None) -> Sequence[CollateralView]:
        return tuple(SETS.values()) if digest is not None else ()

    def current(self, now_ms: int) -> CollateralView | None:
        return None


@dataclass
class Published:
    """A run of the core as the topics show it. `outputs`: how many there are."""

    source: MemorySource
    policies: Sequence[PolicyView]
    outputs: int = 0

    def replay(self, source: MemorySource | None = None, **changes: Any) -> Said:
        """Replay `source`, or what was published; all of it, or from_ms, to_ms, domain, …"""
        request = ReplayRequest(
            topics=NAMES, trust=TRUST, **{"from_ms": 0, "to_ms": 1 << 50, "clock_slack_ms": 0, **changes}
        )
        verdicts: list[WindowVerdict] = []
        findings: list[Finding] = []
        result = replay_source(
            source or self.source,
            request,
            judging(CACHE.verify),
            ToySets(),
            on_verdict=verdicts.append,
            on_finding=findings.append,
        )
        return Said(result, verdicts, findings)


@dataclass
class Said:
    """What a replay said."""

    result: ReplayResult
    verdicts: list[WindowVerdict]
    findings: list[Finding]

    @property
    def kinds(self) -> set[str]:
        return {one.verdict.value for one in self.verdicts}

    @property
    def codes(self) -> set[str]:
        return {one.code for one in self.findings}

    @property
    def alarms(self) -> list[Finding]:
        return [one for one in self.findings if one.severity == "alarm"]


def publish(run: Run, policies: Sequence[PolicyView], *, restarts: Sequence[int] = ()) -> Published:
    """Publish the decisions of `run` as workers do: another session from each of the positions `restarts` on."""
    source = MemorySource(run.log)
    for view in policies:
        value = sign_policy(view.policy, KEY)
        assert open_policy(value, TRUST).digest == view.digest
        source.append(NAMES.policy, value, f"policy/{view.policy.counter}".encode())
    sessions = [session_of(AGGREGATORS[number % 2], None, number // 2) for number in range(len(restarts) + 1)]
    producer = _Producer(source)
    publishers = [_publisher(session, producer) for session in sessions]
    decisions: dict[int, list[Emission | Rejection]] = defaultdict(list)
    for rejection in run.rejections:
        decisions[rejection.offset].append(rejection)
    for offset, made in run.emissions:
        decisions[offset].append(made)
    for record in run.log:
        publisher = publishers[sum(record.offset >= one for one in restarts)]
        producer.now_ms = record.timestamp_ms + 5
        for one in decisions.get(record.offset, ()):
            if isinstance(one, Rejection):
                publisher.reject(record, one)
            else:
                publisher.emit(one)
    return Published(source, policies, len(run.emissions))


def _publisher(session: Session, producer: Any) -> OutputPublisher:
    facts = WorkerIdentityFacts(session, session.binding.host_id)
    return OutputPublisher({}, NAMES, facts, framing=SINGLE_OBJECT, make_producer=lambda _: producer)
