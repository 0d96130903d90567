"""Follow an SPDM connection message by message: what was negotiated, which chains were read, what signatures cover.

The transcripts (DSP0274 §10.6 to §10.11; ATTESTATION.md §10.1), as exact bytes of messages:

* A, "VCA": GET_VERSION, VERSION, GET_CAPABILITIES, CAPABILITIES, NEGOTIATE_ALGORITHMS, ALGORITHMS.
* B: the exchanges of DIGESTS and CERTIFICATE. GET_DIGESTS begins it anew, CHALLENGE_AUTH ends it, and so does
  GET_MEASUREMENTS as long as no CHALLENGE was answered.
* CHALLENGE_AUTH signs A ‖ B ‖ CHALLENGE ‖ CHALLENGE_AUTH without its signature.
* L: the exchanges of MEASUREMENTS. Any other request begins it anew, and so does a signed answer, or an ERROR in place
  of an answer. MEASUREMENTS signs L without the last signature, from 1.2 on A ‖ L.
* ERROR and the requests it answers are in none of them. ResponseNotReady is no answer: the one to RESPOND_IF_READY is.

Nothing is verified here. What contradicts itself without hindering anybody from reading on is kept in `defects`, so
that a verdict can say which signatures hold all the same; the caller refuses for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from verifier.abi.spdm import (
    Algorithms,
    Answered,
    Capabilities,
    Certificate,
    Challenge,
    ChallengeAuth,
    Digests,
    ErrorResponse,
    GetCapabilities,
    GetCertificate,
    GetDigests,
    GetMeasurements,
    GetVersion,
    Header,
    Measurements,
    NegotiateAlgorithms,
    RespondIfReady,
    Response,
    Suite,
    Version,
    agreed,
    parse_header,
    parse_request,
    parse_response,
)
from verifier.abi.spdm_chain import SlotChain, parse_chain
from verifier.abi.spdm_fields import VERSION_12
from verifier.abi.spdm_messages import ERROR_RESPONSE_NOT_READY
from verifier.errors import (
    SpdmChain,
    SpdmError,
    SpdmMalformed,
    SpdmSequence,
    SpdmSlot,
    SpdmTooLarge,
    SpdmVersionMismatch,
)
from verifier.limits import MAX_SPDM_EVENTS, MAX_SPDM_MESSAGES, MAX_SPDM_TRANSCRIPT_BYTES

PASSED_OVER = {
    0x87: "GET_ENDPOINT_INFO", 0xE2: "GET_SUPPORTED_EVENT_TYPES", 0xE4: "KEY_EXCHANGE", 0xE5: "FINISH",
    0xE6: "PSK_EXCHANGE", 0xE7: "PSK_FINISH", 0xEA: "GET_ENCAPSULATED_REQUEST", 0xEB: "DELIVER_ENCAPSULATED_RESPONSE",
    0xED: "GET_CSR", 0xEF: "GET_MEASUREMENT_EXTENSION_LOG", 0xFC: "GET_KEY_PAIR_INFO", 0xFE: "VENDOR_DEFINED_REQUEST",
}  # fmt: skip
"""Requests that change nothing we judge: their exchanges are named in the result and not read."""

_END_UNCHALLENGED = frozenset({0xE4, 0xE5, 0xE6, 0xE7, 0xEA, 0xEB, 0xEF})
"""Those of them that end B as GET_MEASUREMENTS does."""

_MAX_UNREAD_VERSION_BYTES = 1024
"""Of a VERSION that makes no sense: 255 entries take 516, and every signature covers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedExchange:
    """An exchange whose response is signed: `signed` are the bytes that are hashed, `chain` the slot's latest chain.

    `kind` is "challenge" or "measurements", `covers_vca` whether A is among the bytes, `read` the exchanges of
    measurements the signature covers, in order. Where there is no chain, `broken` may say what was wrong with it.
    """

    kind: str
    request: Challenge | GetMeasurements
    response: ChallengeAuth | Measurements
    signed: bytes
    chain: SlotChain | None
    broken: SpdmError | None
    covers_vca: bool
    read: tuple[tuple[GetMeasurements, Measurements], ...] = ()


@dataclass(slots=True, kw_only=True)
class Connection:
    """What following a transcript has found so far."""

    version: int = 0
    suite: Suite | None = None
    exchanges: list[SignedExchange] = field(default_factory=list)
    chains: list[tuple[int, SlotChain]] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    defects: list[SpdmError] = field(default_factory=list)


def follow(messages: Sequence[bytes], connection: Connection) -> None:
    """Follow `messages`, requests and responses in turn, and note in `connection` what they say.

    Raises a subclass of `SpdmError` where nothing after it can be read; `connection` keeps what came before.
    """
    check_size(messages)
    follower = _Follower(connection)
    for request, response in zip(messages[::2], messages[1::2], strict=False):
        follower.exchange(request, response)
    check_finished(messages, follower.pending is not None)


def check_size(messages: Sequence[bytes]) -> None:
    """Number and bytes of the messages. `SpdmTooLarge`."""
    if len(messages) > MAX_SPDM_MESSAGES:
        raise SpdmTooLarge(f"{len(messages)} messages, at most {MAX_SPDM_MESSAGES}", field="messages")
    size = sum(map(len, messages))
    if size > MAX_SPDM_TRANSCRIPT_BYTES:
        raise SpdmTooLarge(f"{size} bytes of messages, at most {MAX_SPDM_TRANSCRIPT_BYTES}", field="messages")


def check_finished(messages: Sequence[bytes], pending: bool) -> None:
    """The last request was answered. `SpdmSequence`."""
    if len(messages) % 2 or pending:
        raise SpdmSequence("the last request has no response", field="messages")


def check_direction(header: Header) -> None:
    """Requests and responses alternate. `SpdmSequence`."""
    if not header.is_request:
        raise SpdmSequence(f"response {header.code:#04x} where a request is due", field="message.code")


def check_version(found: int, version: int, offered: Sequence[int] | None) -> None:
    """Every message after VERSION has one version, which VERSION offered. `SpdmVersionMismatch`."""
    if found != version or (offered is not None and version not in offered):
        raise SpdmVersionMismatch(
            f"a message of version {found:#04x}, the connection has {version:#04x}", field="message.version"
        )


def check_order(request: Answered, negotiated: int) -> None:
    """Version, capabilities and algorithms once each, in this order, before anything else. `SpdmSequence`."""
    wanted = (GetVersion, GetCapabilities, NegotiateAlgorithms)
    if negotiated < len(wanted):
        if not isinstance(request, wanted[negotiated]):
            raise SpdmSequence(f"{type(request).__name__} before the connection is agreed", field="message.code")
    elif isinstance(request, wanted):
        raise SpdmSequence(f"{type(request).__name__}: the connection begins anew", field="message.code")


def check_retry(retry: RespondIfReady, code: int, token: int) -> None:
    """RESPOND_IF_READY is for the request that was not ready, with its token. `SpdmSequence`."""
    if (retry.code, retry.token) != (code, token):
        raise SpdmSequence("RESPOND_IF_READY for another request", field="RESPOND_IF_READY.token")


class _Follower:
    def __init__(self, connection: Connection) -> None:
        self.to = connection
        self.agreed = bytearray()
        self.offered: tuple[int, ...] | None = None
        self.negotiated = 0
        self.request_algorithms: NegotiateAlgorithms | None = None
        self.b = bytearray()
        self.l = bytearray()
        self.read: list[tuple[GetMeasurements, Measurements]] = []
        self.challenged = False
        self.digests: dict[int, bytes] = {}
        self.portions: dict[int, bytearray] = {}
        self.chains: dict[int, SlotChain] = {}
        self.broken: dict[int, SpdmError] = {}
        self.pending: tuple[Answered, bytes, int, int] | None = None

    def exchange(self, request_bytes: bytes, response_bytes: bytes) -> None:
        """One request and what answers it."""
        header = parse_header(request_bytes)
        check_direction(header)
        if header.code in PASSED_OVER:
            self.pass_over(request_bytes, response_bytes)
            return
        asked, raw = parse_request(request_bytes)
        request: Answered
        if isinstance(asked, RespondIfReady):
            request, raw = self.resumed(asked)
        else:
            request = asked
            self.begin(request)
        try:
            response, answer = parse_response(response_bytes, request, self.to.suite)
        except (SpdmMalformed, SpdmVersionMismatch) as error:
            if not isinstance(request, GetVersion) or len(response_bytes) > _MAX_UNREAD_VERSION_BYTES:
                raise
            # Later messages say which version they have: their signatures can be judged without this list.
            self.to.defects.append(error)
            self.agree(request, None, raw + response_bytes)
            return
        self.pending = None
        if isinstance(response, ErrorResponse):
            self.failed(request, raw, response)
        elif isinstance(response, (Version, Capabilities, Algorithms)):
            self.agree(request, response, raw + answer)
        elif isinstance(response, Digests):
            self.b += raw + answer
            self.digests = dict(response.digests)
        elif isinstance(request, GetCertificate) and isinstance(response, Certificate):
            self.b += raw + answer
            self.certificate(request, response)
        elif isinstance(request, Challenge) and isinstance(response, ChallengeAuth):
            self.challenge(request, response, raw, answer)
        elif isinstance(request, GetMeasurements) and isinstance(response, Measurements):
            self.measurements(request, response, raw, answer)

    def begin(self, request: Answered) -> None:
        """A new request: what it means for order, version and transcripts."""
        self.pending = None
        check_order(request, self.negotiated)
        if isinstance(request, GetCapabilities):
            self.to.version = request.version
        if not isinstance(request, GetVersion):
            check_version(request.version, self.to.version, self.offered)
        if not isinstance(request, GetMeasurements):
            self.forget_measurements()
        elif not self.challenged:
            self.b.clear()
        if isinstance(request, GetDigests):
            self.b.clear()

    def resumed(self, retry: RespondIfReady) -> tuple[Answered, bytes]:
        """The request that RESPOND_IF_READY stands for."""
        if self.pending is None:
            raise SpdmSequence("RESPOND_IF_READY without a request", field="message.code")
        request, raw, code, token = self.pending
        check_version(retry.version, self.to.version, self.offered)
        check_retry(retry, code, token)
        return request, raw

    def failed(self, request: Answered, raw: bytes, error: ErrorResponse) -> None:
        """ERROR in place of a response."""
        if not isinstance(request, GetVersion):
            check_version(error.version, self.to.version, None)
        if error.error == ERROR_RESPONSE_NOT_READY:
            if len(error.extended) != 4:
                raise SpdmMalformed("ResponseNotReady without its four bytes", field="ERROR.extended")
            self.pending = (request, raw, error.extended[1], error.extended[2])
            if error.extended[1] != raw[1]:
                raise SpdmSequence("ResponseNotReady for another request", field="ERROR.extended")
        elif isinstance(request, GetMeasurements):
            self.forget_measurements()

    def agree(self, request: Answered, response: Response | None, raw: bytes) -> None:
        """An exchange of A."""
        self.agreed += raw
        self.negotiated += 1
        if isinstance(response, Version):
            self.offered = response.offered
        elif isinstance(request, NegotiateAlgorithms) and isinstance(response, Algorithms):
            self.to.suite = agreed(request, response)

    def certificate(self, request: GetCertificate, response: Certificate) -> None:
        """A portion of a slot's chain; with its last byte the chain is complete."""
        slot = request.slot
        held = self.portions.setdefault(slot, bytearray())
        if request.offset == 0:
            held.clear()
        try:
            check_portion(request, response, len(held))
            held += response.portion
            if response.remainder:
                return
            self.complete(slot, bytes(held))
        except SpdmError as defect:
            self.to.defects.append(defect)
            self.broken[slot] = defect
            self.chains.pop(slot, None)
        del self.portions[slot]

    def complete(self, slot: int, raw: bytes) -> None:
        suite = self.to.suite
        if suite is None:  # ALGORITHMS came first: check_order
            return
        chain = parse_chain(raw, suite.base_hash)
        self.chains[slot] = chain
        self.broken.pop(slot, None)
        self.to.chains.append((slot, chain))
        try:
            check_digest(chain, slot, self.digests, suite)
        except SpdmError as defect:
            self.to.defects.append(defect)

    def challenge(self, request: Challenge, response: ChallengeAuth, raw: bytes, answer: bytes) -> None:
        signed = bytes(self.agreed + self.b) + raw + answer[: -len(response.signature)]
        self.event(
            SignedExchange(
                kind="challenge", request=request, response=response, signed=signed,
                chain=self.chains.get(request.slot), broken=self.broken.get(request.slot), covers_vca=True,
            )
        )  # fmt: skip
        self.b.clear()
        self.challenged = True

    def measurements(self, request: GetMeasurements, response: Measurements, raw: bytes, answer: bytes) -> None:
        self.read.append((request, response))
        self.l += raw + answer[: len(answer) - len(response.signature)]
        if not request.signed:
            return
        covers_vca = request.version >= VERSION_12
        self.event(
            SignedExchange(
                kind="measurements", request=request, response=response,
                signed=bytes(self.agreed + self.l) if covers_vca else bytes(self.l),
                chain=self.chains.get(request.slot), broken=self.broken.get(request.slot), covers_vca=covers_vca,
                read=tuple(self.read),
            )
        )  # fmt: skip
        self.forget_measurements()

    def event(self, exchange: SignedExchange) -> None:
        if len(self.to.exchanges) == MAX_SPDM_EVENTS:
            raise SpdmTooLarge(f"more than {MAX_SPDM_EVENTS} signed responses", field="messages")
        self.to.exchanges.append(exchange)

    def forget_measurements(self) -> None:
        self.l.clear()
        self.read.clear()

    def pass_over(self, request: bytes, response: bytes) -> None:
        """An exchange nobody reads here; it ends transcripts all the same."""
        header, answer = parse_header(request), parse_header(response)
        if self.negotiated < 3:
            raise SpdmSequence(f"{PASSED_OVER[header.code]} before the connection is agreed", field="message.code")
        check_version(header.version, self.to.version, self.offered)
        check_version(answer.version, self.to.version, None)
        if answer.code not in (header.code & 0x7F, 0x7F):
            raise SpdmSequence(f"response {answer.code:#04x} to {header.code:#04x}", field="message.code")
        self.pending = None
        self.forget_measurements()
        if header.code in _END_UNCHALLENGED and not self.challenged:
            self.b.clear()
        self.to.passed_over.append(PASSED_OVER[header.code])


def check_portion(request: GetCertificate, response: Certificate, held: int) -> None:
    """A portion is of the slot and form asked for, where the last one ended, and not longer than asked for.

    `SpdmSlot`, `SpdmChain`.
    """
    if response.slot != request.slot:
        raise SpdmSlot(f"a certificate of slot {response.slot} instead of {request.slot}", field="CERTIFICATE.slot")
    if response.large != request.large:
        raise SpdmChain("the large form and the ordinary one in an exchange", field="CERTIFICATE.param1")
    if request.offset != held:
        raise SpdmChain(f"a portion from {request.offset} on, {held} bytes were read", field="GET_CERTIFICATE.offset")
    if not response.portion or len(response.portion) > request.length:
        raise SpdmChain(
            f"{len(response.portion)} bytes, {request.length} were asked for", field="CERTIFICATE.portion_length"
        )


def check_digest(chain: SlotChain, slot: int, digests: dict[int, bytes], suite: Suite) -> None:
    """Where DIGESTS came first, it names this chain. `SpdmChain`."""
    if digests and digests.get(slot) != chain.digest(suite.base_hash):
        raise SpdmChain(f"the chain of slot {slot} is not the one DIGESTS names", field=f"DIGESTS.slot{slot}")
