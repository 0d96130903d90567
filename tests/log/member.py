"""One worker of the log tests as a process of its own: `python -m tests.log.member '<json>'`.

Its job appends a line per event to a file. Lines written are there even after SIGKILL (the page cache is the
kernel's), and times are CLOCK_MONOTONIC, comparable between processes:

S <time_ns> <job> <partition> <start> <committed, asked past the worker> <metadata>   a job was made
P <time_ns> <job> <partition> <offset>                                                 a record was processed
G <time_ns> <job> <partition> <first_missing> <next_offset>                            a gap
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from schemas.errors import EnclaveScaleError
from stream_jobs.agents import LogWorker
from stream_jobs.log_record import LogRecord
from stream_jobs.settings import LogSettings

KEEP_BACK = 7  # the resume offset stays so many records behind, as a window's would


class AppendJob:
    """Writes what it sees; `behaviour` may make it block or fail at an offset."""

    def __init__(self, out: int, behaviour: dict[str, Any], partition: int, start: int) -> None:
        self._out, self._behaviour, self._partition = out, behaviour, partition
        self._name = uuid.uuid4().hex[:12]
        self._start = self._next = start

    def write(self, kind: str, *values: object) -> None:
        line = f"{kind} {time.monotonic_ns()} {self._name} {self._partition} {' '.join(map(str, values))}\n"
        os.write(self._out, line.encode())

    def look_ahead(self, records: Sequence[LogRecord]) -> None:
        pass

    def process(self, record: LogRecord) -> None:
        if record.offset == self._behaviour.get("raise_at"):
            raise ValueError("asked to")
        if record.offset == self._behaviour.get("block_at"):
            time.sleep(self._behaviour.get("block_s", 3600.0))
        if delay := self._behaviour.get("delay_s"):
            time.sleep(delay)
        self.write("P", record.offset)
        if self._behaviour.get("describe"):
            headers = repr(record.headers).replace(" ", "")
            os.write(self._out, f"R key={record.key!r} value={record.value!r} headers={headers}\n".encode())
        self._next = record.offset + 1

    def gap(self, first_missing: int, next_offset: int) -> None:
        self.write("G", first_missing, next_offset)

    def tick(self, now_ms: int, caught_up: bool, high_watermark: int) -> None:
        pass

    @property
    def resume_offset(self) -> int | None:
        resume = self._next - self._behaviour.get("keep_back", KEEP_BACK)
        return resume if resume > self._start else None

    @property
    def commit_metadata(self) -> str:
        return f"job:{self._name}"

    def close(self) -> None:
        pass


def main() -> int:
    config = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    out = os.open(Path(config["out"]), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    asked = Consumer({"bootstrap.servers": config["bootstrap"], "group.id": config["group"]})

    def factory(
        topic: str, partition: int, start: int, metadata: str, log_start: int, high_watermark: int
    ) -> AppendJob:
        job = AppendJob(out, config.get("behaviour", {}), partition, start)
        committed = asked.committed([TopicPartition(topic, partition)], timeout=10)[0]
        job.write("S", start, committed.offset, metadata or "EMPTY")
        return job

    worker = LogWorker(
        topic=config["topic"],
        group=config["group"],
        kafka={"bootstrap.servers": config["bootstrap"]},
        factory=factory,
        settings=LogSettings(**config.get("settings", {})),
    )
    code = worker.run()
    if isinstance(worker.failure, EnclaveScaleError):
        print(f"FAILED {worker.failure.code}", flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
