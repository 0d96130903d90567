"""One topic beside the log: its records are read as far ahead as the log asks for, and kept until they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from stream_jobs.log_record import LogRecord
from stream_jobs.replay.ahead import Ahead

Key = TypeVar("Key", bound=Hashable)
One = TypeVar("One")

MAX_STRAGGLERS = 10_000
"""Records held until the end that belonged to nothing when their place came: copies, and forgeries."""

END = (1 << 63) - 1
"""Beyond every position."""


class Side(ABC, Generic[Key, One]):
    """What of a topic belongs to the position in hand and beyond, by what it belongs to; the rest are stragglers."""

    def __init__(self) -> None:
        self.found: dict[Key, list[One]] = {}
        self.stragglers: list[One] = []
        self._now = -1
        self.ahead = Ahead(iter(()), self._take)

    def begin(self, records: Iterator[LogRecord]) -> None:
        """Read from here on."""
        self.ahead = Ahead(records, self._take)

    def reach(self, position: int) -> None:
        """Have everything that belongs to `position` or before. Called for each record of the log."""
        self._now = position
        if self.ahead.complete < position:
            self.ahead.reach(position)

    def pop(self, key: Key) -> list[One]:
        """What belongs to `key`, in the order of its offsets; it is judged now."""
        return self.found.pop(key, [])

    def settle(self, position: int) -> None:
        """What belongs before `position` and was not asked for is a straggler."""
        for key in [key for key, ones in self.found.items() if all(self._at(one) < position for one in ones)]:
            for one in self.pop(key):
                self._late(one)

    def _rest(self) -> None:
        """Read to the topic's end; the position in hand stays."""
        self.ahead.reach(END)

    def _keep(self, key: Key, one: One) -> int:
        """Keep a record, or have it late. Returns where it belongs."""
        at = self._at(one)
        if at < self._now:
            self._late(one)
        else:
            self.found.setdefault(key, []).append(one)
        return at

    def _late(self, one: One) -> None:
        if len(self.stragglers) < MAX_STRAGGLERS and self._counts(one):
            self.stragglers.append(one)

    def _counts(self, _one: One) -> bool:
        """Whether it is asked for."""
        return True

    @abstractmethod
    def _at(self, one: One) -> int:
        """The log position that it belongs to."""

    @abstractmethod
    def _take(self, record: LogRecord) -> int | None:
        """Take the topic's next record; where it belongs, None if it belongs nowhere."""
