"""A TCP connection under deadlines, for the transports that run over one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Self

from attester.spdm.errors import SpdmClosed, SpdmTimeout, SpdmUnreachable
from attester.spdm.transport import Clock


class Connection:
    """Sends and receives whole pieces, each until a deadline: s on the clock of `now`."""

    def __init__(self, connection: socket.socket, clock: Clock | None = None) -> None:
        self._connection = connection
        self.now: Callable[[], float] = (clock or Clock()).now

    @classmethod
    def connect(cls, host: str, port: int, timeout_s: float, clock: Clock | None = None) -> Self:
        """Call a responder. Raises SpdmUnreachable."""
        try:
            connection = socket.create_connection((host, port), timeout_s)
        except OSError as error:  # a name that does not resolve is one, too
            raise SpdmUnreachable(f"{host} port {port}: {error}", field="endpoint") from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection, clock)

    def send(self, data: bytes, deadline: float) -> None:
        """All of `data`. Raises SpdmTimeout, SpdmClosed."""
        try:
            self._until(deadline)
            self._connection.sendall(data)
        except TimeoutError as error:
            raise SpdmTimeout("the responder does not take a request in time", field="transport") from error
        except OSError as error:
            raise SpdmClosed(f"sending a request: {error}", field="transport") from error

    def receive(self, size: int, deadline: float) -> bytes:
        """Exactly `size` bytes, however many pieces they come in; the deadline is for all of them.

        Raises SpdmTimeout, SpdmClosed.
        """
        data = bytearray()
        while len(data) < size:
            try:
                self._until(deadline)
                piece = self._connection.recv(size - len(data))
            except TimeoutError as error:
                raise SpdmTimeout(f"{len(data)} of {size} bytes came in time", field="transport") from error
            except OSError as error:
                raise SpdmClosed(f"waiting for a response: {error}", field="transport") from error
            if not piece:
                raise SpdmClosed(f"closed after {len(data)} of {size} bytes", field="transport")
            data += piece
        return bytes(data)

    def close(self) -> None:
        """End the connection; again does nothing."""
        self._connection.close()

    def _until(self, deadline: float) -> None:
        left = deadline - self.now()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
