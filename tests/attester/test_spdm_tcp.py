"""DSP0287 over real sockets: frames as they should be, in pieces, wrong, late, or none."""

from __future__ import annotations

import contextlib
import socket

import pytest

from attester.spdm.errors import SpdmClosed, SpdmFrameInvalid, SpdmTimeout, SpdmTransportRefused, SpdmUnreachable
from attester.spdm.recording import Recording
from attester.spdm.requester import Wish, record_evidence
from attester.spdm.tcp import MAX_MESSAGE, MESSAGE, ROLE_INQUIRY, Length, TcpTransport, encode_frame
from attester.spdm.transport import Clock
from tests.attester.loopback import Serve, calling, dripping, frame, honest, listening, saying, silent
from tests.attester.responder import KINDS, Responder

NONCES = (bytes([1]) * 32, bytes([2]) * 32)
GET_VERSION = bytes.fromhex("10840000")
ANSWER = bytes.fromhex("10040000 0001 0012")
SHORT_S = 0.05
LONG_S = 10.0


def record(serve: Serve, length: Length = "remainder") -> Recording:
    with listening(serve) as port, contextlib.closing(connect(port, length)) as transport:
        return record_evidence(transport, Wish(nonces=NONCES))


def connect(port: int, length: Length = "remainder") -> TcpTransport:
    return TcpTransport.connect("127.0.0.1", port, LONG_S, length=length)


def ask(serve: Serve, timeout_s: float = LONG_S, length: Length = "remainder") -> bytes:
    with listening(serve) as port, contextlib.closing(connect(port, length)) as transport:
        return transport.exchange(GET_VERSION, timeout_s)


def test_the_frame_is_the_one_libspdm_sends() -> None:
    assert encode_frame(MESSAGE, GET_VERSION, "remainder").hex() == "0600010510840000"
    assert encode_frame(MESSAGE, GET_VERSION, "message").hex() == "0400010510840000"
    assert encode_frame(ROLE_INQUIRY, b"", "remainder").hex() == "000001bf"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", [0x11, 0x12, 0x13])
def test_records_over_tcp(kind: str, version: int) -> None:
    recording = record(honest(Responder(kind=kind, versions=(version,))))
    assert recording.version == version
    assert recording.transport == "tcp"


def test_a_byte_at_a_time_is_a_message_all_the_same() -> None:
    assert record(dripping(Responder(portion=400))).version == 0x13


def test_the_other_reading_of_the_length() -> None:
    assert record(honest(Responder(), extra=0), "message").version == 0x13


def test_two_readings_of_the_length_do_not_meet() -> None:
    with pytest.raises(SpdmTimeout):
        ask(honest(Responder(), extra=0), SHORT_S)


@pytest.mark.parametrize(
    "data",
    [
        frame(ANSWER, version=0),
        frame(ANSWER, version=2),
        frame(ANSWER, kind=0x06),
        frame(ANSWER, kind=0xBF),
        frame(ANSWER, kind=0x00),
        frame(b"", extra=0),
        frame(b"", extra=1),
        frame(b"", extra=2),
        frame(b"abc"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(64),
    ],
)
def test_no_frame_of_the_binding(data: bytes) -> None:
    with pytest.raises(SpdmFrameInvalid):
        ask(saying(data))


@pytest.mark.parametrize(("kind", "says"), [(0xC0, "too long"), (0xC1, "version"), (0xC3, "responder"), (0xFF, "0xFF")])
@pytest.mark.parametrize("extra", [0, 2])
def test_errors_of_the_binding_are_told(kind: int, says: str, extra: int) -> None:
    with pytest.raises(SpdmTransportRefused, match=says):
        ask(saying(frame(b"", kind=kind, extra=extra)))


@pytest.mark.parametrize("sent", [0, 1, 3, 4, 5, len(frame(ANSWER)) - 1])
def test_a_connection_that_ends_within_a_frame(sent: int) -> None:
    with pytest.raises(SpdmClosed):
        ask(saying(frame(ANSWER)[:sent]))


@pytest.mark.parametrize("sent", [0, 1, 4, len(frame(ANSWER)) - 1])
def test_a_frame_that_never_ends(sent: int) -> None:
    with pytest.raises(SpdmTimeout):
        ask(silent(frame(ANSWER)[:sent]), SHORT_S)


def test_the_longest_frame_is_taken_and_only_its_bytes_are_read() -> None:
    longest = bytes(MAX_MESSAGE)
    assert ask(saying(frame(longest) + b"more")) == longest


def test_a_longer_request_is_a_mistake() -> None:
    with (
        listening(silent()) as port,
        contextlib.closing(connect(port)) as transport,
        pytest.raises(ValueError, match="at most"),
    ):
        transport.exchange(bytes(MAX_MESSAGE + 1), LONG_S)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SpdmUnreachable):
        TcpTransport.connect("127.0.0.1", port, LONG_S)


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(SpdmUnreachable, match="not known"):
        TcpTransport.connect("host.invalid", 4194, LONG_S)


def test_time_is_the_clocks() -> None:
    times = iter([0.0, 100.0])
    clock = Clock(now=lambda: next(times))
    with (
        listening(silent()) as port,
        contextlib.closing(TcpTransport.connect("127.0.0.1", port, LONG_S, clock=clock)) as transport,
        pytest.raises(SpdmTimeout),
    ):
        transport.exchange(GET_VERSION, 50.0)


def test_a_responder_that_calls_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            calling(port, encode_frame(ROLE_INQUIRY, b"", "remainder"), honest(Responder())),
            contextlib.closing(TcpTransport.accept(listener, LONG_S)) as transport,
        ):
            recording = record_evidence(transport, Wish(nonces=NONCES))
    assert recording.version == 0x13


@pytest.mark.parametrize("first", ["000002bf", "00000105", "0600010510840000", "ffff01bf"])
def test_a_caller_that_does_not_inquire_is_refused(first: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with calling(port, bytes.fromhex(first), lambda connection: None), pytest.raises(SpdmFrameInvalid):
            TcpTransport.accept(listener, LONG_S)


def test_nobody_calls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(SpdmTimeout):
        TcpTransport.accept(listener, SHORT_S)
