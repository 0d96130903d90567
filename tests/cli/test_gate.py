"""Flow control: nobody runs ahead of the slowest host, nor of the worker; and what keeps children tied."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping

from confluent_kafka import Message

from enclavescale.gate import AHEAD_WINDOWS, GRACE_WINDOWS, LOOK_S, MAX_BEHIND, Gate, GatedPacer, Release
from enclavescale.tallies import Tallies
from producers.pacer import ReplayPacer
from schemas.topics import TopicNames
from tests.schemas.examples import VALUES

W = 10_000
HOSTS = [f"h{index}" for index in range(4)]


def test_no_host_can_be_late() -> None:
    assert AHEAD_WINDOWS <= GRACE_WINDOWS


def test_release_follows_the_slowest_host() -> None:
    release = Release(0, W, HOSTS, ["a"])
    assert release.through_ms() == AHEAD_WINDOWS * W
    for host in HOSTS[1:]:
        release.reported(host, 5 * W)
    release.reported("stranger", 0)
    assert release.through_ms() == AHEAD_WINDOWS * W
    release.reported(HOSTS[0], 3 * W)
    release.reported(HOSTS[0], 2 * W)
    assert release.through_ms() == (3 + AHEAD_WINDOWS) * W


def test_release_follows_the_worker_and_the_size_of_the_mock_broker() -> None:
    small, large = Release(0, W, HOSTS, ["a"]), Release(0, W, map(str, range(512)), ["a", "b"])
    for release in (small, large):
        for host in list(release._reported):
            release.reported(host, 1000 * W)
    assert small.through_ms() == (GRACE_WINDOWS + MAX_BEHIND) * W
    assert GRACE_WINDOWS * W < large.through_ms() <= (GRACE_WINDOWS + 4) * W
    small.closed("a", 100 * W)
    small.closed("b", 0)
    assert small.through_ms() == (100 + GRACE_WINDOWS + MAX_BEHIND) * W


def test_gate_listens_until_its_stream_ends() -> None:
    gate, stop = Gate(), threading.Event()
    gate.listen(io.StringIO("20000\n10000\nnonsense\n\n"), stop)
    assert gate.through_ms == 20_000
    assert stop.is_set()


def test_a_gated_window_waits_for_both_clock_and_gate() -> None:
    gate = Gate()
    pacer = GatedPacer(ReplayPacer(W, start_ms=0, speed=1, origin_s=0.0, now=lambda: 15.0), gate)
    assert pacer.first_start_ms() == 0
    assert pacer.next_start_ms(W) == W
    assert pacer.seconds_until(W) == LOOK_S
    gate.through_ms = W
    assert pacer.seconds_until(W) <= 0
    assert pacer.seconds_until(2 * W) == 5.0


class FakeMessage:
    """A message as the demo reads it."""

    def __init__(self, topic: str, value: bytes, headers: Mapping[str, str]):
        self._topic, self._value, self._headers = topic, value, headers

    def topic(self) -> str:
        return self._topic

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return [(name, value.encode()) for name, value in self._headers.items()]


def tallies() -> Tallies:
    """Four hosts, one of which has an impostor for two windows."""
    return Tallies(TopicNames(), Release(0, W, HOSTS, ["a"]), 0, W, impostor="h0", impostor_windows=2)


def feed(counted: Tallies, topic: str, value: bytes, **headers: str) -> None:
    message: Message = FakeMessage(topic, value, {k.replace("__", "."): v for k, v in headers.items()})  # type: ignore[assignment]
    counted.take(message)


def test_an_impostors_report_does_not_count_as_the_hosts() -> None:
    counted = tallies()
    for host in HOSTS:
        for end in ("10", "20"):
            feed(counted, counted.topics.reports, b"x", ce_source=f"/hosts/{host}", ce_time=f"1970-01-01T00:00:{end}Z")
    assert counted.release.through_ms() == AHEAD_WINDOWS * W, "h0's reports may be the impostor's"
    feed(counted, counted.topics.reports, b"x", ce_source="/hosts/h0", ce_time="1970-01-01T00:00:10Z")
    assert counted.release.through_ms() == (1 + AHEAD_WINDOWS) * W
    assert counted.reports == 9


def test_a_dead_letter_sent_twice_counts_once() -> None:
    counted = tallies()
    for offset in ("1", "1", "2"):
        headers = {"__connect.errors.offset": offset, "enclavescale.error.code": "LATE"}
        message: Message = FakeMessage(counted.topics.rejections, b"x", headers)  # type: ignore[assignment]
        counted.take(message)
    assert counted.refused == {"LATE": 2}


def test_control_records_and_foreign_bytes() -> None:
    counted = tallies()
    feed(counted, counted.topics.reports, b"nonsense")
    assert counted.controls == set()
    feed(counted, counted.topics.reports, VALUES["SignedRecord.control.full"])
    assert len(counted.controls) == 1
