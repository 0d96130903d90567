"""Records reach their jobs in order, each slot's in looks of a bounded size before they are taken."""

from __future__ import annotations

from stream_jobs.log_jobs import AHEAD, Item, process_batch
from stream_jobs.log_record import LogRecord
from stream_jobs.log_slots import Slot, SlotState, TopicPartition
from tests.log.bench import Job


def slot_of(partition: int) -> tuple[Slot, Job]:
    slot, job = Slot(TopicPartition("t", partition), 1), Job(0)
    slot.ready(job, 0, 1_000)
    return slot, job


def item(slot: Slot, offset: int) -> Item:
    return slot, LogRecord("t", slot.tp.partition, offset, 0, 1, b"d", b"", ()), None


def test_every_job_sees_its_own_next_records() -> None:
    (one, first), (other, second) = slot_of(0), slot_of(1)
    batch = [item(one, at) for at in range(AHEAD - 2)] + [item(other, 0), item(other, 1)]
    batch += [item(other if at % 3 else one, AHEAD + at) for at in range(6)]
    assert process_batch(batch) == {one: AHEAD, other: 6}
    assert first.looked == [list(range(AHEAD - 2)), [AHEAD, AHEAD + 3]]
    assert second.looked == [[0, 1], [AHEAD + at for at in (1, 2, 4, 5)]]
    assert first.seen == [*range(AHEAD - 2), AHEAD, AHEAD + 3]
    assert second.seen == [0, 1, *(AHEAD + at for at in (1, 2, 4, 5))]


def test_a_single_record_and_a_lost_slot_are_not_looked_at() -> None:
    (one, first), (lost, second) = slot_of(0), slot_of(1)
    lost.state = SlotState.LOST
    assert process_batch([item(one, 0), item(lost, 0), item(lost, 1)]) == {one: 1}
    assert (first.looked, first.seen) == ([], [0])
    assert (second.looked, second.seen) == ([], [])
