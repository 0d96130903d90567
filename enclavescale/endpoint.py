"""The HTTP endpoint of agent and worker: `/metrics` for Prometheus, `/livez` and `/readyz` as JSON; no address by
default.

It answers anybody who reaches it, so it is bounded: GET alone, no request bodies, one deadline for a whole request, at
most `MAX_REQUESTS` at a time (further connections are closed at once), one answer per connection. It runs on threads of
its own and only reads.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from enclavescale.health import Answer, CheckState
from schemas.errors import ConfigError

log = logging.getLogger(__name__)

MAX_REQUESTS = 16
"""Requests served at a time: a scraper, probes and a person, with room."""

REQUEST_S = 5.0
"""Time for one request, from the connection to the last byte, s."""

_JSON = [("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store")]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


def parse_address(text: str, field: str = "listen") -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host and not bracketed) or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError("give an address as HOST:PORT", field=field, remedy="For instance 127.0.0.1:9464.")
    return host, int(port)


class Probes(Protocol):
    """Whatever answers the probes: `enclavescale.health.Health`, or somebody in front of one."""

    def live(self) -> Answer:
        """Would a restart help?"""

    def ready(self) -> Answer:
        """Does it do its work?"""


def endpoint_app(registry: CollectorRegistry, health: Probes) -> App:
    """The WSGI application over a registry and a health."""
    metrics: App = make_wsgi_app(registry)
    probes = {"/livez": health.live, "/readyz": health.ready}

    def app(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD", "")
        if method != "GET":
            return _plain(start, "405 Method Not Allowed", "GET only\n", ("Allow", "GET"))
        # A missing length is "" here; whatever else it says, a body is not read.
        if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
            return _plain(start, "413 Content Too Large", "no request bodies\n")
        if path == "/metrics":
            return metrics(environ, start)
        if path in probes:
            return _probe(start, probes[path]())
        return _plain(start, "404 Not Found", "/metrics, /livez, /readyz\n")

    return app


def answer_json(answer: Answer) -> dict[str, object]:
    """What a probe says: `status` (ok, degraded, failing) and every check behind it."""
    return {"status": answer.status, "checks": [_check_json(one) for one in answer.checks]}


def _check_json(check: CheckState) -> dict[str, object]:
    return {
        "check": check.name,
        "state": check.state,
        "needed_for": check.need.value,
        "code": check.code,
        "detail": check.detail,
        "last_ok_s_ago": None if check.age_s is None else round(check.age_s, 1),
    }


def _probe(start: StartResponse, answer: Answer) -> list[bytes]:
    body = json.dumps(answer_json(answer)).encode() + b"\n"
    start("200 OK" if answer.good else "503 Service Unavailable", [*_JSON, ("Content-Length", str(len(body)))])
    return [body]


def _plain(start: StartResponse, status: str, text: str, *headers: tuple[str, str]) -> list[bytes]:
    body = text.encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *headers])
    return [body]


class _Deadline(io.RawIOBase):
    """A socket's bytes until a moment: a client that sends one byte at a time gains nothing by it."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until = connection, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(WSGIRequestHandler):
    """One request, in silence, in bounded time."""

    timeout = REQUEST_S

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Deadline(self.connection, time.monotonic() + REQUEST_S))

    def address_string(self) -> str:
        return str(self.client_address[0])  # the base class would ask the DNS

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


class _Server(ThreadingWSGIServer):
    """A thread per request, at most `MAX_REQUESTS` of them."""

    request_queue_size = MAX_REQUESTS

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks the DNS for this host's name, which may take seconds
        self.server_name, self.server_port = "enclavescale", int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("request of %s broken off", client_address, exc_info=True)


class Endpoint:
    """A running endpoint. A context manager; `close` ends it. `port` is the real one where 0 was asked for.

    Raises `ConfigError` if the address cannot be used.
    """

    def __init__(self, listen: str, app: App) -> None:
        host, port = parse_address(listen)
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server((str(address[0]), int(address[1])), family)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no name of a host"
            raise ConfigError(f"cannot listen on {listen}: {reason}", field="listen") from error
        self._server.set_app(app)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="endpoint", daemon=True)
        self._thread.start()
        log.info("metrics and health on %s", listen)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer nobody any more; requests in progress end by themselves."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
