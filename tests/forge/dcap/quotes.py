"""Quotes of versions 3, 4 and 5, written from the specification's tables and from nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SGX, TDX = 0x00, 0x81
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

SGX_REPORT = (
    ("cpusvn", 16), ("miscselect", 4), ("reserved1", 28), ("attributes", 16), ("mrenclave", 32), ("reserved2", 32),
    ("mrsigner", 32), ("reserved3", 96), ("isvprodid", 2), ("isvsvn", 2), ("reserved4", 60), ("report_data", 64),
)  # fmt: skip
TD_REPORT_10 = (
    ("tee_tcb_svn", 16), ("mrseam", 48), ("mrsignerseam", 48), ("seam_attributes", 8), ("td_attributes", 8),
    ("xfam", 8), ("mrtd", 48), ("mrconfigid", 48), ("mrowner", 48), ("mrownerconfig", 48), ("rtmr0", 48),
    ("rtmr1", 48), ("rtmr2", 48), ("rtmr3", 48), ("report_data", 64),
)  # fmt: skip
TD_REPORT_15 = (*TD_REPORT_10, ("tee_tcb_svn_2", 16), ("mrservicetd", 48))
TD_REPORT_15_EXTENDED = (
    *TD_REPORT_15, ("vm_id", 1), ("td_id", 32), ("device_info", 48), ("initial_servtd_hash", 48),
    ("initial_servtd_attributes", 8), ("initial_cpusvn", 16), ("initial_tee_tcb_svn", 16), ("initial_fmspc", 12),
    ("current_servtd_hash", 48), ("current_servtd_attributes", 8),
)  # fmt: skip
BODIES = {1: SGX_REPORT, 2: TD_REPORT_10, 3: TD_REPORT_15, 4: TD_REPORT_15_EXTENDED}
"""Layouts by body type of a v5 descriptor: (field, bytes)."""

HEADER_BYTES = 48


def size_of(layout: tuple[tuple[str, int], ...]) -> int:
    return sum(size for _, size in layout)


def encode(layout: tuple[tuple[str, int], ...], fields: Mapping[str, bytes]) -> bytes:
    """The structure; a field not given is zero, one of another length an error of the test."""
    unknown = set(fields) - {name for name, _ in layout}
    if unknown:
        raise ValueError(f"no field {unknown}")
    parts = [fields.get(name, bytes(size)) for name, size in layout]
    if sum(map(len, parts)) != size_of(layout):
        raise ValueError("a field of another length")
    return b"".join(parts)


def offset_of(layout: tuple[tuple[str, int], ...], field: str) -> int:
    """Where `field` begins in the structure."""
    offset = 0
    for name, size in layout:
        if name == field:
            return offset
        offset += size
    raise ValueError(f"no field {field}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The 48 bytes in front. `size` replaces the size in a v5 descriptor, `body_type` its type."""

    version: int
    tee_type: int
    key_type: int = 2
    reserved: bytes = bytes(4)
    vendor: bytes = VENDOR
    user_data: bytes = bytes(range(16)) + bytes(4)
    body_type: int | None = None
    size: int | None = None

    def encode(self, body: bytes) -> bytes:
        """Header, in version 5 with the descriptor of `body` behind it."""
        found = (
            self.version.to_bytes(2, "little")
            + self.key_type.to_bytes(2, "little")
            + self.tee_type.to_bytes(4, "little")
            + self.reserved
            + self.vendor
            + self.user_data
        )
        if self.body_type is not None:
            size = len(body) if self.size is None else self.size
            found += self.body_type.to_bytes(2, "little") + size.to_bytes(4, "little")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The signature section's parts; the lengths in front of them follow unless they are given."""

    quote_signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_report_signature: bytes
    auth_data: bytes
    kind: int
    data: bytes
    outer_kind: int = 6
    auth_size: int | None = None
    data_size: int | None = None
    outer_size: int | None = None
    tail: bytes = b""

    def encode(self, version: int) -> bytes:
        """The section in the layout of `version`, without the length in front of it."""
        auth_size = len(self.auth_data) if self.auth_size is None else self.auth_size
        inner = (
            self.qe_report
            + self.qe_report_signature
            + auth_size.to_bytes(2, "little")
            + self.auth_data
            + certification(self.kind, self.data, self.data_size)
        )
        front = self.quote_signature + self.attestation_key
        if version == 3:
            return front + inner + self.tail
        return front + certification(self.outer_kind, inner, self.outer_size) + self.tail


def certification(kind: int, data: bytes, size: int | None = None) -> bytes:
    """Certification data: type, length, data."""
    return kind.to_bytes(2, "little") + (len(data) if size is None else size).to_bytes(4, "little") + data
