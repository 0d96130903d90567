"""The log as the state: from Faust's deliveries to contiguous records for one job per partition, and our own commit.

Faust carries the consumer group, the assignment, rebalancing and the fetches; nothing it says about an offset is
believed (`log_slots`). Per assignment:

1. every partition's former state is dropped;
2. the committed offset and the log's bounds are read from the brokers; a partition without a commit gets one at
   the log's start, outside the bounds is `INPUT_LOST`;
3. the job is made off the event loop, and only then is the partition sought at the committed offset: what came
   before is dropped, because dropping is always safe here;
4. records are taken in order (`log_slots`), processed on one thread in batches, and the jobs' resume offsets are
   committed at most once a second, at a revocation and at the end.

Dropping and seeking again are the only recoveries; what they cannot mend ends the worker with a code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor

from schemas.errors import EnclaveScaleError
from stream_jobs.kafka_errors import access_error
from stream_jobs.log_client import GroupClient, PartitionsLost, TryAgain
from stream_jobs.log_jobs import Item, close_job, process_batch, tick_jobs
from stream_jobs.log_metrics import LogMetrics
from stream_jobs.log_record import (
    LOG_APPEND_TIME,
    START_METADATA,
    AdapterFailed,
    CommitFailed,
    InputLost,
    JobFactory,
    LogRecord,
    Stalled,
    TimestampTypeError,
)
from stream_jobs.log_slots import Admission, PartitionStats, ProgressWatch, Slot, SlotState, TopicPartition, Turn
from stream_jobs.settings import LogSettings

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # between two tries of what a broker in election refuses


class LogAdapter:
    """Owns the slots. Everything here runs on Faust's event loop; the jobs have a thread of their own (`log_jobs`)."""

    def __init__(
        self,
        client: GroupClient,
        factory: JobFactory,
        settings: LogSettings,
        metrics: LogMetrics,
        *,
        on_failure: Callable[[EnclaveScaleError], None],
        on_turn: Callable[[Turn], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._factory, self._settings, self._metrics = client, factory, settings, metrics
        self._on_failure, self._clock, self._wall = on_failure, clock, wall
        self._on_turn, self._assigned = on_turn, False
        self._slots: dict[TopicPartition, Slot] = {}
        self._pending: deque[Item] = deque()
        self._pending_bytes = 0
        self._wake, self._room, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._idle.set()
        self._commit_lock = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="partition-jobs")
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch = ProgressWatch()
        self._commit_retry_since: float | None = None
        self._rebalancing_since: float | None = None
        self._bounds_at = clock()
        self._ticking = False
        self.failure: EnclaveScaleError | None = None

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the background tasks on the running loop."""
        for work in (self._pump, self._commit_forever, self._maintain_forever):
            self._spawn(work())

    async def stop(self) -> bool:
        """Finish the record in hand, commit, close the jobs; bounded by three times `revoke_wait_s`.

        Returns whether the jobs' thread has come back; where not, the interpreter cannot end by itself.
        """
        await self._release(list(self._slots.values()))
        last = asyncio.wrap_future(self._executor.submit(lambda: None))
        done, _ = await asyncio.wait({last}, timeout=self._settings.revoke_wait_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return bool(done)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Stop the worker because of `error`; the first one counts."""
        if self.failure is not None:
            return
        known = error if isinstance(error, EnclaveScaleError) else access_error(error) or AdapterFailed(repr(error))
        self.failure = known
        self._metrics.failures.labels(known.code).inc()
        logger.critical("%s: %s %s", known.code, known, known.remedy, exc_info=None if known is error else error)
        self._room.set()
        self._on_failure(known)

    def stats(self) -> dict[TopicPartition, PartitionStats]:
        """What each assigned partition is at; safe from any thread."""
        now_ms = int(self._wall() * 1000)
        return {tp: PartitionStats.of(slot, now_ms) for tp, slot in list(self._slots.items())}

    # --- deliveries ------------------------------------------------------------------------------------------

    async def offer(self, record: LogRecord) -> None:
        """Take one delivery of Faust's; returns when there is room for the next."""
        if self.failure is not None:
            return
        slot = self._slots.get(TopicPartition(record.topic, record.partition))
        admission = Admission.IGNORE if slot is None else slot.admit(record.offset)
        if slot is None or admission is Admission.IGNORE:
            self._metrics.ignored.labels(record.topic, record.partition).inc()
            if slot is not None:
                slot.count("ignored")
        elif admission is Admission.TAKE:
            self._take(slot, record, None)
        else:
            try:
                await self._resolve_gap(slot, record, admission)
            except TryAgain as error:
                slot.forget_gap()  # the nudge seeks again
                logger.warning("%s: gap at %d not resolved yet: %s", slot.tp, record.offset, error)
            except PartitionsLost:
                self._lose(slot)
        if not self._room.is_set():
            await self._room.wait()

    def _take(self, slot: Slot, record: LogRecord, first_missing: int | None) -> None:
        if record.timestamp_type != LOG_APPEND_TIME and not self._settings.unsafe_allow_create_time:
            place = f"{record.topic}/{record.partition} offset {record.offset}"
            self.fail(TimestampTypeError(f"{place} has timestamp type {record.timestamp_type}, not LogAppendTime"))
            return
        self._pending.append((slot, record, first_missing))
        self._pending_bytes += len(record.value or b"")
        if self._pending_bytes > self._settings.pending_bytes or len(self._pending) >= 8 * self._settings.batch_records:
            self._room.clear()
        self._wake.set()

    async def _resolve_gap(self, slot: Slot, record: LogRecord, admission: Admission) -> None:
        if admission is Admission.SEEK:
            await self._seek(slot, "gap")
            return
        expected = slot.offered
        first = await self._client.first_at(slot.tp, expected)
        if slot.state is not SlotState.READY or slot.offered != expected:
            return
        if first is None or first < record.offset:
            slot.forget_gap()
            await self._seek(slot, "stale")
            return
        log_start, _ = (await self._client.bounds([slot.tp]))[slot.tp]
        if log_start > expected:
            raise self._input_lost(slot.tp, expected, log_start, slot.high_watermark)
        missing = slot.accept_gap(record.offset)
        logger.warning("%s: offsets %d to %d are not in the log", slot.tp, missing, record.offset - 1)
        slot.count("gaps")
        self._metrics.gaps.labels(*slot.tp).inc()
        self._metrics.gap_records.labels(*slot.tp).inc(record.offset - missing)
        self._take(slot, record, missing)

    async def _seek(self, slot: Slot, reason: str) -> None:
        slot.count(f"seek_{reason}")
        self._metrics.seeks.labels(*slot.tp, reason).inc()
        await self._client.seek(slot.tp, slot.offered)

    @staticmethod
    def _input_lost(tp: TopicPartition, offset: int, log_start: int, end: int) -> InputLost:
        return InputLost(f"{tp.topic}/{tp.partition}: offset {offset} is not in the log [{log_start}, {end}]")

    # --- processing ------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._pending or self.failure is not None:
                self._wake.clear()
                await self._wake.wait()
                continue
            if len(self._pending) < self._settings.batch_records:
                await asyncio.sleep(self._settings.linger_s)  # a hop to the thread costs as much as Faust's record
            size = min(len(self._pending), self._settings.batch_records)
            if not size:
                continue  # lost meanwhile
            batch = [self._pending.popleft() for _ in range(size)]
            self._idle.clear()
            self._metrics.stages.observe("consume", self._wall() - batch[0][1].timestamp_ms / 1000)
            try:
                counts = await loop.run_in_executor(self._executor, process_batch, batch)
            finally:
                self._idle.set()
            self._pending_bytes -= sum(len(record.value or b"") for _, record, _ in batch)
            for slot in {slot for slot, _, _ in batch if slot.stopped is not None}:
                self._drop_pending(slot)
                slot.wait()
            if self._pending_bytes <= self._settings.pending_bytes:
                self._room.set()
            for slot, count in counts.items():
                self._metrics.records.labels(*slot.tp).inc(count)

    # --- the group -------------------------------------------------------------------------------------------

    async def revoked(self, tps: Iterable[TopicPartition]) -> None:
        """The group is rebalancing: finish the record in hand, commit, let go. Bounded by twice `revoke_wait_s`."""
        self._rebalancing_since = self._clock()
        await self._release([self._slots[tp] for tp in tps if tp in self._slots])

    async def _release(self, slots: list[Slot]) -> None:
        for slot in slots:
            if slot.state is SlotState.READY:
                slot.state = SlotState.CLOSING
        with contextlib.suppress(TimeoutError):
            # Too long: what that record publishes its next owner publishes too, and its resume offset is not used.
            await asyncio.wait_for(self._idle.wait(), self._settings.revoke_wait_s)
        with contextlib.suppress(TimeoutError, TryAgain):
            await asyncio.wait_for(self._commit(slots), self._settings.revoke_wait_s)
        for slot in slots:
            self._lose(slot)
            if self._slots.get(slot.tp) is slot:
                del self._slots[slot.tp]

    def _lose(self, slot: Slot) -> None:
        if slot.state is SlotState.LOST:
            return
        slot.state = SlotState.LOST
        self._metrics.remove(slot.tp)
        self._drop_pending(slot)
        if self._pending_bytes <= self._settings.pending_bytes:
            self._room.set()
        if slot.job is not None:
            self._executor.submit(close_job, slot.job)

    def _drop_pending(self, slot: Slot) -> None:
        self._pending_bytes -= sum(len(item[1].value or b"") for item in self._pending if item[0] is slot)
        self._pending = deque(item for item in self._pending if item[0] is not slot)

    async def assigned(self, tps: Iterable[TopicPartition], generation: int) -> None:
        """A new assignment: start every partition from its committed offset, whether we had it before or not."""
        self._rebalancing_since = None
        self._assigned = True
        self._metrics.assignments.inc()
        for slot in list(self._slots.values()):
            self._lose(slot)
        self._slots = {tp: Slot(tp, generation) for tp in tps}
        self._watch.keep(set(self._slots))
        if self._slots:
            # Not awaited: heartbeats rest while this callback runs.
            self._spawn(self._start_slots(list(self._slots.values()), generation))

    async def _start_slots(self, slots: list[Slot], generation: int) -> None:
        deadline = self._clock() + self._settings.start_timeout_s
        while True:
            waiting = [slot for slot in slots if slot.state is SlotState.STARTING]
            if not waiting:
                return
            final = self._clock() >= deadline
            try:
                await self._start_once(waiting, generation, final=final)
                return
            except TryAgain as error:
                if final:
                    raise AdapterFailed(f"no committed offsets within the start timeout: {error}") from error
                await asyncio.sleep(RETRY_S)
            except PartitionsLost:
                for slot in waiting:
                    self._lose(slot)
                return

    async def _start_once(self, slots: list[Slot], generation: int, *, final: bool) -> None:
        tps = [slot.tp for slot in slots]
        committed = await self._client.committed(tps)
        bounds = await self._client.bounds(tps)
        missing = {tp: (bounds[tp][0], START_METADATA) for tp in tps if tp not in committed}
        if missing:
            await self._client.commit(missing, generation, self._settings.commit_timeout_s)
            committed.update(missing)
        for slot in slots:
            offset, metadata = committed[slot.tp]
            start, end = bounds[slot.tp]
            if offset > end and not final:
                raise TryAgain(f"{slot.tp} ends at {end}")  # a new leader's high watermark may lag for a moment
            if not start <= offset <= end:
                raise self._input_lost(slot.tp, offset, start, end)
            if slot.state is not SlotState.STARTING:
                continue
            loop = asyncio.get_running_loop()
            job = await loop.run_in_executor(self._executor, self._factory, *slot.tp, offset, metadata, start, end)
            if slot.state is not SlotState.STARTING:  # revoked meanwhile
                self._executor.submit(close_job, job)
                continue
            slot.ready(job, offset, end)
            self._watch.forget(slot.tp)
            await self._seek(slot, "start")

    # --- commits ---------------------------------------------------------------------------------------------

    async def _commit_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            try:
                await self._commit(list(self._slots.values()))
                self._commit_retry_since = None
            except TryAgain as error:
                now = self._clock()
                self._commit_retry_since = since = self._commit_retry_since or now
                self._metrics.commits.labels("retry").inc()
                logger.warning("commit not acknowledged, trying again: %s", error)
                if now - since > self._settings.commit_deadline_s:
                    raise CommitFailed(f"no commit acknowledged for {now - since:.0f} s: {error}") from error

    async def _commit(self, slots: list[Slot]) -> None:
        """Commit what is ahead; partitions that are not ours any more lose their state. Raises TryAgain."""
        async with self._commit_lock:
            live = [slot for slot in slots if slot.state in (SlotState.READY, SlotState.CLOSING)]
            wanted = {slot: point for slot in live if (point := slot.to_commit) is not None}
            if not wanted:
                return
            generation = max(slot.generation for slot in wanted)
            offsets = {slot.tp: value for slot, value in wanted.items()}
            try:
                with self._metrics.stages.timed("commit"):
                    await self._client.commit(offsets, generation, self._settings.commit_timeout_s)
            except PartitionsLost as error:
                self._metrics.commits.labels("lost").inc()
                logger.warning("commit refused, the group has moved on: %s", error)
                for slot in wanted:
                    self._lose(slot)
                return
            self._metrics.commits.labels("ok").inc()
            for slot, (offset, _) in wanted.items():
                slot.committed = offset

    # --- maintenance -----------------------------------------------------------------------------------------

    async def _maintain_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick_interval_s)
            await self.maintain()

    async def maintain(self) -> None:
        """One round: ends of the partitions, ticks, nudges, the watch on progress, metrics."""
        ready = [slot for slot in self._slots.values() if slot.state is SlotState.READY]
        await self._refresh_bounds(ready)
        if ready and not self._ticking:
            self._ticking = True
            self._spawn(self._tick_jobs(ready))
        for slot in ready:
            await self._nudge(slot)
            self._metrics.publish(slot, int(self._wall() * 1000))
        self._metrics.count_states(self._slots.values())
        if self._on_turn is not None:
            self._on_turn(Turn(self._assigned and self._rebalancing_since is None, self.stats()))
        self._check_progress()

    async def _tick_jobs(self, slots: list[Slot]) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, tick_jobs, slots, int(self._wall() * 1000))
        finally:
            self._ticking = False

    async def _refresh_bounds(self, ready: list[Slot]) -> None:
        if not ready:
            self._bounds_at = self._clock()
            return
        try:
            bounds = await self._client.bounds([slot.tp for slot in ready])
        except (TryAgain, PartitionsLost) as error:
            if self._clock() - self._bounds_at > self._settings.unreachable_timeout_s:
                raise Stalled(f"no broker told the partitions' ends for too long: {error}") from error
            return
        self._bounds_at = self._clock()
        for slot in ready:
            slot.log_start, slot.high_watermark = bounds[slot.tp]

    async def _nudge(self, slot: Slot) -> None:
        """Input is there, all that was taken is done, and nothing arrives: it was dropped on the way. Seek again.

        Or it is no record: a transaction's marker at the end of the log, which no consumer ever gets. A broker says.
        """
        if slot.hold is not None:
            if slot.hold.again():
                slot.hold = None
                with contextlib.suppress(TryAgain, PartitionsLost):
                    await self._seek(slot, "hold")
            return
        behind = slot.high_watermark > max(slot.offered, slot.reached) and slot.done == slot.offered
        behind = behind and self._room.is_set()
        now = self._clock()
        if self._watch.waiting((slot.tp, "nudge"), slot.offered, now, behind=behind) < self._settings.nudge_s:
            return
        if slot.log_start > slot.offered:
            raise self._input_lost(slot.tp, slot.offered, slot.log_start, slot.high_watermark)
        self._watch.forget((slot.tp, "nudge"))
        slot.forget_gap()
        logger.info("%s: nothing arrives at offset %d, seeking again", slot.tp, slot.offered)
        with contextlib.suppress(TryAgain, PartitionsLost):
            expected = slot.offered
            end = await self._client.empty_until(slot.tp, expected)
            if slot.state is SlotState.READY and slot.offered == expected and end >= slot.high_watermark:
                slot.hollow = (expected, end)
                return
            await self._seek(slot, "nudge")

    def _check_progress(self) -> None:
        """Raise `Stalled` (or `InputLost`) where something has waited longer than `stall_timeout_s`."""
        now, limit = self._clock(), self._settings.stall_timeout_s
        since = self._rebalancing_since
        if since is not None and now - since > limit + self._settings.rebalance_timeout_s:
            raise Stalled(f"the group has been rebalancing for {now - since:.0f} s")
        for tp, slot in self._slots.items():
            starting = slot.state is SlotState.STARTING  # has its own deadline, and jobs may read long
            cut = slot.high_watermark < slot.done and slot.state is SlotState.READY
            behind = not starting and (slot.processing_lag > 0 or cut or slot.state is SlotState.LOST)
            behind = behind and slot.hold is None  # a restart would wait at the same record
            waited = self._watch.waiting(tp, slot.done, now, behind=behind)
            if waited <= limit:
                continue
            if cut:
                raise self._input_lost(tp, slot.done, 0, slot.high_watermark)
            place = f"{tp.topic}/{tp.partition} ({slot.state.value}) stands at offset {slot.done}"
            raise Stalled(f"{place}, the log ends at {slot.high_watermark}, no progress for {waited:.0f} s")
