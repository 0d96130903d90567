"""Sets of collateral for a replay: found by their digests on the collateral topic, wherever they stand."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

from schemas.errors import EnclaveScaleError
from stream_jobs.collateral_store import CollateralIndex
from stream_jobs.core.policies import CollateralView
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.source import RecordSource


class CollateralSets(Protocol):
    """What a replay asks of the sets on the topic."""

    def lookup(self, digest: bytes) -> CollateralView | None:
        """The complete set with this digest; None if it is not there as a whole."""

    def judging(self, digest: bytes | None) -> Sequence[CollateralView]:
        """Sets by which a worker's own evidence may be judged, given the digest that its output names."""

    def current(self, now_ms: int) -> CollateralView | None:
        """The newest complete set."""


class TopicSets:
    """The sets of a collateral topic."""

    def __init__(self, index: CollateralIndex):
        self._index = index

    @classmethod
    def read(cls, source: RecordSource, request: ReplayRequest) -> TopicSets:
        """Read the whole topic; what cannot be used is said elsewhere (`beside`). Raises ReadFailed."""
        index = CollateralIndex(request.framing)
        for extent in source.extents(request.topics.collateral):
            for record in source.read(extent.topic, extent.partition, extent.first, extent.end):
                with contextlib.suppress(EnclaveScaleError):
                    index.take(record.value or b"", (record.timestamp_ms, record.partition, record.offset))
        return cls(index)

    def lookup(self, digest: bytes) -> CollateralView | None:
        """The complete set with this digest; None if it is not there as a whole."""
        return self._index.lookup(digest)

    def judging(self, digest: bytes | None) -> Sequence[CollateralView]:
        """The set named and the newest, where there are such: workers' evidence may be newer than what is in force."""
        named = None if digest is None else self.lookup(digest)
        return tuple(one for one in (named, self.current(0)) if one is not None)

    def current(self, now_ms: int) -> CollateralView | None:
        """The newest complete set."""
        newest = self._index.newest(now_ms)
        return None if newest is None else newest.view
