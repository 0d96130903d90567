"""A damaged spool is set aside, and every row of it that is whole goes over into a new one in its place."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from producers.spool_file import (
    COLUMNS,
    FAILURES,
    MAX_ID,
    Row,
    beside,
    is_damage,
    is_whole,
    make_tables,
    passes,
    primary_code,
    store_head,
    stored_heads,
    transaction,
)
from producers.spool_heads import Head, rescue_heads, sync_directory

KEEP_BROKEN = 2
"""Damaged spools kept for a look, the newest; each is as large as a spool may be."""
MAX_HOLES = 1_000
"""Unreadable places of a damaged spool that are stepped over before the rest is given up."""


def rescue(path: Path, busy_s: float, remembered: Mapping[str, Head]) -> tuple[Path, dict[str, Head]]:
    """Put a new spool in the place of a damaged one: with every whole row of it, under the same id.

    `remembered`: the heads known from elsewhere. The damaged file is set aside, at most KEEP_BROKEN of them stay.
    Returns where it lies, and the new heads. Killed at any moment, the next start finds the
    damaged spool or the new one, complete. Raises `OSError`, `sqlite3.Error`, and then nothing has changed.
    """
    made, broken = beside(path, ".new"), _set_aside(path)
    made.unlink(missing_ok=True)
    try:
        heads = _copy(path, made, busy_s, remembered)
    except FAILURES as error:
        made.unlink(missing_ok=True)
        if passes(error):
            _prune(path, keep=0)  # room for reports rather than for a look at old damage
        raise
    log_file = beside(path, "-wal")
    if log_file.exists():
        log_file.replace(beside(broken, "-wal"))  # first: without it a log would be taken for the new file's
    path.replace(broken)
    made.replace(path)
    sync_directory(path.parent)
    _prune(path, keep=KEEP_BROKEN)
    return broken, heads


def _copy(path: Path, made: Path, busy_s: float, remembered: Mapping[str, Head]) -> dict[str, Head]:
    os.close(os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(sqlite3.connect(path, isolation_level=None, timeout=busy_s)) as old,
        closing(sqlite3.connect(made, isolation_level=None)) as new,
    ):
        new.execute("PRAGMA synchronous=FULL")
        with transaction(new):
            make_tables(new, 0)
            saved, newest = _copy_rows(old, new)
            readable = {
                host_id: Head(row[3], row[4], saved[host_id] + row[8], dropped=row[8])
                for host_id, row in newest.items()
            }
            readable.update(_readable_heads(old))
            heads = rescue_heads(readable, remembered, saved)
            for host_id, head in heads.items():
                store_head(new, host_id, head)
    return heads


def _copy_rows(old: sqlite3.Connection, new: sqlite3.Connection) -> tuple[Counter[str], dict[str, Row]]:
    """Copy one row after the other, as a spool does not fit into memory; return their number and the newest by host."""
    saved: Counter[str] = Counter()
    newest: dict[str, Row] = {}
    for row in _whole_rows(old):
        new.execute(f"INSERT INTO entries ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", row)  # noqa: S608
        saved[row[1]] += 1
        newest[row[1]] = row
    return saved, newest


def _whole_rows(db: sqlite3.Connection) -> Iterator[Row]:
    last, holes = 0, 0
    with suppress(*FAILURES):
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
    with suppress(*FAILURES):
        db.execute("PRAGMA writable_schema=ON")  # otherwise nothing is read of a file that is shorter than it says
    # One by one: an error while the next row is looked for would take the one before with it.
    query = f"SELECT {COLUMNS} FROM entries WHERE id > ? ORDER BY id LIMIT 1"  # noqa: S608
    while holes <= MAX_HOLES:
        try:
            row = db.execute(query, (last,)).fetchone()
        except FAILURES as error:
            if not is_damage(error) and primary_code(error) != sqlite3.SQLITE_IOERR:
                raise
            if primary_code(error) == sqlite3.SQLITE_NOTADB:
                return
            holes, last = holes + 1, last + 1
            continue
        if row is None or row[0] <= last:
            return
        last = row[0]
        if is_whole(row) and last <= MAX_ID:
            yield row


def _readable_heads(db: sqlite3.Connection) -> dict[str, Head]:
    try:
        return stored_heads(db)
    except FAILURES:
        return {}


def _aside(path: Path) -> list[tuple[int, Path]]:
    """Spools set aside, the oldest first, with their numbers."""
    prefix = path.name + ".broken-"
    names = [other.name for other in path.parent.iterdir() if other.name.startswith(prefix)]
    numbers = [int(name.removeprefix(prefix)) for name in names if name.removeprefix(prefix).isdecimal()]
    return [(number, beside(path, f".broken-{number}")) for number in sorted(numbers)]


def _set_aside(path: Path) -> Path:
    number = max((number for number, _ in _aside(path)), default=0) + 1
    return beside(path, f".broken-{number}")


def _prune(path: Path, keep: int) -> None:
    found = _aside(path)
    for _, other in found[: max(len(found) - keep, 0)]:
        with suppress(OSError):  # a directory, say: the rescue is done, and room was only to be made
            other.unlink(missing_ok=True)
            beside(other, "-wal").unlink(missing_ok=True)
