"""A partition that waits takes nothing, loses nothing, does not count as stalled, and goes on at the same record."""

from __future__ import annotations

from stream_jobs.hold import Hold
from stream_jobs.log_jobs import process_batch
from stream_jobs.log_slots import Slot, TopicPartition
from tests.log.bench import TP, Bench, Job, record, run, until


def waiting(job: Job, worth: list[bool]) -> None:
    job.error = Hold("a test", code="SCHEMA_ID_WAITS", remedy="", again=lambda: worth[0])  # type: ignore[assignment]


def test_a_partition_waits_and_goes_on_at_the_same_record() -> None:
    async def test(bench: Bench) -> None:
        worth = [False]
        job = await bench.assign()
        await bench.offer(10)
        await until(lambda: job.seen == [10])
        waiting(job, worth)
        await bench.offer(11, 12, 13)
        await until(lambda: bench.state() == "held")
        job.error = None
        await bench.offer(11, 12, 14)  # still on their way: taken by nobody
        bench.client.limits[TP] = (0, 100)
        bench.now += 500  # far longer than what is called a stall
        await bench.adapter.maintain()
        await bench.adapter.maintain()
        assert (job.seen, bench.failures, bench.client.seeks[1:]) == ([10], [], [])
        held = bench.registry.get_sample_value("enclavescale_log_partitions", {"state": "held"})
        assert held == 1
        assert bench.adapter.stats()[TP].next_offset == 11
        worth[0] = True
        await bench.adapter.maintain()
        assert bench.client.seeks[1:] == [11]
        await bench.offer(11, 12)
        await until(lambda: job.seen == [10, 11, 12])
        assert bench.state() == "ready"

    run(test)


def test_it_waits_again_where_it_is_not_settled() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        waiting(job, [True])
        for _ in range(3):
            await bench.offer(10)
            await until(lambda: bench.state() == "held")
            await bench.adapter.maintain()
            assert bench.state() == "ready"
        assert bench.client.seeks[1:] == [10, 10, 10]
        assert job.seen == []

    run(test)


def test_a_gap_before_a_record_that_waits_is_told_once() -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        waiting(job, [True])
        bench.client.first = 15
        await bench.offer(15, 15)
        await until(lambda: bench.state() == "held")
        await bench.adapter.maintain()
        assert bench.client.seeks[-1] == 15
        job.error = None
        await bench.offer(15)
        await until(lambda: job.seen == [(10, 15), 15])

    run(test)


def test_other_partitions_of_a_batch_go_on() -> None:
    (one, first), (two, second) = ((Slot(TopicPartition("t", at), 1), Job(0)) for at in range(2))
    one.ready(first, 0, 9)
    two.ready(second, 0, 9)
    waiting(first, [False])
    batch = [(one, record(0), None), (two, record(0), None), (one, record(1), None), (two, record(1), None)]
    assert process_batch(batch) == {two: 2}
    assert (first.seen, second.seen) == ([], [0, 1])
    assert one.stopped is not None
    assert one.done == 0
    one.wait()
    assert (one.shown, two.shown) == ("held", "ready")
