"""SPDM messages 1.0 to 1.4, one class per message: parse and encode (DMTF DSP0274; ATTESTATION.md §10.3).

Every class has `encode()` and `read(data, …)`, which gives the message at the front of `data` and how many bytes it
has. `parse_request` and `parse_response` demand that nothing follows, but for the zeros that PCI DOE fills its last
unit of four bytes with. Messages after ALGORITHMS need the `Suite` that the connection agreed on: it gives the lengths
of digests and signatures. Hostile bytes raise subclasses of `SpdmError` and nothing else; `encode` raises `ValueError`
for numbers that do not fit.
"""

from __future__ import annotations

from verifier.abi.spdm_algorithms import Algorithms, AlgorithmTable, NegotiateAlgorithms, SignatureScheme, Suite, agreed
from verifier.abi.spdm_fields import (
    ALGORITHMS,
    ALIGNMENT,
    CAPABILITIES,
    CERTIFICATE,
    CHALLENGE,
    CHALLENGE_AUTH,
    DIGESTS,
    ERROR,
    GET_CAPABILITIES,
    GET_CERTIFICATE,
    GET_DIGESTS,
    GET_MEASUREMENTS,
    GET_VERSION,
    MEASUREMENTS,
    NEGOTIATE_ALGORITHMS,
    RESPOND_IF_READY,
    VERSION,
    VERSION_10,
    VERSIONS,
    Header,
    parse_header,
)
from verifier.abi.spdm_messages import (
    Capabilities,
    Certificate,
    Digests,
    ErrorResponse,
    GetCapabilities,
    GetCertificate,
    GetDigests,
    GetVersion,
    RespondIfReady,
    Version,
)
from verifier.abi.spdm_signed import (
    Challenge,
    ChallengeAuth,
    GetMeasurements,
    MeasurementBlock,
    Measurements,
    parse_record,
)
from verifier.errors import SpdmMalformed, SpdmSequence, SpdmUnsupported, SpdmVersionMismatch
from verifier.limits import MAX_SPDM_MESSAGE_BYTES

Answered = (
    GetVersion | GetCapabilities | NegotiateAlgorithms | GetDigests | GetCertificate | Challenge | GetMeasurements
)
Request = Answered | RespondIfReady
Response = Version | Capabilities | Algorithms | Digests | Certificate | ChallengeAuth | Measurements | ErrorResponse

ANSWERS = {
    GET_VERSION: VERSION,
    GET_CAPABILITIES: CAPABILITIES,
    NEGOTIATE_ALGORITHMS: ALGORITHMS,
    GET_DIGESTS: DIGESTS,
    GET_CERTIFICATE: CERTIFICATE,
    CHALLENGE: CHALLENGE_AUTH,
    GET_MEASUREMENTS: MEASUREMENTS,
}
"""The code of the response to each request; ERROR may stand in its place."""

_REQUESTS: dict[int, type[Request]] = {
    GET_VERSION: GetVersion,
    GET_CAPABILITIES: GetCapabilities,
    NEGOTIATE_ALGORITHMS: NegotiateAlgorithms,
    GET_DIGESTS: GetDigests,
    GET_CERTIFICATE: GetCertificate,
    CHALLENGE: Challenge,
    GET_MEASUREMENTS: GetMeasurements,
    RESPOND_IF_READY: RespondIfReady,
}

_CODES = {kind: code for code, kind in _REQUESTS.items()}


def parse_request(data: bytes) -> tuple[Request, bytes]:
    """A request and its exact bytes. `SpdmMalformed`, `SpdmUnsupported`, `SpdmVersionMismatch`."""
    header = _checked(data)
    kind = _REQUESTS.get(header.code)
    if kind is None:
        raise SpdmUnsupported(f"request {header.code:#04x}", field="message.code")
    message, size = kind.read(data)
    return message, exact(data, size)


def parse_response(data: bytes, request: Answered, suite: Suite | None = None) -> tuple[Response, bytes]:
    """The response to `request`, or the ERROR in its place, and its exact bytes.

    `suite` is needed after ALGORITHMS. Raises `SpdmMalformed`, `SpdmUnsupported`, `SpdmVersionMismatch`, and
    `SpdmSequence` for a response to something else. For RESPOND_IF_READY pass the request that it stands for.
    """
    header = _checked(data)
    message: Response
    if header.code == ERROR:
        message, size = ErrorResponse.read(data)
        return message, exact(data, size)
    _check_answer(header, request)
    if isinstance(request, GetVersion):
        message, size = Version.read(data)
    elif isinstance(request, GetCapabilities):
        message, size = Capabilities.read(data)
    elif isinstance(request, NegotiateAlgorithms):
        message, size = Algorithms.read(data)
    elif isinstance(request, GetCertificate):
        message, size = Certificate.read(data)
    elif suite is None:
        raise ValueError("this response needs the suite of its connection")
    elif isinstance(request, GetDigests):
        message, size = Digests.read(data, suite)
    elif isinstance(request, Challenge):
        message, size = ChallengeAuth.read(data, suite, request)
    else:
        message, size = Measurements.read(data, suite, request)
    return message, exact(data, size)


def exact(data: bytes, size: int) -> bytes:
    """The first `size` bytes; what follows may only be PCI DOE's zeros up to the next four bytes. `SpdmMalformed`."""
    rest = data[size:]
    if rest and (len(rest) >= ALIGNMENT or len(data) % ALIGNMENT or any(rest)):
        raise SpdmMalformed(f"{len(rest)} bytes after a message of {size}", field="message.length")
    return data[:size]


def _checked(data: bytes) -> Header:
    if len(data) > MAX_SPDM_MESSAGE_BYTES:
        raise SpdmMalformed(f"{len(data)} bytes, at most {MAX_SPDM_MESSAGE_BYTES}", field="message.length")
    header = parse_header(data)
    if header.version not in VERSIONS:
        raise SpdmVersionMismatch(f"version byte {header.version:#04x}", field="message.version")
    return header


def _check_answer(header: Header, request: Answered) -> None:
    code = _CODES[type(request)]
    if ANSWERS[code] != header.code:
        raise SpdmSequence(f"response {header.code:#04x} to request {code:#04x}", field="message.code")
    version = VERSION_10 if isinstance(request, GetVersion) else request.version
    if header.version != version:
        raise SpdmVersionMismatch(
            f"a response of version {header.version:#04x} to {version:#04x}", field="message.version"
        )


__all__ = [
    "ANSWERS",
    "AlgorithmTable",
    "Algorithms",
    "Answered",
    "Capabilities",
    "Certificate",
    "Challenge",
    "ChallengeAuth",
    "Digests",
    "ErrorResponse",
    "GetCapabilities",
    "GetCertificate",
    "GetDigests",
    "GetMeasurements",
    "GetVersion",
    "Header",
    "MeasurementBlock",
    "Measurements",
    "NegotiateAlgorithms",
    "Request",
    "RespondIfReady",
    "Response",
    "SignatureScheme",
    "Suite",
    "Version",
    "agreed",
    "exact",
    "parse_header",
    "parse_record",
    "parse_request",
    "parse_response",
]
