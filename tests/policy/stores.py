"""Real policy stores over a topic in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream_jobs import policy_store
from stream_jobs.policy_store import PolicyStore, PolicyTrust


class Topic:
    """The policy topic: `values` in order, read as a consumer does. `first`: offsets below are gone by retention."""

    def __init__(self, *values: bytes) -> None:
        self.values = list(values)
        self.first = 0
        self._at = 0

    def store(self, monkeypatch: pytest.MonkeyPatch, *signers: bytes, min_counter: int = 0) -> PolicyStore:
        """A worker's store, as it starts: it has read the topic."""
        monkeypatch.setattr(policy_store, "open_reader", lambda _: self)
        store = PolicyStore({}, "policy", PolicyTrust(signers, min_counter), timeout_s=0.1)
        store.refresh()
        return store

    def assign(self, places: list[Any]) -> None:
        self._at = places[0].offset

    def unassign(self) -> None:
        pass

    def position(self, _: list[Any]) -> list[Any]:
        return [SimpleNamespace(offset=self._at)]

    def consume(self, count: int, _: float) -> list[Any]:
        found = range(self._at, min(self._at + count, len(self.values)))
        self._at = found.stop
        return [
            SimpleNamespace(
                error=lambda: None,
                offset=lambda o=offset: o,
                partition=lambda: 0,
                timestamp=lambda: (1, 0),
                value=lambda o=offset: self.values[o],
            )
            for offset in found
        ]

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return self.first, len(self.values)

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def close(self) -> None:
        pass
