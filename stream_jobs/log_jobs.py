"""What runs on the jobs' thread: records to jobs in order, ticks, and what may be committed after each call."""

from __future__ import annotations

import logging

from schemas.errors import EnclaveScaleError
from stream_jobs.hold import Hold
from stream_jobs.log_record import JobFailed, LogRecord, PartitionJob, ResumeOffsetError
from stream_jobs.log_slots import Slot, SlotState

logger = logging.getLogger(__name__)

Item = tuple[Slot, LogRecord, int | None]
"""A slot, its next record, and the first missing offset of an accepted gap before it."""


AHEAD = 64
"""Records that a job sees ahead: decoded, they are few enough for a processor's cache."""


def process_batch(batch: list[Item]) -> dict[Slot, int]:
    """Give each record to its slot's job; returns how many per slot.

    A slot that is not ours any more, or that waits, is skipped from the next record on. Raises what the job raised
    where it has a code (`PublishFailed`), `JobFailed` otherwise, `ResumeOffsetError` for a resume offset beyond the
    work done.
    """
    counts: dict[Slot, int] = {}
    try:
        for at, (slot, record, first_missing) in enumerate(batch):
            if at % AHEAD == 0:
                _look_ahead(batch[at : at + AHEAD])
            if slot.state is not SlotState.READY or slot.job is None or slot.stopped is not None:
                continue
            if first_missing is not None:
                slot.job.gap(first_missing, record.offset)
                slot.done = record.offset  # told once, even if the record has to wait
            try:
                slot.job.process(record)
            except Hold as hold:
                place = f"{slot.tp.topic}/{slot.tp.partition} waits at offset {record.offset}"
                logger.warning("%s: %s: %s. %s", place, hold.code, hold, hold.remedy)
                slot.stopped = hold
                continue
            slot.done = record.offset + 1
            if slot.done_ms < 0:
                slot.trail.append((record.offset, record.timestamp_ms))
            slot.done_ms = record.timestamp_ms
            counts[slot] = counts.get(slot, 0) + 1
    except EnclaveScaleError:
        raise
    except Exception as error:
        raise JobFailed(f"{slot.tp.topic}/{slot.tp.partition} offset {record.offset}: {error!r}") from error
    finally:
        for slot in counts:
            _note_resume(slot)
    return counts


def _look_ahead(batch: list[Item]) -> None:
    records: dict[Slot, list[LogRecord]] = {}
    for slot, record, _ in batch:
        records.setdefault(slot, []).append(record)
    for slot, its in records.items():
        if slot.state is SlotState.READY and slot.job is not None and slot.stopped is None and len(its) > 1:
            slot.job.look_ahead(its)


def tick_jobs(slots: list[Slot], now_ms: int) -> None:
    """Tick every job that is still ours; raises as `process_batch` does."""
    for slot in slots:
        if slot.state is not SlotState.READY or slot.job is None:
            continue
        try:
            slot.job.tick(now_ms, slot.reached >= slot.high_watermark, slot.high_watermark)
        except EnclaveScaleError:
            raise
        except Exception as error:
            raise JobFailed(f"{slot.tp.topic}/{slot.tp.partition} tick: {error!r}") from error
        _note_resume(slot)


def close_job(job: PartitionJob) -> None:
    """A close that fails must not keep the partition from its next owner: logged, no more."""
    try:
        job.close()
    except Exception:
        logger.exception("closing a partition's job failed")


def _note_resume(slot: Slot) -> None:
    if slot.job is None:
        return
    resume, metadata = slot.job.resume_offset, slot.job.commit_metadata
    if resume is not None and resume > slot.done:
        raise ResumeOffsetError(f"{slot.tp}: resume offset {resume} is beyond the next offset {slot.done}")
    # The pair is read on the event loop: the metadata of a smaller offset must never go with a larger one's.
    slot.resume_point = None if resume is None else (resume, metadata)
