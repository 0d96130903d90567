"""An id that nobody knows waits for the registry, and for nothing else; what is known is never asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from enclavescale.registry.client import Listed, Registry
from enclavescale.registry.errors import RegistryUnreachable
from enclavescale.registry.ids import SchemaIds, read_ids
from enclavescale.registry.live import LIST_HOLDS_S, MAX_MET, NEWER_AGAIN_S, RegistryGate
from schemas.codec import decode_signed_record
from schemas.errors import SchemaError
from schemas.topics import TopicNames
from stream_jobs.hold import Hold

NAMES = TopicNames()
OURS = 7


def value(number: int) -> bytes:
    return b"\x00" + number.to_bytes(4, "big") + b"body"


class FakeRegistry:
    """Lists what it is told to; away until it is told to answer."""

    def __init__(self) -> None:
        self.versions = [Listed("s", 1, OURS, "SignedRecord")]
        self.there = threading.Event()
        self.asked = 0

    def listed(self, _: TopicNames) -> list[Listed]:
        self.asked += 1
        if not self.there.is_set():
            raise RegistryUnreachable("away")
        return list(self.versions)

    def close(self) -> None:
        pass


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def gate_of(registry: FakeRegistry, clock: Clock, file: Path | None = None) -> Iterator[RegistryGate]:
    ids = SchemaIds({"SignedRecord": OURS})
    gate = RegistryGate(cast(Registry, registry), ids, NAMES, ids_file=file, clock=clock)
    try:
        yield gate
    finally:
        gate.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def held(gate: RegistryGate, number: int) -> Hold:
    hold = gate.unsettled(value(number))
    assert hold is not None
    return hold


def test_what_is_known_and_what_carries_no_id_never_asks() -> None:
    registry = FakeRegistry()
    with gate_of(registry, Clock()) as gate:
        for one in (value(OURS), b"\xc3\x01" + bytes(20), b"", b"\x00\x00", None):
            assert gate.settled(one)
            assert gate.unsettled(one) is None
    assert registry.asked == 0


def test_an_unknown_id_waits_while_the_registry_is_away_and_is_refused_once_it_says_so() -> None:
    registry, clock = FakeRegistry(), Clock()
    with gate_of(registry, clock) as gate:
        hold = held(gate, 99)
        assert hold.code == "SCHEMA_ID_WAITS"
        until(lambda: registry.asked >= 2)  # it is asked again by itself
        assert not hold.again()
        assert held(gate, 99).code == "SCHEMA_ID_WAITS"
        registry.there.set()
        until(hold.again)
        assert gate.unsettled(value(99)) is None
        assert not gate.settled(value(99))
        with pytest.raises(SchemaError) as refused:
            decode_signed_record(value(99), gate.framing)
        assert refused.value.code == "SCHEMA_UNKNOWN"


def test_another_id_of_a_pinned_schema_is_read_and_kept(tmp_path: Path) -> None:
    registry, file = FakeRegistry(), tmp_path / "ids.json"
    registry.versions.append(Listed("s", 2, 12, "SignedRecord"))
    registry.there.set()
    with gate_of(registry, Clock(), file) as gate:
        until(held(gate, 12).again)
        assert gate.unsettled(value(12)) is None
        assert gate.framing.named(12) == "SignedRecord"
        assert gate.framing.prefix("SignedRecord") == value(OURS)[:5], "written is what was written before"
    assert read_ids(file).also == {12: "SignedRecord"}


def test_a_newer_releases_schema_waits_for_a_newer_worker() -> None:
    registry, clock = FakeRegistry(), Clock()
    registry.versions.append(Listed("s", 2, 50, None, newer=True))
    registry.there.set()
    with gate_of(registry, clock) as gate:
        until(held(gate, 50).again)
        hold = held(gate, 50)
        assert hold.code == "SCHEMA_NEWER"
        assert not hold.again()
        clock.now += NEWER_AGAIN_S
        assert hold.again()


def test_a_flood_of_ids_costs_one_list_per_five_seconds() -> None:
    registry, clock = FakeRegistry(), Clock()
    registry.there.set()
    with gate_of(registry, clock) as gate:
        until(held(gate, 100).again)
        asked = registry.asked
        assert all(gate.unsettled(value(number)) is None for number in range(100, 5_000))
        assert registry.asked == asked
        clock.now += LIST_HOLDS_S + 0.1
        hold = held(gate, 6_000)  # a list from before may lack what is new
        until(hold.again)
        assert registry.asked > asked
        assert gate.unsettled(value(6_000)) is None


def test_a_list_from_after_the_meeting_decides_however_old_it_is_by_then() -> None:
    """A record that is slow to come again must not wait for ever."""
    registry, clock = FakeRegistry(), Clock()
    registry.there.set()
    with gate_of(registry, clock) as gate:
        until(held(gate, 100).again)
        clock.now += 10 * LIST_HOLDS_S
        assert gate.unsettled(value(100)) is None
        assert gate.unsettled(value(100)) is not None, "the next one is a new meeting"


def test_what_is_remembered_of_ids_is_bounded() -> None:
    registry = FakeRegistry()
    with gate_of(registry, Clock()) as gate:
        for number in range(100, 100 + 3 * MAX_MET):
            held(gate, number)
        assert len(gate._met) <= MAX_MET
