"""A revocation on a real broker: a newer policy, and seconds later its host is out of what was published."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from enclavescale.fleet import sign_policy
from schemas.codec import decode_signed_output, decode_signed_record
from schemas.records import ControlRecord, FleetPower, RevokedSubject
from stream_jobs.job import REFRESH_MS
from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, WorkerProcess, wait_until
from tests.pipeline.test_restarts import start_of
from tests.pipeline.world import LATENESS_MS, World


def outputs(side: Side) -> list[FleetPower]:
    return [decode_signed_output(one.value() or b"")[0].output for one in side.read(side.topics.output)]


def controls(side: Side) -> set[str]:
    bodies = [decode_signed_record(one.value() or b"").body for one in side.read(side.topics.reports)]
    return {body.kind for body in bodies if isinstance(body, ControlRecord)}


@pytest.mark.broker
def test_a_revoked_host_leaves_published_windows_within_seconds(kafka: KafkaBroker, tmp_path: Path) -> None:
    world = World(tmp_path, {"hall-a": 0}, 4, 5)
    side = Side(kafka.bootstrap, world, 1)
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    try:
        took_s = revoked(world, side)
    finally:
        code = worker.stop()
    assert code == 0
    assert took_s < REFRESH_MS / 1000 + 20  # on a machine that is busy with other tests
    assert {"POLICY_SWITCH", "REVOCATION", "BEACON"} <= controls(side)


def revoked(world: World, side: Side) -> float:
    """Some windows, then the revocation of a host of theirs; seconds until it is out of them."""
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 1, "the first control record")
    start_ms = start_of(8)
    for window in range(6):
        side.append(world.clean(start_ms + window * (world.policy.domains[0].window_ms)))
    wait_until(lambda: len(outputs(side)) >= 4, "outputs")
    watermark_ms = max(one.window_end_ms for one in outputs(side))
    revisable = {one.window_start_ms for one in outputs(side) if one.window_end_ms > watermark_ms - LATENESS_MS}
    assert {one.accepted for one in outputs(side)} == {4}

    stolen = RevokedSubject(kind="host", id="hall-a-h01", reason="stolen")
    newer = replace(world.policy, counter=world.policy.counter + 1, revoked=(stolen,))
    begun = time.monotonic()
    side.producer.produce(side.topics.policy, value=sign_policy(newer, world.key), key="policy/2", partition=0)
    assert side.producer.flush(20) == 0

    def revised() -> set[int]:
        return {one.window_start_ms for one in outputs(side) if one.revision == 1 and one.accepted == 3}

    wait_until(lambda: revised() >= revisable, "revisions without the host", 60)
    return time.monotonic() - begun
