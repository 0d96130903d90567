"""An archive of one partition for `benchmarks.replay`: reports of a fleet, and what a worker published for them."""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attester.session import Session
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from benchmarks.core_log import DOMAIN, make_log
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE
from schemas.codec import SINGLE_OBJECT
from schemas.topics import TopicNames
from stream_jobs.archive import export_archive
from stream_jobs.archive.files import Directory
from stream_jobs.archive.index import Request
from stream_jobs.core.effects import Rejection
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.log_record import LogRecord
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.replay.source import Extent
from stream_jobs.worker import WorkerConfig, aggregator_binding
from verifier.cache import SessionCache

NAMES = TopicNames()


class Topics:
    """A `RecordSource` in memory, and the producer that fills it."""

    def __init__(self, append_ms: int) -> None:
        self._records: dict[str, list[LogRecord]] = defaultdict(list)
        self._append_ms = append_ms

    def append(self, topic: str, value: bytes | None, key: bytes | None, headers: Sequence[Any] = ()) -> LogRecord:
        records = self._records[topic]
        pairs = tuple((name, text.encode()) for name, text in headers)
        records.append(LogRecord(topic, 0, len(records), self._append_ms, 1, key, value, pairs))
        return records[-1]

    # -- what a publisher calls -------------------------------------------------------------------------------------

    def produce(self, topic: str, *, value: bytes, key: bytes | None, headers: Sequence[Any], **_: Any) -> None:
        self.append(topic, value, key, headers)

    def poll(self, _timeout_s: float) -> int:
        return 0

    def flush(self, _timeout_s: float) -> int:
        return 0

    # -- what an export calls ---------------------------------------------------------------------------------------

    def extents(self, topic: str) -> list[Extent]:
        return [Extent(topic, 0, 0, len(self._records[topic]))]

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        yield from self._records[topic][first:end]

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        return 0 if time_ms <= self._append_ms else len(self._records[topic])

    def close(self) -> None:
        """Nothing is held."""


def publish(directory: Path, hosts: int, windows: int, window_ms: int) -> tuple[Topics, bytes]:
    """Topics after a worker has read the log of `make_log`, and the policy's signer."""
    log = make_log(directory, hosts, windows, window_ms)
    trust = PolicyTrust((log.signer,))
    view = open_policy(log.policy_value, trust)
    provider = SimulatedTee.create(
        directory, platform_id=simulated_platform_id(AGGREGATOR_ID), mrtd=simulated_measurement(AGGREGATOR_IMAGE)
    )
    config = WorkerConfig(kafka={}, host_id=AGGREGATOR_ID, group="benchmark", provider=provider, trust=trust)
    session = Session(provider, aggregator_binding(config, None, log.append_ms))
    topics = Topics(log.append_ms)
    facts = WorkerIdentityFacts(session, AGGREGATOR_ID)
    publisher = OutputPublisher({}, NAMES, facts, framing=SINGLE_OBJECT, make_producer=lambda _: topics)
    topics.append(NAMES.policy, log.policy_value, f"policy/{view.policy.counter}".encode())
    core = PartitionCore(CoreConfig(NAMES.reports, 0, {view.digest: view}.get, SessionCache().verify))
    for value in log.values:
        record = topics.append(NAMES.reports, value, DOMAIN.encode())
        for effect in core.process(record):
            if isinstance(effect, Rejection):
                publisher.reject(record, effect)
            else:
                publisher.emit(effect)
    return topics, log.signer


def main() -> None:
    """Write the archive; print the policy's signer, hexadecimal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--window-ms", type=int, default=60_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        topics, signer = publish(Path(name), options.hosts, options.windows, options.window_ms)
    export_archive(topics, NAMES, Directory(options.directory), Request(None, None, None, None))
    print(signer.hex())


if __name__ == "__main__":
    main()
