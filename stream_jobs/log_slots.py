"""The bookkeeping of one partition during one assignment: which offset may come next, and is there progress.

Pure: no clock, no Kafka, no I/O. The one rule is contiguity. A record of the log at the expected offset is *the*
record, whichever fetch, buffer or generation it came through (a log does not change in place), so everything
Faust delivers late, twice or from an earlier generation is told by its offset alone:

1. below the expected offset: ignored;
2. at the expected offset: taken;
3. above it: sought again once; taken as a gap only if the first offset seen above comes again after that, and
   the broker, asked directly, has nothing in between (`LogAdapter` asks).
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from stream_jobs.hold import Hold
from stream_jobs.log_record import PartitionJob

MAX_TRAIL = 1024
"""Marks kept of a partition's progress: of a quarter of an hour, a second apart, of a day, some minutes apart."""


class TopicPartition(NamedTuple):
    """A topic's name and a partition number; equal to, and hashes like, the Kafka clients' own tuples."""

    topic: str
    partition: int


class SlotState(enum.Enum):
    """Where a slot is in its life."""

    STARTING = "starting"  # committed offset being read, job being made: whatever arrives is dropped and sought again
    READY = "ready"
    CLOSING = "closing"  # being revoked: nothing is taken or processed any more, the last commit is on its way
    LOST = "lost"  # not ours any more: nothing is committed


HELD = "held"
"""How a slot that is ready and waits at a record is shown."""


class Admission(enum.Enum):
    """What to do with an arriving offset."""

    TAKE = "take"
    IGNORE = "ignore"
    SEEK = "seek"
    PROBE = "probe"


@dataclass(slots=True, eq=False)
class Slot:
    """One partition in one generation of the group. Offsets are "next": the first one not yet done."""

    tp: TopicPartition
    generation: int
    start: int = 0
    offered: int = 0  # next offset to accept from Faust
    done: int = 0  # next offset to process; written by the job's thread
    resume_point: tuple[int, str] | None = None  # the job's resume offset and commit metadata after its last call
    committed: int = -1
    log_start: int = 0  # as told last; may lie above what is still in Faust's buffers
    high_watermark: int = 0
    state: SlotState = SlotState.STARTING
    job: PartitionJob | None = None
    gap_at: int | None = None
    done_ms: int = -1  # append time of the newest record processed, Unix time; -1 before the first
    trail: list[tuple[int, int]] = field(default_factory=list)  # (next offset, append time) now and then, for lags
    stopped: Hold | None = None  # what the job raised in the batch in hand; written by its thread
    hold: Hold | None = None  # the same after the batch: nothing is taken until it is worth another try
    hollow: tuple[int, int] | None = None  # [first, end) at the log's end without a record, as a broker said
    counts: dict[str, int] = field(default_factory=dict)

    def ready(self, job: PartitionJob, start: int, high_watermark: int) -> None:
        """The job is made; from now on the offset `start` is expected."""
        self.job = job
        self.start = self.offered = self.done = self.committed = start
        self.high_watermark = high_watermark
        self.state = SlotState.READY

    def admit(self, offset: int) -> Admission:
        """Decide on an arriving offset, by the rules on top of this module."""
        if self.state is not SlotState.READY or self.hold is not None or offset < self.offered:
            return Admission.IGNORE
        if offset == self.offered:
            self.offered += 1
            self.gap_at = None
            return Admission.TAKE
        if self.gap_at is None:
            self.gap_at = offset
            return Admission.SEEK
        # Behind the first sighting in the same stale batch; what the second seek brings has not arrived yet.
        return Admission.IGNORE if offset > self.gap_at else Admission.PROBE

    def accept_gap(self, next_offset: int) -> int:
        """Offsets up to `next_offset` do not exist: go on behind them. Returns the first missing offset."""
        first_missing, self.offered = self.offered, next_offset + 1
        self.gap_at = None
        return first_missing

    @property
    def shown(self) -> str:
        """The state as a person sees it."""
        return HELD if self.hold is not None and self.state is SlotState.READY else self.state.value

    def wait(self) -> None:
        """The batch is over and the record at `done` waits: it and what was taken behind it come from the log again."""
        self.hold, self.stopped = self.stopped, None
        self.offered, self.gap_at = self.done, None

    def forget_gap(self) -> None:
        """What looked like a gap was a stale delivery, or the second seek brought nothing: start over."""
        self.gap_at = None

    @property
    def reached(self) -> int:
        """Next offset to process, or the log's end where nothing is left before it but what is no record."""
        if self.hollow is not None and self.hollow[0] == self.done == self.offered:
            return max(self.done, self.hollow[1])
        return self.done

    @property
    def to_commit(self) -> tuple[int, str] | None:
        """The resume offset with its metadata, if it is ahead of what is committed."""
        point = self.resume_point
        return None if point is None or point[0] <= self.committed else point

    @property
    def processing_lag(self) -> int:
        """Records in the log that are not processed yet."""
        return max(0, self.high_watermark - self.reached)

    @property
    def commit_lag(self) -> int:
        """Records processed, but to be read again by a successor."""
        return max(0, self.done - self.committed)

    def processing_lag_s(self, now_ms: int) -> float:
        """Age of what is to be processed next, s: at most, as it came after the newest record processed.

        0 where nothing waits; until the first record is processed nobody knows, and it is 0, too.
        """
        if not self.processing_lag or self.done_ms < 0:
            return 0.0
        return max(0, now_ms - self.done_ms) / 1000

    @property
    def commit_lag_s(self) -> float:
        """Append time between the committed offset and the next to process, s; as exact as `mark` is called."""
        while len(self.trail) > 1 and self.trail[1][0] <= self.committed:
            self.trail.pop(0)
        if not self.trail or not self.commit_lag:
            return 0.0
        return max(0, self.done_ms - self.trail[0][1]) / 1000

    def mark(self) -> None:
        """Remember when what was processed last had been appended; beyond `MAX_TRAIL` every other mark is forgotten."""
        if self.done_ms >= 0 and (not self.trail or self.trail[-1][0] != self.done):
            self.trail.append((self.done, self.done_ms))
            if len(self.trail) > MAX_TRAIL:
                del self.trail[1::2]

    def count(self, what: str, amount: int = 1) -> None:
        """Add to one of this slot's counters."""
        self.counts[what] = self.counts.get(what, 0) + amount


@dataclass(frozen=True, slots=True)
class PartitionStats:
    """A partition as the worker sees it now; offsets are "next", lags are records, `processing_lag_s` seconds."""

    generation: int
    state: str
    start_offset: int
    next_offset: int
    resume_offset: int | None
    committed_offset: int
    high_watermark: int
    processing_lag: int
    commit_lag: int
    processing_lag_s: float
    counts: dict[str, int]

    @classmethod
    def of(cls, slot: Slot, now_ms: int) -> PartitionStats:
        """A snapshot of `slot` at a Unix time, ms."""
        return cls(
            slot.generation,
            slot.shown,
            slot.start,
            slot.done,
            None if slot.resume_point is None else slot.resume_point[0],
            slot.committed,
            slot.high_watermark,
            slot.processing_lag,
            slot.commit_lag,
            slot.processing_lag_s(now_ms),
            dict(slot.counts),
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of the adapter's loop, for whoever watches it. `assigned`: the group has given this worker its share,
    which may be nothing, and is not about to give it anew."""

    assigned: bool
    partitions: Mapping[TopicPartition, PartitionStats]


class ProgressWatch:
    """Tells how long something has been waiting without moving; times are given, in seconds of any one clock."""

    def __init__(self) -> None:
        self._since: dict[Hashable, tuple[object, float]] = {}

    def waiting(self, key: Hashable, position: object, now: float, *, behind: bool) -> float:
        """Seconds for which `key` has stood at `position` while `behind`; 0 once it moves or has caught up."""
        known = self._since.get(key)
        if not behind or known is None or known[0] != position:
            self._since[key] = (position, now)
            return 0.0
        return now - known[1]

    def forget(self, key: Hashable) -> None:
        """Start over for `key`."""
        self._since.pop(key, None)

    def keep(self, keys: set[Hashable]) -> None:
        """Forget everything but `keys`."""
        for key in self._since.keys() - keys:
            del self._since[key]
