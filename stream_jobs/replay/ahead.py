"""Topics that stand nearly in the order of another one's offsets: read just far enough ahead, begun at the right place.

Workers publish in the order of the log. Around a rebalance two may write at once, so that for some records the order is
not that of the log; and nobody keeps a stranger from writing anything anywhere.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator

from stream_jobs.log_record import LogRecord
from stream_jobs.replay.source import Extent, RecordSource

DEPTH = 32
"""How many records that belong further on must be there before a position is taken to be complete."""

MARGIN = 512
"""Records read before the place where a search ends, for the disorder around a rebalance."""

PROBE = 16
"""Records looked at in one step of a search: one that can be placed must be among them."""

Place = Callable[[LogRecord], int | None]
"""The log position a record belongs to; None for a record that cannot be placed."""


class Ahead:
    """Hands records to `take`, which says where they belong, until a position is complete."""

    def __init__(self, records: Iterator[LogRecord], take: Place):
        self._records, self._take = records, take
        self._furthest: list[int] = []
        self.complete = -1
        """Everything that belongs to this position or before was taken."""

    @property
    def ended(self) -> bool:
        """Whether there is no more."""
        return self.complete == _END

    def reach(self, position: int) -> None:
        """Take records until everything that belongs to `position` is there."""
        while self.complete < position:
            record = next(self._records, None)
            if record is None:
                self.complete = _END
                return
            self._placed(self._take(record))

    def _placed(self, at: int | None) -> None:
        if at is None:
            return
        if len(self._furthest) < DEPTH:
            heapq.heappush(self._furthest, at)
        else:
            heapq.heappushpop(self._furthest, at)
        if len(self._furthest) == DEPTH:
            self.complete = max(self.complete, self._furthest[0] - 1)


_END = 1 << 63


def begin_at(source: RecordSource, extent: Extent, position: int, place: Place) -> int:
    """Offset in `extent` before which nothing belongs to `position` or later, but for what is far out of order."""
    low, high = extent.first, extent.end
    while high - low > MARGIN:
        middle = (low + high) // 2
        records = source.read(extent.topic, extent.partition, middle, min(high, middle + PROBE))
        at = next((at for record in records if (at := place(record)) is not None), None)
        if at is not None and at < position:
            low = middle
        else:
            high = middle
    return max(extent.first, low - MARGIN)


class Seen:
    """Digests that were met, eight bytes each: enough to know a copy again, and little in a history of years."""

    def __init__(self) -> None:
        self._words = array("Q")
        self._index: set[int] | None = None

    def add(self, digest: bytes) -> None:
        """Note a digest of 8 bytes or more."""
        self._words.append(int.from_bytes(digest[:8], "big"))
        self._index = None

    def __contains__(self, digest: bytes) -> bool:
        if self._index is None:
            self._index = set(self._words)
        return int.from_bytes(digest[:8], "big") in self._index
