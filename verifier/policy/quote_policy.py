"""What a person demands of evidence, as data: two built-in policies, and what a policy file says (`fleet.toml`)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from schemas.records import RegisterRule
from verifier.policy.devices import STRICT_SPDM, DeviceDemands, SpdmDemands
from verifier.policy.nvidia import STRICT_NVIDIA, NvidiaDemands
from verifier.policy.snp import STRICT_SNP, SnpDemands
from verifier.policy.tcb import TcbRequirement
from verifier.tcb.status import TcbStatus

TEES = ("tdx", "sgx", "snp")
"""Kinds of TEE whose quotes are judged here."""

CODE_REGISTERS = frozenset({"measurement", "id_key_digest", "author_key_digest"})
"""Registers of guests that measure code, or name who signed its measurement; the host chooses what is in others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """Expected bytes of a field of bits, in the report's order; only those under `mask`, of the same length, count."""

    value: bytes
    mask: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCode:
    """Code that is trusted on `tee`: every register must match, an enclave's ISVSVN be at least `min_isvsvn`."""

    label: str
    tee: str
    registers: tuple[RegisterRule, ...]
    min_isvsvn: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TdDemands:
    """What a TD must be beside its measurements. The defaults refuse.

    `service_tds` are the service TDs (MRSERVICETD, 48 bytes) that may be bound; none is always allowed.
    """

    unsafe_allow_sept_ve: bool = False
    unsafe_allow_reserved_bits: bool = False
    allow_migratable: bool = False
    service_tds: tuple[bytes, ...] = ()
    td_attributes: Bits | None = None
    xfam: Bits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotePolicy:
    """Demands on evidence. None means: reported, not judged; an empty tuple means that nothing is accepted.

    `td` holds for TDs, `sgx_attributes` (16 bytes) for enclaves, `snp` for guests, `tcb` for Intel's TEEs; `nvidia` for
    each GPU and switch, `spdm` for each SPDM device, `devices` for those of one host together. `measurements` are
    alternatives, by what they are of; `platforms` are hex ids (PPID, platform instance id or CHIP_ID); `report_data` is
    what the evidence was made for, 64 bytes, and with `demand_report_data` must be given here or by the caller.
    `unsafe` names the switches a file has set.
    """

    name: str
    tees: tuple[str, ...] = TEES
    tcb: TcbRequirement
    allow_debug: bool = False
    td: TdDemands | None = field(default_factory=TdDemands)
    sgx_attributes: Bits | None = None
    snp: SnpDemands | None = field(default_factory=SnpDemands)
    nvidia: NvidiaDemands | None = field(default_factory=NvidiaDemands)
    spdm: SpdmDemands | None = field(default_factory=SpdmDemands)
    devices: DeviceDemands | None = field(default_factory=DeviceDemands)
    measurements: tuple[MeasuredCode, ...] | None = ()
    platforms: tuple[str, ...] | None = ()
    report_data: bytes | None = None
    demand_report_data: bool = True
    unsafe: tuple[str, ...] = ()

    def digest(self) -> bytes:
        """SHA-256 over everything it demands, 32 bytes; comments and the order of a file's keys do not count."""
        text = json.dumps(asdict(self), sort_keys=True, default=bytes.hex)
        return hashlib.sha256(b"enclavescale/quote-policy/1\x00" + text.encode()).digest()


AUTHENTIC = QuotePolicy(
    name="authentic",
    tcb=TcbRequirement(accepted_statuses=None),
    allow_debug=True,
    td=None,
    snp=None,
    nvidia=None,
    spdm=None,
    devices=None,
    measurements=None,
    platforms=None,
    demand_report_data=False,
)
"""Genuine, current in time, not revoked. TCB status, code and state of TEEs and devices are reported, not judged."""

STRICT = QuotePolicy(
    name="strict",
    tcb=TcbRequirement(accepted_statuses=(TcbStatus.UP_TO_DATE,)),
    td=None,
    snp=STRICT_SNP,
    nvidia=STRICT_NVIDIA,
    spdm=STRICT_SPDM,
    devices=None,
    measurements=None,
    platforms=None,
    demand_report_data=False,
)
"""UpToDate as Intel's library reports it, no debug, nothing revoked. Code, platform, current TCB: not judged.

SNP guests: VMPL 0, no migration agent, no memory aliases. GPUs and switches: firmware bound to the key, no debug flag.
SPDM devices: no debug mode active.
"""

BUILT_IN = {policy.name: policy for policy in (STRICT, AUTHENTIC)}
"""Policies by the names that `enclavescale verify --policy` takes."""
