"""Reading beside the group, and the policy store on it: what passes, what is a failure, how much is held at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import ConfigError
from stream_jobs import policy_store
from stream_jobs.policy_store import PolicyStore, PolicyTrust
from stream_jobs.reading import ReadFailed, read_range
from stream_jobs.worker import wait_for_policy
from tests.pipeline.world import World


class Log:
    """A consumer on one partition: `values` by offset (gaps allowed), an error before the first of them if given."""

    def __init__(self, values: dict[int, bytes], end: int, error: KafkaError | None = None) -> None:
        self.values, self.end, self.error = values, end, error
        self.at = 0
        self.asked: list[int] = []
        self.down = False

    def assign(self, places: list[Any]) -> None:
        self.at = places[0].offset
        self.asked.append(0)

    def unassign(self) -> None:
        pass

    def position(self, places: list[Any]) -> list[Any]:
        return [SimpleNamespace(offset=self.at)]

    def consume(self, count: int, _: float) -> list[Any]:
        if self.error is not None:
            error, self.error = self.error, None
            return [SimpleNamespace(error=lambda: error, offset=lambda: None)]
        found = [offset for offset in sorted(self.values) if offset >= self.at][:count]
        self.asked[-1] += len(found)
        self.at = found[-1] + 1 if found else self.end
        return [
            SimpleNamespace(error=lambda: None, offset=lambda o=o: o, value=lambda o=o: self.values[o]) for o in found
        ]

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, self.end

    def list_topics(self, topic: str, timeout: float) -> Any:
        if self.down:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})


def offsets(log: Log, first: int, end: int) -> list[int]:
    return [message.offset() or 0 for message in read_range(log, "t", 0, first, end, 1.0)]  # type: ignore[arg-type]


def test_a_range_with_gaps_also_at_its_end() -> None:
    assert offsets(Log({0: b"", 3: b"", 4: b"", 9: b""}, 12), 1, 12) == [3, 4, 9]
    assert offsets(Log({0: b"", 3: b"", 4: b"", 9: b""}, 12), 1, 9) == [3, 4]
    assert offsets(Log({}, 5), 0, 5) == []


def test_no_more_is_asked_for_than_there_can_be() -> None:
    """Otherwise every read waits out a poll: half a second a partition at every rebalance."""
    log = Log(dict.fromkeys(range(50), b""), 50)
    assert len(offsets(log, 40, 45)) == 5
    assert log.asked == [5]


def test_passing_errors_are_waited_out() -> None:
    assert offsets(Log({0: b""}, 1, KafkaError(KafkaError._ALL_BROKERS_DOWN)), 0, 1) == [0]
    with pytest.raises(ReadFailed):
        offsets(Log({0: b""}, 1, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), 0, 1)


def store_on(log: Log, monkeypatch: pytest.MonkeyPatch, world: World) -> PolicyStore:
    monkeypatch.setattr(policy_store, "open_reader", lambda _: log)
    return PolicyStore({}, "policy", PolicyTrust((bytes.fromhex(world.signer),)), timeout_s=0.1)


def test_policies_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, {"hall-a": 0}, 3, 1)
    log = Log({**dict.fromkeys(range(99), b"junk"), 99: world.policy_value}, 100)
    store = store_on(log, monkeypatch, world)
    store.refresh()
    assert store.newest is not None
    assert max(log.asked) == policy_store.READ_POLICIES


def test_brokers_that_are_away_are_no_missing_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, {"hall-a": 0}, 3, 1)
    log = Log({0: world.policy_value}, 1)
    store = store_on(log, monkeypatch, world)
    log.down = True
    with pytest.raises(ReadFailed):
        store.lookup(bytes(32))

    def up(_: float) -> None:
        log.down = False

    assert wait_for_policy(store, 5.0, clock=lambda: 0.0, pause=up) is store.newest


def test_a_worker_without_a_policy_fails_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, {"hall-a": 0}, 3, 1)
    store = store_on(Log({0: b"junk"}, 1), monkeypatch, world)
    with pytest.raises(ConfigError) as caught:
        wait_for_policy(store, 0.0, pause=lambda _: None)
    assert caught.value.code == "NO_POLICY"
