"""The rejections topic: every refused record has its dead letter, and nothing else has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stream_jobs.core.effects import Rejection
from stream_jobs.log_record import LogRecord
from stream_jobs.output import dead_letter
from stream_jobs.replay.ahead import Ahead, Seen
from stream_jobs.replay.desk import Desk, ReplayRequest
from stream_jobs.replay.verdicts import Severity

MAX_STRAGGLERS = 10_000
"""Dead letters held until the end that belonged to nothing when their place came."""

Letter = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
"""Key, value, headers."""


def letter_of(record: LogRecord, rejection: Rejection) -> Letter:
    """What a worker writes for a refused record."""
    key, value, headers = dead_letter(record, rejection)
    return key, value, tuple((name, text.encode()) for name, text in headers)


def rejected_place(letter: LogRecord) -> tuple[str, int, int] | None:
    """Topic, partition and offset of the record that a dead letter names; None where it names none."""
    headers = dict(letter.headers)
    topic, partition = headers.get("__connect.errors.topic"), headers.get("__connect.errors.partition")
    offset = headers.get("__connect.errors.offset")
    if topic is None or not _number(partition) or not _number(offset):
        return None
    return topic.decode("utf-8", "replace"), int(partition or b""), int(offset or b"")


def _number(text: bytes | None) -> bool:
    return text is not None and text.isdigit() and len(text) < 19


class LetterSide:
    """The dead letters of one partition's records, read as far ahead as the log asks for."""

    def __init__(self, request: ReplayRequest, partition: int, desk: Desk):
        self._source = request.topics.reports, partition
        self._desk = desk
        self._letters: dict[int, list[LogRecord]] = {}
        self._stragglers: list[tuple[int, LogRecord]] = []
        self._seen = Seen()
        self._now = -1
        self._nameless = True
        self.highest = -1
        """Highest offset of a refused record here."""
        self.ahead = Ahead(iter(()), self._take)

    def begin(self, records: Iterator[LogRecord]) -> None:
        """Read from here on."""
        self.ahead = Ahead(records, self._take)

    def place(self, letter: LogRecord) -> int | None:
        """Offset of the refused record, None where the letter is not of this partition."""
        named = rejected_place(letter)
        return named[2] if named is not None and named[:2] == self._source else None

    def refused(self, record: LogRecord, rejection: Rejection, judged: bool) -> bool:
        """A record is refused; if `judged`, it must have its dead letter. False where it has none."""
        self._now = record.offset
        self.ahead.reach(record.offset)
        letters = self._letters.pop(record.offset, [])
        if not judged:
            return True
        self._seen.add(_tag(record.offset))
        expected = letter_of(record, rejection)
        for letter in letters:
            self._compare(letter, expected, rejection)
        return bool(letters)

    def settle(self, position: int) -> None:
        """Letters of offsets below `position` that nobody asked for are stragglers."""
        for offset in [offset for offset in self._letters if offset < position]:
            for letter in self._letters.pop(offset):
                self._late(offset, letter)

    def finish(self, first: int, end: int, *, to_the_end: bool, provable: Callable[[str, int], bool]) -> None:
        """Read on, and judge what is left of offsets in [first, end); with `to_the_end` also what names no record.

        `provable`: whether decisions about a domain are exact at an offset.
        """
        self._nameless = to_the_end
        self.ahead.reach((1 << 63) - 1)
        self.settle(1 << 63)
        for offset, letter in self._stragglers:
            domain = (letter.key or b"").decode("utf-8", "replace")
            if first <= offset < end and _tag(offset) not in self._seen and provable(domain, offset):
                self._desk.finding("DEAD_LETTER_EXTRA", letter, f"of offset {offset}, which is not refused")
        self._stragglers = []

    def _late(self, offset: int, letter: LogRecord) -> None:
        if len(self._stragglers) < MAX_STRAGGLERS:
            self._stragglers.append((offset, letter))

    def _take(self, letter: LogRecord) -> int | None:
        self._desk.result.dead_letters += 1
        self._desk.result.bytes_read += len(letter.value or b"")
        offset = self.place(letter)
        if offset is None:
            if self._nameless:
                self._desk.finding("DEAD_LETTER_EXTRA", letter, "its headers name no record of this partition")
            return None
        self.highest = max(self.highest, offset)
        if offset < self._now:
            self._late(offset, letter)
        else:
            self._letters.setdefault(offset, []).append(letter)
        return offset

    def _compare(self, letter: LogRecord, expected: Letter, rejection: Rejection) -> None:
        key, value, headers = expected
        wrong = [
            name
            for name, same in (
                ("key", letter.key == key),
                ("value", (letter.value or b"") == (value or b"")),
                ("headers", letter.headers == headers),
            )
            if not same
        ]
        if wrong:
            names = [name for name, _ in set(letter.headers) ^ set(headers)]
            text = f"of offset {rejection.offset}, {rejection.code}: {', '.join(wrong)} differ"
            more = f" ({', '.join(sorted(set(names)))})" if names else ""
            self._desk.finding("DEAD_LETTER_DIFFERS", letter, text + more, severity=Severity.ALARM)


def _tag(offset: int) -> bytes:
    return offset.to_bytes(8, "big")
