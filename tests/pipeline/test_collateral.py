"""What a job makes of the collateral topic: it brings the newest set into force, unless it could not speak under it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from schemas.codec import decode_signed_record
from schemas.records import ControlRecord
from stream_jobs.core.policies import CollateralView
from stream_jobs.core.standing import CollateralOffer
from stream_jobs.reading import ReadFailed
from tests.core.sets import FIRST, ToySet, judging, toy_set
from tests.pipeline.test_job import TOPICS, Bench

HARSH = toy_set("refuses this worker", lambda host: host == "aggregator-0")


class Store:
    """A collateral store with one set."""

    def __init__(self, view: CollateralView) -> None:
        self.view, self.fails = view, False

    def refresh(self) -> None:
        if self.fails:
            raise ReadFailed("no leader")

    def newest(self, now_ms: int) -> CollateralOffer:
        return CollateralOffer(self.view, 0)

    def lookup(self, digest: bytes) -> CollateralView | None:
        if self.fails:
            raise ReadFailed("no leader")
        return self.view if digest == self.view.digest else None


def bench_with(directory: Path, store: Any) -> Bench:
    bench = Bench(directory)
    bench.context.collateral = store
    bench.context.verify = judging(bench.context.verify)
    return bench


def written(bench: Bench) -> list[ControlRecord]:
    values = [one["value"] for one in bench.producer.sent if one["topic"] == TOPICS.reports]
    bench.producer.sent.clear()
    return [body for value in values if isinstance(body := decode_signed_record(value).body, ControlRecord)]


def test_the_newest_set_comes_into_force(tmp_path: Path) -> None:
    assert isinstance(FIRST.held, ToySet)
    bench = bench_with(tmp_path, Store(FIRST))
    now_ms = bench.view.policy.issued_at_ms
    bench.job.tick(now_ms, True, 0)
    (first,) = written(bench)
    assert (first.kind, first.collateral_digest, first.subjects) == ("POLICY_SWITCH", FIRST.digest, ())


def test_a_worker_does_not_switch_to_what_would_silence_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = bench_with(tmp_path, Store(HARSH))
    now_ms = bench.view.policy.issued_at_ms
    with caplog.at_level(logging.ERROR):
        for turn in range(3):
            bench.job.tick(now_ms + turn, True, 0)
    (first,) = written(bench)
    assert (first.kind, first.collateral_digest) == ("POLICY_SWITCH", None)
    assert [one.message for one in caplog.records if "TCB_STATUS_REFUSED" in one.message][1:] == []
    assert "is not brought into force" in caplog.text


def test_what_cannot_be_read_stops_the_job_rather_than_being_refused(tmp_path: Path) -> None:
    store = Store(FIRST)
    bench = bench_with(tmp_path, store)
    bench.job.tick(bench.view.policy.issued_at_ms, True, 0)
    value = next(one["value"] for one in bench.producer.sent if one["topic"] == TOPICS.reports)
    store.fails = True
    bench.job.tick(bench.view.policy.issued_at_ms + 60_000, True, 0)  # asked again later
    with pytest.raises(ReadFailed):
        bench.give(value)
