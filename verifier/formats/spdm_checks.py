"""What a signed SPDM exchange must satisfy, one function per step (`verifier.formats.spdm` puts them in order)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec

from verifier.abi import der
from verifier.abi.der import DerError
from verifier.abi.spdm import Challenge, ChallengeAuth, MeasurementBlock, Measurements, Suite, parse_record
from verifier.abi.spdm_fields import VERSION_11, VERSION_12
from verifier.abi.spdm_signed import (
    ALL_MEASUREMENTS,
    ALL_SUMMARY,
    CONTENT_CHANGED,
    COUNT_ONLY,
    NO_SUMMARY,
    RAW_BIT_STREAM_REQUESTED,
    GetMeasurements,
)
from verifier.errors import (
    CertConstraint,
    NonceMismatch,
    NonceReused,
    SpdmChain,
    SpdmContext,
    SpdmKey,
    SpdmMeasurements,
    SpdmSignature,
    SpdmSlot,
    SpdmSummary,
    SpdmUnsigned,
)
from verifier.formats.spdm_transcript import SignedExchange
from verifier.signature import PublicKey, verify_raw_ecdsa, verify_signed
from verifier.trust.certificate import Certificate, key_kind

CONTEXTS = {"challenge": b"responder-challenge_auth signing", "measurements": b"responder-measurements signing"}
"""What a responder signs from 1.2 on, by kind of exchange."""

PREFIX_BYTES, COMBINED_BYTES = 64, 100

EXTENDED_KEY_USAGE = "2.5.29.37"
RESPONDER_AUTHENTICATION = bytes.fromhex("06 0a 2b 06 01 04 01 83 1c 82 12 03".replace(" ", ""))
REQUESTER_AUTHENTICATION = bytes.fromhex("06 0a 2b 06 01 04 01 83 1c 82 12 04".replace(" ", ""))
"""DMTF's extended key usages, DER: 1.3.6.1.4.1.412.274.3 and .4."""

_MAX_PURPOSES = 32


@dataclass(frozen=True, slots=True)
class SignedBlocks:
    """Blocks of one response, what they answer, and the requester's nonce under which they are signed.

    `total` is how many blocks the device says it has, where the request asked for that.
    """

    nonce: bytes
    request: GetMeasurements
    blocks: tuple[MeasurementBlock, ...]
    total: int | None


@dataclass(frozen=True, slots=True)
class MeasurementSet:
    """Blocks that signatures cover, in order of their index; `complete` where they are all the device has.

    `nonces` are the requester's of the exchanges they come from.
    """

    blocks: tuple[MeasurementBlock, ...]
    complete: bool
    raw_requested: bool
    nonces: tuple[bytes, ...]


def signing_input(kind: str, version: int, base_hash: str, transcript: bytes) -> bytes:
    """What the signature algorithm is applied to, and hashes: the transcript up to 1.1; from 1.2 on 100 bytes of
    prefix and context, then the transcript's hash (DSP0274 §15)."""
    if version < VERSION_12:
        return transcript
    prefix = f"dmtf-spdm-v{version >> 4}.{version & 15}.*".encode() * 4
    context = CONTEXTS[kind].rjust(COMBINED_BYTES - PREFIX_BYTES, b"\0")
    return prefix + context + hashlib.new(base_hash, transcript).digest()


def check_key(leaf: Certificate, suite: Suite) -> None:
    """The leaf's key is of the negotiated kind and size. `SpdmKey`."""
    scheme, key = suite.scheme, leaf.public_key
    is_ec = isinstance(key, ec.EllipticCurvePublicKey)
    if is_ec != (scheme.kind == "ecdsa") or key.key_size != scheme.key_bits:
        raise SpdmKey(f"a key {key_kind(leaf)} where {scheme.name} was negotiated", field="chain.leaf")
    if is_ec and key_kind(leaf) not in EC_CURVES:
        raise SpdmKey(f"a key on {key_kind(leaf)}", field="chain.leaf")


EC_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


def check_signature(exchange: SignedExchange, key: PublicKey, suite: Suite) -> None:
    """The leaf's key signed the transcript under this version's context. `SpdmSignature`."""
    message = signing_input(exchange.kind, suite.version, suite.base_hash, exchange.signed)
    if not _verifies(key, suite, message, exchange.response.signature):
        raise SpdmSignature(
            f"the device's key did not sign this {exchange.kind} transcript", field=f"{exchange.kind}.signature"
        )


def _verifies(key: PublicKey, suite: Suite, message: bytes, signature: bytes) -> bool:
    if suite.scheme.kind == "ecdsa":
        return verify_raw_ecdsa(key, suite.base_hash, message, signature)
    return verify_signed(key, f"{suite.scheme.kind}-{suite.base_hash}", message, signature)


def check_slot(exchange: SignedExchange, suite: Suite) -> None:
    """The answer is of the slot asked for, and the responder says that it has a chain there. `SpdmSlot`.

    MEASUREMENTS of 1.0 do not name a slot.
    """
    slot, response = exchange.request.slot, exchange.response
    if isinstance(response, Measurements) and suite.version < VERSION_11:
        return
    if response.slot != slot:
        raise SpdmSlot(f"slot {response.slot} answers for slot {slot}", field=f"{exchange.kind}.slot")
    if isinstance(response, ChallengeAuth) and not response.slot_mask >> slot & 1:
        raise SpdmSlot(f"slot {slot} is not among those that have a chain", field="challenge.slot_mask")


def check_chain_hash(exchange: SignedExchange, suite: Suite) -> None:
    """CHALLENGE_AUTH names the chain that was read. `SpdmChain`."""
    response, chain = exchange.response, exchange.chain
    if not isinstance(response, ChallengeAuth) or chain is None:
        return
    if not hmac.compare_digest(response.chain_hash, chain.digest(suite.base_hash)):
        raise SpdmChain("CertChainHash is not that of the chain that was read", field="challenge.chain_hash")


def check_context(exchange: SignedExchange) -> None:
    """The requester's context came back (1.3 and later). `SpdmContext`."""
    for request, response in ((exchange.request, exchange.response), *exchange.read):
        if response.context != request.context:
            raise SpdmContext("the requester's context came back changed", field=f"{exchange.kind}.context")


def check_nonces(exchanges: Sequence[SignedExchange]) -> None:
    """No nonce of either side stands twice. `NonceReused`."""
    for side in ("request", "response"):
        nonces = [getattr(one, side).nonce for one in exchanges]
        if len(set(nonces)) != len(nonces):
            raise NonceReused(f"a nonce of the {side}s stands twice", field=f"{side}.nonce")


def check_expected_nonces(exchanges: Sequence[SignedExchange], expected: Sequence[bytes]) -> None:
    """Each expected nonce is the requester's in a signed exchange of its own. `NonceMismatch`."""
    found = {one.request.nonce for one in exchanges}
    for nonce in expected:
        if nonce not in found:
            raise NonceMismatch("no signed exchange has the expected nonce", field="request.nonce")


def check_signed(exchanges: Sequence[SignedExchange]) -> None:
    """Something is signed. `SpdmUnsigned`."""
    if not exchanges:
        raise SpdmUnsigned("no response is signed", field="messages")


def check_one_device(leaves: Sequence[Certificate]) -> None:
    """One key signed everything: parts of two devices' transcripts are not one device's. `SpdmChain`."""
    if len({leaf.spki for leaf in leaves}) > 1:
        raise SpdmChain("several keys signed parts of this transcript", field="chain.leaf")


def check_purposes(leaf: Certificate) -> None:
    """A leaf that is for SPDM requesters only is no responder's (DSP0274, annex on certificates). `CertConstraint`."""
    held = leaf.extensions.get(EXTENDED_KEY_USAGE)
    if held is None:
        return
    try:
        at, end = der.span_of(held, 0, len(held), der.SEQUENCE, "extended key usage")
    except DerError as error:
        raise CertConstraint(f"extended key usage: {error}", field="chain.leaf") from None
    purposes = held[at:end]
    if REQUESTER_AUTHENTICATION in purposes and RESPONDER_AUTHENTICATION not in purposes:
        raise CertConstraint("the leaf is for SPDM requesters only", field="chain.leaf")


def check_answer(request: GetMeasurements, response: Measurements, total: int | None) -> None:
    """Blocks are those asked for: none for their number, one for an index, all of them for all. `SpdmMeasurements`."""
    count, asked = response.count, request.operation
    if asked == COUNT_ONLY and (count or response.record):
        raise SpdmMeasurements("blocks where their number was asked for", field="MEASUREMENTS.count")
    if asked not in (COUNT_ONLY, ALL_MEASUREMENTS) and count != 1:
        raise SpdmMeasurements(f"{count} blocks for index {asked}", field="MEASUREMENTS.count")
    if asked == ALL_MEASUREMENTS and (not count or (total is not None and count != total)):
        raise SpdmMeasurements(f"{count} blocks, the device said {total}", field="MEASUREMENTS.count")


def check_index(request: GetMeasurements, blocks: Sequence[MeasurementBlock]) -> None:
    """A single block has the index asked for. `SpdmMeasurements`."""
    for block in blocks:
        if request.operation not in (ALL_MEASUREMENTS, block.index):
            raise SpdmMeasurements(
                f"block {block.index} where {request.operation} was asked for", field="MEASUREMENTS.index"
            )


def check_unchanged(exchange: SignedExchange) -> None:
    """The responder saw no change while it was asked (1.2 and later). `SpdmMeasurements`."""
    response = exchange.response
    if isinstance(response, Measurements) and response.content_changed == CONTENT_CHANGED:
        raise SpdmMeasurements("measurements changed while they were read", field="MEASUREMENTS.content_changed")


def check_same_value(held: MeasurementBlock | None, block: MeasurementBlock) -> None:
    """A block that was read twice says the same. `SpdmMeasurements`.

    Its digest and the bit stream it stands for are two forms of it: their values are not compared.
    """
    if held is None or (held.kind == block.kind and (held.raw != block.raw or held.value == block.value)):
        return
    raise SpdmMeasurements(f"block {block.index} changed while it was read", field="MEASUREMENTS.value")


def check_total(held: int | None, total: int) -> None:
    """The device says the same number of blocks each time. `SpdmMeasurements`."""
    if held not in (None, total):
        raise SpdmMeasurements(f"{held} blocks, and then {total}", field="MEASUREMENTS.total")


def signed_total(exchanges: Sequence[SignedExchange]) -> int | None:
    """How many blocks the device says it has; None if it was not asked. `SpdmMeasurements` where it says two numbers.

    Only what a signature covers counts: anybody could put another number between the messages.
    """
    total = None
    for exchange in exchanges:
        for request, response in exchange.read:
            if request.operation == COUNT_ONLY:
                check_total(total, response.total)
                total = response.total
    return total


def check_records(exchanges: Sequence[SignedExchange], suite: Suite) -> list[SignedBlocks]:
    """Every record that a signature covers is consistent, and agrees with the others. `SpdmMeasurements`."""
    seen: dict[int, MeasurementBlock] = {}
    read = []
    total = signed_total(exchanges)
    for exchange in exchanges:
        check_unchanged(exchange)
        for request, response in exchange.read:
            check_answer(request, response, total)
            found = parse_record(response.record, response.count, suite)
            check_index(request, found)
            for block in found:
                check_same_value(seen.get(block.index), block)
                seen[block.index] = block
            stated = response.total if request.operation == COUNT_ONLY else None
            read.append(SignedBlocks(exchange.request.nonce, request, found, stated))
    return read


def measured(read: Sequence[SignedBlocks], expected: Sequence[bytes]) -> MeasurementSet:
    """The last complete set of signed blocks, else every one of them.

    A signed answer to "all" is complete by itself; blocks that were asked for one by one are, once there are as many as
    the device says it has. Where an exchange of measurements has an `expected` nonce, only those that do count, and
    numbers of blocks under such a nonce: an older exchange of the same device could be put beside them.
    """
    fresh = [one for one in read if one.nonce in expected] or read
    for one in reversed(fresh):
        if one.request.operation == ALL_MEASUREMENTS:
            return _set_of([one], complete=True)
    found = _set_of(fresh, complete=False)
    total = next((one.total for one in fresh if one.total is not None), None)
    return replace(found, complete=bool(found.blocks) and len(found.blocks) == total)


def _set_of(read: Sequence[SignedBlocks], *, complete: bool) -> MeasurementSet:
    blocks = {block.index: block for one in read for block in one.blocks}
    return MeasurementSet(
        blocks=tuple(blocks[index] for index in sorted(blocks)),
        complete=complete,
        raw_requested=any(one.request.other_attributes & RAW_BIT_STREAM_REQUESTED for one in read),
        nonces=tuple(dict.fromkeys(one.nonce for one in read)),
    )


def stale_part(exchanges: Sequence[SignedExchange], found: MeasurementSet, expected: Sequence[bytes]) -> str:
    """What may be of any age, in words; empty if nothing is.

    Every challenge has an `expected` nonce of the requester's, and so has everything that is reported as measured.
    """
    if not expected:
        return "no nonce was compared: the transcript may be of any age"
    if any(one.kind == "challenge" and one.request.nonce not in expected for one in exchanges):
        return "a challenge has no expected nonce: it may be of any age"
    if any(nonce not in expected for nonce in found.nonces):
        return "the measurements have no expected nonce: they may be of any age"
    return ""


def summary_of(exchanges: Sequence[SignedExchange], found: MeasurementSet, suite: Suite) -> str:
    """Compare CHALLENGE_AUTH's measurement summary hash with the blocks. `SpdmSummary` where it differs.

    "none" was asked for, or it is the "match" of all blocks; else "not_compared": the blocks are incomplete or were
    asked for as bit streams, or the summary is of the TCB's blocks, which only the device knows.
    """
    result = "none"
    for exchange in exchanges:
        request, response = exchange.request, exchange.response
        if not isinstance(request, Challenge) or not isinstance(response, ChallengeAuth):
            continue
        if request.summary == NO_SUMMARY:
            continue
        if request.summary != ALL_SUMMARY or not found.complete or found.raw_requested:
            result = "not_compared"
            continue
        check_summary(response.summary_hash, found.blocks, suite)
        result = "match"
    return result


def check_summary(summary: bytes, blocks: Sequence[MeasurementBlock], suite: Suite) -> None:
    """The hash of all blocks, in order of their index. `SpdmSummary`."""
    digest = hashlib.new(suite.base_hash, b"".join(block.encode() for block in blocks)).digest()
    if not hmac.compare_digest(summary, digest):
        raise SpdmSummary("the measurement summary is not that of the measurements", field="challenge.summary_hash")
