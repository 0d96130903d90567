"""A digest of the log behind an output: nobody changes, adds or drops a record afterwards without its being seen.

An accepted report's bytes are all under its author's signature, but for the evidence it may carry. So the digest takes
of every record its offset and append time, and of those that are refused, that are control records or that carry
evidence every byte as well: key, value and headers. These are the witnesses; the manifest names each with its own
digest, so that an altered one is found.

What was counted before an idle close that has no output is in no digest: there is nothing that it decided.
"""

from __future__ import annotations

import hashlib
import struct

from schemas.records import Witness
from stream_jobs.log_record import LogRecord

MAX_WITNESSES = 4096
"""Witnesses named in a manifest at most; a flood of refused records goes into the digest alone."""

TAKEN_AT_ONCE = 256
"""Records whose bytes are hashed together: a call of its own for each costs more than its work."""

_PLACE = struct.Struct(">?qqb")
_LENGTH = struct.Struct(">q")


class LogDigest:
    """Takes the records since the previous output, in order. Bounded, whatever comes."""

    def __init__(self) -> None:
        self.records = 0
        self.witnesses: list[Witness] = []
        self._hash = hashlib.sha256(b"enclavescale/log/1\x00")
        self._next: list[bytes] = []  # bytes to take, some hundreds of records' at a time

    def add(self, record: LogRecord, *, whole: bool) -> None:
        """Take `record`; `whole` unless an accepted signature covers all that it holds."""
        self.records += 1
        self._next.append(_PLACE.pack(whole, record.offset, record.timestamp_ms, record.timestamp_type))
        if len(self._next) >= TAKEN_AT_ONCE:
            self._take()
        if whole:
            witness = record_witness(record)
            self._next.append(witness)
            if len(self.witnesses) < MAX_WITNESSES:
                self.witnesses.append(Witness(offset=record.offset, digest=witness))

    def _take(self) -> None:
        self._hash.update(b"".join(self._next))
        self._next = []

    def extend(self, other: LogDigest) -> None:
        """Take the digest of `other` as one, if it has any records."""
        if other.records:
            self.records += other.records
            self._next.append(b"\xff" + other.digest())
            self.witnesses = [*self.witnesses, *other.witnesses][:MAX_WITNESSES]

    def digest(self) -> bytes:
        """The digest so far, 32 bytes."""
        self._take()
        return self._hash.digest()


def record_witness(record: LogRecord) -> bytes:
    """SHA-256 over key, value and headers of a record, each with its length, -1 for what is null; 32 bytes."""
    found = hashlib.sha256(b"enclavescale/witness/1\x00")
    parts = [record.key, record.value]
    for name, value in record.headers:
        parts += [name.encode("utf-8", "surrogatepass"), value]
    for part in parts:
        found.update(_LENGTH.pack(-1 if part is None else len(part)))
        found.update(part or b"")
    return found.digest()
