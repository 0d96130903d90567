"""The framing of DMTF's spdm-emu, which its emulated devices speak over a socket: no binding of any specification.

     0  command         u32 big-endian: 0x0001 a message, 0xFFFD end the connection and wait for the next
     4  transport type  u32 big-endian: 0 none, 1 MCTP, 2 PCI DOE, 3 TCP; both ends must be set to the same
     8  size            u32 big-endian, of what follows
    12  the message as the emulated transport frames it

none   the message alone
MCTP   a byte before it, message type 5 (DSP0275)
PCI DOE  two dwords before it, vendor 1 and type 1, then the length in dwords; zeros after it up to a whole dword
TCP    the four bytes of DSP0287, whose PayloadLen counts what follows it

An emulator whose requester just closes takes that for a critical error and exits. One that is told to wait for the
next echoes the command first, and it must be heard: it still writes when nobody reads.
"""

from __future__ import annotations

import contextlib
from typing import Final, Literal, Self, get_args

from attester.spdm.connection import Connection
from attester.spdm.errors import SpdmClosed, SpdmFrameInvalid, SpdmLimit, SpdmTimeout
from attester.spdm.tcp import HEADER_BYTES, MAX_MESSAGE, MESSAGE, encode_frame, message_bytes
from attester.spdm.transport import Clock

Emulated = Literal["spdm-emu-none", "spdm-emu-mctp", "spdm-emu-pci-doe", "spdm-emu-tcp"]
"""The framing by the transport that is emulated."""

EMULATED: tuple[Emulated, ...] = get_args(Emulated)
"""All of them; the place is the transport type on the wire."""

NORMAL, CONTINUE = 0x0001, 0xFFFD
ENVELOPE_BYTES = 12

CLOSE_S = 1.0
"""Longest wait, s, for an emulator to take its leave: it has nothing to compute."""

_MCTP_SPDM = b"\x05"
_DOE_SPDM = bytes.fromhex("01000100")
_DWORD = 4
_MAX_FRAME = 2 * _DWORD + MAX_MESSAGE + 3
"""Bytes of the longest message in the longest frame, PCI DOE's."""


def encode_envelope(framing: Emulated, command: int, frame: bytes = b"") -> bytes:
    """What spdm-emu's own socket protocol puts before a frame, and the frame."""
    return b"".join(one.to_bytes(4) for one in (command, EMULATED.index(framing), len(frame))) + frame


def encode_emulated(framing: Emulated, message: bytes) -> bytes:
    """A message in the frame of the emulated transport."""
    match framing:
        case "spdm-emu-none":
            return message
        case "spdm-emu-mctp":
            return _MCTP_SPDM + message
        case "spdm-emu-pci-doe":
            filled = message + bytes(-len(message) % _DWORD)
            return _DOE_SPDM + (2 + len(filled) // _DWORD).to_bytes(4, "little") + filled
        case "spdm-emu-tcp":
            return encode_frame(MESSAGE, message, "remainder")


def decode_emulated(framing: Emulated, frame: bytes) -> bytes:
    """The message in a frame of the emulated transport; PCI DOE's with the zeros behind it.

    Raises SpdmFrameInvalid, SpdmTransportRefused.
    """
    message = frame
    match framing:
        case "spdm-emu-mctp":
            if frame[:1] != _MCTP_SPDM:
                raise SpdmFrameInvalid(f"MCTP message type 0x{frame[:1].hex()}, not 0x05", field="frame.type")
            message = frame[1:]
        case "spdm-emu-pci-doe":
            if frame[:_DWORD] != _DOE_SPDM:
                raise SpdmFrameInvalid(f"data object {frame[:_DWORD].hex()}, not 01000100", field="frame.type")
            if len(frame) % _DWORD or frame[_DWORD : 2 * _DWORD] != (len(frame) // _DWORD).to_bytes(4, "little"):
                raise SpdmFrameInvalid(f"{len(frame)} bytes, and a length that is not theirs", field="frame.length")
            message = frame[2 * _DWORD :]
        case "spdm-emu-tcp":
            header, message = frame[:HEADER_BYTES], frame[HEADER_BYTES:]
            if len(header) < HEADER_BYTES or message_bytes(header, "remainder") != len(message):
                raise SpdmFrameInvalid(f"{len(frame)} bytes, and a length that is not theirs", field="frame.length")
    if len(message) < HEADER_BYTES:  # an SPDM message has a header of four bytes
        raise SpdmFrameInvalid(f"a message of {len(message)} bytes", field="frame.length")
    return message


class EmulatorTransport:
    """A connection to a responder of spdm-emu. Made by `connect`."""

    max_message: Final = MAX_MESSAGE

    def __init__(self, connection: Connection, framing: Emulated) -> None:
        self._connection = connection
        self._framing: Emulated = framing
        self._in_order = True
        self.name: Final[str] = framing
        self.alignment: Final = _DWORD if framing == "spdm-emu-pci-doe" else 1

    @classmethod
    def connect(cls, host: str, port: int, timeout_s: float, *, framing: Emulated, clock: Clock | None = None) -> Self:
        """Call the emulator. Raises SpdmUnreachable."""
        return cls(Connection.connect(host, port, timeout_s, clock), framing)

    def exchange(self, request: bytes, timeout_s: float) -> bytes:
        """The response to one request; see `Transport.exchange`."""
        if len(request) > MAX_MESSAGE:
            raise ValueError(f"a message has at most {MAX_MESSAGE} bytes")
        deadline = self._connection.now() + timeout_s
        self._in_order = False
        frame = self._swap(NORMAL, encode_emulated(self._framing, request), deadline)
        self._in_order = True
        return decode_emulated(self._framing, frame)

    def close(self) -> None:
        """Ask the emulator to wait for the next connection, and end this one; again does nothing.

        After an exchange that was broken off the emulator may be anywhere in it, and is left.
        """
        if self._in_order:
            self._in_order = False
            with contextlib.suppress(SpdmTimeout, SpdmClosed, SpdmFrameInvalid, SpdmLimit):
                self._swap(CONTINUE, b"", self._connection.now() + CLOSE_S)
        self._connection.close()

    def _swap(self, command: int, frame: bytes, deadline: float) -> bytes:
        """One envelope each way; the frame in the one that comes, which must have the same command and transport."""
        self._connection.send(encode_envelope(self._framing, command, frame), deadline)
        head = self._connection.receive(ENVELOPE_BYTES, deadline)
        answered, transport, size = (int.from_bytes(head[at : at + 4]) for at in (0, 4, 8))
        if answered != command:
            raise SpdmFrameInvalid(f"command 0x{answered:08X}, not 0x{command:08X}", field="frame.command")
        if transport != EMULATED.index(self._framing):
            raise SpdmFrameInvalid(f"transport type {transport}, this is {self._framing}", field="frame.transport")
        if size > _MAX_FRAME:
            raise SpdmLimit(f"a frame of {size} bytes, at most {_MAX_FRAME}", field="frame.size")
        return self._connection.receive(size, deadline)
