"""spdm-emu's framing over real sockets: each emulated transport as it should be, in pieces, wrong, late, or none."""

from __future__ import annotations

import contextlib
import socket

import pytest

from attester.spdm.emulator import CLOSE_S, EMULATED, Emulated, EmulatorTransport, encode_emulated, encode_envelope
from attester.spdm.errors import (
    SpdmClosed,
    SpdmFrameInvalid,
    SpdmLimit,
    SpdmResponseInvalid,
    SpdmTimeout,
    SpdmTransportRefused,
    SpdmUnreachable,
)
from attester.spdm.recording import Recording
from attester.spdm.requester import Wish, record_evidence
from attester.spdm.tcp import MAX_MESSAGE
from attester.spdm.transport import Clock
from tests.attester.emulator import CONTINUE, NORMAL, Emulator, envelope, saying, silent, wrap
from tests.attester.loopback import Serve, listening
from tests.attester.responder import KINDS, Responder

NONCES = (bytes([1]) * 32, bytes([2]) * 32)
GET_VERSION = bytes.fromhex("10840000")
ANSWER = bytes.fromhex("10040000 0001 0012")
SHORT_S = 0.05
LONG_S = 10.0
MCTP: Emulated = "spdm-emu-mctp"
DOE: Emulated = "spdm-emu-pci-doe"
TCP: Emulated = "spdm-emu-tcp"


def connect(port: int, framing: Emulated = MCTP, clock: Clock | None = None) -> EmulatorTransport:
    return EmulatorTransport.connect("127.0.0.1", port, LONG_S, framing=framing, clock=clock)


def record(emulator: Emulator, framing: Emulated) -> Recording:
    with listening(emulator.serve) as port, contextlib.closing(connect(port, framing)) as transport:
        return record_evidence(transport, Wish(nonces=NONCES))


def ask(serve: Serve, timeout_s: float = LONG_S, framing: Emulated = MCTP) -> bytes:
    with listening(serve) as port, contextlib.closing(connect(port, framing)) as transport:
        return transport.exchange(GET_VERSION, timeout_s)


@pytest.mark.parametrize(
    ("framing", "wire"),
    [
        ("spdm-emu-none", "00000001 00000000 00000004 10840000"),
        ("spdm-emu-mctp", "00000001 00000001 00000005 05 10840000"),
        ("spdm-emu-pci-doe", "00000001 00000002 0000000c 01000100 03000000 10840000"),
        ("spdm-emu-tcp", "00000001 00000003 00000008 06000105 10840000"),
    ],
)
def test_the_frame_is_the_one_the_emulator_sends(framing: Emulated, wire: str) -> None:
    frame = encode_emulated(framing, GET_VERSION)
    assert encode_envelope(framing, NORMAL, frame) == bytes.fromhex(wire)


def test_pci_doe_fills_the_last_dword() -> None:
    assert encode_emulated(DOE, b"\x10\x84\x00\x00\x07").hex() == "01000100040000001084000007000000"


@pytest.mark.parametrize("framing", EMULATED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", [0x11, 0x12, 0x13])
def test_records_what_the_device_said(framing: Emulated, kind: str, version: int) -> None:
    emulator = Emulator(Responder(kind=kind, versions=(version,), portion=401), framing)
    recording = record(emulator, framing)
    assert recording.version == version
    assert recording.transport == framing
    assert recording.messages[1::2] == tuple(emulator.answers)  # without PCI DOE's zeros
    assert emulator.commands == [NORMAL] * len(emulator.answers) + [CONTINUE]


@pytest.mark.parametrize("framing", EMULATED)
def test_a_byte_at_a_time_is_a_message_all_the_same(framing: Emulated) -> None:
    assert record(Emulator(Responder(portion=400), framing, drip=True), framing).version == 0x13


def test_only_the_zeros_of_pci_doe_are_passed_over() -> None:
    def more(name: str, response: bytes) -> bytes:
        return response + bytes(1) if name == "ALGORITHMS" else response

    for framing in (MCTP, DOE):  # ALGORITHMS fills whole dwords: another byte, filled up, is four
        with pytest.raises(SpdmResponseInvalid, match="after a message of"):
            record(Emulator(Responder(tamper=more), framing), framing)


def test_the_next_connection_is_served() -> None:
    emulator = Emulator(Responder(), MCTP)
    with listening(emulator.serve) as port:
        for _ in range(2):
            with contextlib.closing(connect(port)) as transport:
                record_evidence(transport, Wish(nonces=NONCES))
    assert emulator.farewells == 2


def test_nothing_asked_is_a_farewell_too_and_closing_again_is_nothing() -> None:
    emulator = Emulator(Responder(), MCTP)
    with listening(emulator.serve) as port:
        transport = connect(port)
        transport.close()
        transport.close()
    assert emulator.commands == [CONTINUE]


@pytest.mark.parametrize("data", [b"", envelope(MCTP, b"", NORMAL), envelope(MCTP, b"", CONTINUE, size=1 << 31)])
def test_a_farewell_that_is_not_returned_is_no_error(data: bytes) -> None:
    with listening(saying(data)) as port:
        connect(port).close()


def test_a_farewell_is_not_waited_for_long() -> None:
    times = iter([0.0, 0.0, CLOSE_S])
    with listening(silent()) as port:
        connect(port, clock=Clock(now=lambda: next(times))).close()


def test_after_an_exchange_that_was_broken_off_there_is_no_farewell() -> None:
    emulator = Emulator(Responder(), MCTP)
    with (
        listening(emulator.serve) as port,
        contextlib.closing(connect(port, TCP)) as transport,
        pytest.raises(SpdmClosed),
    ):
        transport.exchange(GET_VERSION, LONG_S)
    assert emulator.commands == [NORMAL]


@pytest.mark.parametrize("framing", EMULATED)
@pytest.mark.parametrize("other", EMULATED)
def test_another_transport_is_told(framing: Emulated, other: Emulated) -> None:
    if framing == other:
        assert ask(saying(envelope(other, wrap(other, ANSWER))), framing=framing) == ANSWER
        return
    with pytest.raises(SpdmFrameInvalid) as caught:
        ask(saying(envelope(other, wrap(other, ANSWER))), framing=framing)
    assert caught.value.field == "frame.transport"


@pytest.mark.parametrize("command", [0, CONTINUE, 0xFFFE, 0xFFFF, 0xDEAD, 0x01000000])
def test_another_command_is_no_answer(command: int) -> None:
    with pytest.raises(SpdmFrameInvalid) as caught:
        ask(saying(envelope(MCTP, wrap(MCTP, ANSWER), command)))
    assert caught.value.field == "frame.command"


@pytest.mark.parametrize(
    ("framing", "frame"),
    [
        ("spdm-emu-none", ""),
        ("spdm-emu-none", "100400"),
        ("spdm-emu-mctp", ""),
        ("spdm-emu-mctp", "05"),
        ("spdm-emu-mctp", "05100400"),
        ("spdm-emu-mctp", "06100400000000"),
        ("spdm-emu-mctp", "85100400000000"),
        ("spdm-emu-pci-doe", ""),
        ("spdm-emu-pci-doe", "01000100"),
        ("spdm-emu-pci-doe", "0100010002000000"),
        ("spdm-emu-pci-doe", "010001000400000010040000"),
        ("spdm-emu-pci-doe", "010001000200000010040000"),
        ("spdm-emu-pci-doe", "0100010003000000100400"),
        ("spdm-emu-pci-doe", "01000200030000001004000000"),
        ("spdm-emu-pci-doe", "020001000300000010040000"),
        ("spdm-emu-pci-doe", "010001010300000010040000"),
        ("spdm-emu-tcp", ""),
        ("spdm-emu-tcp", "060001"),
        ("spdm-emu-tcp", "02000105"),
        ("spdm-emu-tcp", "0700010510040000"),
        ("spdm-emu-tcp", "0500010510040000"),
        ("spdm-emu-tcp", "0600000510040000"),
        ("spdm-emu-tcp", "0600010610040000"),
    ],
)
def test_no_frame_of_the_emulated_transport(framing: Emulated, frame: str) -> None:
    with pytest.raises(SpdmFrameInvalid):
        ask(saying(envelope(framing, bytes.fromhex(frame))), framing=framing)


def test_errors_of_the_tcp_binding_are_told() -> None:
    with pytest.raises(SpdmTransportRefused, match="cannot operate as a responder"):
        ask(saying(envelope(TCP, bytes.fromhex("000001c3"))), framing=TCP)


def test_another_protocol() -> None:
    with pytest.raises(SpdmFrameInvalid):
        ask(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"))


@pytest.mark.parametrize("sent", [0, 1, 11, 12, 13, len(envelope(MCTP, wrap(MCTP, ANSWER))) - 1])
def test_a_connection_that_ends_within_a_frame(sent: int) -> None:
    with pytest.raises(SpdmClosed):
        ask(saying(envelope(MCTP, wrap(MCTP, ANSWER))[:sent]))


@pytest.mark.parametrize("sent", [0, 1, 12, len(envelope(MCTP, wrap(MCTP, ANSWER))) - 1])
def test_a_frame_that_never_ends(sent: int) -> None:
    with pytest.raises(SpdmTimeout):
        ask(silent(envelope(MCTP, wrap(MCTP, ANSWER))[:sent]), SHORT_S)


@pytest.mark.parametrize("framing", EMULATED)
def test_the_longest_message_is_taken(framing: Emulated) -> None:
    longest = bytes(MAX_MESSAGE)
    filled = bytes(-MAX_MESSAGE % 4) if framing == DOE else b""
    assert ask(saying(envelope(framing, wrap(framing, longest))), framing=framing) == longest + filled


@pytest.mark.parametrize("size", [8 + MAX_MESSAGE + 3 + 1, 1 << 31, (1 << 32) - 1])
def test_a_longer_frame_is_not_read(size: int) -> None:
    with pytest.raises(SpdmLimit):
        ask(silent(envelope(MCTP, b"", size=size)))


def test_a_longer_request_is_a_mistake() -> None:
    with (
        listening(Emulator(Responder(), MCTP).serve) as port,
        contextlib.closing(connect(port)) as transport,
        pytest.raises(ValueError, match="at most"),
    ):
        transport.exchange(bytes(MAX_MESSAGE + 1), LONG_S)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SpdmUnreachable):
        connect(port)
