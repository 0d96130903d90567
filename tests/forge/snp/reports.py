"""Reports, certificate tables and Azure's blob, written from AMD's and Azure's layouts, not by the code under test."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

LAYOUT: dict[str, tuple[int, int]] = {
    "version": (0x000, 4), "guest_svn": (0x004, 4), "policy": (0x008, 8), "family_id": (0x010, 16),
    "image_id": (0x020, 16), "vmpl": (0x030, 4), "signature_algo": (0x034, 4), "current_tcb": (0x038, 8),
    "platform_info": (0x040, 8), "key_info": (0x048, 4), "reserved_key_info": (0x04C, 4), "report_data": (0x050, 64),
    "measurement": (0x090, 48), "host_data": (0x0C0, 32), "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48), "report_id": (0x140, 32), "report_id_ma": (0x160, 32),
    "reported_tcb": (0x180, 8), "cpuid": (0x188, 3), "reserved_cpuid": (0x18B, 21), "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8), "current_version": (0x1E8, 3), "reserved_current": (0x1EB, 1),
    "committed_version": (0x1EC, 3), "reserved_committed": (0x1EF, 1), "launch_tcb": (0x1F0, 8),
    "launch_mitigations": (0x1F8, 8), "current_mitigations": (0x200, 8), "reserved_signed": (0x208, 152),
    "r": (0x2A0, 72), "s": (0x2E8, 72), "reserved_signature": (0x330, 368),
}  # fmt: skip
"""Offset and bytes of each field."""

SIZE, SIGNED = 0x4A0, 0x2A0


def encode(fields: Mapping[str, int | bytes]) -> bytes:
    """The report; numbers are little-endian, fields that are not named zero."""
    report = bytearray(SIZE)
    for name, value in fields.items():
        offset, size = LAYOUT[name]
        written = value.to_bytes(size, "little") if isinstance(value, int) else value.ljust(size, b"\x00")
        report[offset : offset + size] = written[:size]
    return bytes(report)


GUIDS = {
    "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
    "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "crl": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    "other": "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6",
}


@dataclass(frozen=True)
class Entry:
    """An entry of a certificate table; `offset` and `size` may lie."""

    kind: str
    data: bytes
    offset: int | None = None
    size: int | None = None


def table(*entries: Entry, end: bytes = bytes(24), tail: bytes = b"", page: int = 0) -> bytes:
    """A certificate table, filled with zeros to `page` bytes."""
    at = 24 * len(entries) + len(end)
    head = body = b""
    for entry in entries:
        offset = at if entry.offset is None else entry.offset
        size = len(entry.data) if entry.size is None else entry.size
        head += UUID(GUIDS[entry.kind]).bytes + struct.pack("<II", offset, size)
        body += entry.data
        at += len(entry.data)
    return (head + end + body + tail).ljust(page, b"\x00")


@dataclass(frozen=True, kw_only=True)
class Hcl:
    """Azure's blob around a report: its numbers, and the runtime data; None: what follows from the rest."""

    magic: bytes = b"HCLA"
    version: int = 2
    report_size: int | None = None
    request_type: int = 2
    status: int = 0
    reserved: bytes = bytes(12)
    data_size: int | None = None
    request_version: int = 1
    report_type: int = 2
    hash_type: int = 1
    size: int | None = None
    user_data: Any = None
    runtime_data: Callable[[bytes], bytes] = lambda data: data
    runtime_sent: Callable[[bytes], bytes] = lambda data: data
    padding: bytes = bytes(254)

    def runtime(self) -> bytes:
        """The JSON text, as it is hashed."""
        members: dict[str, Any] = {
            "keys": [{"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": "A" * 342}],
            "vm-configuration": {"secure-boot": True, "vmUniqueId": "911B0EF8-9DBA-48B0-B275-4E4DF2D39252"},
        }
        if self.user_data is not None:
            members["user-data"] = self.user_data.hex() if isinstance(self.user_data, bytes) else self.user_data
        return self.runtime_data(json.dumps(members, separators=(",", ":")).encode())

    def report_data(self) -> bytes:
        """What the paravisor puts into REPORT_DATA."""
        name = {1: "sha256", 2: "sha384", 3: "sha512"}.get(self.hash_type, "sha256")
        return hashlib.new(name, self.runtime()).digest().ljust(64, b"\x00")

    def encode(self, report: bytes) -> bytes:
        sent = self.runtime_sent(self.runtime())
        size = len(sent) if self.size is None else self.size
        whole = 32 + SIZE + 20 + len(sent)
        report_size = whole if self.report_size is None else self.report_size
        head = self.magic + struct.pack("<IIII", self.version, report_size, self.request_type, self.status)
        data_size = 20 + len(sent) if self.data_size is None else self.data_size
        about = struct.pack("<IIIII", data_size, self.request_version, self.report_type, self.hash_type, size)
        return head + self.reserved + report + about + sent + self.padding
