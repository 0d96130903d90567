"""AMD SEV-SNP attestation reports, versions 2 to 5 (AMD 56860 "SEV-SNP Firmware ABI"; ATTESTATION.md §8.1, §8.2).

1184 bytes, little-endian; the first 672 are signed. Version 3 adds the CPUID of the chip, version 5 two vectors of
mitigations. What a version keeps in reserve must be zero in it: another reader might see a meaning there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from verifier.errors import SnpMalformed, SnpVersionUnsupported

SNP_REPORT_BYTES = 1184
SIGNED_BYTES = 672
SCALAR_BYTES = 48
"""Bytes of r, and of s, on P-384; each stands little-endian in a field of 72."""

VERSIONS = (2, 3, 4, 5)
CPUID_VERSION = 3
MITIGATIONS_VERSION = 5
ECDSA_P384_SHA384 = 1

VCEK, VLEK, NO_KEY = 0, 1, 7
"""SIGNING_KEY: a key of the chip, a key of the cloud provider, none. 2 to 6 are reserved."""

HOST_VMPL = 0xFFFFFFFF
"""VMPL of a report that the host asked for, not the guest."""

_KEY_INFO_BITS = 0b11111
_POLICY_ONE = 1 << 17
"""A bit of POLICY that is reserved, and always one."""

_REPORT = struct.Struct("<IIQ16s16sIIQQII64s48s32s48s48s32s32sQ3s21s64sQ3sB3sBQQQ152s72s72s368s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReport:
    """An attestation report: its fields in their order, reserved parts left out.

    `policy`, `platform_info` and the `…_tcb` are 64-bit numbers (`GuestPolicy`, `PlatformInfo`, `TcbVersion` decode
    them); `key_info` has 5 bits: AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY (3). `cpuid` is (family, model, stepping),
    None before version 3; the versions of the firmware are (build, minor, major); the mitigation vectors are None
    before version 5. `signature` is r‖s, 48 bytes each, big-endian, as they are verified.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: int
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: int
    cpuid: tuple[int, int, int] | None
    chip_id: bytes
    committed_tcb: int
    current_version: tuple[int, int, int]
    committed_version: tuple[int, int, int]
    launch_tcb: int
    launch_mitigations: int | None
    current_mitigations: int | None
    signature: bytes

    @property
    def author_key_enabled(self) -> bool:
        """Whether `author_key_digest` says something."""
        return bool(self.key_info & 1)

    @property
    def mask_chip_key(self) -> bool:
        """Whether the host keeps the VCEK from signing."""
        return bool(self.key_info >> 1 & 1)

    @property
    def signing_key(self) -> int:
        """SIGNING_KEY: `VCEK`, `VLEK`, `NO_KEY` or a reserved number."""
        return self.key_info >> 2

    @property
    def signed_bytes(self) -> bytes:
        """The 672 bytes the signature covers."""
        return self.encode()[:SIGNED_BYTES]

    def encode(self) -> bytes:
        """1184 bytes."""
        cpuid = bytes(3) if self.cpuid is None else bytes(self.cpuid)
        r, s = self.signature[:SCALAR_BYTES], self.signature[SCALAR_BYTES:]
        return _REPORT.pack(
            self.version, self.guest_svn, self.policy, self.family_id, self.image_id, self.vmpl,
            self.signature_algorithm, self.current_tcb, self.platform_info, self.key_info, 0, self.report_data,
            self.measurement, self.host_data, self.id_key_digest, self.author_key_digest, self.report_id,
            self.report_id_ma, self.reported_tcb, cpuid, b"", self.chip_id, self.committed_tcb,
            bytes(self.current_version), 0, bytes(self.committed_version), 0, self.launch_tcb,
            self.launch_mitigations or 0, self.current_mitigations or 0, b"", r[::-1], s[::-1], b"",
        )  # fmt: skip


def parse_snp_report(data: bytes) -> SnpReport:
    """The report of exactly `data`, 1184 bytes. Raises `SnpMalformed` or `SnpVersionUnsupported`."""
    if len(data) != SNP_REPORT_BYTES:
        raise SnpMalformed(f"{len(data)} bytes, a report has {SNP_REPORT_BYTES}", field="report")
    (
        version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current_tcb, platform_info, key_info,
        reserved, report_data, measurement, host_data, id_key_digest, author_key_digest, report_id, report_id_ma,
        reported_tcb, cpuid, behind_cpuid, chip_id, committed_tcb, current_version, behind_current, committed_version,
        behind_committed, launch_tcb, launch_mitigations, current_mitigations, behind_mitigations, r, s, behind_s,
    ) = _REPORT.unpack(data)  # fmt: skip
    check_version(version)
    has_cpuid, has_mitigations = version >= CPUID_VERSION, version >= MITIGATIONS_VERSION
    check_reserved("policy", ~policy & _POLICY_ONE)
    check_reserved("key_info", key_info & ~_KEY_INFO_BITS, reserved)
    check_reserved("cpuid", behind_cpuid, b"" if has_cpuid else cpuid)
    check_reserved("current_version", behind_current)
    check_reserved("committed_version", behind_committed)
    check_reserved("mitigations", *(() if has_mitigations else (launch_mitigations, current_mitigations)))
    check_reserved("signed_part", behind_mitigations)
    check_reserved("signature", r[SCALAR_BYTES:], s[SCALAR_BYTES:], behind_s)
    return SnpReport(
        version=version,
        guest_svn=guest_svn,
        policy=policy,
        family_id=family_id,
        image_id=image_id,
        vmpl=vmpl,
        signature_algorithm=algorithm,
        current_tcb=current_tcb,
        platform_info=platform_info,
        key_info=key_info & _KEY_INFO_BITS,
        report_data=report_data,
        measurement=measurement,
        host_data=host_data,
        id_key_digest=id_key_digest,
        author_key_digest=author_key_digest,
        report_id=report_id,
        report_id_ma=report_id_ma,
        reported_tcb=reported_tcb,
        cpuid=_three(cpuid) if has_cpuid else None,
        chip_id=chip_id,
        committed_tcb=committed_tcb,
        current_version=_three(current_version),
        committed_version=_three(committed_version),
        launch_tcb=launch_tcb,
        launch_mitigations=launch_mitigations if has_mitigations else None,
        current_mitigations=current_mitigations if has_mitigations else None,
        signature=r[SCALAR_BYTES - 1 :: -1] + s[SCALAR_BYTES - 1 :: -1],
    )


def check_version(version: int) -> None:
    """2 to 5; what a later version means by its bytes nobody knows yet. `SnpVersionUnsupported`."""
    if version not in VERSIONS:
        raise SnpVersionUnsupported(f"report version {version}", field="version")


def check_reserved(field: str, *reserved: int | bytes) -> None:
    """What the version keeps in reserve is as it must be: zero here. `SnpMalformed`, naming where it lies."""
    if any(any(one) if isinstance(one, bytes) else one for one in reserved):
        raise SnpMalformed(f"reserved bits at {field} are not as they must be", field=field)


def _three(data: bytes) -> tuple[int, int, int]:
    return data[0], data[1], data[2]


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """POLICY decoded: what the guest's owner demanded at launch, as a 64-bit number."""

    bits: int

    KNOWN_MASK = (1 << 26) - 1

    @property
    def abi_minimum(self) -> tuple[int, int]:
        """(major, minor) of the firmware ABI that the guest demands at least."""
        return self.bits >> 8 & 0xFF, self.bits & 0xFF

    @property
    def smt(self) -> bool:
        """Bit 16: simultaneous multi-threading is allowed."""
        return bool(self.bits >> 16 & 1)

    @property
    def migrate_ma(self) -> bool:
        """Bit 18: a migration agent may be associated."""
        return bool(self.bits >> 18 & 1)

    @property
    def debug(self) -> bool:
        """Bit 19: the host may read and write the guest."""
        return bool(self.bits >> 19 & 1)

    @property
    def single_socket(self) -> bool:
        """Bit 20: the guest runs on one socket only."""
        return bool(self.bits >> 20 & 1)

    @property
    def cxl_allow(self) -> bool:
        """Bit 21: CXL devices and memory may be populated."""
        return bool(self.bits >> 21 & 1)

    @property
    def mem_aes_256_xts(self) -> bool:
        """Bit 22: memory must be encrypted with AES-256-XTS."""
        return bool(self.bits >> 22 & 1)

    @property
    def rapl_disabled(self) -> bool:
        """Bit 23: RAPL must be off."""
        return bool(self.bits >> 23 & 1)

    @property
    def ciphertext_hiding(self) -> bool:
        """Bit 24: ciphertext hiding of DRAM must be on."""
        return bool(self.bits >> 24 & 1)

    @property
    def page_swap_disabled(self) -> bool:
        """Bit 25: the host may not move or swap the guest's pages."""
        return bool(self.bits >> 25 & 1)

    @property
    def unknown(self) -> int:
        """Bits nobody defined for us."""
        return self.bits & ~self.KNOWN_MASK


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """PLATFORM_INFO decoded: the state of the platform, as a 64-bit number."""

    bits: int

    KNOWN_MASK = 0xFF

    @property
    def smt(self) -> bool:
        """Bit 0: simultaneous multi-threading is on."""
        return bool(self.bits & 1)

    @property
    def tsme(self) -> bool:
        """Bit 1: all memory is encrypted."""
        return bool(self.bits >> 1 & 1)

    @property
    def ecc(self) -> bool:
        """Bit 2: memory has error correction."""
        return bool(self.bits >> 2 & 1)

    @property
    def rapl_disabled(self) -> bool:
        """Bit 3: RAPL is off."""
        return bool(self.bits >> 3 & 1)

    @property
    def ciphertext_hiding(self) -> bool:
        """Bit 4: ciphertext hiding of DRAM is on."""
        return bool(self.bits >> 4 & 1)

    @property
    def alias_check_complete(self) -> bool:
        """Bit 5: since the last reset no two addresses were found to be one (BadRAM, CVE-2024-21944)."""
        return bool(self.bits >> 5 & 1)

    @property
    def iommu_write_safe(self) -> bool:
        """Bit 6: set by Turin firmware; AMD's public specification has no description that we know."""
        return bool(self.bits >> 6 & 1)

    @property
    def tio(self) -> bool:
        """Bit 7: trusted I/O is on."""
        return bool(self.bits >> 7 & 1)

    @property
    def unknown(self) -> int:
        """Bits nobody defined for us."""
        return self.bits & ~self.KNOWN_MASK
