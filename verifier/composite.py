"""Verify all evidence of one host together: its CPU, its GPUs and switches, its SPDM devices, under one challenge.

The steps, in order; the same numbers stand at the code:

 1. The items are of known kinds, one CPU at most, one report and chain for each device (`verifier.evidence`).
 2. The CPU's evidence verifies; its report data is what the caller expects, where it expects something.
 3. No leaf key stands twice, as the evidence presents them (`verifier.claimed`).
 4. Each device's evidence verifies, and carries the nonces that this report data demands of it (`verifier.nonces`),
    or the one nonce that the caller issued to all of them.
 5. No device stands twice, under whatever subject or kind of evidence; GPUs and switches name each other.

A caller who knows which CPU and which devices to expect says so in between (`Admission`), before the costlier part.

Which devices the host should have, what they may run and what all this is worth is policy
(`verifier.policy.devices`). Whatever is sent is verified: there is no way to have a device passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from schemas.records import EvidenceItem
from verifier.claimed import ClaimedDevice, chain_blocks, claimed_device
from verifier.claims import CpuEvidence, VerifiedDevice
from verifier.errors import DeviceDuplicate, NonceMismatch, QuoteVersionUnsupported, VerificationError
from verifier.evidence import DCAP_KINDS, CpuItems, DeviceItems, SortedEvidence, sort_evidence
from verifier.formats.dcap import VerifiedQuote, verify_quote
from verifier.formats.nvidia import VerifiedNvidiaReport, verify_nvidia_report
from verifier.formats.rim_compare import compare
from verifier.formats.snp import VerifiedSnpReport, verify_snp_report
from verifier.formats.snp_evidence import read_endorsements
from verifier.formats.spdm import VerifiedSpdm, verify_spdm_transcript
from verifier.formats.spdm_reading import read_transcript
from verifier.nonces import CHALLENGE_INDEX, MEASUREMENTS_INDEX, NVIDIA, SPDM, device_nonce, gpu_identities_digest
from verifier.policy.nvidia import check_devices
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.path import PathCache
from verifier.trust.pck_chain import ChainCache
from verifier.trust.roots import Root, TrustAnchor
from verifier.trust.selection import Span
from verifier.trust.store import Collateral
from verifier.vendor_collateral import RimShelf, nvidia_answers, nvidia_lists, snp_endorsements

RIM = "rim"
"""Under this name, beside those of the TEEs, "nvidia" and "spdm", roots of reference values are given."""

DERIVED, GIVEN, UNCHECKED = "derived", "given", "unchecked"
"""Where the nonces of devices came from: the report data, the caller, nowhere."""

_SIGNED = "signatures"
"""The last stage of each verification that time and collateral have no part in."""


@dataclass(slots=True)
class Memory:
    """What verification remembers below the verdict: chains and manifests, none of which depends on the time."""

    pck_chains: ChainCache = field(default_factory=ChainCache)
    paths: PathCache = field(default_factory=PathCache)
    rims: RimShelf = field(default_factory=RimShelf)


class Admission(Protocol):
    """What a caller demands of a host while it is verified: it refuses before the next, costlier part is."""

    def cpu(self, cpu: CpuEvidence) -> tuple[int, int]:
        """Between which times (UTC milliseconds, inclusive) this CPU is admitted, now among them; raises if not."""

    def device(self, claimed: ClaimedDevice) -> None:
        """Raises for a device whose evidence need not be verified. Nothing of `claimed` is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedComposite:
    """Evidence of one host that verified, all of it. Only `verify_composite` makes one.

    `cpu` is None where no CPU quote was given. `nonces` says what devices' nonces were compared with: "derived" (from
    report data), "given" (the caller's one nonce) or "unchecked". Times are UTC milliseconds, inclusive: for every
    `now` between them the same items, roots and collateral verify to these same claims.
    """

    cpu: CpuEvidence | None
    devices: tuple[VerifiedDevice, ...]
    nonces: str
    valid_from_ms: int
    expires_ms: int

    @property
    def tied(self) -> bool:
        """Whether the devices' nonces derive from the report data of the CPU that stands beside them."""
        return self.cpu is not None and self.nonces == DERIVED

    @property
    def nvidia(self) -> tuple[VerifiedNvidiaReport, ...]:
        """Reports of GPUs and switches."""
        return tuple(one.evidence for one in self.devices if isinstance(one.evidence, VerifiedNvidiaReport))

    @property
    def spdm(self) -> tuple[VerifiedSpdm, ...]:
        """Transcripts of SPDM devices."""
        return tuple(one.evidence for one in self.devices if isinstance(one.evidence, VerifiedSpdm))

    @property
    def identities_digest(self) -> bytes | None:
        """What a binding must say of these devices (32 bytes), None where there are none."""
        return gpu_identities_digest(one.key_digest for one in self.devices) if self.devices else None


def verify_composite(
    *,
    items: Sequence[EvidenceItem] | SortedEvidence,
    collateral: Collateral | None,
    trust_roots: Mapping[str, Sequence[Root]],
    now_ms: int,
    report_data: bytes | None = None,
    nonce: bytes | None = None,
    memory: Memory | None = None,
    admission: Admission | None = None,
) -> VerifiedComposite:
    """Verify all `items` (sorted or not) at `now_ms` (UTC milliseconds) against `collateral` and pinned roots.

    `trust_roots` are given by TEE ("sgx", "tdx", "snp") and by "nvidia", "rim", "spdm". `report_data` (64
    bytes) is a demand on the CPU's evidence; devices' nonces derive from it, or from the report data that the CPU's
    evidence turns out to have. `nonce` (32 bytes), where given, is what every device must carry instead. `memory`
    remembers what time cannot change, `admission` may refuse in between. Raises a subclass of `VerificationError` at
    the first step that fails, and nothing else; in the field of a device's refusal its subject stands first, and its
    `verified` names what held: "format", "cpu"; the last, "devices", has nothing behind it.
    """
    done: list[str] = []
    verifier = _Verifier(collateral, trust_roots, now_ms, Memory() if memory is None else memory)
    span = verifier.span
    try:
        # (1)
        evidence = items if isinstance(items, SortedEvidence) else sort_evidence(items)
        done.append("format")
        # (2)
        cpu = None if evidence.cpu is None else verifier.cpu(evidence.cpu, report_data)
        seed = report_data if report_data is not None or cpu is None else cpu.report_data
        done.append("cpu")
        if admission is not None and cpu is not None:
            span.narrow(*admission.cpu(cpu), now_ms)
        # (3)
        check_claimed(evidence.devices, admission)
        # (4)
        devices = tuple(verifier.device(one, seed, nonce) for one in evidence.devices)
        # (5)
        check_distinct(devices)
        check_devices([one.evidence for one in devices if isinstance(one.evidence, VerifiedNvidiaReport)])
    except VerificationError as error:
        error.verified = tuple(done)
        raise _within(error, span, now_ms) if len(done) > 1 else error from None
    source = GIVEN if nonce is not None else DERIVED if seed is not None else UNCHECKED
    return VerifiedComposite(
        cpu=cpu, devices=devices, nonces=source, valid_from_ms=span.from_ms, expires_ms=span.until_ms
    )


class _Verifier:
    """Verifies the parts of one composite; `span` is the time in which what it has said so far is certain."""

    def __init__(
        self, collateral: Collateral | None, trust_roots: Mapping[str, Sequence[Root]], now_ms: int, memory: Memory
    ) -> None:
        self.collateral, self.trust_roots, self.now_ms, self.memory = collateral, trust_roots, now_ms, memory
        self.span = Span()

    def roots(self, tee: str) -> Sequence[Root]:
        """The roots for a kind of evidence; none where the caller named none, which refuses."""
        return self.trust_roots.get(tee, ())

    def cpu(self, items: CpuItems, report_data: bytes | None) -> CpuEvidence:
        """Step 2."""
        cpu = self._snp(items, report_data) if items.kind not in DCAP_KINDS else self._dcap(items, report_data)
        self.span.narrow(cpu.valid_from_ms, cpu.expires_ms, self.now_ms)
        return cpu

    def _dcap(self, items: CpuItems, report_data: bytes | None) -> VerifiedQuote:
        tee, version = DCAP_KINDS[items.kind]
        quote = verify_quote(
            quote=items.data,
            collateral=self.collateral,
            trust_roots=[root for root in self.roots(tee) if isinstance(root, TrustAnchor)],
            now_ms=self.now_ms,
            report_data=report_data,
            tee=tee,
            chains_seen=self.memory.pck_chains,
        )
        try:
            check_version(quote, version)
        except VerificationError as error:
            # At another time the same evidence might fail earlier, for its validity.
            raise error.holding(quote.valid_from_ms, quote.expires_ms) from None
        return quote

    def _snp(self, items: CpuItems, report_data: bytes | None) -> VerifiedSnpReport:
        held = self.collateral
        delivered, lists = ((), ()) if items.certificates is None else read_endorsements(items.certificates)
        try:
            return verify_snp_report(
                report=items.data,
                endorsements=snp_endorsements(items.data, delivered, held),
                crls=() if held is None else [one.crl for one in held.crls],
                delivered_crls=lists,
                trust_roots=self.roots("snp"),
                now_ms=self.now_ms,
                report_data=report_data,
                chains_seen=self.memory.paths,
            )
        except VerificationError as error:
            raise _dated(error, self.now_ms) from None

    def device(self, items: DeviceItems, seed: bytes | None, nonce: bytes | None) -> VerifiedDevice:
        """Step 4."""
        try:
            nonces = nonces_of(items, seed, nonce)
            found = self._nvidia(items, nonces) if items.kind == NVIDIA else self._spdm(items, nonces)
        except VerificationError as error:
            error.field = items.subject if error.field is None else f"{items.subject}.{error.field}"
            raise _dated(error, self.now_ms) from None
        fresh = found.fresh if isinstance(found, VerifiedSpdm) else bool(nonces)
        return VerifiedDevice(kind=items.kind, subject=items.subject, evidence=found, fresh=fresh)

    def _nvidia(self, items: DeviceItems, nonces: tuple[bytes, ...]) -> VerifiedNvidiaReport:
        chain = certificates_of(items.certificates or b"")
        found = verify_nvidia_report(
            report=items.data,
            certificates=chain,
            trust_roots=self.roots("nvidia"),
            now_ms=self.now_ms,
            nonce=nonces[0] if nonces else None,
            ocsp=nvidia_answers(chain, self.collateral, self.now_ms, self.span),
            crls=nvidia_lists(chain, self.collateral, self.now_ms, self.span),
            chains_seen=self.memory.paths,
        )
        # From here on a refusal is only right where the report itself would still verify.
        self.span.narrow(found.valid_from_ms, found.expires_ms, self.now_ms)
        return self._compared(found)

    def _compared(self, report: VerifiedNvidiaReport) -> VerifiedNvidiaReport:
        """The report, its measurements compared with what the set has about its own versions."""
        roots = self.roots(RIM)
        rims = self.memory.rims.fitting(report, self.collateral, roots, self.now_ms, self.span)
        if not rims:
            return report
        reference = compare(
            report.measurements,
            rims,
            driver_version=report.driver_version,
            vbios_version=report.vbios_version,
            nvdec0_disabled=bool(report.facts.nvdec0_disabled),
            product=report.chip.replace("_", ""),
            edition=report.kind.upper(),
        )
        return replace(report, reference=reference, rims=tuple(rims))

    def _spdm(self, items: DeviceItems, nonces: tuple[bytes, ...]) -> VerifiedSpdm:
        found = verify_spdm_transcript(
            messages=read_transcript(items.data),
            trust_roots=self.roots("spdm"),
            now_ms=self.now_ms,
            nonces=nonces,
            chains_seen=self.memory.paths,
        )
        self.span.narrow(found.valid_from_ms, found.expires_ms, self.now_ms)
        check_places(found, nonces)
        return found


def nonces_of(items: DeviceItems, seed: bytes | None, nonce: bytes | None) -> tuple[bytes, ...]:
    """The nonces a device's evidence must carry; none where nothing says what it was made for."""
    if nonce is not None:
        return (nonce,)
    if seed is None:
        return ()
    if items.kind == NVIDIA:
        return (device_nonce(seed, NVIDIA, items.subject),)
    return tuple(device_nonce(seed, SPDM, items.subject, index) for index in (CHALLENGE_INDEX, MEASUREMENTS_INDEX))


def check_places(transcript: VerifiedSpdm, nonces: Sequence[bytes]) -> None:
    """Every signed exchange of a session is asked for with its own nonce, and there is one of each. `NonceMismatch`.

    `nonces` are that of the challenge and that of the measurements, or one that the caller issued, which then stands
    with the last measurements; of none, nothing is demanded. A transcript may hold several signed answers, and none
    before 1.2 covers what came before it: an older one beside ours could say what was measured.
    """
    challenges, measurements = transcript.nonces("challenge"), transcript.nonces("measurements")
    if len(nonces) > 1 and challenges != (nonces[0],):
        raise NonceMismatch("not one CHALLENGE with the session's nonce for it", field="challenge.nonce")
    if len(nonces) > 1 and measurements != (nonces[1],):
        raise NonceMismatch(
            "not one signed GET_MEASUREMENTS with the session's nonce for it", field="measurements.nonce"
        )
    if len(nonces) == 1 and measurements[-1:] != (nonces[0],):
        raise NonceMismatch("the last measurements were asked for with another nonce", field="measurements.nonce")


def certificates_of(text: bytes) -> tuple[Certificate, ...]:
    """The certificates of a device's chain in PEM, in the order delivered. `CertChainInvalid`."""
    return tuple(parse_certificate(der) for der in chain_blocks(text))


def check_version(quote: VerifiedQuote, version: int) -> None:
    """The quote is of the version its evidence kind names. `QuoteVersionUnsupported`."""
    if quote.quote_version != version:
        raise QuoteVersionUnsupported(f"a quote of version {quote.quote_version}, labelled {version}", field="kind")


def check_claimed(devices: Sequence[DeviceItems], admission: Admission | None) -> None:
    """Step 3: one by one, so that strangers cost no more than the first of them. `DeviceDuplicate`, the admission's."""
    seen: list[ClaimedDevice] = []
    for items in devices:
        claimed = claimed_device(items)
        if claimed is None:
            continue
        seen.append(claimed)
        check_distinct(seen)
        if admission is not None:
            admission.device(claimed)


def check_distinct(devices: Sequence[VerifiedDevice | ClaimedDevice]) -> None:
    """No leaf key under two subjects, whatever kinds of evidence they are. `DeviceDuplicate`."""
    seen: dict[bytes, str] = {}
    for one in devices:
        if one.key_digest in seen:
            other = seen[one.key_digest]
            raise DeviceDuplicate(f"{one.subject} is the device that {other} is", field=f"{one.subject}.key_digest")
        seen[one.key_digest] = one.subject


def _dated(error: VerificationError, now_ms: int) -> VerificationError:
    """What refuses behind the signatures hangs on the time or on what the set has for it: certain for now only."""
    if _SIGNED in error.verified and error.holds_from_ms is None:
        error.holding(now_ms, now_ms)
    return error


def _within(error: VerificationError, span: Span, now_ms: int) -> VerificationError:
    """The refusal, certain only where everything before it is as it is now."""
    narrowed = Span()
    narrowed.narrow(span.from_ms, span.until_ms, now_ms)
    if error.holds_from_ms is not None and error.holds_until_ms is not None:
        narrowed.narrow(error.holds_from_ms, error.holds_until_ms, now_ms)
    return error.holding(narrowed.from_ms, narrowed.until_ms)
