"""The adapter without Kafka: one fact per test, a client of our own, a clock of our own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from schemas.errors import EnclaveScaleError
from stream_jobs.log_client import NoReadOffset, PartitionsLost, TryAgain
from stream_jobs.log_record import PublishFailed
from stream_jobs.log_slots import Admission, ProgressWatch, Slot, SlotState
from tests.log.bench import TP, Bench, Job, record, run, until


def test_log_starts_at_the_committed_offset_and_ignores_what_lies_below() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        assert bench.made_with == [("t", 0, 10, "job:a", 0, 100)]
        assert bench.client.seeks == [10]
        await bench.offer(8, 9, 10, 10, 9, 11, 12, 10)
        await until(lambda: job.next == 13)
        assert job.seen == [10, 11, 12]

    assert run(test).client.commits == [(13, "job:b")]  # at the end


def test_log_deliveries_before_the_job_is_made_are_dropped_and_sought_again() -> None:
    async def test(bench: Bench) -> None:
        await bench.adapter.assigned([TP], 1)
        await bench.offer(10, 11)  # the start has not even asked for the commit yet
        await until(lambda: bench.state() == "ready")
        assert bench.jobs[0].seen == []
        assert bench.client.seeks == [10]

    run(test)


def test_log_deliveries_for_a_foreign_partition_are_dropped() -> None:
    async def test(bench: Bench) -> None:
        await bench.assign()
        await bench.adapter.offer(record(10, partition=7))

    assert run(test).failures == []


def test_log_gap_is_sought_again_and_accepted_only_when_the_broker_has_nothing_there() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        bench.client.first = 15
        await bench.offer(15)
        assert bench.client.seeks == [10, 10]
        await bench.offer(16, 17)  # behind it in the same stale batch
        await bench.offer(15, 16)
        await until(lambda: job.next == 17)
        assert job.seen == [(10, 15), 15, 16]

    bench = run(test)
    assert bench.registry.get_sample_value("enclavescale_log_gap_offsets_total", {"topic": "t", "partition": "0"}) == 5


def test_log_gap_of_a_stale_delivery_is_never_accepted() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        bench.client.first = 10  # the record is there: what Faust hands out is old
        await bench.offer(15, 16, 15, 16, 15)
        assert job.seen == []
        await bench.offer(10, 11)
        await until(lambda: job.next == 12)
        assert job.seen == [10, 11]

    run(test)


def test_log_gap_below_the_start_of_the_log_is_input_lost() -> None:
    async def test(bench: Bench) -> None:
        await bench.assign()
        bench.client.first, bench.client.limits[TP] = 15, (15, 100)
        await bench.offer(15)
        with pytest.raises(EnclaveScaleError) as caught:
            await bench.offer(15)
        assert caught.value.code == "INPUT_LOST"

    run(test)


def test_log_dropped_tail_is_sought_again() -> None:
    async def test(bench: Bench) -> None:
        await bench.assign()
        await bench.adapter.maintain()
        bench.now += 3.5
        await bench.adapter.maintain()
        assert bench.client.seeks == [10, 10]

    run(test, nudge_s=3.0)


def test_log_what_is_no_record_at_the_end_is_no_lag() -> None:
    """A transaction's marker moves the end of the log, and no consumer ever gets it."""

    async def test(bench: Bench) -> None:
        bench.client.limits[TP] = (0, 12)
        job = await bench.assign()
        await bench.offer(10)
        await until(lambda: job.next == 11)
        bench.client.hollow_to = 12
        for _ in range(3):
            await bench.adapter.maintain()
            await until(lambda: not bench.adapter._ticking)
            bench.now += 3.5
        assert bench.adapter.stats()[TP].processing_lag == 0
        await until(lambda: job.ticks[-1:] == [(True, 12)])
        bench.now += 100.0
        await bench.adapter.maintain()  # no stall
        assert bench.client.seeks == [10]
        bench.client.limits[TP] = (0, 13)
        bench.client.first = 12
        await bench.adapter.maintain()
        assert bench.adapter.stats()[TP].processing_lag == 1
        await bench.offer(12)
        await bench.offer(12)
        await until(lambda: job.next == 13)
        assert job.seen == [10, (11, 12), 12]

    run(test, nudge_s=3.0)


def test_log_deleted_tail_is_input_lost_once_nothing_arrives() -> None:
    async def test(bench: Bench) -> None:
        await bench.assign()
        bench.client.limits[TP] = (100, 100)
        await bench.adapter.maintain()  # what was deleted may still be in Faust's buffers
        bench.now += 3.5
        with pytest.raises(EnclaveScaleError) as caught:
            await bench.adapter.maintain()
        assert caught.value.code == "INPUT_LOST"

    run(test, nudge_s=3.0)


@pytest.mark.parametrize("limits", [(11, 100), (0, 9)], ids=["below", "beyond"])
def test_log_commit_outside_the_log_is_input_lost(limits: tuple[int, int]) -> None:
    async def test(bench: Bench) -> None:
        bench.client.limits[TP] = limits
        await bench.assign()

    bench = run(test, start_timeout_s=0.0)
    assert bench.failures == ["INPUT_LOST"]
    assert bench.jobs == []


def test_log_partition_without_a_commit_gets_one() -> None:
    async def test(bench: Bench) -> None:
        bench.client.held.clear()
        bench.client.limits[TP] = (3, 100)
        await bench.assign()
        assert bench.client.commits == [(3, "start")]
        assert bench.made_with == [("t", 0, 3, "start", 3, 100)]

    run(test)


def test_log_every_assignment_makes_a_new_job() -> None:
    async def test(bench: Bench) -> None:
        first = await bench.assign(1)
        await bench.offer(10, 11)
        await until(lambda: first.next == 12)
        await bench.adapter.revoked([TP])
        assert bench.client.commits == [(12, "job:b")]
        await until(lambda: first.closed)
        second = await bench.assign(2)
        assert second is not first
        await bench.offer(13, 11, 12)  # 13: from the first generation's buffer
        await until(lambda: second.next == 13)
        assert second.seen == [12]

    run(test)


def test_log_record_in_flight_when_the_partition_goes_does_not_count() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        job.hold = threading.Event()
        await bench.offer(10, 11)
        await until(job.entered.is_set)
        await bench.adapter.revoked([TP])  # waits 0.2 s and goes on
        job.hold.set()
        await until(lambda: job.closed)
        assert job.seen == [10]
        assert bench.client.commits == []

    run(test)


def test_log_refused_commit_drops_the_state_and_nothing_else() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        await bench.offer(10)
        bench.client.errors.append(PartitionsLost("generation is over"))
        await until(lambda: job.closed)
        assert bench.state() == "lost"
        await bench.offer(11)
        assert job.seen == [10]
        await bench.adapter.revoked([TP])
        assert bench.client.commits == []  # not even the last commit: it is somebody else's by now
        await bench.assign(2)

    assert run(test, commit_interval_s=0.01).failures == []


def test_log_retriable_commit_errors_are_retried_until_the_deadline() -> None:
    async def test(bench: Bench) -> None:
        await bench.assign()
        bench.client.errors = [TryAgain("election")] * 3
        await bench.offer(10)
        await until(lambda: bench.client.commits == [(11, "job:b")])
        bench.client.errors = [TryAgain("election")] * 100_000
        await bench.offer(11)
        await until(lambda: len(bench.client.errors) < 99_999)
        assert bench.failures == []
        bench.now += 61
        await until(lambda: bench.failures == ["COMMIT_FAILED"])

    run(test, commit_interval_s=0.01, commit_deadline_s=60.0)


def test_log_commit_never_exceeds_what_was_processed() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        job.ahead = 1
        await bench.offer(10)
        await until(lambda: bench.failures == ["RESUME_OFFSET"])

    assert run(test).client.commits == []


@pytest.mark.parametrize(
    ("error", "code"), [(PublishFailed("no ack"), "PUBLISH_FAILED"), (ValueError("bug"), "JOB_FAILED")]
)
def test_log_failing_job_stops_the_worker(error: Exception, code: str) -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        job.error = error
        await bench.offer(10, 11)
        await until(lambda: bench.failures == [code])

    assert run(test).client.commits == []


def test_log_create_time_is_refused_unless_bypassed() -> None:
    async def refused(bench: Bench) -> None:
        await bench.assign()
        await bench.adapter.offer(record(10, timestamp_type=0))
        assert bench.failures == ["TIMESTAMP_TYPE"]

    async def taken(bench: Bench) -> None:
        job = await bench.assign()
        await bench.adapter.offer(record(10, timestamp_type=0))
        await until(lambda: job.seen == [10])

    assert run(refused).jobs[0].seen == []
    assert run(taken, unsafe_allow_create_time=True).failures == []


def test_log_stall_is_told_from_idleness_and_from_progress() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        bench.client.limits[TP] = (0, 10)
        await bench.adapter.maintain()
        bench.now += 1000  # nothing to do: no stall
        await bench.adapter.maintain()
        bench.client.limits[TP] = (0, 12)
        await bench.adapter.maintain()
        bench.now += 50
        await bench.offer(10)
        await until(lambda: job.next == 11)
        await bench.adapter.maintain()
        bench.now += 50  # 100 s behind, but 50 s after the last progress
        await bench.adapter.maintain()
        bench.now += 11
        with pytest.raises(EnclaveScaleError) as caught:
            await bench.adapter.maintain()
        assert caught.value.code == "STALLED"

    run(test, stall_timeout_s=60.0)


def test_log_ticks_say_whether_the_job_has_caught_up() -> None:
    async def test(bench: Bench) -> None:
        bench.client.limits[TP] = (0, 11)
        job = await bench.assign()
        await bench.adapter.maintain()
        await until(lambda: job.ticks == [(False, 11)])
        await bench.offer(10)
        await until(lambda: job.next == 11)
        await bench.adapter.maintain()
        await until(lambda: job.ticks == [(False, 11), (True, 11)])

    run(test)


def test_log_stats_tell_processing_lag_from_commit_lag() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        await bench.offer(10, 11, 12)
        await until(lambda: job.next == 13)
        await until(lambda: bench.adapter.stats()[TP].resume_offset == 13)
        stats = bench.adapter.stats()[TP]
        assert (stats.processing_lag, stats.commit_lag, stats.committed_offset) == (87, 3, 10)
        await bench.adapter.maintain()
        labels = {"topic": "t", "partition": "0"}
        assert bench.registry.get_sample_value("enclavescale_log_processing_lag_records", labels) == 87
        assert bench.registry.get_sample_value("enclavescale_log_commit_lag_records", labels) == 3
        await bench.adapter.revoked([TP])
        assert bench.registry.get_sample_value("enclavescale_log_commit_lag_records", labels) is None

    run(test)


def test_log_backpressure_holds_the_event_loop_and_lets_go() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        job.hold = threading.Event()
        feed = asyncio.create_task(bench.offer(*range(10, 60)))
        await until(job.entered.is_set)
        await asyncio.sleep(0)
        assert not feed.done()
        job.hold.set()
        await feed
        await until(lambda: job.next == 60)
        assert job.seen == list(range(10, 60))

    run(test, batch_records=2)


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([9, 10, 11], "IGNORE TAKE TAKE"),
        ([12, 13, 12], "SEEK IGNORE PROBE"),
        ([12, 10, 13], "SEEK TAKE SEEK"),
        ([12, 11], "SEEK PROBE"),
    ],
)
def test_log_slot_admission(offsets: list[int], expected: str) -> None:
    slot = Slot(TP, 1)
    assert slot.admit(10) is Admission.IGNORE  # still starting
    slot.ready(Job(10), 10, 100)
    assert [slot.admit(offset).name for offset in offsets] == expected.split()
    slot.state = SlotState.CLOSING
    assert slot.admit(slot.offered) is Admission.IGNORE


def test_log_progress_watch() -> None:
    watch = ProgressWatch()
    assert watch.waiting("a", 1, 0.0, behind=True) == 0
    assert watch.waiting("a", 1, 5.0, behind=True) == 5
    assert watch.waiting("a", 2, 9.0, behind=True) == 0
    assert watch.waiting("a", 2, 10.0, behind=False) == 0
    assert watch.waiting("a", 2, 30.0, behind=True) == 20
    watch.keep(set())
    assert watch.waiting("a", 2, 50.0, behind=True) == 0


def test_log_faust_never_drops_by_its_own_read_offset() -> None:
    offsets = NoReadOffset()
    offsets["a"] = 5
    offsets.update({"a": 7})
    assert offsets["a"] is None
