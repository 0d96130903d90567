"""Spool: sealed bytes are on disk before the first send, and only those bytes are ever sent.

SQLite in WAL mode with synchronous=FULL: a commit returns after fsync. A crash between append and acknowledgement
sends the same bytes again (the worker counts a DUPLICATE); it never draws noise again for a window already sealed.
Bounded in bytes and age: the oldest reports are dropped first and counted. One file may hold several hosts; it
belongs to one process at a time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from producers.errors import SpoolError
from producers.seal import SealedReport
from schemas.errors import ConfigError

FORMAT_VERSION = 1
MIN_BYTES = 1 << 20
"""Smallest bound: twice the largest message (512 KiB), so that one report always fits."""
DROP_BATCH = 64

_TABLES = (
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY AUTOINCREMENT, host_id TEXT NOT NULL,"
    " domain TEXT NOT NULL, digest BLOB NOT NULL, window_end_ms INTEGER NOT NULL, appended_ms INTEGER NOT NULL,"
    " value BLOB NOT NULL)",
    # Outlives trimming: the first report of the next session names the last digest, and no window is sealed again.
    "CREATE TABLE IF NOT EXISTS heads (host_id TEXT PRIMARY KEY, digest BLOB NOT NULL, sealed_ms INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS drops (host_id TEXT PRIMARY KEY, reports INTEGER NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """A sealed report on disk; `id` rises in the order of appending."""

    id: int
    host_id: str
    domain: str
    digest: bytes
    window_end_ms: int
    value: bytes


class Spool:
    """The spool of one process, used from one thread. A context manager.

    `max_bytes` bounds the values held, `max_age_ms` their time on disk by the caller's clock. Every method raises
    `SpoolError` when the file fails; after that nothing new may be sent.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = 256 << 20, max_age_ms: int = 24 * 3_600_000, busy_s: float = 2.0
    ) -> None:
        if max_bytes < MIN_BYTES or max_age_ms <= 0:
            raise ConfigError(f"a spool needs {MIN_BYTES} bytes at least and a positive age", field="spool")
        self.max_age_ms = max_age_ms
        self._max_bytes = max_bytes
        with _failing("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=busy_s)
        try:
            with _failing("open"):
                self._prepare()
                row = self._db.execute("SELECT COALESCE(SUM(LENGTH(value)), 0) FROM entries").fetchone()
        except BaseException:
            self._db.close()
            raise
        self._bytes = int(row[0])

    def _prepare(self) -> None:
        # Exclusive before WAL: no shared memory file, and a second agent on the same file is refused, not mixed in.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            self._db.execute(f"PRAGMA {pragma}")
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found not in (0, FORMAT_VERSION):
            raise SpoolError(f"the spool has format {found}, this agent writes {FORMAT_VERSION}")
        with self._transaction():
            for table in _TABLES:
                self._db.execute(table)
            self._db.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; entries stay."""
        self._db.close()

    def append(self, reports: Sequence[SealedReport], now_ms: int) -> tuple[SpoolEntry, ...]:
        """Commit reports in one transaction, fsynced on return; then drop what exceeds the bounds, oldest first.

        All of the reports are on disk or none. `now_ms` is the caller's wall clock.
        """
        with _failing("write"), self._transaction():
            entries = tuple(self._insert(report, now_ms) for report in reports)
            freed = self._enforce_bounds(now_ms, sum(len(report.value) for report in reports))
        self._bytes += sum(len(report.value) for report in reports) - freed
        return entries

    def _insert(self, report: SealedReport, now_ms: int) -> SpoolEntry:
        row = (report.host_id, report.domain, report.digest, report.window_end_ms)
        cursor = self._db.execute(
            "INSERT INTO entries (host_id, domain, digest, window_end_ms, appended_ms, value) VALUES (?,?,?,?,?,?)",
            (*row, now_ms, report.value),
        )
        self._db.execute(
            "INSERT INTO heads VALUES (?,?,?) ON CONFLICT (host_id) DO UPDATE"
            " SET digest = excluded.digest, sealed_ms = MAX(sealed_ms, excluded.sealed_ms)",
            (report.host_id, report.digest, report.window_end_ms),
        )
        return SpoolEntry(int(cursor.lastrowid or 0), *row, report.value)

    def _enforce_bounds(self, now_ms: int, added: int) -> int:
        freed = 0
        oldest = now_ms - self.max_age_ms
        while True:
            rows = self._db.execute(
                "SELECT id, host_id, LENGTH(value), appended_ms FROM entries ORDER BY id LIMIT ?", (DROP_BATCH,)
            ).fetchall()
            doomed = []
            for row in rows:
                over = self._bytes + added - freed > self._max_bytes
                if not over and row[3] >= oldest:
                    break
                doomed.append(row)
                freed += row[2]
            self._drop((row[0], row[1]) for row in doomed)
            if len(doomed) < DROP_BATCH:
                return freed

    def _drop(self, doomed: Iterable[tuple[int, str]]) -> None:
        for entry_id, host_id in doomed:
            self._db.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
            self._db.execute(
                "INSERT INTO drops VALUES (?,1) ON CONFLICT (host_id) DO UPDATE SET reports = reports + 1", (host_id,)
            )

    def pending(self, after_id: int = 0, limit: int = 1000) -> list[SpoolEntry]:
        """Return unacknowledged entries with id > `after_id`, oldest first."""
        with _failing("read"):
            rows = self._db.execute(
                "SELECT id, host_id, domain, digest, window_end_ms, value FROM entries WHERE id > ?"
                " ORDER BY id LIMIT ?",
                (after_id, limit),
            ).fetchall()
        return [SpoolEntry(*row) for row in rows]

    def acknowledge(self, ids: Iterable[int]) -> None:
        """Trim entries that the broker has; unknown ids are ignored (dropped while in flight)."""
        self._remove(ids, count=False)

    def discard(self, ids: Iterable[int]) -> None:
        """Drop entries that no broker will ever take, and count them as dropped."""
        self._remove(ids, count=True)

    def _remove(self, ids: Iterable[int], *, count: bool) -> None:
        freed = 0
        with _failing("write"), self._transaction():
            for entry_id in ids:
                row = self._db.execute(
                    "SELECT LENGTH(value), host_id FROM entries WHERE id = ?", (entry_id,)
                ).fetchone()
                if row is None:
                    continue
                freed += row[0]
                if count:
                    self._drop([(entry_id, row[1])])
                else:
                    self._db.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
        self._bytes -= freed

    def last_digest(self, host_id: str) -> bytes | None:
        """Return the digest of the host's newest report ever appended here, sent or not; None on a new spool."""
        found = self._one("SELECT digest FROM heads WHERE host_id = ?", host_id)
        return None if found is None else bytes(found)

    def sealed_ms(self, host_id: str) -> int:
        """Return the end of the host's newest window ever appended here, UTC ms; 0 on a new spool."""
        return int(self._one("SELECT sealed_ms FROM heads WHERE host_id = ?", host_id) or 0)

    def dropped(self, host_id: str) -> int:
        """Return how many reports of the host were dropped since the spool was made."""
        return int(self._one("SELECT reports FROM drops WHERE host_id = ?", host_id) or 0)

    def depth(self) -> tuple[int, int]:
        """Return (entries, bytes of their values) that wait for an acknowledgement."""
        with _failing("read"):
            entries = int(self._db.execute("SELECT COUNT(*) FROM entries").fetchone()[0])
        return entries, self._bytes

    def _one(self, query: str, host_id: str) -> Any:
        with _failing("read"):
            row = self._db.execute(query, (host_id,)).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


@contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise SpoolError(f"cannot {what} the spool: {error}") from error
