"""TD reports 1.0, 1.5 and 1.5 extended (Intel "TDX DCAP Quoting Library API" App. A; ATTESTATION.md §1.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields

TD_REPORT_10_BYTES = 584
TD_REPORT_15_BYTES = 648
TD_REPORT_15_EXTENDED_BYTES = 885


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """A TD report: raw fields in their order; 48-byte registers, 64-byte report data.

    1.0 ends with `report_data`. 1.5 adds `tee_tcb_svn_2` (16 bytes: the SVN of the TDX module that runs now, where
    `tee_tcb_svn` is the one at launch) and `mrservicetd` (48). 1.5 extended adds the rest: `vm_id` 1, `td_id` 32,
    `device_info` 48, the service TD at launch (hash 48, attributes 8), CPUSVN 16, TEE_TCB_SVN 16 and FMSPC 12 of the
    platform at launch, the service TD now (48, 8). What a report does not have is None.
    """

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn_2: bytes | None = None
    mrservicetd: bytes | None = None
    vm_id: bytes | None = None
    td_id: bytes | None = None
    device_info: bytes | None = None
    initial_servtd_hash: bytes | None = None
    initial_servtd_attributes: bytes | None = None
    initial_cpusvn: bytes | None = None
    initial_tee_tcb_svn: bytes | None = None
    initial_fmspc: bytes | None = None
    current_servtd_hash: bytes | None = None
    current_servtd_attributes: bytes | None = None

    def encode(self) -> bytes:
        """584, 648 or 885 bytes."""
        return b"".join(filter(None, (getattr(self, name) for name in _NAMES)))

    def registers(self) -> dict[str, bytes]:
        """The measured registers a policy may name (schemas: RegisterRule.register), 48 bytes each."""
        registers = {name: getattr(self, name) for name in _REGISTERS}
        if self.mrservicetd is not None:
            registers["mrservicetd"] = self.mrservicetd
        return registers


_NAMES = tuple(field.name for field in fields(TdReport))
_REGISTERS = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam")
_FORMAT_10 = "<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s"
_FORMAT_15 = _FORMAT_10 + "16s48s"
_FORMAT_15_EXTENDED = _FORMAT_15 + "1s32s48s48s8s16s16s12s48s8s"
_LAYOUTS = {layout.size: layout for layout in map(struct.Struct, (_FORMAT_10, _FORMAT_15, _FORMAT_15_EXTENDED))}
"""Layouts by bytes: 584, 648, 885."""


def parse_td_report(data: bytes) -> TdReport:
    """The TD report of exactly `data`: 584, 648 or 885 bytes say which one it is, else `KeyError`."""
    return TdReport(**dict(zip(_NAMES, _LAYOUTS[len(data)].unpack(data), strict=False)))


@dataclass(frozen=True, slots=True)
class TdAttributes:
    """TDATTRIBUTES as a little-endian 64-bit number, decoded."""

    bits: int

    TUD_MASK = 0xFF
    KNOWN_MASK = TUD_MASK | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 31 | 1 << 63

    @property
    def debug(self) -> bool:
        """Bit 0: the host may read the TD."""
        return bool(self.bits & 1)

    @property
    def tud(self) -> int:
        """Bits 0 to 7: any of them set makes the TD untrusted."""
        return self.bits & self.TUD_MASK

    @property
    def sept_ve_disable(self) -> bool:
        """Bit 28: no #VE on pending pages, which the host could provoke."""
        return bool(self.bits >> 28 & 1)

    @property
    def migratable(self) -> bool:
        """Bit 29: a migration TD may move the TD's state."""
        return bool(self.bits >> 29 & 1)

    @property
    def pks(self) -> bool:
        """Bit 30: supervisor protection keys."""
        return bool(self.bits >> 30 & 1)

    @property
    def key_locker(self) -> bool:
        """Bit 31: key locker."""
        return bool(self.bits >> 31 & 1)

    @property
    def perfmon(self) -> bool:
        """Bit 63: performance monitoring."""
        return bool(self.bits >> 63 & 1)

    @property
    def reserved(self) -> int:
        """Bits nobody defined for us."""
        return self.bits & ~self.KNOWN_MASK
