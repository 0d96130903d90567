"""Entries of the kernel's report interface as files: the only code that touches configfs."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

REPORT_DIRECTORY = Path("/sys/kernel/config/tsm/report")


class ReportEntries(Protocol):
    """The entries below tsm/report. Every method raises OSError with the kernel's errno."""

    def create(self, name: str) -> None:
        """Make an entry."""

    def read(self, name: str, attribute: str, limit: int) -> bytes:
        """All of an attribute, or more than `limit` bytes of one that is longer."""

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """Write an attribute at once and close it."""

    def remove(self, name: str) -> None:
        """Remove an entry."""


class ConfigfsEntries:
    """Entries of the kernel's configfs, below `directory`."""

    def __init__(self, directory: Path = REPORT_DIRECTORY) -> None:
        self._directory = directory

    def create(self, name: str) -> None:
        """mkdir: the kernel fills it with attributes."""
        (self._directory / name).mkdir()

    def read(self, name: str, attribute: str, limit: int) -> bytes:
        """Read to the end, in however many pieces it comes, or until there is more than `limit`."""
        descriptor = os.open(self._directory / name / attribute, os.O_RDONLY | os.O_CLOEXEC)
        found = bytearray()
        try:
            while len(found) <= limit:
                piece = os.read(descriptor, limit + 1 - len(found))
                if not piece:
                    break
                found += piece
        finally:
            os.close(descriptor)
        return bytes(found)

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """One write and no file made where the kernel made none."""
        descriptor = os.open(self._directory / name / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(errno.EIO, f"{written} of {len(data)} bytes written")

    def remove(self, name: str) -> None:
        """rmdir: attributes go with it."""
        (self._directory / name).rmdir()
