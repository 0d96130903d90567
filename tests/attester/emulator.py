"""A responder behind spdm-emu's socket protocol, put together here and not with the code under test."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

from tests.attester.loopback import Serve
from tests.attester.responder import Responder
from verifier.abi.spdm_signed import GetMeasurements

TYPES = {"spdm-emu-none": 0, "spdm-emu-mctp": 1, "spdm-emu-pci-doe": 2, "spdm-emu-tcp": 3}
"""Transport type on the wire, by framing."""

NORMAL, CONTINUE = 0x0001, 0xFFFD


def envelope(framing: str, frame: bytes, command: int = NORMAL, size: int | None = None) -> bytes:
    """What goes over the socket."""
    return struct.pack(">III", command, TYPES[framing], len(frame) if size is None else size) + frame


def wrap(framing: str, message: bytes) -> bytes:
    """The frame of the emulated transport."""
    if framing == "spdm-emu-pci-doe":
        message += b"\0\0\0"[: (4 - len(message) % 4) % 4]
    head = {
        "spdm-emu-none": b"",
        "spdm-emu-mctp": b"\x05",
        "spdm-emu-pci-doe": struct.pack("<HBBI", 1, 1, 0, len(message) // 4 + 2),
        "spdm-emu-tcp": struct.pack("<HBB", len(message) + 2 & 0xFFFF, 1, 5),
    }
    return head[framing] + message


def unwrap(framing: str, frame: bytes) -> bytes:
    """The request in it; the header must be what it should. Only GET_MEASUREMENTS does not fill whole dwords."""
    size = {"spdm-emu-none": 0, "spdm-emu-mctp": 1, "spdm-emu-pci-doe": 8, "spdm-emu-tcp": 4}[framing]
    request = frame[size:]
    assert frame == wrap(framing, request)
    return request[: GetMeasurements.read(request)[1]] if request[1] == 0xE0 else request


def read(connection: socket.socket) -> tuple[int, int, bytes] | None:
    """Command, transport type and frame; None after the last."""
    head = _bytes(connection, 12)
    if len(head) < 12:
        return None
    command, kind, size = struct.unpack(">III", head)
    return command, kind, _bytes(connection, size)


def _bytes(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


@dataclass
class Emulator:
    """The emulator: `commands` are those it got, `farewells` counts the ends it was told of and echoed."""

    responder: Responder
    framing: str
    drip: bool = False
    commands: list[int] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    farewells: int = 0

    def serve(self, connection: socket.socket) -> None:
        """One connection."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (got := read(connection)) is not None:
            command, kind, frame = got
            self.commands.append(command)
            if kind != TYPES[self.framing]:
                return
            if command == CONTINUE:
                connection.sendall(envelope(self.framing, b"", CONTINUE))
                self.farewells += 1
                return
            self.answers.append(self.responder.answer(unwrap(self.framing, frame)))
            self._send(connection, envelope(self.framing, wrap(self.framing, self.answers[-1])))

    def _send(self, connection: socket.socket, data: bytes) -> None:
        step = 1 if self.drip else len(data)
        for at in range(0, len(data), step):
            connection.sendall(data[at : at + step])


def saying(data: bytes) -> Serve:
    """Whatever is asked, send `data`; then answer nothing, and end when the other end does or says farewell."""

    def serve(connection: socket.socket) -> None:
        read(connection)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        read(connection)

    return serve


def silent(data: bytes = b"") -> Serve:
    """Send `data`, then nothing, until the other end closes."""

    def serve(connection: socket.socket) -> None:
        read(connection)
        connection.sendall(data)
        read(connection)
        connection.recv(1)

    return serve
