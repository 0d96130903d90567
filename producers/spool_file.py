"""The spool's SQLite file: its tables, how it is opened and checked, what its errors mean.

Every row carries a checksum, because SQLite has none for what is in its pages: a report whose bytes changed on disk is
found before it is sent.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from producers.errors import SpoolError
from producers.spool_heads import Head, Ledger, unheard

FORMAT_VERSION = 3
"""Format 2, which had no `stated` and not `heard` but something else, is migrated."""

_APPLICATION_ID = 0x45535000
"""Plus the format: a second place for it in the file's header, to tell another version from a byte that changed."""

_BROKEN_CODES = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_MISMATCH,
)
_PASSING_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM)
_HARMLESS_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CONSTRAINT)
_PASSING_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
MAX_ID = 1 << 62
"""Ids above this were never given; SQLite's own end is twice as far."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, host_id TEXT NOT NULL,"
    " domain TEXT NOT NULL, digest BLOB NOT NULL, window_end_ms INTEGER NOT NULL, appended_ms INTEGER NOT NULL,"
    " value BLOB NOT NULL, checksum INTEGER NOT NULL, stated INTEGER NOT NULL DEFAULT 0)",
    # Outlives trimming: the first report of the next session names the last digest, and no window is sealed again.
    "CREATE TABLE IF NOT EXISTS heads (host_id TEXT PRIMARY KEY, digest BLOB NOT NULL, sealed_ms INTEGER NOT NULL,"
    " appended INTEGER NOT NULL, dropped INTEGER NOT NULL, heard INTEGER NOT NULL, acked INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL)",
)
_HEAD_COLUMNS = "host_id, digest, sealed_ms, appended, dropped, heard, acked"
COLUMNS = "id, host_id, domain, digest, window_end_ms, appended_ms, value, checksum, stated"

Row = tuple[int, str, str, bytes, int, int, bytes, int, int]
"""One row of `entries`, in the order of COLUMNS; `stated`: how many of its host's reports were dropped when it was
sealed, counted from the making of the spool."""
_TYPES = (int, str, str, bytes, int, int, bytes, int, int)
_MAX_MS = 253_402_300_800_000
"""The year 10000, where times of headers end."""


class Damaged(Exception):
    """The file was read and does not hold what was written."""


FAILURES = (sqlite3.Error, OSError, Damaged, UnicodeDecodeError)
"""What may come of any use of the file; UnicodeDecodeError where SQLite's message quotes a damaged schema."""


def is_damage(error: Exception) -> bool:
    """Whether the file itself is broken, so that trying again cannot help."""
    if isinstance(error, sqlite3.Error):
        # A ProgrammingError is ours, not the file's: a spool used from another thread, say.
        return primary_code(error) in _BROKEN_CODES and not isinstance(error, sqlite3.ProgrammingError)
    return isinstance(error, Damaged | UnicodeDecodeError)


def passes(error: Exception) -> bool:
    """Whether the cause may go away by itself: a full disk, an I/O error."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) in _PASSING_CODES
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS


def can_go_on(error: Exception) -> bool:
    """Whether a connection is as good after this error as before; otherwise the file must be opened again."""
    if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.ProgrammingError):
        return primary_code(error) in _HARMLESS_CODES
    return True


def primary_code(error: Exception) -> int:
    """SQLite's result code without its extension."""
    # Without a code the module itself complains: of text that is not UTF-8, which was never written.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)) & 0xFF


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT; rolled back if anything goes wrong. On disk after the COMMIT."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(*FAILURES):  # the first error says more
                db.execute("ROLLBACK")
        raise


def checksum(row: Iterable[object], value: bytes = b"", stated: int = 0) -> int:
    """CRC-32 over a row: `row` is everything before the value. Against accidents; against people there is the
    signature. Without `stated` it is that of format 2."""
    return zlib.crc32(value, zlib.crc32(repr((*row, stated) if stated else tuple(row)).encode()))


def is_whole(row: Row) -> bool:
    """Whether a row is what was written."""
    if tuple(map(type, row)) != _TYPES or not 0 <= row[4] < _MAX_MS:
        return False
    return row[7] == checksum(row[:6], row[6], row[8])


def connect(path: Path, busy_s: float, *, checked: bool) -> sqlite3.Connection:
    """Open the spool, made if it is not there; the connection keeps it for itself until it is closed.

    `checked` reads every page. Raises `sqlite3.Error` or `OSError` if it cannot be opened, `Damaged` if its content is
    not sound, `SpoolError` if another version wrote it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = beside(path, ".new")
    if made.exists() and not path.exists():
        made.replace(path)  # a rescue was interrupted between its last two steps
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=busy_s)
    try:
        # Exclusive before WAL: no shared memory file, and a second agent on the same file is refused, not mixed in.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}")
        found = _format(db)
        if found not in (0, 2, FORMAT_VERSION):
            raise SpoolError(f"the spool has format {found}, this agent writes {FORMAT_VERSION}")
        with transaction(db):
            if found == 2:
                _migrate(db)
            make_tables(db, found)
        if checked and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise Damaged("its pages do not fit together")
    except BaseException:
        close(db)
        raise
    return db


def _format(db: sqlite3.Connection) -> int:
    """The format that a file states, 0 for a new one. Raises `Damaged` if it states none."""
    version, application = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("user_version", "application_id")
    )
    if (version, application) not in ((0, 0), (1, 0)) and application != _APPLICATION_ID + version:
        raise Damaged("no format of ours")
    return version


def make_tables(db: sqlite3.Connection, found: int) -> None:
    """Make what is not there; `found`: the format stated. Raises `sqlite3.Error`."""
    for table in _TABLES:
        db.execute(table)
    if found != FORMAT_VERSION:  # nothing is written to open a spool of ours: that must work on a full disk
        db.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        db.execute(f"PRAGMA application_id={_APPLICATION_ID + FORMAT_VERSION}")


def _migrate(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE entries ADD COLUMN stated INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE heads RENAME COLUMN told TO heard")
    for host_id, head in unheard(stored_heads(db)).items():
        store_head(db, host_id, head)


def close(db: sqlite3.Connection) -> None:
    """Close the file whatever state it is in; entries stay."""
    with suppress(*FAILURES):
        db.close()


def load(db: sqlite3.Connection) -> Ledger:
    """Read the ledger of an open spool. Raises `sqlite3.Error`, `Damaged`."""
    try:
        return _load(db)
    except (TypeError, ValueError, OverflowError) as error:
        raise Damaged("a column holds another type than was written") from error


def _load(db: sqlite3.Connection) -> Ledger:
    ledger = Ledger()
    waiting: Counter[str] = Counter()
    query = "SELECT host_id, COUNT(*), SUM(LENGTH(value)) FROM entries GROUP BY host_id"
    for host_id, entries, size in db.execute(query):
        waiting[host_id] = entries
        ledger.size += size
    ledger.heads = stored_heads(db)
    if waiting != Counter({host_id: head.waiting for host_id, head in ledger.heads.items()}):
        raise Damaged("reports and heads do not fit together")
    (last,) = db.execute("SELECT MAX(id) FROM entries").fetchone()
    ledger.last_id = last or 0
    if ledger.last_id > MAX_ID:
        raise Damaged("an id that was never given")
    return ledger


def stored_heads(db: sqlite3.Connection) -> dict[str, Head]:
    """Read the heads. Raises `sqlite3.Error`, `Damaged`."""
    heads = {}
    for *row, check in db.execute(f"SELECT {_HEAD_COLUMNS}, checksum FROM heads"):  # noqa: S608
        if check != checksum(row):
            raise Damaged("a head changed on disk")
        heads[row[0]] = Head(*row[1:])
    return heads


def store_head(db: sqlite3.Connection, host_id: str, head: Head) -> None:
    """Write one head. Raises `sqlite3.Error`."""
    row = (host_id, head.digest, head.sealed_ms, head.appended, head.dropped, head.heard, head.acked)
    db.execute("INSERT OR REPLACE INTO heads VALUES (?,?,?,?,?,?,?,?)", (*row, checksum(row)))


def beside(path: Path, suffix: str) -> Path:
    """A file next to the spool whose name begins like its own."""
    return path.with_name(path.name + suffix)
