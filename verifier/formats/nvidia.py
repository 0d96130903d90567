"""Verify the attestation report of an NVIDIA GPU or switch (ATTESTATION.md §9).

The steps, in order; each needs all before it, the same numbers stand at the code:

 1. The bytes are a report, every length consistent (`verifier.abi.nvidia`).
 2. Its request carries the nonce the caller issued, where it issued one. Cheap, and step 4 vouches for the bytes.
 3. The device's chain leads to a pinned root (`verifier.trust.nvidia`), of a chip of the kind asked for; what the
    opaque data says of such a chip can be read.
 4. The leaf key signed request ‖ response: ECDSA P-384 over SHA-384.
 5. DICE: where the leaf names its device's key, that is its issuer's; where the report names its firmware (FWID), it is
    the firmware the leaf was issued to. A report without FWID is "not_bound", which is no refusal and no success.
 6. OCSP responses and revocation lists that speak of the chain's certificates are genuine and current, and revoke none.
 7. Reference manifests, where given, fit the report's versions; whether the measurements match is said, not judged.
 8. Every certificate of the chain is valid at `now`, on both sides.

Steps 1 to 5 do not depend on `now`. Not in a report, hence not verified: whether confidential computing is on or
developer tools are, which VM the device belongs to, anything that NVML reads. `docs/evidence/nvidia-gpu.md` says more.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.abi.dice import CompositeDeviceId, TcbInfo
from verifier.abi.nvidia import NvidiaReport, parse_nvidia_report
from verifier.abi.nvidia_opaque import PPCIE_FLAG, OpaqueFacts, read_facts
from verifier.errors import (
    DeviceKeyBinding,
    DeviceKindMismatch,
    DiceInvalid,
    FwidMismatch,
    NonceMismatch,
    NvidiaReportSignature,
    VerificationError,
)
from verifier.formats.rim import VerifiedRim
from verifier.formats.rim_compare import RimComparison, compare
from verifier.signature import verify_raw_ecdsa
from verifier.trust.certificate import Certificate
from verifier.trust.crl import Crl
from verifier.trust.nvidia import DEVICE_PROFILE, GPU, SWITCH, Chip, chip_of, dice_of, verify_device_path
from verifier.trust.nvidia_revocation import Revocation, check_revocation
from verifier.trust.ocsp import OcspResponse
from verifier.trust.path import PathCache, VerifiedPath, check_path_validity
from verifier.trust.roots import Root
from verifier.trust.selection import Span

BOUND, NOT_BOUND = "bound", "not_bound"
PASSTHROUGH, PPCIE, UNSTATED, CONTRADICTORY, UNKNOWN_MODE = (
    "PASSTHROUGH", "PPCIE", "UNSTATED", "CONTRADICTORY", "UNKNOWN",
)  # fmt: skip
_PASSTHROUGH_FLAGS = (0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedNvidiaReport:
    """The claims of a report that passed every step. Only `verify_nvidia_report` makes one.

    `kind` is "gpu" or "switch", `chip` as the leaf names it, `key_digest` SHA-256 of the leaf's SubjectPublicKeyInfo
    (32 bytes), `device_key_digest` that of the boot ROM's, which stays when new firmware brings a new leaf; `chain`
    common names, leaf first. `fwid` (48 bytes) is the leaf's, `fwid_bound` "bound" where the report names the same,
    "not_bound" where it names none. `nonce_checked`: it was compared with the caller's. `tcb_flags` are the
    operational flags of the leaf's DICE TcbInfo. `reference` is None without manifests, `rims` are those given.
    `revocation.state` is "checked" if every certificate between leaf and root was. Times are UTC milliseconds,
    inclusive: for every `now` from `valid_from_ms` to `expires_ms` the same inputs verify to these same claims.
    """

    kind: str
    architecture: str
    chip: str
    report: NvidiaReport
    facts: OpaqueFacts
    nonce_checked: bool
    key_digest: bytes
    leaf_serial_hex: str
    device_key_digest: bytes
    device_serial_hex: str
    chain: tuple[str, ...]
    fwid: bytes | None
    fwid_bound: str
    tcb_flags: tuple[str, ...]
    reference: RimComparison | None
    rims: tuple[VerifiedRim, ...]
    revocation: Revocation
    root_label: str
    simulated: bool
    valid_from_ms: int
    expires_ms: int

    @property
    def nonce(self) -> bytes:
        """32 bytes the report was asked for with."""
        return self.report.nonce

    @property
    def responder_nonce(self) -> bytes:
        """32 bytes the device chose; they prove nothing to us."""
        return self.report.responder_nonce

    @property
    def driver_version(self) -> str | None:
        """As the device reports it; switches report none."""
        return self.facts.driver_version

    @property
    def vbios_version(self) -> str | None:
        """In capitals: "96.00.9F.00.01"."""
        return self.facts.vbios_version

    @property
    def measurements(self) -> dict[int, bytes]:
        """Measured values by block, from 1; entry n of a manifest is about block n + 1."""
        return self.report.measurements()

    @property
    def registers(self) -> dict[str, bytes]:
        """What a policy's measurement for "nvidia" may name: versions in ASCII, `block<N>` as measured."""
        found = {f"block{index}": value for index, value in self.measurements.items()}
        texts = {"driver_version": self.driver_version, "vbios_version": self.vbios_version}
        return found | {name: text.encode() for name, text in texts.items() if text is not None}

    @property
    def mode(self) -> str:
        """How GPUs are shared, as feature flag and protected-PCIe status say it.

        "PASSTHROUGH" (of one GPU or of several), "PPCIE" (protected PCIe), "UNSTATED", "CONTRADICTORY" (they differ),
        "UNKNOWN" (a flag nobody here knows), and "SWITCH" for switches, which state none.
        """
        return SWITCH.upper() if self.kind == SWITCH else mode_of(self.facts)


def mode_of(facts: OpaqueFacts) -> str:
    """The mode of a GPU; see `VerifiedNvidiaReport.mode`."""
    flag, protected = facts.feature_flag, facts.protected_pcie
    if flag is not None and flag != PPCIE_FLAG and flag not in _PASSTHROUGH_FLAGS:
        return UNKNOWN_MODE
    by_flag = None if flag is None else flag == PPCIE_FLAG
    if by_flag is None and protected is None:
        return UNSTATED
    if None not in (by_flag, protected) and by_flag != protected:
        return CONTRADICTORY
    return PPCIE if by_flag or protected else PASSTHROUGH


def verify_nvidia_report(
    *,
    report: bytes,
    certificates: Sequence[Certificate],
    trust_roots: Sequence[Root],
    now_ms: int,
    nonce: bytes | None = None,
    kind: str | None = None,
    rims: Sequence[VerifiedRim] = (),
    ocsp: Sequence[OcspResponse] = (),
    crls: Sequence[Crl] = (),
    chains_seen: PathCache | None = None,
) -> VerifiedNvidiaReport:
    """Verify `report` at `now_ms` (UTC milliseconds) with the device's `certificates`, leaf first as it delivers them.

    `nonce` (32 bytes) and `kind` ("gpu" or "switch") are demands where given. `rims` are compared with what was
    measured; `ocsp` and `crls` are looked at where they speak of the chain. `chains_seen` remembers verified chains.
    Raises a subclass of `VerificationError` at the first step that fails, and nothing else; its `verified` names the
    steps that held: "format", "device_chain", "signatures", "collateral", "reference", "validity".
    """
    done: list[str] = []
    span = Span()
    try:
        # (1)
        parsed = parse_nvidia_report(report)
        done.append("format")
        # (2)
        check_nonce(parsed, nonce)
        # (3)
        path = verify_device_path(certificates, trust_roots, chains_seen)
        chip = chip_of(path)
        check_kind(chip, kind)
        facts = read_facts(parsed.opaque, chip.kind)
        done.append("device_chain")
        # (4)
        check_signature(report, parsed, path.leaf)
        # (5)
        dice = dice_of(path.leaf)
        check_device_key(dice, path)
        check_fwid(facts, dice)
        done.append("signatures")
        # (6)
        revocation = check_revocation(path, ocsp, crls, now_ms)
        span.narrow(revocation.valid_from_ms, revocation.expires_ms, now_ms)
        done.append("collateral")
        # (7)
        reference = _compared(parsed, facts, chip, rims, now_ms)
        for rim in rims:
            span.narrow(rim.valid_from_ms, rim.expires_ms, now_ms)
        done.append("reference")
        # (8)
        check_path_validity(path, now_ms, DEVICE_PROFILE)
    except VerificationError as error:
        error.verified = tuple(done)
        raise
    span.narrow(path.valid_from_ms, path.expires_ms, now_ms)
    return VerifiedNvidiaReport(
        kind=chip.kind,
        architecture=chip.architecture,
        chip=chip.name,
        report=parsed,
        facts=facts,
        nonce_checked=nonce is not None,
        key_digest=hashlib.sha256(path.leaf.spki).digest(),
        leaf_serial_hex=f"{path.leaf.serial_number:x}",
        device_key_digest=hashlib.sha256(path.certificates[-2].spki).digest(),
        device_serial_hex=f"{path.certificates[-2].serial_number:x}",
        chain=tuple(one.common_name for one in reversed(path.certificates)),
        fwid=fwid_of(dice),
        fwid_bound=NOT_BOUND if facts.fwid is None else BOUND,
        tcb_flags=dice.flags_set if isinstance(dice, TcbInfo) else (),
        reference=reference,
        rims=tuple(rims),
        revocation=revocation,
        root_label=path.root.label,
        simulated=path.root.simulated,
        valid_from_ms=span.from_ms,
        expires_ms=span.until_ms,
    )


def _compared(
    parsed: NvidiaReport, facts: OpaqueFacts, chip: Chip, rims: Sequence[VerifiedRim], now_ms: int
) -> RimComparison | None:
    if not rims:
        return None
    try:
        return compare(
            parsed.measurements(),
            rims,
            driver_version=facts.driver_version,
            vbios_version=facts.vbios_version,
            nvdec0_disabled=bool(facts.nvdec0_disabled),
            product=chip.name.replace("_", ""),
            edition=chip.kind.upper(),
        )
    except VerificationError as error:  # other manifests may be given at another time
        raise error.holding(now_ms, now_ms) from None


def check_nonce(report: NvidiaReport, nonce: bytes | None) -> None:
    """The request carries the nonce that was issued; the responder's own is no proof. `NonceMismatch`."""
    if nonce is not None and (not any(nonce) or not hmac.compare_digest(report.nonce, nonce)):
        raise NonceMismatch("the report was made for another nonce", field="request.nonce")


def check_kind(chip: Chip, kind: str | None) -> None:
    """The device is of the kind asked for. `DeviceKindMismatch`."""
    if kind is not None and chip.kind != kind:
        raise DeviceKindMismatch(
            f"{chip.name} is a {chip.kind}, where a {kind} is asked for", field="device_chain.leaf"
        )


def check_signature(data: bytes, report: NvidiaReport, leaf: Certificate) -> None:
    """The leaf key signed everything but the signature, the bytes as received. `NvidiaReportSignature`."""
    signed = data[: len(data) - len(report.signature)]
    if not verify_raw_ecdsa(leaf.public_key, "sha384", signed, report.signature):
        raise NvidiaReportSignature("the device's key did not sign this report", field="response.signature")


def fwid_of(dice: CompositeDeviceId | TcbInfo | None) -> bytes | None:
    """Digest of the firmware the leaf was issued to: the first of a TcbInfo's, None where none is named."""
    if isinstance(dice, CompositeDeviceId):
        return dice.fwid.digest
    return dice.fwids[0].digest if dice is not None and dice.fwids else None


def check_device_key(dice: CompositeDeviceId | TcbInfo | None, path: VerifiedPath) -> None:
    """The device key that a composite device id names is the leaf's issuer's. `DeviceKeyBinding`."""
    if isinstance(dice, CompositeDeviceId) and dice.device_key != path.certificates[-2].spki:
        raise DeviceKeyBinding("the leaf names another device's key", field="device_chain.leaf")


def check_fwid(facts: OpaqueFacts, dice: CompositeDeviceId | TcbInfo | None) -> None:
    """A firmware id in the report is that of the leaf. `DiceInvalid`, `FwidMismatch`."""
    if facts.fwid is None:
        return
    issued = fwid_of(dice)
    if issued is None:
        raise DiceInvalid("the report names its firmware, the leaf certificate none", field="device_chain.leaf")
    if not hmac.compare_digest(issued, facts.fwid):
        raise FwidMismatch("the report is of other firmware than its certificate", field="opaque.fwid")


__all__ = ["GPU", "SWITCH", "VerifiedNvidiaReport", "mode_of", "verify_nvidia_report"]
