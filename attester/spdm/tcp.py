"""SPDM over TCP (DMTF DSP0287 1.0): a header of four bytes before each message, and no more than one at a time.

    0  PayloadLen   u16 little-endian
    2  BindingVer   1
    3  MessageType  0x05 message outside a session, 0x06 inside one, 0xBF Role-Inquiry, 0xC0 to 0xFF errors

What PayloadLen counts is read in two ways. DMTF's libspdm, and what is built on it, counts what follows the field:
BindingVer, MessageType and the message. Others count the message alone. Neither end can ask which, so it is a setting.
"""

from __future__ import annotations

import socket
from typing import Literal, Self

from attester.spdm.connection import Connection
from attester.spdm.errors import SpdmFrameInvalid, SpdmTimeout, SpdmTransportRefused, SpdmUnreachable
from attester.spdm.transport import Clock

DEFAULT_PORT = 4194
"""The port registered for SPDM over TCP (DSP0287 section 5)."""

BINDING_VERSION = 1
MESSAGE, SESSION_MESSAGE, ROLE_INQUIRY, FIRST_ERROR = 0x05, 0x06, 0xBF, 0xC0
HEADER_BYTES = 4

MAX_MESSAGE = 0xFFFF - 2
"""Bytes of the longest message: what is left of PayloadLen when it counts two bytes of the header."""

Length = Literal["remainder", "message"]
"""What PayloadLen counts: all that follows it (libspdm), or the SPDM message alone."""

_ERRORS = {
    0xC0: "the message was too long for it",
    0xC1: "it does not support TCP binding version 1",
    0xC2: "it cannot operate as a requester",
    0xC3: "it cannot operate as a responder",
}


def encode_frame(message_type: int, message: bytes, length: Length) -> bytes:
    """One frame. A type from Role-Inquiry on has no message, and PayloadLen 0, as libspdm sends it."""
    counted = len(message) + (2 if length == "remainder" and message_type < ROLE_INQUIRY else 0)
    return counted.to_bytes(2, "little") + bytes((BINDING_VERSION, message_type)) + message


def message_bytes(header: bytes, length: Length) -> int:
    """Bytes of the message behind a header of four bytes. Raises SpdmTransportRefused, SpdmFrameInvalid."""
    counted, version, kind = int.from_bytes(header[:2], "little"), header[2], header[3]
    if kind >= FIRST_ERROR:
        known = _ERRORS.get(kind, "an error that DSP0287 1.0 does not define")
        extra = f"; it offers version {version}" if kind == 0xC1 else ""
        raise SpdmTransportRefused(f"the responder says with 0x{kind:02X}: {known}{extra}", field="frame.type")
    if version != BINDING_VERSION:
        raise SpdmFrameInvalid(f"binding version {version}, not 1", field="frame.version")
    if kind != MESSAGE:
        name = {ROLE_INQUIRY: "a Role-Inquiry", SESSION_MESSAGE: "a message of a session"}.get(kind, "unknown")
        raise SpdmFrameInvalid(f"message type 0x{kind:02X} ({name}), not 0x05", field="frame.type")
    size = counted - 2 if length == "remainder" else counted
    if not HEADER_BYTES <= size <= MAX_MESSAGE:  # an SPDM message has a header of four bytes, too
        raise SpdmFrameInvalid(f"payload length {counted} leaves a message of {size} bytes", field="frame.length")
    return size


class TcpTransport:
    """A TCP connection to a responder. Made by `connect`, or by `accept` where the responder calls."""

    name = "tcp"
    max_message = MAX_MESSAGE
    alignment = 1

    def __init__(self, connection: Connection, *, length: Length = "remainder") -> None:
        self._connection = connection
        self._length: Length = length

    @classmethod
    def connect(
        cls, host: str, port: int, timeout_s: float, *, length: Length = "remainder", clock: Clock | None = None
    ) -> Self:
        """Reach down: this end calls, the other answers requests. Raises SpdmUnreachable."""
        return cls(Connection.connect(host, port, timeout_s, clock), length=length)

    @classmethod
    def accept(
        cls, listener: socket.socket, timeout_s: float, *, length: Length = "remainder", clock: Clock | None = None
    ) -> Self:
        """Reach out: a responder calls and asks by Role-Inquiry for a requester, which this end then is.

        Raises SpdmTimeout, SpdmUnreachable, SpdmClosed, SpdmFrameInvalid.
        """
        clock = clock or Clock()
        deadline = clock.now() + timeout_s
        listener.settimeout(timeout_s)
        try:
            connection, _ = listener.accept()
        except TimeoutError as error:
            raise SpdmTimeout(f"no responder called within {timeout_s:g} s", field="endpoint") from error
        except OSError as error:
            raise SpdmUnreachable(f"listening: {error}", field="endpoint") from error
        transport = cls(Connection(connection, clock), length=length)
        try:
            header = transport._connection.receive(HEADER_BYTES, deadline)
            if header[2] != BINDING_VERSION:  # DSP0287: answered with our version and type 0xC1
                transport._connection.send(encode_frame(0xC1, b"", length), deadline)
            if header[2:] != bytes((BINDING_VERSION, ROLE_INQUIRY)) or int.from_bytes(header[:2], "little") not in {
                0,
                2,
            }:
                raise SpdmFrameInvalid(f"{header.hex()} is no Role-Inquiry", field="frame")
        except BaseException:
            transport.close()
            raise
        return transport

    def exchange(self, request: bytes, timeout_s: float) -> bytes:
        """The response to one request; see `Transport.exchange`."""
        if len(request) > MAX_MESSAGE:
            raise ValueError(f"a message has at most {MAX_MESSAGE} bytes")
        deadline = self._connection.now() + timeout_s
        self._connection.send(encode_frame(MESSAGE, request, self._length), deadline)
        header = self._connection.receive(HEADER_BYTES, deadline)
        return self._connection.receive(message_bytes(header, self._length), deadline)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
