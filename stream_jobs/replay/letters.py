"""The rejections topic: every refused record has its dead letter, and nothing else has one."""

from __future__ import annotations

from collections.abc import Callable

from stream_jobs.core.effects import Rejection
from stream_jobs.log_record import LogRecord
from stream_jobs.output import dead_letter
from stream_jobs.replay.ahead import Seen
from stream_jobs.replay.desk import Desk, ReplayRequest
from stream_jobs.replay.side import END, Side
from stream_jobs.replay.verdicts import Severity

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


class LetterSide(Side[int, LogRecord]):
    """The dead letters of one partition's records, by the offset of the record."""

    def __init__(self, request: ReplayRequest, partition: int, desk: Desk):
        super().__init__()
        self._source = request.topics.reports, partition
        self._desk = desk
        self._seen = Seen()
        self._nameless = True
        self.highest = -1
        """Highest offset of a refused record here."""

    def place(self, letter: LogRecord) -> int | None:
        """Offset of the refused record, None where the letter is not of this partition."""
        named = rejected_place(letter)
        return named[2] if named is not None and named[:2] == self._source else None

    def refused(self, record: LogRecord, rejection: Rejection, judged: bool) -> bool:
        """A record is refused; if `judged`, it must have its dead letter. False where it has none."""
        self.reach(record.offset)
        letters = self.pop(record.offset)
        if not judged:
            return True
        self._seen.add(_tag(record.offset))
        expected = letter_of(record, rejection)
        for letter in letters:
            self._compare(letter, expected, rejection)
        return bool(letters)

    def finish(self, first: int, end: int, *, to_the_end: bool, provable: Callable[[str, int], bool]) -> None:
        """Read on, and judge what is left of offsets in [first, end); with `to_the_end` also what names no record.

        `provable`: whether decisions about a domain are exact at an offset.
        """
        self._nameless = to_the_end
        self._rest()
        self.settle(END)
        for letter in self.stragglers:
            offset = self._at(letter)
            domain = (letter.key or b"").decode("utf-8", "replace")
            if first <= offset < end and _tag(offset) not in self._seen and provable(domain, offset):
                self._desk.finding("DEAD_LETTER_EXTRA", letter, f"of offset {offset}, which is not refused")
        self.stragglers = []

    def _at(self, one: LogRecord) -> int:
        at = self.place(one)
        return -1 if at is None else at

    def _take(self, letter: LogRecord) -> int | None:
        self._desk.result.dead_letters += 1
        self._desk.result.bytes_read += len(letter.value or b"")
        offset = self.place(letter)
        if offset is None:
            if self._nameless:
                self._desk.finding("DEAD_LETTER_EXTRA", letter, "its headers name no record of this partition")
            return None
        self.highest = max(self.highest, offset)
        return self._keep(offset, letter)

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
