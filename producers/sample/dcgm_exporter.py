"""One scrape of a DCGM exporter: its Prometheus text over HTTP, bounded in bytes and time, and the rows of power in it.

Errors never quote the text nor the address, which may hold credentials.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from prometheus_client.parser import text_string_to_metric_families

from producers.errors import DcgmError
from schemas.errors import ConfigError

FIELD = "DCGM_FI_DEV_POWER_USAGE"
"""Field 155 of DCGM, W; the exporter's default collectors have it."""
BLANK = 140737488355328.0
"""DCGM_FP64_BLANK: from here on a number is a code for "no value" (dcgm_fields.h)."""
MAX_BYTES = 8 << 20
"""Largest exposition read: an exporter with every field of 16 GPUs answers with some 200 kB."""
MAX_ROWS = 4096
"""Most rows of power read: 16 GPUs, each shared by seven instances, have 112."""


@dataclass(frozen=True, slots=True)
class DcgmGpu:
    """One GPU's row: `index` as DCGM counts, `power_w` in W or None (no value), `time_ms` only where the row has one.

    `mig`: the GPU is split into instances, each of which has a row with the power of the whole board.
    """

    uuid: str
    model: str
    index: int
    power_w: float | None
    time_ms: int | None
    mig: bool


class Fetch(Protocol):
    """Gets the exposition's bytes; raises `DcgmError`, nothing else."""

    def __call__(self) -> bytes:
        """Return the body of one response."""


def split_url(url: str) -> SplitResult:
    """Return the parts of an exporter's address. Raises `ConfigError` unless it is http or https with a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("the exporter's address must be an http or https URL", field="dcgm_url")
    return parts


class HttpFetch:
    """GET with a limit in bytes and in time for the whole answer, headers included; follows nothing, uses no proxy."""

    def __init__(self, url: str, timeout_s: float, *, max_bytes: int = MAX_BYTES) -> None:
        self._parts = split_url(url)
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

    def __call__(self) -> bytes:
        """Return the body of a complete answer with status 200. Raises `DcgmError`."""
        try:
            with contextlib.closing(self._connect()) as connection, _deadline(connection, self._timeout_s):
                path = self._parts.path or "/"
                target = f"{path}?{self._parts.query}" if self._parts.query else path
                connection.request("GET", target, headers={"Accept": "text/plain", "Connection": "close"})
                with connection.getresponse() as response:
                    return self._body(response)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DcgmError(f"no answer: {type(error).__name__}") from None

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=self._timeout_s)
        connection.connect()
        return connection

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if response.status != http.client.OK:
            raise DcgmError(f"HTTP status {response.status}")
        body = response.read(self._max_bytes + 1)
        if len(body) > self._max_bytes:
            raise DcgmError(f"more than {self._max_bytes} bytes")
        # http.client returns what came where the other side hung up; 61 may be what is left of 612.34.
        if response.length or not body.endswith(b"\n"):
            raise DcgmError("an answer that is cut short")
        return body


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """Hang up when time is over: a socket's own time-out begins again with every byte that trickles in."""
    sock = connection.sock  # the connection forgets it once the answer says that it is the last

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def parse_exposition(body: bytes) -> tuple[DcgmGpu, ...]:
    """Return every GPU's power from Prometheus text, sorted by model and index; other metrics are not looked at.

    A GPU that several pods or MIG instances share has several rows: the first counts. Raises `DcgmError` for text
    that cannot be parsed or rows that do not name their GPU. The message never quotes the text.
    """
    name = FIELD.encode()
    lines = [line for line in body.split(b"\n") if line.startswith(name)]
    if len(lines) > MAX_ROWS:
        raise DcgmError(f"more than {MAX_ROWS} rows of {FIELD}")
    found: dict[str, DcgmGpu] = {}
    try:
        for family in text_string_to_metric_families(b"\n".join([*lines, b""]).decode()):
            for sample in family.samples:
                if sample.name == FIELD:
                    gpu = _gpu(sample.labels, float(sample.value), sample.timestamp)
                    found.setdefault(gpu.uuid, gpu)
    except Exception as error:  # the parser is written for what exporters write, and fails in many ways on the rest
        raise DcgmError(f"{FIELD}: not an exporter's text ({type(error).__name__})") from None
    return tuple(sorted(found.values(), key=lambda one: (one.model, one.index, one.uuid)))


def _gpu(labels: Mapping[str, str], value: float, timestamp: object) -> DcgmGpu:
    # Only codes for "no value" are missing; any other number is a reading, whatever its size, and clipped later.
    missing = math.isnan(value) or BLANK <= value < math.inf
    return DcgmGpu(
        uuid=labels["UUID"],
        model=labels["modelName"],
        index=int(labels["gpu"]),
        power_w=None if missing else max(value, -BLANK),
        time_ms=None if timestamp is None else int(float(str(timestamp)) * 1000),
        mig=bool(labels.get("GPU_I_ID")),
    )
