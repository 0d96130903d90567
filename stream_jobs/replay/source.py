"""Where a replay reads from: the topics of a cluster or an archive of them, by offset, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stream_jobs.log_record import LogRecord


@dataclass(frozen=True, slots=True)
class Extent:
    """What is there of one partition: offsets in [`first`, `end`). What lies below `first` is gone."""

    topic: str
    partition: int
    first: int
    end: int


class RecordSource(Protocol):
    """Read access to topics. The end of every partition is fixed when it is first asked for: a replay is of a moment.

    All methods raise ReadFailed where the records cannot be had.
    """

    def extents(self, topic: str) -> Sequence[Extent]:
        """Every partition of `topic`, by number; empty for a topic that does not exist."""

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        """Records with offsets in [first, end), in order, streamed; offsets that do not exist are left out."""

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """First offset whose record's timestamp is at or after `time_ms`; the partition's end if there is none."""

    def close(self) -> None:
        """Release what is held."""
