"""The kernel's side of configfs-tsm reports, after drivers/virt/coco (report.c, tdx-guest.c, sev-guest.c) and configfs.

`FakeTsm` is a `ReportEntries`. Kept from the kernel: what is written to inblob is taken at close and the result of that
is dropped; every write advances the generation; a report is made at the first read after it, and kept; a binary
attribute is read twice, for its length and for its bytes; attributes that a provider lacks are not there; without a
driver no entry can be made. Faults are scripted by (operation, attribute).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

MakeReport = Callable[[bytes, int], tuple[bytes, bytes]]
"""(report data, privilege level) -> (outblob, auxblob); raises OSError as a driver does."""

OUTBLOB_MAX = 32 * 1024
_TDX = {"generation", "provider", "inblob", "outblob"}
_SEV = {*_TDX, "privlevel", "privlevel_floor", "auxblob"}
_WRITABLE, _BINARY = {"inblob", "privlevel"}, {"inblob", "outblob", "auxblob"}


def refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class Entry:
    """struct tsm_report_state."""

    written: int = 0
    read: int | None = None
    inblob: bytes = b""
    privlevel: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)


Fault = int | Callable[["FakeTsm", str], None] | None
"""An errno, something that happens just before (told the entry's name), or nothing."""


@dataclass
class FakeTsm:
    """The directory. `faults` are used up in order, one for each time the operation comes to that attribute.

    `between` happens between the two reads of a binary attribute. `operations` lists what was done, `made` all names
    there ever were, `entries` has those that are left.
    """

    make: MakeReport
    provider: str | None = "tdx_guest"
    floor: int = 0
    faults: dict[tuple[str, str], list[Fault]] = field(default_factory=dict)
    between: list[Fault] = field(default_factory=list)
    lost_writes: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    operations: list[tuple[str, str]] = field(default_factory=list)

    def create(self, name: str) -> None:
        self._fault("create", "", name)
        if self.provider is None:
            raise refuse(errno.ENXIO)
        if name in self.entries:
            raise refuse(errno.EEXIST)
        self.entries[name] = Entry()
        self.made.append(name)

    def remove(self, name: str) -> None:
        self._fault("remove", "", name)
        self._entry(name)
        del self.entries[name]

    def write(self, name: str, attribute: str, data: bytes) -> None:
        self._fault("write", attribute, name)
        entry = self._attribute(name, attribute)
        if attribute not in _WRITABLE:
            raise refuse(errno.EACCES)
        if attribute == "privlevel":
            level = int(data)
            if not self.floor <= level <= 3:
                raise refuse(errno.EINVAL)
            entry.privlevel = level
        elif len(data) > 64:
            raise refuse(errno.EFBIG)
        elif self.lost_writes:
            self.lost_writes -= 1  # an error at close, of which nobody is told
            return
        else:
            entry.inblob = data
        entry.written += 1

    def read(self, name: str, attribute: str, limit: int) -> bytes:
        self._fault("read", attribute, name)
        entry = self._attribute(name, attribute)
        if attribute not in _BINARY:
            values = {"generation": entry.written, "provider": self.provider, "privlevel_floor": self.floor}
            return f"{values[attribute]}\n".encode()
        size = len(self._blob(entry, attribute))
        if not size:
            return b""
        if size > OUTBLOB_MAX:
            raise refuse(errno.EFBIG)
        if self.between:
            self._happen(self.between.pop(0), name)
        return self._blob(entry, attribute)[:size].ljust(size, b"\xa5")  # the kernel's buffer is not cleared

    def _blob(self, entry: Entry, attribute: str) -> bytes:
        if self.provider is None:
            raise refuse(errno.ENXIO)
        if not entry.inblob:
            raise refuse(errno.EINVAL)
        if entry.read != entry.written:
            entry.blobs = {}
            entry.blobs["outblob"], entry.blobs["auxblob"] = self.make(entry.inblob, entry.privlevel)
            entry.read = entry.written
        return entry.blobs[attribute]

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise refuse(errno.ENOENT)
        return self.entries[name]

    def _attribute(self, name: str, attribute: str) -> Entry:
        entry = self._entry(name)
        if attribute not in (_SEV if self.provider == "sev_guest" else _TDX):
            raise refuse(errno.ENOENT)
        return entry

    def _fault(self, operation: str, attribute: str, name: str) -> None:
        self.operations.append((operation, attribute))
        waiting = self.faults.get((operation, attribute))
        if waiting:
            self._happen(waiting.pop(0), name)

    def _happen(self, fault: Fault, name: str) -> None:
        if isinstance(fault, int):
            raise refuse(fault)
        if fault is not None:
            fault(self, name)


def another_writes(kernel: FakeTsm, name: str) -> None:
    """Somebody else asks for their own report on our entry."""
    kernel.entries[name].inblob = b"\x66" * 64
    kernel.entries[name].written += 1


def removed(kernel: FakeTsm, name: str) -> None:
    """Somebody else removes our entry."""
    del kernel.entries[name]
