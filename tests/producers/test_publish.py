"""Publishing: the bytes of the spool, in order, to the policy's partition; failures, refusals, secrets."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from producers import backoff
from producers.backoff import LONGEST_S
from producers.errors import SpoolError
from producers.publish import (
    REBOOTSTRAP_S,
    SPOOL_RETRY_S,
    PublishConfig,
    Publisher,
    cloud_event_headers,
    partitions_of,
    producer_properties,
    shown_properties,
)
from producers.seal import SealedReport
from producers.spool import Spool
from schemas.errors import ConfigError
from schemas.records import DomainRule
from tests.producers.forge import report

DAY_MS = 24 * 3_600_000
CONFIG = PublishConfig(partitions={"row-1": 2, "row-2": 0}, kafka={"bootstrap.servers": "x:1"}, topic="reports")


class FakeError:
    """What librdkafka reports, without librdkafka."""

    def __init__(self, code: int, fatal: bool = False) -> None:
        self._code, self._fatal = code, fatal

    def code(self) -> int:
        return self._code

    def fatal(self) -> bool:
        return self._fatal

    def name(self) -> str:
        return f"E{self._code}"


class FakeProducer:
    """Keeps messages until the test decides their fate."""

    def __init__(self, made: list["FakeProducer"]) -> None:
        self.sent: list[tuple[bytes, int, bytes]] = []
        self.waiting: list[Callable[[Any, Any], None]] = []
        self.verdicts: list[FakeError | None] = []
        self.room = 1_000
        self.too_large: set[bytes] = set()
        made.append(self)

    def produce(self, topic: str, *, value: bytes, key: bytes, partition: int, headers: Any, on_delivery: Any) -> None:
        if value in self.too_large:
            raise KafkaException(FakeError(KafkaError.MSG_SIZE_TOO_LARGE))
        if len(self.waiting) >= self.room:
            raise BufferError
        self.sent.append((value, partition, key))
        self.waiting.append(on_delivery)

    def poll(self, _timeout: float) -> None:
        for verdict in self.verdicts:
            if self.waiting:
                self.waiting.pop(0)(verdict, None)
        self.verdicts = []


class Clock:
    """A monotonic clock, in seconds, that the test moves."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Iterator[Spool]:
    with Spool(tmp_path / "s", now=clock) as opened:
        yield opened


def publisher(
    spool: Spool, clock: Clock | None = None, config: PublishConfig = CONFIG
) -> tuple[Publisher, list[FakeProducer]]:
    made: list[FakeProducer] = []
    return Publisher(config, spool, lambda _properties: FakeProducer(made), clock or Clock()), made


def sending(
    spool: Spool, clock: Clock, *reports: SealedReport, config: PublishConfig = CONFIG
) -> tuple[Publisher, list[FakeProducer]]:
    """A publisher that has sent these reports, new ones, and nothing has come back yet."""
    sender, made = publisher(spool, clock, config)
    spool.append(reports, 0)
    sender.pump()
    return sender, made


def pump_all(sender: Publisher, producer: FakeProducer, clock: Clock, seconds: float) -> None:
    """Let everything be acknowledged for `seconds`, a turn every 0.1 s."""
    for _ in range(round(seconds * 10)):
        clock.s += 0.1
        producer.verdicts = [None] * len(producer.waiting)
        sender.pump()


def values(numbers: range | list[int]) -> list[bytes]:
    return [report(number).value for number in numbers]


def sent(producer: FakeProducer, first: int = 0) -> list[bytes]:
    return [value for value, _, _ in producer.sent[first:]]


def test_the_policys_partition_and_the_domain_as_key(spool: Spool, clock: Clock) -> None:
    _, made = sending(spool, clock, report(0), report(1, "h2", domain="row-2"))
    assert made[0].sent == [(report(0).value, 2, b"row-1"), (report(1).value, 0, b"row-2")]


def test_only_what_was_acknowledged_is_trimmed(spool: Spool, clock: Clock) -> None:
    sender, made = sending(spool, clock, *map(report, range(3)))
    made[0].verdicts = [None, None]
    sender.pump()
    assert [entry.value for entry in spool.pending()] == values([2])
    assert sender.acknowledged == 2
    sender.pump()
    assert len(made[0].sent) == 3  # nothing is sent twice while it is in flight


def test_after_a_failure_everything_left_is_sent_again_in_order(spool: Spool, clock: Clock) -> None:
    sender, made = sending(spool, clock, *map(report, range(4)))
    made[0].verdicts = [FakeError(KafkaError._MSG_TIMED_OUT), None]
    spool.append([report(4)], 0)
    sender.pump()
    clock.s += LONGEST_S
    sender.pump()
    assert len(made[0].sent) == 4  # waits until nothing is in flight
    made[0].verdicts = [None, FakeError(KafkaError._MSG_TIMED_OUT)]
    pump_all(sender, made[0], clock, 2.0)
    # Also what arrived past the failed one, which may have carried the evidence it needs.
    assert sent(made[0], 4) == values(range(5))
    assert len(made) == 1
    assert spool.depth()[0] == 0
    stats = sender.stats()
    assert (stats.acknowledged, stats.resent, stats.in_flight, stats.recovering) == (5, 4, 0, False)


def test_a_failure_of_one_host_sends_nothing_of_another_again(spool: Spool, clock: Clock) -> None:
    sender, made = sending(spool, clock, report(0), report(1, "h2", domain="row-2"), report(2))
    made[0].verdicts = [FakeError(KafkaError._MSG_TIMED_OUT), None, None]
    sender.pump()
    assert sender.acknowledged == 1
    pump_all(sender, made[0], clock, 2.0)
    assert sent(made[0], 3) == values([0, 2])


def test_a_failure_is_followed_by_a_pause_and_one_report(
    spool: Spool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "full_jitter", lambda attempt: 0.5 * attempt)
    sender, made = sending(spool, clock, *map(report, range(5)))
    for attempt in range(1, 4):
        before = len(made[0].sent)
        made[0].verdicts = [FakeError(KafkaError._TRANSPORT)] * 5
        sender.pump()
        clock.s += 0.5 * attempt - 0.01
        sender.pump()
        assert len(made[0].sent) == before
        clock.s += 0.02
        sender.pump()
        assert sent(made[0], before) == values([0])
    assert sender.stats().failed == 7  # five at once, then one at a time
    assert sender.stats().resent == 3
    assert sender.stats().failing
    made[0].verdicts = [None]
    sender.pump()
    assert not sender.stats().failing


def test_a_fatal_error_makes_a_new_producer(spool: Spool, clock: Clock) -> None:
    sender, made = sending(spool, clock, report(0))
    made[0].verdicts = [FakeError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True)]
    sender.pump()
    clock.s += LONGEST_S
    sender.pump()
    assert [len(producer.sent) for producer in made] == [1, 1]


def test_brokers_that_stay_away_are_looked_for_anew(spool: Spool, clock: Clock) -> None:
    sender, made = sending(spool, clock, report(0))
    for seconds, clients in ((LONGEST_S, 1), (REBOOTSTRAP_S, 2), (LONGEST_S, 2)):
        made[-1].verdicts = [FakeError(KafkaError._MSG_TIMED_OUT)]
        sender.pump()
        clock.s += seconds
        sender.pump()
        assert len(made) == clients
    made[-1].verdicts = [None]
    sender.pump()
    assert sender.stats().acknowledged == 1


def test_a_full_queue_leaves_the_rest_on_disk(spool: Spool, clock: Clock) -> None:
    sender, made = publisher(spool, clock)
    made[0].room = 2
    spool.append([report(number) for number in range(5)], 0)
    sender.pump()
    assert len(made[0].sent) == 2
    made[0].verdicts = [None, None]
    sender.pump()
    assert sent(made[0]) == values(range(4))


def test_no_more_than_allowed_are_in_flight(spool: Spool, clock: Clock) -> None:
    config = PublishConfig(partitions={"row-1": 0}, kafka=CONFIG.kafka, max_in_flight=3)
    sender, made = sending(spool, clock, *map(report, range(5)), config=config)
    for _ in range(3):
        sender.pump()
    assert len(made[0].sent) == 3


@pytest.mark.parametrize("late", [False, True])
def test_what_no_broker_takes_does_not_block_the_rest(spool: Spool, clock: Clock, late: bool) -> None:
    sender, made = publisher(spool, clock)
    spool.append([report(number) for number in range(3)], 0)
    if late:
        sender.pump()
        made[0].verdicts = [None, FakeError(KafkaError.MSG_SIZE_TOO_LARGE), None]
    else:
        made[0].too_large = {report(1).value}
        sender.pump()
        made[0].verdicts = [None, None]
    sender.pump()
    assert spool.depth()[0] == 0
    assert spool.dropped("host-1") == 1
    assert sender.stats().refused == 1


def test_a_domain_without_a_partition_waits_and_blocks_nobody(spool: Spool, clock: Clock) -> None:
    sender, made = sending(spool, clock, report(0, "h9", domain="row-9"), report(1))
    assert sent(made[0]) == values([1])
    pump_all(sender, made[0], clock, 1.0)
    assert (spool.depth()[0], sender.stats().stranded) == (1, 1)
    policy = PublishConfig(partitions={"row-9": 4}, kafka=CONFIG.kafka)
    next_sender, later = publisher(spool, clock, policy)
    next_sender.pump()
    assert later[0].sent == [(report(0).value, 4, b"row-9")]


def test_a_backlog_leaves_at_a_measured_pace_and_in_order(spool: Spool, clock: Clock) -> None:
    """An hour of windows of 60 s: a tenth of the time they were made in, however fast the broker answers."""
    for number in range(60):
        spool.append([report(number)], number * 60_000)
    sender, made = publisher(spool, clock)
    for minute in range(1, 6):
        pump_all(sender, made[0], clock, 60.0)
        assert len(made[0].sent) == pytest.approx(1 + minute * 10, abs=1)
        assert sender.stats().recovering
    pump_all(sender, made[0], clock, 60.0)
    assert sent(made[0]) == values(range(60))
    assert not sender.stats().recovering
    spool.append([report(number) for number in range(60, 70)], 60 * 60_000)
    sender.pump()
    assert sent(made[0], 60) == values(range(60, 70))  # no pace for what is new


def test_a_backlog_is_over_although_new_reports_never_stop_coming(spool: Spool, clock: Clock) -> None:
    spool.append([report(number) for number in range(4)], 0)
    sender, made = publisher(spool, clock)
    for number in range(4, 10):
        spool.append([report(number)], 0)
        pump_all(sender, made[0], clock, 0.1)
    assert sender.stats().in_flight > 0
    assert not sender.stats().recovering
    assert sent(made[0]) == values(range(10))


def test_a_try_that_nobody_answered_yet_is_no_recovery(spool: Spool, clock: Clock) -> None:
    sender, made = sending(spool, clock, report(0))
    made[0].verdicts = [FakeError(KafkaError._TRANSPORT)]
    sender.pump()
    clock.s += LONGEST_S
    sender.pump()
    assert sender.stats().recovering
    spool.append([report(1), report(2)], 0)
    sender.pump()
    assert sent(made[0]) == values([0, 0])
    pump_all(sender, made[0], clock, 1.0)
    assert not sender.stats().recovering


def test_the_limit_in_flight_grows_with_what_arrives(spool: Spool, clock: Clock) -> None:
    spool.append([report(number) for number in range(40)], 0)
    sender, made = publisher(spool, clock)
    rounds = []
    for _ in range(4):
        sender.pump()
        rounds.append(len(made[0].waiting))
        made[0].verdicts = [None] * len(made[0].waiting)
    assert rounds == [1, 2, 4, 8]


def test_a_failing_spool_is_asked_again_and_what_arrived_is_trimmed_then(
    spool: Spool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise SpoolError("no disk")

    sender, made = sending(spool, clock, *map(report, range(3)))
    with monkeypatch.context() as patch:
        patch.setattr(spool, "acknowledge", broken)
        patch.setattr(spool, "pending", broken)
        made[0].verdicts = [None] * 3
        sender.pump()
        assert (sender.acknowledged, spool.depth()[0]) == (3, 3)
        assert sender.stats().last_ack_age_s == 0
    sender.pump()
    assert spool.depth()[0] == 3  # not at once
    clock.s += SPOOL_RETRY_S
    sender.pump()
    assert spool.depth()[0] == 0
    assert len(made[0].sent) == 3
    assert sender.stats().last_ack_age_s == SPOOL_RETRY_S


def test_cloud_events_headers(spool: Spool) -> None:
    entry = spool.append([report(7, "dc1/host 1")], 0)[0]
    assert dict(cloud_event_headers(entry)) == {
        "ce_specversion": b"1.0",
        "ce_id": report(7).digest.hex().encode(),
        "ce_source": b"/hosts/dc1%2Fhost%201",
        "ce_type": b"org.enclavescale.window-report.v1",
        "ce_time": b"2026-03-04T12:01:20.000Z",
        "content-type": b"application/avro",
    }


def test_properties_ours_then_the_operators() -> None:
    found = producer_properties(
        {"kafka.bootstrap.servers": "b:9", "linger.ms": "5", "kafka.sasl.password": "p"}, DAY_MS
    )
    assert (found["bootstrap.servers"], found["linger.ms"], found["sasl.password"]) == ("b:9", "5", "p")
    assert (found["enable.idempotence"], found["acks"], found["compression.type"]) == ("true", "all", "zstd")
    other_name = producer_properties({"bootstrap.servers": "b:9", "message.timeout.ms": "500"}, DAY_MS)
    assert "delivery.timeout.ms" not in other_name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bootstrap.servers": ""},
        {"bootstrap.servers": "b", "kafka.enable.idempotence": "false"},
        {"bootstrap.servers": "b", "acks": "1"},
        {"bootstrap.servers": "b", "request.required.acks": "0"},
        {"bootstrap.servers": "b", "delivery.timeout.ms": str(DAY_MS)},
        {"bootstrap.servers": "b", "message.timeout.ms": "0"},
        {"bootstrap.servers": "b", "message.timeout.ms": "soon"},
    ],
)
def test_properties_that_would_lose_reports_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        producer_properties(options, DAY_MS)


def test_secrets_are_not_shown(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    secret = "hunter2"
    names = ("sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "sasl.jaas.config")
    options = {"bootstrap.servers": "b:9", **{f"kafka.{name}": secret for name in names}}
    config = PublishConfig(partitions={}, kafka=options)
    with caplog.at_level(logging.DEBUG):
        publisher(spool, config=config)
    assert "b:9" in caplog.text
    assert secret not in caplog.text + repr(config) + str(shown_properties(producer_properties(options, DAY_MS)))


def test_partitions_come_from_the_policys_domains() -> None:
    rule = DomainRule(
        domain="row-1",
        partition=5,
        limit_w=1,
        window_ms=1,
        pane_ms=1,
        grace_ms=1,
        quantile_ppm=1,
        confidence_ppm=1,
        horizon_ms=1,
        quorum_ppm=1,
        k_min_hosts=1,
        k_min_tenants=1,
    )
    assert partitions_of((rule,)) == {"row-1": 5}


def test_through_librdkafka_to_the_mock_cluster(spool: Spool) -> None:
    broker = Producer({"test.mock.num.brokers": "1"})
    address = next(iter(broker.list_topics("reports", timeout=10).brokers.values()))
    servers = f"{address.host}:{address.port}"
    spool.append([report(number, size=4000) for number in range(50)], 0)
    sender = Publisher(
        PublishConfig(partitions={"row-1": 2}, kafka={"bootstrap.servers": servers}, topic="reports"), spool
    )
    assert sender.flush(20.0)
    assert sender.acknowledged == 50
    reader = Consumer({"bootstrap.servers": servers, "group.id": "g", "enable.auto.commit": False})
    reader.assign([TopicPartition("reports", 2, 0)])
    found: list[Any] = []
    deadline = time.monotonic() + 20
    while len(found) < 50 and time.monotonic() < deadline:
        found += reader.consume(50, 0.5)
    reader.close()
    assert [message.value() for message in found] == [report(number, size=4000).value for number in range(50)]
    assert {message.key() for message in found} == {b"row-1"}
    assert dict(found[3].headers())["ce_id"] == report(3).digest.hex().encode()


def test_without_a_broker_nothing_is_lost_and_flush_says_so(spool: Spool) -> None:
    spool.append([report(0)], 0)
    kafka = {"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": "300", "log_level": "0"}
    sender = Publisher(PublishConfig(partitions={"row-1": 0}, kafka=kafka), spool)
    assert not sender.flush(0.8)
    assert spool.depth()[0] == 1
