"""Spools to be damaged: the bytes a process leaves behind, and what must hold of any spool opened after damage."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from producers.errors import SpoolError
from producers.spool import Spool
from tests.producers.forge import report

HOSTS = ("host-0", "host-1")
NOW = 1_000_000_000
SUFFIXES = ("", "-wal", ".heads")


@dataclass(frozen=True)
class Left:
    """What lay on disk, by suffix of the spool's name, and which reports had been appended and trimmed by then."""

    files: dict[str, bytes]
    appended: int
    trimmed: int

    def write(self, directory: Path, **changed: bytes | None) -> Path:
        """Lay the files out in an empty directory; `changed`: file, wal, heads; None leaves one out."""
        for suffix, data in self.files.items():
            found = changed.get({"": "file", "-wal": "wal", ".heads": "heads"}[suffix], data)
            if found is not None:
                (directory / f"s{suffix}").write_bytes(found)
        return directory / "s"


def leave(directory: Path, appended: int, trimmed: int, *, closed: bool, size: int = 100) -> Left:
    """Files of a spool with `appended` reports, of which the first `trimmed` are acknowledged.

    `closed`: everything is in the file itself; otherwise as a power cut leaves it, the newest in the -wal.
    """
    path = directory / "s"
    spool = Spool(path)
    for number in range(appended):
        entries = spool.append([report(number, HOSTS[number % 2], size)], NOW)
        if number < trimmed:
            spool.acknowledge([entries[0].id])
    if closed:
        spool.close()
    files = {
        suffix: (directory / f"s{suffix}").read_bytes() for suffix in SUFFIXES if (directory / f"s{suffix}").exists()
    }
    spool.close()
    return Left(files, appended, trimmed)


def check(path: Path, left: Left, *, size: int = 100) -> int:
    """Open what is left of a spool and hold it to its promises; return how many reports are lost.

    The spool's second file must be whole, or the first one.
    """
    with Spool(path) as spool:
        kept = {entry.id: entry for entry in spool.pending(limit=10_000)}
        assert list(kept) == sorted(kept)
        for number, entry in ((entry.id - 1, entry) for entry in kept.values()):
            assert entry.value == report(number, HOSTS[number % 2], size).value
            assert (entry.host_id, entry.digest) == (HOSTS[number % 2], report(number).digest)
        waiting = range(left.trimmed, left.appended)
        missing = [number for number in waiting if number + 1 not in kept]
        dropped = sum(map(spool.dropped, HOSTS))
        assert len(missing) <= dropped  # all of it is counted, acknowledged ones at most twice
        for newest in range(left.appended - 2, left.appended):
            # Nothing that may have left is sealed again, and the chain goes on.
            host_id = HOSTS[newest % 2]
            assert spool.last_digest(host_id) == report(newest).digest
            assert spool.sealed_ms(host_id) == report(newest).window_end_ms
            refuse_again(spool, newest, size)
        counted = sum(map(spool.dropped, HOSTS))
        assert counted == dropped + 2  # the two refused now
        fresh = spool.append([report(left.appended, "host-0", size)], NOW)[0]
        assert fresh.id > max(kept, default=0)
        assert spool.pending(limit=10_000)[-1] == fresh
        assert not spool.stats(NOW).failures or spool.stats(NOW).writable
    return len(missing)


def refuse_again(spool: Spool, number: int, size: int = 100) -> None:
    """A window that was sealed must not be appended again."""
    try:
        spool.append([report(number, HOSTS[number % 2], size)], NOW)
    except SpoolError:
        return
    raise AssertionError(f"window {number} sealed twice")


@contextmanager
def memory_directory() -> Iterator[Path]:
    """A directory where fsync costs nothing, if the machine has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def fresh(directory: Path) -> Path:
    """Empty a directory."""
    for path in directory.iterdir():
        path.unlink()
    return directory


def cuts(length: int, all_of: Iterable[int], stride: int, *, first: int = 0) -> list[int]:
    """Lengths below `length` to cut a file to: those in `all_of`, and every `stride`-th from `first` on."""
    return sorted({cut for cut in (*all_of, *range(first, length, stride)) if cut < length})
