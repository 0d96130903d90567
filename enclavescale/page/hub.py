"""Server-sent events for many readers: each event is rendered once, every reader has a bounded queue."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

QUEUE = 64
"""Events that wait for one reader; one that is further behind is let go and comes back for the whole state."""

REPLAY = 256
"""Newest events that a reader who was away for a moment gets again."""

REPLAY_BYTES = 4 << 20
"""Bytes of them, at most."""


def event(name: str, data: object, number: str | None = None) -> bytes:
    """One event as it goes over the wire. JSON has no line breaks, so one `data` line holds it."""
    head = f"event: {name}\n" if number is None else f"event: {name}\nid: {number}\n"
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class Full(Exception):
    """There are as many readers as may be."""


@dataclass(slots=True, eq=False)
class Reader:
    """One reader's queue; None in it, or `behind`, ends it."""

    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    behind: bool = False


class Hub:
    """Readers and the newest events. `boot` makes ids of this process unlike those of another. For one event loop.

    `snapshot` gives the whole state; it is called in a thread.
    """

    def __init__(self, snapshot: Callable[[], dict[str, Any]], *, boot: str, max_readers: int):
        self._snapshot, self._boot, self._max = snapshot, boot, max_readers
        self._readers: set[Reader] = set()
        self._recent: deque[tuple[int, bytes]] = deque()
        self._recent_bytes = 0
        self._count = 0
        self._state: tuple[int, bytes] | None = None
        self._rendering = asyncio.Lock()
        self.dropped = 0
        self.turned_away = 0

    def __len__(self) -> int:
        return len(self._readers)

    async def join(self, last_id: str | None) -> Reader:
        """A new reader with what it lacks already in its queue: the events after `last_id`, or the whole state.

        Raises Full.
        """
        if len(self._readers) >= self._max:
            self.turned_away += 1
            raise Full
        reader = Reader()
        self._readers.add(reader)
        missed = self._since(last_id)
        if missed is None:
            try:
                missed = [await self._whole()]
            except BaseException:
                self._readers.discard(reader)
                raise
        for one in missed:
            self._give(reader, one)
        return reader

    def leave(self, reader: Reader) -> None:
        """Forget a reader."""
        self._readers.discard(reader)

    def publish(self, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Send events to every reader; one whose queue is full is let go."""
        for name, data in events:
            self._count += 1
            made = event(name, data, self._id(self._count))
            self._recent.append((self._count, made))
            self._recent_bytes += len(made)
            while len(self._recent) > REPLAY or self._recent_bytes > REPLAY_BYTES:
                self._recent_bytes -= len(self._recent.popleft()[1])
            for reader in tuple(self._readers):
                self._give(reader, made)

    def close(self) -> None:
        """Let every reader go."""
        for reader in tuple(self._readers):
            self._end(reader)

    def _id(self, count: int) -> str:
        return f"{self._boot}-{count}"

    def _since(self, last_id: str | None) -> list[bytes] | None:
        boot, _, text = (last_id or "").rpartition("-")
        if boot != self._boot or not text.isdecimal() or len(text) > 15:
            return None
        last = int(text)
        oldest = self._recent[0][0] if self._recent else self._count + 1
        if last > self._count or last + 1 < oldest or self._count - last >= QUEUE:
            return None
        return [made for count, made in self._recent if count > last]

    async def _whole(self) -> bytes:
        """The state as an event; readers who come at the same time share it."""
        async with self._rendering:
            count = self._count
            if self._state is None or self._state[0] != count:
                made = await asyncio.to_thread(lambda: event("state", self._snapshot(), self._id(count)))
                self._state = count, made
            return self._state[1]

    def _give(self, reader: Reader, made: bytes) -> None:
        try:
            reader.queue.put_nowait(made)
        except asyncio.QueueFull:
            self.dropped += 1
            self._end(reader)

    def _end(self, reader: Reader) -> None:
        reader.behind = True
        self._readers.discard(reader)
        while not reader.queue.empty():
            reader.queue.get_nowait()
        reader.queue.put_nowait(None)
