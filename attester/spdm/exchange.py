"""One connection's requests and responses: deadlines, retries, ERROR messages; what the transcript holds is kept.

Kept are requests with their final responses. What is between (BUSY and the same request again, RESPONSE_NOT_READY and
RESPOND_IF_READY) is not part of what both ends hash and the responder signs, so it is not part of the evidence either.
"""

from __future__ import annotations

from attester.spdm.errors import (
    SpdmBusy,
    SpdmLimit,
    SpdmNotOffered,
    SpdmResponderError,
    SpdmResponseInvalid,
    SpdmTimeout,
)
from attester.spdm.limits import MAX_WAIT_EXPONENT, ST1_S, Limits
from attester.spdm.transport import Clock, Transport
from verifier.abi.spdm_fields import ERROR, GET_VERSION, VERSION_10, Header, parse_header
from verifier.abi.spdm_messages import ERROR_BUSY, ERROR_RESPONSE_NOT_READY, ErrorResponse, RespondIfReady

LARGE_RESPONSE = 0x0F

_NO_CHUNKS = "The device needs messages in chunks, which this requester does not use; raise its buffer sizes."


class Exchange:
    """Asks over `transport` and keeps the transcript. `version` is what both ends speak, 1.0 until they agree."""

    def __init__(self, transport: Transport, clock: Clock, limits: Limits) -> None:
        self._transport = transport
        self._clock = clock
        self._limits = limits
        self._deadline = clock.now() + limits.total_s
        self.version = VERSION_10
        self.cryptographic_s = 0.0
        self.max_request = min(limits.message, transport.max_message)
        self.alignment = transport.alignment
        self.messages: list[bytes] = []
        self.retries = 0

    def ask(self, request: bytes, code: int, name: str) -> bytes:
        """The response with `code` to `request`, recorded together. `name` stands in errors.

        Raises SpdmTimeout, SpdmBusy, SpdmResponderError, SpdmNotOffered (it does not fit into the device's buffer),
        SpdmResponseInvalid, SpdmLimit, and what the transport raises.
        """
        if len(request) > self.max_request:
            raise SpdmNotOffered(
                f"{name}: {len(request)} bytes, the device takes {self.max_request}", field=name, remedy=_NO_CHUNKS
            )
        response = self._once(request, name)
        attempt = 0
        while (header := parse_header(response)).code == ERROR:
            response = self._again(request, response, attempt, name)
            attempt += 1
        self._check(header, code, name)
        self.messages += [request, response]
        return response

    def _check(self, header: Header, code: int, name: str) -> None:
        if header.code != code:
            raise SpdmResponseInvalid(f"{name}: answered with code 0x{header.code:02X}", field=f"{name}.code")
        if header.version != self.version:
            raise SpdmResponseInvalid(
                f"{name}: answered in version 0x{header.version:02X}, not 0x{self.version:02X}", field=f"{name}.version"
            )

    def _again(self, request: bytes, response: bytes, attempt: int, name: str) -> bytes:
        """After an ERROR: the same request again where that helps, but not for ever; `attempt` counts from 0."""
        error, _ = ErrorResponse.read(response)
        busy = error.error == ERROR_BUSY
        if not busy and (error.error != ERROR_RESPONSE_NOT_READY or request[1] == GET_VERSION):
            raise SpdmResponderError(
                f"{name}: the device answers {error.name} (0x{error.error:02X}, data 0x{error.data:02X})",
                field=name,
                remedy=_NO_CHUNKS if error.error == LARGE_RESPONSE else None,
            )
        if attempt >= self._limits.retries:
            raise SpdmBusy(f"{name}: put off {attempt + 1} times, the last with {error.name}", field=name)
        self.retries += 1
        if not busy:
            return self._when_ready(request, error, name)
        self._wait(self._limits.busy_s * 2**attempt, name)
        return self._once(request, name)

    def _when_ready(self, request: bytes, error: ErrorResponse, name: str) -> bytes:
        """Wait as long as the device says (RDT), then ask whether it is ready (DSP0274, ResponseNotReady)."""
        exponent, asked, token, _ = error.extended
        if asked != request[1]:
            raise SpdmResponseInvalid(f"{name}: ResponseNotReady speaks of request 0x{asked:02X}", field=name)
        if exponent > MAX_WAIT_EXPONENT:
            raise SpdmLimit(f"{name}: to be ready in 2^{exponent} µs", field=name)
        self._wait(2**exponent / 1e6, name)
        return self._once(RespondIfReady(version=self.version, code=asked, token=token).encode(), name)

    def _left(self, name: str) -> float:
        left = self._deadline - self._clock.now()
        if left <= 0:
            raise SpdmTimeout(f"{name}: the exchange as a whole took over {self._limits.total_s:g} s", field=name)
        return left

    def _wait(self, seconds: float, name: str) -> None:
        if seconds >= self._left(name):
            raise SpdmTimeout(f"{name}: the device asks for {seconds:g} s more than are left", field=name)
        self._clock.wait(seconds)

    def _once(self, request: bytes, name: str) -> bytes:
        """One message each way. Any response may take the device's cryptographic time: some hash or read for it."""
        patience = self._limits.round_trip_s + max(ST1_S, self.cryptographic_s)
        try:
            response = self._transport.exchange(request, min(patience, self._left(name)))
        except SpdmTimeout as error:
            raise SpdmTimeout(f"{name}: {error}", field=name) from error
        if len(response) > self._limits.message:
            raise SpdmLimit(f"{name}: a response of {len(response)} bytes", field=name)
        return response
