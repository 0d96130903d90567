"""Files of an archive: written whole or not at all, read with a bound."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from stream_jobs.archive.errors import ArchiveError, ArchiveExists, ArchiveNotWritten

TEMPORARY = ".part"
"""Ends the name of a file that is being written; the rename that takes it off is what makes the file count."""


class Directory:
    """One archive's directory. `step` is called with a name before each thing that a crash may come between."""

    def __init__(self, path: Path, step: Callable[[str], None] = lambda _: None):
        self.path, self._step = path, step

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other exports out of the directory; it is made if it is not there. Raises ArchiveNotWritten, or
        ArchiveExists while another one is at work."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ArchiveNotWritten(f"{self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ArchiveExists(f"{self.path}: another export is writing there", remedy="Wait for it to end.") from None
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> None:
        """Write a file durably: temporary name, fsync, rename, fsync of its directory. Raises ArchiveNotWritten."""
        target = self.path / name
        temporary = target.with_name(target.name + TEMPORARY)
        try:
            self._step(f"mkdir {name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._step(f"open {name}")
            with open(temporary, "wb", buffering=0) as file:
                self._step(f"write {name}")
                view = memoryview(data)
                middle = len(view) // 2
                for part in (view[:middle], view[middle:]):
                    _write_all(file.fileno(), part)
                    self._step(f"written {name}")
                os.fsync(file.fileno())
            self._step(f"rename {name}")
            os.replace(temporary, target)
            self._step(f"renamed {name}")
            self._sync(target.parent)
        except OSError as error:
            raise ArchiveNotWritten(f"{target}: {error.strerror or error}") from error

    def _sync(self, directory: Path) -> None:
        """Make names durable, up to the archive's own."""
        while True:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if directory in (self.path, directory.parent):
                return
            directory = directory.parent

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises ArchiveNotWritten."""
        try:
            self._step(f"remove {name}")
            (self.path / name).unlink(missing_ok=True)
            self._sync(self.path)
        except OSError as error:
            raise ArchiveNotWritten(f"{self.path / name}: {error.strerror or error}") from error

    def read(self, name: str, most: int, failure: type[ArchiveError]) -> bytes | None:
        """A file's bytes, None if it is not there. Raises `failure` if it is larger than `most` or no plain file."""
        try:
            # Neither a link out of the archive nor a pipe that never ends.
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failure(f"{name}: {error.strerror or error}") from error
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode) or state.st_size > most:
                raise failure(f"{name} is no plain file of at most {most} bytes")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(most)
        except OSError as error:
            raise failure(f"{name}: {error.strerror or error}") from error
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Every file below the directory, sorted; empty if there is no such directory."""
        found = []
        for base, _, files in os.walk(self.path):
            found += [str(Path(base, name).relative_to(self.path)) for name in files]
        return sorted(found)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
