"""Run the page until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from enclavescale.page.app import Page
from enclavescale.page.guard import Access, Guard, is_loopback, load_certificates, read_token, tls_context
from schemas.errors import ConfigError, EnclaveScaleError

log = logging.getLogger(__name__)

STOP_S = 3.0
"""Time that open requests have at the end, s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where the page listens and who may read it. `on_start` is told the address as a URL."""

    host: str
    port: int
    access: Access
    on_start: Callable[[str], None]


def names_for(serving: Serving, token: str | None) -> tuple[str, ...] | None:
    """Names the page answers to; None for any, where a lock or a decision makes names no matter."""
    access = serving.access
    if token is not None or access.client_ca is not None or access.unsafe_public:
        return None
    return ("localhost", serving.host, *access.host_names)


async def serve_page(page: Page, serving: Serving) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads token and certificates again. Raises ConfigError."""
    access = serving.access
    token = read_token(access.token_file)
    access.check(serving.host, token)
    context = tls_context(access)
    guard = Guard(token, names=names_for(serving, token))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def reload() -> None:
        try:
            token = read_token(access.token_file)
            if token is not None or guard.token is None:
                guard.token = token
            if context is not None:
                load_certificates(context, access)
        except EnclaveScaleError as error:
            log.error("not reloaded: %s: %s", error.code, error)

    loop.add_signal_handler(signal.SIGHUP, reload)
    runner = web.AppRunner(
        page.application(guard), access_log=None, shutdown_timeout=STOP_S, keepalive_timeout=30, max_line_size=4096,
        max_field_size=8192,
    )  # fmt: skip
    await runner.setup()
    shedding: asyncio.Task[None] | None = None
    try:
        site = web.TCPSite(runner, serving.host, serving.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            reason = error.strerror or "not possible"
            raise ConfigError(f"cannot listen on {serving.host}:{serving.port}: {reason}", field="listen") from error
        if runner.server is not None:
            shedding = asyncio.create_task(page.shed(runner.server))
        port = int(runner.addresses[0][1])
        shown = f"[{serving.host}]" if ":" in serving.host else serving.host
        serving.on_start(f"{'http' if context is None else 'https'}://{shown}:{port}/")
        if not is_loopback(serving.host) and token is None and access.client_ca is None:
            log.warning("UNSAFE: whoever reaches this address reads the page")
        await stop.wait()
        page.hub.close()
    finally:
        if shedding is not None:
            shedding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shedding
        await runner.cleanup()
