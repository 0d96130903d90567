"""A responder behind a real socket on the loopback interface: DSP0287 as it should be, and as it should not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from tests.attester.responder import Responder

Serve = Callable[[socket.socket], None]
WAIT_S = 20.0
"""Nothing here waits longer; no test needs it."""


def frame(message: bytes, *, kind: int = 0x05, version: int = 1, extra: int = 2) -> bytes:
    """A frame whose payload length is `extra` over the message's."""
    return (len(message) + extra).to_bytes(2, "little") + bytes((version, kind)) + message


def read_frame(connection: socket.socket, extra: int = 2) -> bytes | None:
    """The next message, None after the last."""
    header = _read(connection, 4)
    if len(header) < 4:
        return None
    return _read(connection, int.from_bytes(header[:2], "little") - extra)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def honest(responder: Responder, extra: int = 2) -> Serve:
    """Answer everything."""

    def serve(connection: socket.socket) -> None:
        while (request := read_frame(connection, extra)) is not None:
            connection.sendall(frame(responder.answer(request), extra=extra))

    return serve


def dripping(responder: Responder) -> Serve:
    """Answer everything, byte by byte."""

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (request := read_frame(connection)) is not None:
            for byte in frame(responder.answer(request)):
                connection.sendall(bytes([byte]))

    return serve


def saying(data: bytes) -> Serve:
    """Whatever is asked, send `data` and close."""

    def serve(connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(data)

    return serve


def silent(data: bytes = b"") -> Serve:
    """Send `data`, then nothing, until the other end closes."""

    def serve(connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(data)
        connection.recv(1)

    return serve


@contextlib.contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """Serve connections one after another on a port of its own, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(WAIT_S)
                    if not over.is_set():
                        serve(connection)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
        finally:
            over.set()
            with contextlib.suppress(OSError):  # wakes accept()
                socket.create_connection(("127.0.0.1", port), 1).close()
            thread.join(WAIT_S)
            assert not thread.is_alive()


@contextlib.contextmanager
def calling(port: int, first: bytes, serve: Serve) -> Iterator[None]:
    """A responder that reaches out: calls `port` until somebody answers, sends `first`, then serves."""
    deadline = time.monotonic() + WAIT_S

    def call() -> socket.socket:
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), WAIT_S)
            except OSError:
                if time.monotonic() > deadline:
                    raise

    def work() -> None:
        with call() as connection, contextlib.suppress(OSError):
            connection.settimeout(WAIT_S)
            connection.sendall(first)
            serve(connection)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT_S)
        assert not thread.is_alive()
