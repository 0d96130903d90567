"""Verify an AMD SEV-SNP report, versions 2 to 5, alone or in Azure's HCL blob (ATTESTATION.md §8.4).

The steps, in order; each needs all before it, the same numbers stand at the code:

 1. The bytes are a report, every length consistent, nothing reserved in use; its algorithm is ECDSA P-384 with
    SHA-384, and it says that a key signed it. Behind it stands nothing, zeros, or a certificate table.
 2. In Azure's blob: REPORT_DATA is the digest of the runtime data, zeros behind it. Then, where the caller expects
    report data, the 64 bytes that the guest chose are these. Cheap, and step 5 vouches for the bytes.
 3. The endorsement key's certificate leads to a pinned ARK (`verifier.trust.path`), by names of one product line.
 4. It is of the kind that SIGNING_KEY says, and its AMD extensions fit kind and product (`verifier.trust.amd`).
 5. Its key signed the first 672 bytes of the report.
 6. Revocation lists of this ARK, where the caller gives any, are genuine, one is current, and none revokes ASK or
    ASVK; nor does a genuine one that came with the evidence, which is good for nothing else: the prover chose it.
 7. The key was issued for exactly REPORTED_TCB, for this chip (VCEK) and for this CPU's product; TCBs are in order:
    REPORTED <= COMMITTED <= CURRENT, component by component, and so is the firmware's version.
 8. Every certificate of the path is valid at `now`, on both sides.

Steps 1 to 5 and 7 do not depend on `now`. Without a list of the caller's, step 6 passes and the result says
"unchecked": a policy decides. What the guest is (debug, VMPL, measurement, minimum TCB) is policy as well:
`verifier.policy.snp`.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.abi.amd import TcbVersion
from verifier.abi.snp import ECDSA_P384_SHA384, NO_KEY, SIGNED_BYTES, GuestPolicy, PlatformInfo, SnpReport
from verifier.abi.snp import VCEK as VCEK_SIGNED
from verifier.abi.snp import VLEK as VLEK_SIGNED
from verifier.errors import (
    HclBinding,
    ReportDataMismatch,
    SnpAlgorithmUnsupported,
    SnpChipId,
    SnpChipIdMasked,
    SnpProduct,
    SnpSignature,
    SnpSigningKey,
    SnpTcbMismatch,
    SnpTcbOrder,
    SnpUnsigned,
    VerificationError,
)
from verifier.formats.snp_evidence import SnpEvidence, candidates, parse_snp_evidence
from verifier.formats.snp_missing import explained, key_missing, product_of_cpu
from verifier.signature import verify_raw_ecdsa
from verifier.trust import amd
from verifier.trust import path as paths
from verifier.trust.amd import EndorsementKey
from verifier.trust.certificate import Certificate
from verifier.trust.crl import Crl
from verifier.trust.path import PathCache
from verifier.trust.roots import Root
from verifier.trust.selection import CollateralWindow, Span

CHECKED, UNCHECKED = "checked", "unchecked"
"""Whether the verifier's side had a current revocation list of the ARK; one that comes with the evidence is none."""

_KEY_TYPES = {VCEK_SIGNED: amd.VCEK, VLEK_SIGNED: amd.VLEK}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSnpReport:
    """The claims of a report that passed every step. Only `verify_snp_report` makes one.

    `product` is "Milan", "Genoa" or "Turin", `key_type` "VCEK" or "VLEK"; `hwid` the chip's id in the VCEK (64 bytes,
    Turin 8), `csp_id` the provider of a VLEK. `revocation` is "checked" where the caller gave a current list of the
    ARK, else "unchecked"; `windows` has that list. `runtime_data` is the JSON text of Azure's blob. Times are UTC
    milliseconds, inclusive: for every `now` from `valid_from_ms` to `expires_ms` the same bytes, certificates, lists
    and roots verify to these same claims.
    """

    tee: str
    quote_version: int
    report: SnpReport
    debug: bool
    report_data: bytes
    product: str
    key_type: str
    hwid: bytes | None
    csp_id: str | None
    ek_product_name: str
    ek_serial_hex: str
    ek_issuer: str
    root_label: str
    simulated: bool
    revocation: str
    windows: tuple[CollateralWindow, ...]
    runtime_data: bytes | None
    padding: int
    valid_from_ms: int
    expires_ms: int

    @property
    def policy(self) -> GuestPolicy:
        """What the guest's owner demanded at launch."""
        return GuestPolicy(self.report.policy)

    @property
    def platform(self) -> PlatformInfo:
        """The state of the platform."""
        return PlatformInfo(self.report.platform_info)

    @property
    def reported_tcb(self) -> TcbVersion:
        """The TCB that the endorsement key stands for."""
        return TcbVersion.of(self.report.reported_tcb, self.product)

    @property
    def committed_tcb(self) -> TcbVersion:
        """The TCB the platform can no longer go below."""
        return TcbVersion.of(self.report.committed_tcb, self.product)

    @property
    def current_tcb(self) -> TcbVersion:
        """The TCB that runs now."""
        return TcbVersion.of(self.report.current_tcb, self.product)

    @property
    def launch_tcb(self) -> TcbVersion:
        """The TCB that ran when the guest was launched, or imported."""
        return TcbVersion.of(self.report.launch_tcb, self.product)

    @property
    def tcb(self) -> None:
        """AMD publishes no TCB levels to evaluate: minimum TCBs are policy."""
        return None

    @property
    def tcb_evaluated(self) -> bool:
        """False: see `tcb`."""
        return False

    @property
    def collateral_digest(self) -> bytes | None:
        """32 bytes of the revocation list that was used, None without one."""
        return self.windows[0].digest if self.windows else None

    @property
    def platform_ids(self) -> tuple[str, ...]:
        """Hex of CHIP_ID, empty where the host masks it."""
        return (self.report.chip_id.hex(),) if any(self.report.chip_id) else ()

    @property
    def registers(self) -> dict[str, bytes]:
        """Fields by the names a policy uses: bytes as in the report, texts in ASCII."""
        return _registers(self)


def verify_snp_report(
    *,
    report: bytes,
    endorsements: Sequence[Certificate],
    crls: Sequence[Crl],
    trust_roots: Sequence[Root],
    now_ms: int,
    delivered_crls: Sequence[Crl] = (),
    report_data: bytes | None = None,
    chains_seen: PathCache | None = None,
) -> VerifiedSnpReport:
    """Verify `report` (alone, with a certificate table, or Azure's blob) at `now_ms`, UTC milliseconds.

    `endorsements` are certificates, in any order, of which some are this report's; `crls` revocation lists, likewise,
    from the verifier's side; `delivered_crls` are the prover's, as those of a certificate table: they can only revoke.
    `report_data` (64 bytes) is a demand where given; `chains_seen` remembers verified paths. Raises a subclass of
    `VerificationError` at the first step that fails, and nothing else; its `verified` names the stages that held.
    """
    stages: list[str] = []
    try:
        # (1)
        evidence = parse_snp_evidence(report)
        check_algorithm(evidence.report)
        check_signed(evidence.report)
        stages.append("format")
        # (2)
        check_runtime_data(evidence)
        chosen = chosen_data(evidence)
        check_report_data(chosen, report_data)
    except VerificationError as error:
        error.verified = tuple(stages)
        raise
    delivered = (*evidence.crls, *delivered_crls)
    attempt = _Attempt(evidence, chosen, tuple(crls), delivered, tuple(trust_roots), now_ms, chains_seen)
    refusals: list[VerificationError] = []
    pool = (*evidence.certificates, *endorsements)
    tried, span = candidates(evidence.report, pool, trust_roots, now_ms)
    for path in tried:
        try:
            return attempt.verify(path, span)
        except VerificationError as error:
            refusals.append(error)
    if not refusals:
        missing = key_missing(evidence.report)
        missing.verified = tuple(stages)
        raise missing
    refusal = explained(refusals[0], evidence.report, pool)
    if len(refusals) > 1:  # at another time another certificate comes first
        refusal.holding(now_ms, now_ms)
    raise refusal


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Steps 3 to 8 with one path of certificates."""

    evidence: SnpEvidence
    chosen: bytes
    crls: tuple[Crl, ...]
    delivered_crls: tuple[Crl, ...]
    roots: tuple[Root, ...]
    now_ms: int
    chains_seen: PathCache | None

    def verify(self, certificates: Sequence[Certificate], span: Span) -> VerifiedSnpReport:
        """The claims, if all steps hold; `span` narrows to where they do."""
        stages = ["format"]
        report, now_ms = self.evidence.report, self.now_ms
        try:
            # (3)
            if self.chains_seen is None:
                path = paths.verify_path(certificates, self.roots, amd.EK_PROFILE)
            else:
                path = self.chains_seen.verify(certificates, self.roots, amd.EK_PROFILE)
            # (4)
            key = amd.endorsement_key(path)
            check_signing_key(report, key)
            stages.append("ek_chain")
            # (5)
            check_signature(self.evidence, path.leaf)
            stages.append("signatures")
            # (6)
            window = amd.check_revocation(path, self.crls, self.delivered_crls, now_ms, span)
            if window is not None:
                stages.append("collateral")
            # (7)
            check_tcb(report, key)
            check_tcb_order(report, key.product)
            check_firmware_order(report)
            check_chip(report, key)
            check_cpu(report, key.product)
            stages.append("tcb")
            # (8)
            paths.check_path_validity(path, now_ms, amd.EK_PROFILE)
        except VerificationError as error:
            error.verified = tuple(stages)
            raise
        span.narrow(path.valid_from_ms, path.expires_ms, now_ms)
        return _claims(self.evidence, self.chosen, key, window, span)


def check_algorithm(report: SnpReport) -> None:
    """ECDSA P-384 with SHA-384. `SnpAlgorithmUnsupported`."""
    if report.signature_algorithm != ECDSA_P384_SHA384:
        raise SnpAlgorithmUnsupported(f"algorithm {report.signature_algorithm}", field="signature_algorithm")


def check_signed(report: SnpReport) -> None:
    """SIGNING_KEY names a key, and the host does not keep the VCEK from signing. `SnpUnsigned`, `SnpSigningKey`."""
    if report.signing_key == NO_KEY or (report.signing_key == VCEK_SIGNED and report.mask_chip_key):
        raise SnpUnsigned("the report says that no key signed it", field="key_info")
    if report.signing_key not in _KEY_TYPES:
        raise SnpSigningKey(f"SIGNING_KEY {report.signing_key} is reserved", field="key_info")


def check_runtime_data(evidence: SnpEvidence) -> None:
    """REPORT_DATA is the digest of the blob's runtime data, all 64 bytes. `HclBinding`."""
    blob = evidence.hcl
    if blob is not None and not hmac.compare_digest(evidence.report.report_data, blob.runtime_digest()):
        raise HclBinding("REPORT_DATA is not the digest of the runtime data", field="runtime_data")


def chosen_data(evidence: SnpEvidence) -> bytes:
    """The 64 bytes that the guest chose: REPORT_DATA, in Azure's blob `user-data` of the runtime data.

    A blob without user-data says nothing that the guest chose; REPORT_DATA stands for it then. `HclMalformed`.
    """
    user_data = None if evidence.hcl is None else evidence.hcl.user_data()
    return evidence.report.report_data if user_data is None else user_data


def check_report_data(chosen: bytes, expected: bytes | None) -> None:
    """All 64 bytes that the guest chose are the expected ones. `ReportDataMismatch`."""
    if expected is not None and not hmac.compare_digest(chosen, expected):
        raise ReportDataMismatch("the report was made for something else", field="report_data")


def check_signing_key(report: SnpReport, key: EndorsementKey) -> None:
    """The certificate is of the kind of key that signed. `SnpSigningKey`."""
    if _KEY_TYPES.get(report.signing_key) != key.key_type:
        raise SnpSigningKey(
            f"SIGNING_KEY {report.signing_key}, and the certificate of a {key.key_type}", field="key_info"
        )


def check_signature(evidence: SnpEvidence, leaf: Certificate) -> None:
    """The endorsement key's signature over the first 672 bytes; r and s are little-endian there. `SnpSignature`."""
    if not verify_raw_ecdsa(leaf.public_key, "sha384", evidence.raw[:SIGNED_BYTES], evidence.report.signature):
        raise SnpSignature("the endorsement key did not sign the report", field="signature")


def check_tcb(report: SnpReport, key: EndorsementKey) -> None:
    """The key is that of REPORTED_TCB: every patch level equal, none merely enough. `SnpTcbMismatch`.

    The chip derives its VCEK from the TCB; a key of another one says nothing of this.
    """
    reported = TcbVersion.of(report.reported_tcb, key.product)
    if reported != key.extensions.tcb:
        raise SnpTcbMismatch(f"REPORTED_TCB {reported}; the key's {key.extensions.tcb}", field="reported_tcb")


def check_tcb_order(report: SnpReport, product: str) -> None:
    """REPORTED <= COMMITTED <= CURRENT in every component. `SnpTcbOrder`."""
    if report.reported_tcb == report.committed_tcb == report.current_tcb:
        return
    reported, committed, current = (
        TcbVersion.of(number, product) for number in (report.reported_tcb, report.committed_tcb, report.current_tcb)
    )
    for lower, upper, field in ((committed, reported, "committed_tcb"), (current, committed, "current_tcb")):
        short = lower.below(upper)
        if short:
            raise SnpTcbOrder(f"{field} is below what it must reach in {', '.join(short)}", field=field)


def check_firmware_order(report: SnpReport) -> None:
    """The committed firmware is no later than the one that runs. `SnpTcbOrder`."""
    if report.committed_version[::-1] > report.current_version[::-1]:
        raise SnpTcbOrder("the committed firmware is later than the one that runs", field="current_version")


def check_chip(report: SnpReport, key: EndorsementKey) -> None:
    """CHIP_ID is the VCEK's HWID, for Turin with zeros behind it. `SnpChipIdMasked`, `SnpChipId`.

    A VLEK is no chip's: such reports pass with any CHIP_ID, zeros included.
    """
    hwid = key.extensions.hwid
    if hwid is None:
        return
    if not any(report.chip_id):
        raise SnpChipIdMasked("CHIP_ID is masked: nothing ties the report to the VCEK's chip", field="chip_id")
    if report.chip_id != hwid.ljust(len(report.chip_id), b"\x00"):
        raise SnpChipId("the VCEK is another chip's", field="chip_id")


def check_cpu(report: SnpReport, product: str) -> None:
    """The CPU that the report names is of the chain's product line; version 2 names none. `SnpProduct`."""
    if report.cpuid is not None and product_of_cpu(*report.cpuid[:2]) != product:
        family, model, _ = report.cpuid
        raise SnpProduct(f"CPU family {family:#x} model {model:#x} in a chain of {product}", field="cpuid")


def _claims(
    evidence: SnpEvidence, chosen: bytes, key: EndorsementKey, window: CollateralWindow | None, span: Span
) -> VerifiedSnpReport:
    report, path = evidence.report, key.path
    return VerifiedSnpReport(
        tee="snp",
        quote_version=report.version,
        report=report,
        debug=GuestPolicy(report.policy).debug,
        report_data=chosen,
        product=key.product,
        key_type=key.key_type,
        hwid=key.extensions.hwid,
        csp_id=key.extensions.csp_id,
        ek_product_name=key.extensions.product_name,
        ek_serial_hex=f"{path.leaf.serial_number:x}",
        ek_issuer=path.certificates[1].common_name,
        root_label=path.root.label,
        simulated=path.root.simulated,
        revocation=UNCHECKED if window is None else CHECKED,
        windows=() if window is None else (window,),
        runtime_data=None if evidence.hcl is None else evidence.hcl.runtime_data,
        padding=evidence.padding,
        valid_from_ms=span.from_ms,
        expires_ms=span.until_ms,
    )


_BYTES = (
    "measurement", "host_data", "id_key_digest", "author_key_digest", "family_id", "image_id", "report_id",
    "report_id_ma", "chip_id",
)  # fmt: skip
_NUMBERS = {
    "policy": 8, "platform_info": 8, "reported_tcb": 8, "committed_tcb": 8, "current_tcb": 8, "launch_tcb": 8,
    "guest_svn": 4, "vmpl": 4, "launch_mitigations": 8, "current_mitigations": 8,
}  # fmt: skip
"""Numbers by their bytes in the report."""


def _registers(claims: VerifiedSnpReport) -> dict[str, bytes]:
    report = claims.report
    found: dict[str, bytes] = {name: getattr(report, name) for name in _BYTES}
    for name, size in _NUMBERS.items():
        number: int | None = getattr(report, name)
        if number is not None:
            found[name] = number.to_bytes(size, "little")
    found |= {"product": claims.product.encode(), "key_type": claims.key_type.encode()}
    if claims.csp_id is not None:
        found["csp_id"] = claims.csp_id.encode()
    return found
