"""The requester: GET_VERSION, GET_CAPABILITIES, NEGOTIATE_ALGORITHMS, GET_DIGESTS, GET_CERTIFICATE, CHALLENGE and a
signed GET_MEASUREMENTS over all indices, in this order, each once (DSP0274 1.0 to 1.4).

It records, and checks what it must to go on: that a response has the form its request asks for. It verifies no
signature and trusts no byte; `verifier.formats.spdm` does the one and gives grounds for the other. It offers no
capability of its own, so that a responder cannot ask it to authenticate itself, and it uses no chunks: every message
must fit into one of the transport's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from attester.spdm.errors import SpdmLimit, SpdmNotOffered, SpdmResponseInvalid
from attester.spdm.exchange import Exchange
from attester.spdm.limits import MAX_CHAIN_BYTES, MAX_CT_EXPONENT, Limits
from attester.spdm.recording import Recording
from attester.spdm.transport import Clock, Transport
from verifier.abi.spdm_algorithms import (
    DMTF_MEASUREMENTS,
    HASHES,
    OPAQUE_FORMAT_1,
    SCHEMES,
    Algorithms,
    NegotiateAlgorithms,
    Suite,
    agreed,
)
from verifier.abi.spdm_fields import (
    ALGORITHMS,
    CAPABILITIES,
    CERTIFICATE,
    CHALLENGE_AUTH,
    DIGESTS,
    MAX_SLOT,
    MEASUREMENTS,
    NONCE_BYTES,
    VERSION,
    VERSION_11,
    VERSION_12,
    VERSION_13,
    VERSIONS,
)
from verifier.abi.spdm_messages import (
    Capabilities,
    Certificate,
    Digests,
    GetCapabilities,
    GetCertificate,
    GetDigests,
    GetVersion,
    Version,
)
from verifier.abi.spdm_signed import (
    ALL_MEASUREMENTS,
    ALL_SUMMARY,
    Challenge,
    ChallengeAuth,
    GetMeasurements,
    Measurements,
    context_bytes,
    parse_record,
)

M = TypeVar("M")

DEFAULT_VERSIONS = (VERSION_11, VERSION_12, VERSION_13)
"""Versions spoken unless somebody names others; the highest that the device offers, too, is taken."""

MIN_TRANSFER_BYTES = 42
"""Smallest DataTransferSize of any device (DSP0274, MinDataTransferSize of 1.2)."""

_ALPHA = 0x0F
"""Bits of a version entry that mark a draft of the specification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to ask a device for. `nonces`: 32 bytes each, for CHALLENGE and for GET_MEASUREMENTS; never used before.

    `base_asym` and `base_hash` are bit masks of DSP0274 (verifier.abi.spdm_algorithms), all that we verify by default;
    `context` comes back in 1.3 and later. `ValueError` for what no device could answer.
    """

    nonces: tuple[bytes, bytes]
    slot: int = 0
    versions: Sequence[int] = DEFAULT_VERSIONS
    base_asym: int = sum(SCHEMES)
    base_hash: int = sum(HASHES)
    context: bytes = bytes(8)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        first, second = self.nonces
        if len(first) != NONCE_BYTES or len(second) != NONCE_BYTES or first == second:
            raise ValueError(f"two different nonces of {NONCE_BYTES} bytes")
        if not 0 <= self.slot <= MAX_SLOT:
            raise ValueError(f"slot 0 to {MAX_SLOT}")
        if not self.versions or not set(self.versions) <= set(VERSIONS):
            raise ValueError("versions of SPDM, as 0x12")


def record_evidence(transport: Transport, wish: Wish, clock: Clock | None = None) -> Recording:
    """Ask the device behind `transport` for everything `wish` names, and give the transcript.

    Raises what `Exchange.ask` raises, SpdmNotOffered where the device cannot give evidence, SpdmResponseInvalid and
    the verifier's SpdmError classes for a response that is malformed or answers something else. The transport stays
    open: whoever made it closes it.
    """
    return _Run(Exchange(transport, clock or Clock(), wish.limits), wish).record(transport.name)


class _Run:
    """One run: a method per message, in order."""

    def __init__(self, exchange: Exchange, wish: Wish) -> None:
        self._exchange = exchange
        self._wish = wish

    def record(self, transport: str) -> Recording:
        self._negotiate_version()
        self._learn_capabilities()
        suite = self._negotiate_algorithms()
        self._fetch_chain(suite)
        self._challenge(suite)
        self._measure(suite)
        return Recording(
            messages=tuple(self._exchange.messages),
            transport=transport,
            version=self._exchange.version,
            slot=self._wish.slot,
            nonces=self._wish.nonces,
            retries=self._exchange.retries,
        )

    def _negotiate_version(self) -> None:
        response = self._exchange.ask(GetVersion().encode(), VERSION, "GET_VERSION")
        entries = self._whole(Version.read(response), response).entries
        offered = {entry >> 8 for entry in entries if not entry & _ALPHA}
        common = offered & set(self._wish.versions)
        if not common:
            spoken, wanted = (", ".join(map(_version_text, sorted(one))) for one in (offered, set(self._wish.versions)))
            raise SpdmNotOffered(
                f"the device speaks {spoken or 'drafts only'}, asked for was {wanted}", field="version"
            )
        self._exchange.version = max(common)

    def _learn_capabilities(self) -> None:
        """What the device can, how long it takes (CTExponent) and what fits into its buffer (1.2 and later)."""
        exchange, limits = self._exchange, self._wish.limits
        request = GetCapabilities(version=exchange.version)
        if exchange.version >= VERSION_12:
            size = exchange.max_request
            request = GetCapabilities(version=exchange.version, data_transfer_size=size, max_message_size=size)
        response = exchange.ask(request.encode(), CAPABILITIES, "GET_CAPABILITIES")
        found = self._whole(Capabilities.read(response), response)
        needed = {
            "certificates": Capabilities.CERTIFICATES,
            "CHALLENGE": Capabilities.CHALLENGE,
            "signed measurements": Capabilities.SIGNED_MEASUREMENTS,
        }
        lacking = [name for name, bit in needed.items() if not found.flags & bit]
        if lacking:
            raise SpdmNotOffered(f"the device has no {', no '.join(lacking)}", field="CAPABILITIES.flags")
        if found.ct_exponent > MAX_CT_EXPONENT:
            raise SpdmLimit(f"a signature takes 2^{found.ct_exponent} µs", field="CAPABILITIES.ct_exponent")
        exchange.cryptographic_s = min(2**found.ct_exponent / 1e6, limits.total_s)
        if exchange.version >= VERSION_12:
            if found.data_transfer_size < MIN_TRANSFER_BYTES:
                raise SpdmResponseInvalid(
                    f"a buffer of {found.data_transfer_size} bytes; {MIN_TRANSFER_BYTES} is the least allowed",
                    field="CAPABILITIES.data_transfer_size",
                )
            exchange.max_request = min(exchange.max_request, found.data_transfer_size)

    def _negotiate_algorithms(self) -> Suite:
        exchange = self._exchange
        request = NegotiateAlgorithms(
            version=exchange.version,
            measurement_specification=DMTF_MEASUREMENTS,
            base_asym=self._wish.base_asym,
            base_hash=self._wish.base_hash,
            other_params=OPAQUE_FORMAT_1 if exchange.version >= VERSION_12 else 0,
        )
        response = exchange.ask(request.encode(), ALGORITHMS, "NEGOTIATE_ALGORITHMS")
        suite = agreed(request, self._whole(Algorithms.read(response), response))
        if suite.measurement_specification != DMTF_MEASUREMENTS:
            raise SpdmNotOffered("the device has no measurements in DMTF's format", field="ALGORITHMS")
        return suite

    def _fetch_chain(self, suite: Suite) -> None:
        """DIGESTS, for the transcript and for the slots there are, then the slot's chain in portions."""
        exchange, slot = self._exchange, self._wish.slot
        response = exchange.ask(GetDigests(version=exchange.version).encode(), DIGESTS, "GET_DIGESTS")
        slots = self._whole(Digests.read(response, suite), response).digests
        if slot not in slots:
            filled = ", ".join(map(str, sorted(slots)))
            raise SpdmNotOffered(f"slot {slot} has no certificate chain; {filled} have", field="slot")
        total = offset = 0
        for _ in range(self._wish.limits.portions):
            offset, remainder = self._fetch_portion(offset, total)
            total = offset + remainder
            if not remainder:
                return
        raise SpdmLimit(
            f"over {self._wish.limits.portions} portions of {total} bytes; {offset} have come", field="GET_CERTIFICATE"
        )

    def _fetch_portion(self, offset: int, total: int) -> tuple[int, int]:
        """(bytes had, bytes still to come) after this portion. `total` is what the first promised, 0 before it."""
        exchange, slot = self._exchange, self._wish.slot
        length = min(self._wish.limits.portion, total - offset if total else 0xFFFF)
        request = GetCertificate(version=exchange.version, slot=slot, offset=offset, length=length)
        response = exchange.ask(request.encode(), CERTIFICATE, "GET_CERTIFICATE")
        found = self._whole(Certificate.read(response), response)
        size = len(found.portion)
        if found.slot != slot:
            raise SpdmResponseInvalid(f"the chain of slot {found.slot}, not {slot}", field="CERTIFICATE.slot")
        if found.large:
            raise SpdmResponseInvalid("the large form, which nobody asked for", field="CERTIFICATE.param1")
        if not 0 < size <= length:
            raise SpdmResponseInvalid(f"{size} bytes, asked for 1 to {length}", field="CERTIFICATE.portion_length")
        promised = offset + size + found.remainder
        if total and promised != total:
            raise SpdmResponseInvalid(
                f"the chain now has {promised} bytes, before {total}", field="CERTIFICATE.remainder"
            )
        if promised > MAX_CHAIN_BYTES:
            raise SpdmLimit(f"a chain of {promised} bytes, at most {MAX_CHAIN_BYTES}", field="CERTIFICATE")
        return offset + size, found.remainder

    def _challenge(self, suite: Suite) -> None:
        request = Challenge(
            version=self._exchange.version,
            slot=self._wish.slot,
            nonce=self._wish.nonces[0],
            summary=ALL_SUMMARY,
            context=self._context(),
        )
        response = self._exchange.ask(request.encode(), CHALLENGE_AUTH, "CHALLENGE")
        found = self._whole(ChallengeAuth.read(response, suite, request), response)
        if found.attributes:
            raise SpdmResponseInvalid(
                f"attributes 0x{found.attributes:02X}: it asks this requester to authenticate itself, or for nothing "
                "that DSP0274 knows",
                field="CHALLENGE_AUTH.param1",
            )
        self._echoed("CHALLENGE_AUTH", found.slot, found.context)

    def _measure(self, suite: Suite) -> None:
        request = GetMeasurements(
            version=self._exchange.version,
            operation=ALL_MEASUREMENTS,
            signed=True,
            nonce=self._wish.nonces[1],
            slot=self._wish.slot if self._exchange.version >= VERSION_11 else 0,
            context=self._context(),
        )
        response = self._exchange.ask(request.encode(), MEASUREMENTS, "GET_MEASUREMENTS")
        found = self._whole(Measurements.read(response, suite, request), response)
        self._echoed("MEASUREMENTS", found.slot, found.context)
        if not parse_record(found.record, found.count, suite):
            raise SpdmNotOffered("the device gives no measurement", field="MEASUREMENTS.count")

    def _whole(self, read: tuple[M, int], response: bytes) -> M:
        """The message that was read, if it is all of the response but for the transport's zeros: those are dropped."""
        message, size = read
        if response[size:] != bytes(-size % self._exchange.alignment):
            raise SpdmResponseInvalid(f"{len(response) - size} bytes after a message of {size}", field="message.length")
        self._exchange.messages[-1] = response[:size]
        return message

    def _context(self) -> bytes:
        return self._wish.context[: context_bytes(self._exchange.version)]

    def _echoed(self, name: str, slot: int, context: bytes) -> None:
        if slot != self._wish.slot and not (name == "MEASUREMENTS" and self._exchange.version < VERSION_11):
            raise SpdmResponseInvalid(f"answered for slot {slot}, not {self._wish.slot}", field=f"{name}.slot")
        if self._exchange.version >= VERSION_13 and context != self._context():
            raise SpdmResponseInvalid("another requester context came back", field=f"{name}.context")


def _version_text(version: int) -> str:
    return f"{version >> 4}.{version & 15}"
