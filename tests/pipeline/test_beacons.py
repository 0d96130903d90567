"""Issuing beacons: every domain first, then the topic; how often; what happens when a partition is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from producers.beacons import read_beacon
from schemas.codec import decode_signed_beacon, decode_signed_record
from schemas.records import ControlRecord
from stream_jobs.beacons import REMEMBERED, RETRY_MS, BeaconIssuer
from stream_jobs.job import REPEAT_MS
from stream_jobs.output import WorkerIdentityFacts
from tests.pipeline.test_job import TOPICS, Bench, Producer
from verifier.signature import load_session_key, verify_record_signature

HOUR_MS = 3_600_000
NOW_MS = 1_763_700_000_000


class Side:
    """An issuer that works at once, and what it sent."""

    def __init__(self, bench: Bench, interval_ms: int = HOUR_MS) -> None:
        self.bench, self.producers = bench, [Producer()]
        identity: WorkerIdentityFacts = bench.publisher._identity
        self.point = identity.session.binding.session_public_key
        self.issuer = BeaconIssuer(
            {},
            TOPICS,
            identity,
            interval_ms=interval_ms,
            make_producer=self._producer,
            random=lambda size: bytes([len(self.sent)]) * size,
            start=lambda work: work(),
        )

    def _producer(self, _: dict[str, str]) -> Any:
        return self.producers[-1]

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [one for producer in self.producers for one in producer.sent]

    def turn(self, now_ms: int, newest_ms: int = -1) -> int:
        before = len(self.sent)
        self.issuer.turn(self.bench.view, newest_ms, now_ms)
        return len(self.sent) - before


def test_it_stands_in_every_domain_before_any_host_hears_it(tmp_path: Path) -> None:
    side = Side(Bench(tmp_path))
    assert side.turn(NOW_MS) == 2
    control, announced = side.sent
    assert (control["topic"], control["key"], control["partition"]) == (TOPICS.reports, b"hall-a", 0)
    body = decode_signed_record(control["value"]).body
    assert isinstance(body, ControlRecord)
    assert announced["topic"] == TOPICS.beacons
    signed, preimage = decode_signed_beacon(announced["value"])
    verify_record_signature(load_session_key(side.point), preimage, signed.signature)
    heard = read_beacon(announced["value"], NOW_MS)
    assert [(one.kind, one.id, one.at_ms) for one in body.subjects] == [("beacon", heard.nonce.hex(), NOW_MS)]
    assert announced["key"] == f"beacon/{heard.nonce.hex()}".encode()
    assert side.issuer.issued == {heard.nonce: NOW_MS}


def test_one_is_enough_whoever_issued_it(tmp_path: Path) -> None:
    side = Side(Bench(tmp_path))
    assert side.turn(NOW_MS, newest_ms=NOW_MS - HOUR_MS + 1) == 0
    assert side.turn(NOW_MS, newest_ms=NOW_MS - HOUR_MS) == 2
    assert side.turn(NOW_MS + HOUR_MS - 1) == 0
    for hour in range(1, 2 * REMEMBERED):
        assert side.turn(NOW_MS + hour * HOUR_MS) == 2
    assert len(side.issuer.issued) == REMEMBERED
    assert max(side.issuer.issued.values()) == NOW_MS + (2 * REMEMBERED - 1) * HOUR_MS


def test_what_cannot_be_written_everywhere_nobody_hears(tmp_path: Path) -> None:
    class Away:
        @staticmethod
        def str() -> str:
            return "no leader"

    side = Side(Bench(tmp_path))
    side.producers[-1].error = Away
    assert side.turn(NOW_MS) == 1
    assert side.issuer.issued == {}
    side.producers.append(Producer())
    assert side.turn(NOW_MS + RETRY_MS - 1) == 0
    assert side.turn(NOW_MS + RETRY_MS) == 2  # with another producer, and another beacon
    assert list(side.issuer.issued.values()) == [NOW_MS + RETRY_MS]


def beacons(bench: Bench) -> int:
    """Control records that tell a domain of a beacon, by the job itself."""
    told = [decode_signed_record(one["value"]).body for one in bench.producer.sent if one["topic"] == TOPICS.reports]
    return sum(isinstance(one, ControlRecord) and one.kind == "BEACON" for one in told)


def test_a_job_issues_for_its_domains_and_tells_those_that_missed_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    side = Side(bench)
    bench.context.beacons = side.issuer
    now_ms = bench.view.policy.issued_at_ms
    bench.job.tick(now_ms, True, 0)
    assert side.sent == []  # no domain has begun
    bench.give(bench.control())
    bench.producer.sent.clear()
    bench.job.tick(now_ms, True, 1)
    assert [one["topic"] for one in side.sent] == [TOPICS.reports, TOPICS.beacons]
    assert beacons(bench) == 0
    bench.job.tick(now_ms + REPEAT_MS, True, 1)  # it has not come here
    assert beacons(bench) == 1
    bench.give(side.sent[0]["value"])
    bench.producer.sent.clear()
    bench.job.tick(now_ms + 60_000, True, 2)
    assert beacons(bench) == 0
