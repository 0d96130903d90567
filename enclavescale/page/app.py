"""The application: the page's files, the state as JSON, its changes as events, probes and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from enclavescale.endpoint import answer_json
from enclavescale.health import Answer, Health, Need
from enclavescale.page.guard import Guard, put_headers
from enclavescale.page.hub import Full, Hub, event
from stream_jobs.web.board import Board

TICK_S = 0.25
"""Changes are gathered for so long before they are sent, s."""

STATUS_TICKS = 2
"""Every so many ticks it is asked what is wrong."""

BEAT_S = 10.0
"""A reader hears something at least so often, s; a page that hears nothing for longer says so."""

WRITE_S = 20.0
"""A reader that takes nothing for so long is let go, s."""

SILENT_S = 10.0
"""A connection has so long for its first request, s."""

MAX_CONNECTIONS = 512
"""Connections beyond readers are short; more than so many at a time are closed."""

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    kind: str
    etag: str


def page_files() -> dict[str, _File]:
    """The page's own files by name."""
    found = {}
    for one in resources.files("enclavescale.page").joinpath("static").iterdir():
        kind = TYPES.get(one.name.rpartition(".")[2])
        if kind is not None:
            body = one.read_bytes()
            found[one.name] = _File(body, kind, hashlib.sha256(body).hexdigest()[:32])
    return found


class PageMetrics:
    """Prometheus collector of the page."""

    def __init__(self, board: Board, hub: Hub, wall: Callable[[], float]):
        self._board, self._hub, self._wall = board, hub, wall

    def describe(self) -> list[Metric]:
        """Nothing is read before it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read board and hub; no broker is asked."""
        figures = self._board.figures()
        outputs = CounterMetricFamily("enclavescale_page_outputs", "Outputs read, by verdict", labels=["verdict"])
        for verdict in ("verified", "refused", "unchecked", "malformed"):
            outputs.add_metric([verdict], figures[verdict])
        yield outputs
        yield CounterMetricFamily("enclavescale_page_refusals", "Dead letters read", value=figures["refusals"])
        yield GaugeMetricFamily("enclavescale_page_domains", "Domains shown", value=figures["domains"])
        yield GaugeMetricFamily("enclavescale_page_readers", "Readers of the event stream", value=len(self._hub))
        yield CounterMetricFamily(
            "enclavescale_page_readers_dropped", "Readers let go because they were too slow", value=self._hub.dropped
        )
        yield CounterMetricFamily(
            "enclavescale_page_readers_refused", "Readers beyond --max-readers", value=self._hub.turned_away
        )
        now_ms = int(self._wall() * 1000)
        since = self._board.stale_since_ms(now_ms)
        stale_s = 0.0 if since is None else (now_ms - since) / 1000
        yield GaugeMetricFamily("enclavescale_page_stale_seconds", "How long no broker has answered", value=stale_s)


class Page:
    """Handlers over a board. `reading`: whether what fills the board is alive; `wall`: UTC seconds."""

    def __init__(
        self,
        board: Board,
        *,
        max_readers: int,
        reading: Callable[[], bool],
        wall: Callable[[], float] = time.time,
    ):
        self._board, self._wall, self._reading = board, wall, reading
        self._files = page_files()
        self.hub = Hub(self._snapshot, boot=secrets.token_hex(4), max_readers=max_readers)
        self.health = Health()
        self.health.expect("reader", Need.LIVE, within_s=15)
        self.health.expect("brokers", Need.READY, within_s=15)
        self.health.expect("caught up", Need.READY, within_s=15, grace_s=300)
        self._registry = CollectorRegistry()
        self._registry.register(PageMetrics(board, self.hub, wall))
        self._asked: set[object] = set()

    def application(self, guard: Guard) -> web.Application:
        """The aiohttp application. No body is ever read."""
        app = web.Application(middlewares=[self._note, guard.middleware], client_max_size=1)
        app.on_response_prepare.append(put_headers)
        app.cleanup_ctx.append(self._ticking)
        app.router.add_get("/", self._index)
        app.router.add_get("/static/{name:[a-z]+[.](?:css|js|svg)}", self._static)
        app.router.add_get("/api/v1/state", self._state)
        app.router.add_get("/api/v1/events", self._events, allow_head=False)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    def _snapshot(self) -> dict[str, Any]:
        return self._board.snapshot(int(self._wall() * 1000))

    # -- files -----------------------------------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return self._file(request, "index.html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        return self._file(request, request.match_info["name"])

    def _file(self, request: web.Request, name: str) -> web.StreamResponse:
        found = self._files.get(name)
        if found is None:
            return web.Response(status=404, text="no such file\n")
        headers = {hdrs.CACHE_CONTROL: "no-cache"}
        if any(one.value in {found.etag, "*"} for one in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        else:
            response = web.Response(body=found.body, content_type=found.kind, charset="utf-8", headers=headers)
            response.enable_compression()
        response.etag = found.etag
        return response

    # -- state -----------------------------------------------------------------------------------------------

    async def _state(self, request: web.Request) -> web.StreamResponse:
        body = await asyncio.to_thread(lambda: json.dumps(self._snapshot(), separators=(",", ":")).encode())
        response = web.Response(body=body, content_type="application/json", charset="utf-8")
        response.enable_compression()
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        try:
            reader = await self.hub.join(request.headers.get("Last-Event-ID"))
        except Full:
            return web.Response(status=503, text="too many readers\n", headers={hdrs.RETRY_AFTER: "10"})
        response = web.StreamResponse(headers={hdrs.CACHE_CONTROL: "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        try:
            await response.prepare(request)
            await self._send(response, self._beat(), b"retry: 2000\n")
            while True:
                try:
                    made = await asyncio.wait_for(reader.queue.get(), BEAT_S)
                except TimeoutError:
                    made = self._beat()
                if made is None:
                    break
                await self._send(response, made)
        except (ConnectionError, TimeoutError):
            pass  # gone, or so slow that it is as good as gone
        finally:
            self.hub.leave(reader)
        return response

    async def _send(self, response: web.StreamResponse, made: bytes, first: bytes = b"") -> None:
        async with asyncio.timeout(WRITE_S):
            await response.write(first + made)

    def _beat(self) -> bytes:
        return event("beat", {"now_ms": int(self._wall() * 1000), "every_ms": int(BEAT_S * 1000)})

    # -- probes ----------------------------------------------------------------------------------------------

    async def _livez(self, request: web.Request) -> web.StreamResponse:
        return _probe(self.health.live())

    async def _readyz(self, request: web.Request) -> web.StreamResponse:
        return _probe(self.health.ready())

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(self._registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    # -- time ------------------------------------------------------------------------------------------------

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self._asked.add(request.protocol)
        result: web.StreamResponse = await handler(request)
        return result

    async def _ticking(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._tick())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.hub.close()

    async def _tick(self) -> None:
        ticks = 0
        while True:
            ticks += 1
            now_ms = int(self._wall() * 1000)
            self.hub.publish(self._board.changes(now_ms, with_status=ticks % STATUS_TICKS == 0))
            if ticks % STATUS_TICKS == 0:
                self._tell_health(now_ms)
            await asyncio.sleep(TICK_S)

    def _tell_health(self, now_ms: int) -> None:
        if self._reading():
            self.health.ok("reader")
        if self._board.stale_since_ms(now_ms) is None:
            self.health.ok("brokers")
        else:
            self.health.fail("brokers", "STALE", "no broker answers")
        if self._board.caught_up():
            self.health.ok("caught up")

    async def shed(self, server: web.Server) -> None:
        """For ever: close connections that never ask anything, and those beyond `MAX_CONNECTIONS`."""
        met: dict[object, float] = {}
        while True:
            self.shed_once(server, met, time.monotonic())
            await asyncio.sleep(1.0)

    def shed_once(self, server: web.Server, met: dict[object, float], now: float) -> None:
        """Close what is too much or too silent at `now`, s; `met` holds when each connection was seen first."""
        connections = list(server.connections)
        for gone in met.keys() - set(connections):
            del met[gone]
        self._asked &= set(connections)
        for number, one in enumerate(connections):
            since = met.setdefault(one, now)
            if number >= MAX_CONNECTIONS or (one not in self._asked and now - since > SILENT_S):
                one.force_close()


def _probe(answer: Answer) -> web.Response:
    return web.json_response(answer_json(answer), status=200 if answer.good else 503)
