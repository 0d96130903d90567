"""What the log adapter hands to a job and what it asks of it: plain types, no Kafka client in sight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.errors import EnclaveScaleError

LOG_APPEND_TIME = 1  # Kafka's TimestampType: 0 = CreateTime, 1 = LogAppendTime
START_METADATA = "start"  # commit metadata of the explicit first commit of a partition


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record as it stands in the log; `timestamp_ms` is the broker's append time where `timestamp_type` is 1."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class PartitionJob(Protocol):
    """The work on one partition during one assignment; made anew at each assignment, called from one thread only."""

    def look_ahead(self, records: Sequence[LogRecord]) -> None:
        """The next records, if nothing comes between: what can be done for them now need not be done one by one."""

    def process(self, record: LogRecord) -> None:
        """Take the next record. May block on publishing. `Hold` lets the partition wait at this record, which is then
        as if it had not been given; whatever else it raises stops the worker uncommitted.
        """

    def gap(self, first_missing: int, next_offset: int) -> None:
        """Offsets `first_missing` to `next_offset - 1` are not in the log; called before the next `process`."""

    def tick(self, now_ms: int, caught_up: bool, high_watermark: int) -> None:
        """Called about once a second, between records; `caught_up`: nothing below `high_watermark` is left to do."""

    @property
    def resume_offset(self) -> int | None:
        """Where a successor would have to start, None while there is nothing new to commit."""

    @property
    def commit_metadata(self) -> str:
        """Goes beside `resume_offset` into the commit; what the next job gets as `committed_metadata`."""

    def close(self) -> None:
        """The partition is gone; release what is held, publish nothing."""


JobFactory = Callable[[str, int, int, str, int, int], PartitionJob]
"""(topic, partition, start_offset, committed_metadata, log_start_offset, high_watermark) -> job.

Runs off the event loop and may do I/O. `start_offset` is the committed offset, exactly.
"""


class LogError(EnclaveScaleError):
    """Something about the input log that a person must see; it stops the worker with exit code 1."""

    code = "LOG"
    remedy = "The message says what happened to the log."


class InputLost(LogError):
    """The committed offset is no longer (or not yet) in the log: retention was faster, or the topic is another one."""

    code = "INPUT_LOST"
    remedy = (
        "Records that were never processed are gone. Find out why (retention too short, worker too long away, topic "
        "deleted and made again, data loss on the broker), then reset this group's offset deliberately."
    )


class TimestampTypeError(LogError):
    """A record that does not carry the broker's append time."""

    code = "TIMESTAMP_TYPE"
    remedy = "Set message.timestamp.type=LogAppendTime on the topic; records appended before stay as they are."


class PublishFailed(LogError):
    """An output was not acknowledged in time; nothing after it may be committed."""

    code = "PUBLISH_FAILED"
    remedy = "Check that the brokers are reachable and that this worker may write to its output topics."


class JobFailed(LogError):
    """A job raised something of its own."""

    code = "JOB_FAILED"
    remedy = "This is a bug: keep the log and the record named in the message."


class ResumeOffsetError(LogError):
    """A job asked for a commit beyond what it has processed."""

    code = "RESUME_OFFSET"
    remedy = "This is a bug in the job: nothing was committed."


class CommitFailed(LogError):
    """The broker refused our commits, or could not be reached to take them, for longer than the deadline."""

    code = "COMMIT_FAILED"
    remedy = "Check the group's authorisation and the brokers; the worker resumes from the last commit."


class Stalled(LogError):
    """There is input, and for too long nothing of it was processed."""

    code = "STALLED"
    remedy = "A supervisor restarts the worker; if it stalls at the same offset again, keep the log and look there."


class AdapterFailed(LogError):
    """Faust or the Kafka client ended in a way the worker cannot go on from."""

    code = "ADAPTER_FAILED"
    remedy = "A supervisor restarts the worker; the log line above says what ended it."
