"""What must never be forgotten of a spool's hosts, and the small file beside the spool that keeps it a second time.

The spool's own file holds the same heads. Two places, because a spool that is damaged must neither let a window be
sealed again of which bytes may have left, nor hide how many reports went with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from producers.seal import SealedReport

FORMAT = 2
"""Before, in place of `heard`, was what reports on disk stated, delivered or not."""
MAX_FILE_BYTES = 16 << 20
MAX_COUNT = 1 << 62
"""Counts and times from here on were never written."""

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What may come of reading a file that somebody else wrote."""


@dataclass(frozen=True, slots=True)
class Head:
    """One host: digest of its newest report, end of its newest window (UTC ms), and counts of reports.

    `appended` counts from the making of the spool, and reports that could not be written are in it and in `dropped`.
    `heard` is how much of `dropped` a report that brokers have acknowledged states; `acked` is what brokers have.
    """

    digest: bytes
    sealed_ms: int
    appended: int
    dropped: int = 0
    heard: int = 0
    acked: int = 0

    @property
    def waiting(self) -> int:
        """Reports that wait for an acknowledgement."""
        return self.appended - self.dropped - self.acked


NO_REPORT = Head(digest=b"", sealed_ms=0, appended=0)
"""A host of which every report was refused so far."""


@dataclass(slots=True)
class Ledger:
    """The heads of all hosts, the bytes of the values that wait, the highest id ever given."""

    heads: dict[str, Head] = field(default_factory=dict)
    size: int = 0
    last_id: int = 0

    def copy(self) -> Ledger:
        """A ledger of its own, to be changed in a transaction and kept only if that commits."""
        return Ledger(dict(self.heads), self.size, self.last_id)

    def entries(self) -> int:
        """Reports that wait for an acknowledgement."""
        return sum(head.waiting for head in self.heads.values())

    def appended(self, report: SealedReport, entry_id: int, *, unwritten: int) -> Head:
        """Take in one new report; `unwritten`: those that failed before it."""
        old = self.heads.get(report.host_id) or Head(report.digest, 0, 0)
        head = Head(
            digest=report.digest,
            sealed_ms=max(old.sealed_ms, report.window_end_ms),
            appended=old.appended + 1 + unwritten,
            dropped=old.dropped + unwritten,
            heard=old.heard,
            acked=old.acked,
        )
        self.heads[report.host_id] = head
        self.size += len(report.value)
        self.last_id = max(self.last_id, entry_id)
        return head

    def removed(self, host_id: str, size: int, stated: int, *, dropped: bool) -> Head:
        """Let go of one report: dropped and counted, or acknowledged, and with it the `stated` dropped ones heard of.

        More than was dropped is never heard of: a damaged spool may remember fewer than its reports state.
        """
        old = self.heads[host_id]
        if dropped:
            head = replace(old, dropped=old.dropped + 1)
        else:
            head = replace(old, acked=old.acked + 1, heard=max(old.heard, min(stated, old.dropped)))
        self.heads[host_id] = head
        self.size -= size
        return head


def reconcile(stored: Mapping[str, Head], remembered: Mapping[str, Head]) -> dict[str, Head]:
    """Heads of a spool that is whole, up to a torn end: what `remembered` knows beyond it was lost with that end.

    Whether reports so lost had been delivered cannot be known; they are counted as dropped.
    """
    heads = dict(stored)
    for host_id, known in remembered.items():
        found = stored.get(host_id)
        if found is None:
            heads[host_id] = replace(known, dropped=known.appended - known.acked)
        elif known.appended > found.appended:
            torn = known.appended - found.appended
            heads[host_id] = replace(
                found,
                digest=known.digest,
                sealed_ms=max(known.sealed_ms, found.sealed_ms),
                appended=known.appended,
                dropped=found.dropped + torn,
            )
    return heads


def rescue_heads(
    readable: Mapping[str, Head], remembered: Mapping[str, Head], saved: Mapping[str, int]
) -> dict[str, Head]:
    """Heads of a new spool into which `saved` reports by host went over from a damaged one; the rest is dropped.

    `readable`: the damaged spool's own heads, as far as they were. Without one the loss is an upper bound: a report
    acknowledged since `remembered` was written counts as well.
    """
    heads = {}
    for host_id in readable.keys() | remembered.keys():
        both = [one[host_id] for one in (readable, remembered) if host_id in one]
        newest = max(both, key=lambda head: head.sealed_ms)
        waiting, acked = saved.get(host_id, 0), max(head.acked for head in both)
        appended = max(head.appended for head in both)
        dropped = max(appended - acked - waiting, *(head.dropped for head in both))
        appended = max(appended, dropped + waiting)
        heads[host_id] = Head(
            digest=newest.digest,
            sealed_ms=newest.sealed_ms,
            appended=appended,
            dropped=dropped,
            heard=max(head.heard for head in both),
            acked=appended - dropped - waiting,  # fewer than known if the damage brought back what was trimmed
        )
    return heads


def read_heads(path: Path) -> dict[str, Head]:
    """Read the file. Raises `OSError`; something of UNREADABLE unless every byte is as it was written."""
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES)
    digest, _, text = data.partition(b"\n")
    if digest != hashlib.sha256(text).hexdigest().encode():
        raise ValueError("the checksum does not match")
    document = json.loads(text)
    if document["format"] not in (1, FORMAT):
        raise ValueError("another format")
    if any(
        type(count) is not int or not 0 <= count < MAX_COUNT for row in document["hosts"].values() for count in row[1:]
    ):
        raise ValueError("no counts")
    heads = {host_id: Head(bytes.fromhex(digest), *rest) for host_id, (digest, *rest) in document["hosts"].items()}
    return heads if document["format"] == FORMAT else unheard(heads)


def unheard(heads: Mapping[str, Head]) -> dict[str, Head]:
    """Heads of a format that did not know what brokers had heard of: all that was dropped is stated once more."""
    return {host_id: replace(head, heard=0) for host_id, head in heads.items()}


def write_heads(path: Path, heads: Mapping[str, Head]) -> None:
    """Replace the file as a whole, on disk on return: after a crash there is the old one or the new. Raises OSError."""
    hosts = {
        host_id: [head.digest.hex(), head.sealed_ms, head.appended, head.dropped, head.heard, head.acked]
        for host_id, head in sorted(heads.items())
    }
    text = json.dumps({"format": FORMAT, "hosts": hosts}, separators=(",", ":")).encode()
    scratch = path.with_name(path.name + ".new")
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Put renames in `directory` on disk. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
