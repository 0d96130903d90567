"""Verify an SPDM transcript: a device authenticated and measured itself (DMTF DSP0274 1.0 to 1.4; ATTESTATION.md §10).

The steps, in order; each needs all before it, the same numbers stand at the code:

 1. The messages are one connection, requests and responses in turn, every length consistent
    (`verifier.formats.spdm_transcript`); the algorithms are single ones, offered, and ones we verify.
 2. Something is signed, each time by the key of the slot's chain as it was read last, of the negotiated kind, over the
    transcript and under the context of its version.
 3. Slots, contexts, chain hashes and digests agree, and the root hash with the chain's first certificate.
 4. One key signed everything.
 5. No nonce stands twice, and each expected one is there.
 6. Measurement records are consistent, complete where all were asked for, and agree with the summary hash.
 7. The chain leads to a pinned root (`verifier.trust.path`).
 8. Every certificate of the chain is valid at `now`, on both sides.

Steps 1 to 7 do not depend on `now`. On 1.0 and 1.1 a signature of MEASUREMENTS does not cover the negotiation: without
a CHALLENGE the result says `vca_authenticated=False` and its grade is NONE. Revocation is not checked: SPDM has no
source of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verifier.abi.spdm import MeasurementBlock, Suite
from verifier.abi.spdm_chain import SlotChain, check_root_hash
from verifier.abi.spdm_signed import DeviceMode, device_mode_of
from verifier.errors import SpdmMalformed, SpdmSlot, SpdmUnsigned, SpdmVersionMismatch, VerificationError
from verifier.formats import spdm_checks as checks
from verifier.formats.spdm_checks import MeasurementSet
from verifier.formats.spdm_reading import read_transcript
from verifier.formats.spdm_transcript import Connection, SignedExchange, follow
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.path import PathCache, PathProfile, VerifiedPath, check_path_validity, verify_path
from verifier.trust.roots import Root

__all__ = ["GRADE_MEASURED", "GRADE_NONE", "SpdmExchange", "VerifiedSpdm", "read_transcript", "verify_spdm_transcript"]

GRADE_NONE, GRADE_MEASURED = "NONE", "SPDM_MEASURED"

_KEYS = frozenset({"secp256r1", "secp384r1", "secp521r1", "rsa2048", "rsa3072", "rsa4096"})
PROFILE = PathProfile(
    field="chain",
    lengths=range(2, 9),
    issuer_keys=_KEYS,
    leaf_keys=_KEYS,
    algorithms=frozenset(f"{scheme}-sha{bits}" for scheme in ("ecdsa", "rsa-pss", "rsa") for bits in (256, 384, 512)),
    # DMTF's sample roots have no KeyUsage, and their issuers and leaves a critical extended key usage: check_purposes.
    usage_required=False,
    known_critical=frozenset({checks.EXTENDED_KEY_USAGE}),
)
"""Chains of devices: root, issuers and leaf, any key SPDM negotiates that we verify."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpdmExchange:
    """A signed exchange that verified: `kind` "challenge" or "measurements", the slot, both nonces (32 bytes)."""

    kind: str
    slot: int
    nonce: bytes
    responder_nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSpdm:
    """The claims of a transcript that passed every step. Only `verify_spdm_transcript` makes one.

    `version` is "1.0" to "1.4"; `measurements` the last complete set of signed blocks (`complete`), else every signed
    one, and `measurement_nonces` the requester's nonces they are signed under; `summary` how CHALLENGE's measurement
    summary hash compares: "none", "match" or "not_compared". `key_digest` is the SHA-256 of the leaf's
    SubjectPublicKeyInfo, `chain_names` the common names root first, `passed_over` the requests that nobody read.
    `vca_authenticated` says whether a signature covers the negotiation. `lacking` says what is missing of a challenge
    and a complete set of measurements, both signed, under an authenticated negotiation; `stale` what of the challenges
    and of these measurements has no expected nonce. Both are empty where nothing is: then `grade` is "SPDM_MEASURED",
    else "NONE", and `grade_reason` says why. Times are UTC milliseconds, inclusive: for every `now` from
    `valid_from_ms` to `expires_ms` the same bytes, nonces and roots verify to these same claims.
    """

    version: str
    base_hash: str
    signature_algorithm: str
    measurement_hash: str | None
    slot: int
    exchanges: tuple[SpdmExchange, ...]
    challenged: bool
    vca_authenticated: bool
    measurements: tuple[MeasurementBlock, ...]
    measurement_nonces: tuple[bytes, ...]
    complete: bool
    summary: str
    device_mode: DeviceMode | None
    key_digest: bytes
    leaf_serial_hex: str
    chain_names: tuple[str, ...]
    root_label: str
    simulated: bool
    passed_over: tuple[str, ...]
    lacking: str
    stale: str
    revocation: str
    valid_from_ms: int
    expires_ms: int

    @property
    def fresh(self) -> bool:
        """Whether expected nonces tie every challenge and the measurements to now."""
        return not self.stale

    @property
    def grade(self) -> str:
        """What the transcript proves: "SPDM_MEASURED" or "NONE"."""
        return GRADE_NONE if self.lacking or self.stale else GRADE_MEASURED

    @property
    def grade_reason(self) -> str:
        """What the grade rests on, or what it lacks for more."""
        return self.lacking or self.stale or "challenged, and every measurement is signed"

    @property
    def events(self) -> tuple[tuple[str, str], ...]:
        """(kind, "ok") for each signature, in the order of the transcript."""
        return tuple((one.kind, "ok") for one in self.exchanges)

    @property
    def registers(self) -> dict[str, bytes]:
        """Measured values by the names a policy uses: block1 to block254."""
        return {f"block{block.index}": block.value for block in self.measurements}

    def nonces(self, kind: str) -> tuple[bytes, ...]:
        """The requester's nonces of signed exchanges of `kind`, in order."""
        return tuple(one.nonce for one in self.exchanges if one.kind == kind)


def verify_spdm_transcript(
    *,
    messages: Sequence[bytes],
    trust_roots: Sequence[Root],
    now_ms: int,
    nonces: Sequence[bytes] = (),
    chains_seen: PathCache | None = None,
) -> VerifiedSpdm:
    """Verify `messages`, requests and responses in turn, at `now_ms` (UTC milliseconds) against `trust_roots`.

    Each of `nonces` (32 bytes) must be the requester's nonce of a signed exchange; the result is `fresh` where they are
    those of every challenge and of the measurements. `chains_seen` remembers verified chains. Raises a subclass of
    `VerificationError` at the first step that fails, and nothing else; its `verified` names the stages that held, and
    its `events` say of each signature whether it holds.
    """
    done: list[str] = []
    connection = Connection()
    outcomes: list[_Outcome] = []
    try:
        # (1)
        suite = _followed(messages, connection, outcomes)
        done.append("format")
        # (2)
        checks.check_signed(connection.exchanges)
        leaves = [outcome.leaf() for outcome in outcomes]
        done.append("signatures")
        # (3)
        _check_agreement(connection, suite)
        # (4)
        checks.check_one_device(leaves)
        done.append("slot_chain")
        # (5)
        checks.check_nonces(connection.exchanges)
        checks.check_expected_nonces(connection.exchanges, nonces)
        done.append("nonces")
        # (6)
        found, summary = _measured(connection, suite, nonces)
        done.append("measurements")
        # (7)
        by_der = {leaf.der: leaf for leaf in leaves}
        paths = [_path(chain, by_der, trust_roots, chains_seen) for chain in _chains_of(connection)]
        done.append("device_chain")
        # (8)
        for path in paths:
            check_path_validity(path, now_ms, PROFILE)
    except VerificationError as error:
        error.verified = tuple(done)
        error.events = tuple((one.kind, one.result) for one in outcomes)
        raise
    return _result(connection, suite, found, summary, paths, nonces)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Whether one signature holds, judged even where something else is wrong."""

    kind: str
    result: str
    certificate: Certificate | None
    error: VerificationError | None

    def leaf(self) -> Certificate:
        """The certificate whose key signed, or the refusal."""
        if self.error is not None or self.certificate is None:
            raise self.error or SpdmSlot("no chain", field="chain")
        return self.certificate


def _followed(messages: Sequence[bytes], connection: Connection, outcomes: list[_Outcome]) -> Suite:
    """Step 1; `outcomes` are filled whatever happens."""
    try:
        follow(messages, connection)
    finally:
        if connection.suite is not None:
            leaves: dict[bytes, Certificate] = {}
            outcomes += [_judged(exchange, connection.suite, leaves) for exchange in connection.exchanges]
    for defect in connection.defects:
        if isinstance(defect, (SpdmMalformed, SpdmVersionMismatch)):
            raise defect
    if connection.suite is None:
        raise SpdmUnsigned("the connection ends before its algorithms are agreed", field="messages")
    return connection.suite


def _judged(exchange: SignedExchange, suite: Suite, leaves: dict[bytes, Certificate]) -> _Outcome:
    leaf, result = None, "ok"
    try:
        result = "BAD NoCertificate"
        leaf = _leaf_of(exchange, leaves)
        result = "BAD Key"
        checks.check_key(leaf, suite)
        result = "BAD InvalidSignature"
        checks.check_signature(exchange, leaf.public_key, suite)
    except VerificationError as error:
        return _Outcome(exchange.kind, result, None, error)
    return _Outcome(exchange.kind, "ok", leaf, None)


def _leaf_of(exchange: SignedExchange, leaves: dict[bytes, Certificate]) -> Certificate:
    """The leaf of the exchange's chain; `leaves` remembers those that were parsed, by their bytes."""
    if exchange.chain is None:
        raise exchange.broken or SpdmSlot(
            f"the chain of slot {exchange.request.slot} was not read before its key signed",
            field=f"{exchange.kind}.slot",
        )
    der = exchange.chain.certificates[-1]
    if der not in leaves:
        leaves[der] = parse_certificate(der)
    return leaves[der]


def _check_agreement(connection: Connection, suite: Suite) -> None:
    """Step 3: what the messages say about each other."""
    for defect in connection.defects:
        raise defect
    for _, chain in connection.chains:
        check_root_hash(chain, suite.base_hash)
    for exchange in connection.exchanges:
        checks.check_slot(exchange, suite)
        checks.check_chain_hash(exchange, suite)
        checks.check_context(exchange)


def _measured(connection: Connection, suite: Suite, nonces: Sequence[bytes]) -> tuple[MeasurementSet, str]:
    """Step 6."""
    read = checks.check_records(connection.exchanges, suite)
    found = checks.measured(read, nonces)
    return found, checks.summary_of(connection.exchanges, found, suite)


def _chains_of(connection: Connection) -> list[SlotChain]:
    """The chains that signatures rest on, each once."""
    return list({one.chain.raw: one.chain for one in connection.exchanges if one.chain is not None}.values())


def _path(
    chain: SlotChain, leaves: Mapping[bytes, Certificate], trust_roots: Sequence[Root], chains_seen: PathCache | None
) -> VerifiedPath:
    """Step 7, for one chain; `leaves` are those parsed before, by their bytes."""
    certificates = [parse_certificate(one) for one in chain.certificates[:-1]]
    certificates.append(leaves[chain.certificates[-1]])
    if chains_seen is None:
        path = verify_path(certificates, trust_roots, PROFILE)
    else:
        path = chains_seen.verify(certificates, trust_roots, PROFILE)
    checks.check_purposes(path.leaf)
    return path


def _lacking(connection: Connection, found: MeasurementSet, suite: Suite) -> str:
    """What signatures lack for a grade; empty if nothing."""
    kinds = {one.kind for one in connection.exchanges}
    version = f"{suite.version >> 4}.{suite.version & 15}"
    if "challenge" not in kinds and not any(one.covers_vca for one in connection.exchanges):
        return f"SPDM {version} without CHALLENGE: nothing signed covers the negotiation"
    if "measurements" not in kinds:
        return "no measurements are signed"
    if "challenge" not in kinds:
        return "the device was not challenged"
    if not found.complete:
        return "the signed measurements are not all the device has"
    return ""


def _result(
    connection: Connection,
    suite: Suite,
    found: MeasurementSet,
    summary: str,
    paths: Sequence[VerifiedPath],
    nonces: Sequence[bytes],
) -> VerifiedSpdm:
    path, last = paths[-1], connection.exchanges[-1]
    return VerifiedSpdm(
        version=f"{suite.version >> 4}.{suite.version & 15}",
        base_hash=suite.base_hash,
        signature_algorithm=suite.scheme.name,
        measurement_hash=suite.measurement_hash,
        slot=last.request.slot,
        exchanges=tuple(
            SpdmExchange(
                kind=one.kind, slot=one.request.slot, nonce=one.request.nonce, responder_nonce=one.response.nonce
            )
            for one in connection.exchanges
        ),
        challenged=any(one.kind == "challenge" for one in connection.exchanges),
        vca_authenticated=any(one.covers_vca for one in connection.exchanges),
        measurements=found.blocks,
        measurement_nonces=found.nonces,
        complete=found.complete,
        summary=summary,
        device_mode=device_mode_of(found.blocks),
        key_digest=hashlib.sha256(path.leaf.spki).digest(),
        leaf_serial_hex=f"{path.leaf.serial_number:x}",
        chain_names=tuple(one.common_name for one in path.certificates),
        root_label=path.root.label,
        simulated=any(one.root.simulated for one in paths),
        passed_over=tuple(connection.passed_over),
        lacking=_lacking(connection, found, suite),
        stale=checks.stale_part(connection.exchanges, found, nonces),
        revocation="unchecked",
        valid_from_ms=max(one.valid_from_ms for one in paths),
        expires_ms=min(one.expires_ms for one in paths),
    )
