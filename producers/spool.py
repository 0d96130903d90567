"""Spool: sealed bytes are on disk before the first send, and only those bytes are ever sent.

SQLite in WAL mode with synchronous=FULL: a commit returns after fsync. A crash between append and acknowledgement
sends the same bytes again (the worker counts a DUPLICATE); it never draws noise again for a window already sealed.
Bounded in bytes and age: the oldest reports are dropped first and counted. One file may hold several hosts; it
belongs to one process at a time.

What may go wrong, and what is lost then:

- Disk full, I/O errors, a directory that became read-only: the reports of the windows in that time are lost, each of
  them is a `SpoolError` and counted (`dropped`); what was on disk before stays, is sent, and writing heals by itself.
- A torn end (a power cut on a disk that lies about fsync): the reports in it are lost, unless they had left.
- A damaged file: it is set aside, every row that is whole goes over into a new one; the rest is lost.

Nothing leaves before the heads (`spool_heads`) are on disk in both places, so what a torn or damaged spool lost is
counted (`dropped`, an upper bound: what was acknowledged after the last append counts as well), its windows are not
sealed again (`sealed_ms`), and the chain goes on from the last digest. With both files gone none of that is known: a
live source still seals no window twice, because its windows are over; a replay would.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from producers import spool_file
from producers.errors import SpoolError
from producers.seal import SealedReport
from producers.spool_heads import NO_REPORT, UNREADABLE, Head, Ledger, read_heads, reconcile, write_heads
from producers.spool_rescue import rescue
from schemas.errors import ConfigError

log = logging.getLogger(__name__)

MIN_BYTES = 1 << 20
"""Smallest bound: twice the largest message (512 KiB), so that one report always fits."""
DROP_BATCH = 64
SEALED_REMEDY = "Check the host's clock, or whether a replay was started twice: no window may leave with two noises."
RETRY_S = 1.0
"""Shortest time between two tries of what failed, unless a new report is to be written."""


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """A sealed report on disk; `id` rises in the order of appending, and one `Spool` gives none twice. Times in UTC ms
    by the host's clock."""

    id: int
    host_id: str
    domain: str
    digest: bytes
    window_end_ms: int
    appended_ms: int
    value: bytes


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """The spool as it stands, for metrics: what waits, and totals since this process opened it.

    `dropped` includes what no acknowledged report stated (of agents before) and what the opening itself found lost,
    but not the reports that `append` refused. `writable`: the last thing written got to the disk.
    """

    entries: int
    bytes: int
    oldest_age_ms: int | None
    dropped: int
    failures: int
    quarantined: int
    writable: bool


class Spool:
    """The spool of one process, used from one thread. A context manager.

    `max_bytes` bounds the values held, `max_age_ms` their time on disk by the caller's clock, as far as two calls of
    `append` agree on it; `now` is a monotonic clock in seconds. Opening raises `SpoolError` for what a person must put
    right: another agent on the same file, another version's file, missing permissions. A full disk or a damaged file do
    not stop it. Later `append`, `pending`, `acknowledge` and `discard` raise `SpoolError` when the file fails, and try
    again at the next call; the other methods never raise.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 256 << 20,
        max_age_ms: int = 24 * 3_600_000,
        busy_s: float = 2.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes < MIN_BYTES or max_age_ms <= 0:
            raise ConfigError(f"a spool needs {MIN_BYTES} bytes at least and a positive age", field="spool")
        self.max_age_ms = max_age_ms
        self._path = path
        self._heads_path = spool_file.beside(path, ".heads")
        self._max_bytes = max_bytes
        self._busy_s = busy_s
        self._now = now
        self._db: sqlite3.Connection | None = None
        self._covered: dict[str, Head] = {}
        self._covered_id = self._failures = self._quarantined = self._refused = 0
        self._unwritten: Counter[str] = Counter()
        self._read_at: tuple[int, float] | None = None
        self._not_before = 0.0
        self._writable = True
        known = self._read_heads()
        self._ledger = Ledger(dict(known or {}))
        self._covered = dict(self._ledger.heads)
        self._first_opened(known)
        self._heard_before = sum(head.heard for head in self._ledger.heads.values())

    def _read_heads(self) -> dict[str, Head] | None:
        try:
            return read_heads(self._heads_path)
        except FileNotFoundError:
            return None
        except UNREADABLE:
            self._failed("the spool's second file cannot be read: it is written again from the first")
            return None

    def _first_opened(self, known: dict[str, Head] | None) -> None:
        # Without the second file nobody knows which windows were sealed: none may be until this one can be read.
        needed = True
        try:
            needed = known is None and self._path.exists() and self._path.stat().st_size > 0
            self._connection(checked=True)
        except spool_file.FAILURES as error:
            if needed or not spool_file.passes(error):
                raise SpoolError(f"cannot open the spool: {error}") from error
            self._failed("the spool cannot be opened now: reports are lost until it can")

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; entries stay."""
        if self._db is not None:
            spool_file.close(self._db)
            self._db = None

    def append(self, reports: Sequence[SealedReport], now_ms: int) -> tuple[SpoolEntry, ...]:
        """Commit reports in one transaction, fsynced on return; then drop what exceeds the bounds, oldest first.

        All of the reports are on disk or none. They must have been sealed since the last call. `now_ms` is the caller's
        wall clock. Raises `SpoolError`, also for a window that its host has sealed before, whose noise must not leave
        a second time.
        """
        before, self._read_at = self._read_at, (now_ms, self._now())
        confirmed_ms = now_ms if before is None else _confirmed(now_ms, self._read_at[1], *before)
        oldest_ms = None if before is None else confirmed_ms - self.max_age_ms
        try:
            return self._append(reports, confirmed_ms, oldest_ms)
        except SpoolError:
            self._unwritten.update(report.host_id for report in reports)
            self._refused += len(reports)
            self._note_unwritten()
            raise

    def _note_unwritten(self) -> None:
        """Try to keep the count in the second file, should the agent end before the next report is on disk: a full
        disk often has room for that."""
        with suppress(OSError):
            write_heads(self._heads_path, self._noted())

    def _noted(self) -> dict[str, Head]:
        """Heads with what was refused: to `reconcile` it is what a torn end has lost."""
        refused = self._unwritten
        heads = dict.fromkeys(refused, NO_REPORT) | self._ledger.heads
        return {
            host_id: replace(head, appended=head.appended + refused[host_id], dropped=head.dropped + refused[host_id])
            for host_id, head in heads.items()
        }

    def _append(self, reports: Sequence[SealedReport], now_ms: int, oldest_ms: int | None) -> tuple[SpoolEntry, ...]:
        for report in reports:
            if report.window_end_ms <= self.sealed_ms(report.host_id):
                raise SpoolError(f"window {report.window_start_ms} was sealed before", remedy=SEALED_REMEDY)
        # What a report could state is what was known before this call, which may find a damaged file.
        stated = {report.host_id: self.dropped(report.host_id) for report in reports}
        unwritten = {host_id: self._unwritten[host_id] for host_id in stated}
        with self._writing() as db:
            rows = [
                self._insert(report, now_ms, unwritten.pop(report.host_id, 0), stated[report.host_id])
                for report in reports
            ]
            self._enforce_bounds(db, oldest_ms)
        for host_id in stated:
            del self._unwritten[host_id]
        self._cover()
        return tuple(rows)

    def _insert(self, report: SealedReport, now_ms: int, unwritten: int, stated: int) -> SpoolEntry:
        db = self._connection()
        entry_id = self._ledger.last_id + 1
        row = (entry_id, report.host_id, report.domain, report.digest, report.window_end_ms, now_ms)
        db.execute(
            f"INSERT INTO entries ({spool_file.COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608
            (*row, report.value, spool_file.checksum(row, report.value, stated), stated),
        )
        head = self._ledger.appended(report, entry_id, unwritten=unwritten)
        spool_file.store_head(db, report.host_id, head)
        return SpoolEntry(*row, report.value)

    def _enforce_bounds(self, db: sqlite3.Connection, oldest_ms: int | None) -> None:
        while True:
            rows = db.execute(
                "SELECT id, host_id, LENGTH(value), appended_ms FROM entries ORDER BY id LIMIT ?", (DROP_BATCH,)
            ).fetchall()
            for entry_id, host_id, size, appended_ms in rows:
                if self._ledger.size <= self._max_bytes and (oldest_ms is None or appended_ms >= oldest_ms):
                    return
                self._delete(db, entry_id, host_id, size, 0, dropped=True)
            if not rows:
                return

    def _delete(
        self, db: sqlite3.Connection, entry_id: int, host_id: str, size: int, stated: int, *, dropped: bool
    ) -> None:
        if host_id not in self._ledger.heads or not isinstance(size, int) or not isinstance(stated, int):
            raise spool_file.Damaged("a report changed on disk")
        db.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
        spool_file.store_head(db, host_id, self._ledger.removed(host_id, size, stated, dropped=dropped))

    def pending(self, after_id: int = 0, limit: int = 1000) -> list[SpoolEntry]:
        """Return unacknowledged entries with id > `after_id` that may be sent, oldest first."""
        waiting = self._now() < self._not_before
        if self._covered_id < self._ledger.last_id and not waiting:
            self._cover()
        if limit <= 0 or (waiting if self._db is None else after_id >= self._covered_id):
            return []
        damaged = self._quarantined
        try:
            return self._read(after_id, limit)
        except SpoolError:
            if self._quarantined == damaged:
                raise
            return self._read(after_id, limit)  # what was rescued

    def _read(self, after_id: int, limit: int) -> list[SpoolEntry]:
        with self._operating("read") as db:
            rows: list[spool_file.Row] = db.execute(
                f"SELECT {spool_file.COLUMNS} FROM entries WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",  # noqa: S608
                (after_id, self._covered_id, limit),
            ).fetchall()
            if not all(spool_file.is_whole(row) for row in rows):
                raise spool_file.Damaged("a report changed on disk")
        return [SpoolEntry(*row[:-2]) for row in rows]

    def acknowledge(self, ids: Iterable[int]) -> None:
        """Trim entries that the broker has; unknown ids are ignored (dropped while in flight)."""
        self._remove(ids, dropped=False)

    def discard(self, ids: Iterable[int]) -> None:
        """Drop entries that no broker will ever take, and count them as dropped."""
        self._remove(ids, dropped=True)

    def _remove(self, ids: Iterable[int], *, dropped: bool) -> None:
        wanted = list(ids)
        with self._writing() as db:
            for entry_id in wanted:
                query = "SELECT host_id, LENGTH(value), stated FROM entries WHERE id = ?"
                row = db.execute(query, (entry_id,)).fetchone()
                if row is not None:
                    self._delete(db, entry_id, *row, dropped=dropped)

    def last_digest(self, host_id: str) -> bytes | None:
        """Return the digest of the host's newest report ever appended here, sent or not; None on a new spool."""
        head = self._ledger.heads.get(host_id)
        return None if head is None or head.digest == NO_REPORT.digest else head.digest

    def sealed_ms(self, host_id: str) -> int:
        """Return the end of the host's newest window ever appended here, UTC ms; 0 on a new spool."""
        head = self._ledger.heads.get(host_id)
        return 0 if head is None else head.sealed_ms

    def dropped(self, host_id: str) -> int:
        """Return how many reports of the host were dropped or lost, or refused by `append`, since the spool was made.

        What was refused is on disk from the next `append` on; before, only where the second file could be written.
        """
        head = self._ledger.heads.get(host_id)
        return (0 if head is None else head.dropped) + self._unwritten[host_id]

    def heard(self, host_id: str) -> int:
        """Return how many of `dropped` an acknowledged report states; a new session counts from there.

        So over all reports that brokers have, the sum over sessions of the last count stated is never less than what
        was dropped until the last of them was sealed. What waits may be dropped itself, and is therefore stated twice.
        """
        head = self._ledger.heads.get(host_id)
        return 0 if head is None else head.heard

    def depth(self) -> tuple[int, int]:
        """Return (entries, bytes of their values) that wait for an acknowledgement."""
        return self._ledger.entries(), self._ledger.size

    def stats(self, now_ms: int) -> SpoolStats:
        """Return the spool's state at `now_ms`, the caller's wall clock as in `append`."""
        oldest = None
        if self._db is not None and self._ledger.size:
            with suppress(*spool_file.FAILURES):
                row = self._db.execute("SELECT appended_ms FROM entries ORDER BY id LIMIT 1").fetchone()
                oldest = None if row is None else max(now_ms - row[0], 0)
        return SpoolStats(
            entries=self._ledger.entries(),
            bytes=self._ledger.size,
            oldest_age_ms=oldest,
            dropped=_dropped(self._ledger.heads) - self._heard_before - self._refused + self._unwritten.total(),
            failures=self._failures,
            quarantined=self._quarantined,
            writable=self._writable,
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._operating("write") as db:
            before = self._ledger
            self._ledger = before.copy()
            try:
                with spool_file.transaction(db):
                    yield db
            except BaseException:
                self._ledger = before
                raise
        self._writable = True

    @contextmanager
    def _operating(self, what: str) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except spool_file.FAILURES as error:
            self._failed(f"cannot {what} the spool")
            if spool_file.is_damage(error):
                with suppress(*spool_file.FAILURES):  # tried again at the next call
                    self._rescue()
            elif not spool_file.can_go_on(error):
                self.close()
            raise SpoolError(f"cannot {what} the spool: {error}") from error

    def _connection(self, *, checked: bool = False) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = self._load(checked)
            except spool_file.FAILURES as error:
                if not spool_file.is_damage(error):
                    raise
                self._rescue()
                self._db = self._load(checked)
        return self._db

    def _load(self, checked: bool) -> sqlite3.Connection:
        db = spool_file.connect(self._path, self._busy_s, checked=checked)
        try:
            ledger = spool_file.load(db)
        except BaseException:
            spool_file.close(db)
            raise
        known = self._ledger
        heads = reconcile(ledger.heads, known.heads)
        lost = _dropped(heads) - _dropped(ledger.heads)
        if lost:
            log.error("the end of the spool is missing: %d reports are lost, unless they had left", lost)
        self._ledger = Ledger(heads, ledger.size, max(ledger.last_id, known.last_id))
        covered = all(_covers(self._covered.get(host_id), head) for host_id, head in heads.items())
        self._covered_id = self._ledger.last_id if covered else 0
        if not covered:
            self._cover()
        return db

    def _rescue(self) -> None:
        self.close()
        known = self._ledger
        broken, heads = rescue(self._path, self._busy_s, known.heads)
        self._quarantined += 1
        saved, lost = sum(head.waiting for head in heads.values()), _dropped(heads) - _dropped(known.heads)
        log.error("the spool was damaged: %d reports saved, %d lost; it lies in %s", saved, lost, broken.name)
        self._ledger = Ledger(heads, 0, known.last_id)
        self._writable = True

    def _cover(self) -> None:
        """Put the heads into the second file; only then may what they stand for be sent."""
        try:
            write_heads(self._heads_path, self._noted())
        except OSError:
            self._failed("the spool's second file cannot be written: new reports wait")
            return
        self._covered = dict(self._ledger.heads)
        self._covered_id = self._ledger.last_id
        self._writable = True

    def _failed(self, what: str) -> None:
        """Count a failure; say so once until something is written again."""
        self._failures += 1
        self._not_before = self._now() + RETRY_S
        if self._writable:
            log.exception("%s", what)
        self._writable = False


def _dropped(heads: Mapping[str, Head]) -> int:
    return sum(head.dropped for head in heads.values())


def _confirmed(now_ms: int, at_s: float, last_ms: int, last_at_s: float) -> int:
    """The wall clock, no further ahead of its last reading than a clock that nobody sets: one wrong reading must not
    make all that waits too old. Whatever it said last counts here, so a jump that is none (a clock put right, a machine
    that slept) takes effect one reading later."""
    return min(now_ms, last_ms + round((at_s - last_at_s) * 1000))


def _covers(known: Head | None, head: Head) -> bool:
    return known is not None and (known.appended, known.digest) == (head.appended, head.digest)
