"""Who may ask: bearer token or client certificate, the names this server answers to, and headers on every answer."""

from __future__ import annotations

import hmac
import ipaddress
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

from schemas.errors import ConfigError

TOKEN_VARIABLE = "ENCLAVESCALE_PAGE_TOKEN"  # noqa: S105  a name
MIN_TOKEN, MAX_TOKEN = 16, 1024
"""Characters of a token. `openssl rand -hex 32` gives 64."""

OPEN_PATHS = frozenset({"/", "/livez", "/readyz"})
OPEN_PREFIX = "/static/"
"""What needs no token: the empty page asks for it, and probes have none. None of it says a figure."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), usb=()",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the page is protected. `token_file`, or the variable `TOKEN_VARIABLE`; certificate and key for TLS, and with
    `client_ca` a certificate from every client; `host_names`: further names it answers to."""

    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    host_names: tuple[str, ...] = ()
    unsafe_public: bool = False

    def check(self, host: str, token: str | None) -> None:
        """Raise ConfigError where the options do not fit, or would show the page to a network without a lock."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key belong together", field="tls_cert")
        if self.client_ca is not None and self.tls_cert is None:
            raise ConfigError("--client-ca needs --tls-cert and --tls-key", field="client_ca")
        if is_loopback(host) or token is not None or self.client_ca is not None or self.unsafe_public:
            return
        raise ConfigError(
            f"{host} is no loopback address, and whoever reaches it would read the page",
            field="listen",
            remedy="Give --token-file, or --tls-cert, --tls-key and --client-ca; or --unsafe-public.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path | None, environment: Mapping[str, str] | None = None) -> str | None:
    """The bearer token of a file's first line, or else of `TOKEN_VARIABLE`; None without either. Raises ConfigError,
    which never shows it."""
    if path is not None:
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(4 * MAX_TOKEN).partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text"
            raise ConfigError(f"--token-file {path}: {reason}", field="token_file") from None
    else:
        given = (os.environ if environment is None else environment).get(TOKEN_VARIABLE)
        if given is None:
            return None
        text = given.strip()
    if not MIN_TOKEN <= len(text) <= MAX_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"a token has {MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters without spaces",
            field="token",
            remedy="Make one, for instance: openssl rand -hex 32",
        )
    return text


def tls_context(access: Access) -> ssl.SSLContext | None:
    """The server's TLS, None without a certificate. Raises ConfigError."""
    if access.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificates(context, access)
    return context


def load_certificates(context: ssl.SSLContext, access: Access) -> None:
    """Read certificate, key and client authorities into `context`, for the connections to come. Raises ConfigError."""
    name, path = "tls_cert", access.tls_cert
    try:
        if access.tls_cert is not None:
            context.load_cert_chain(access.tls_cert, access.tls_key, password=lambda: "")
        if access.client_ca is not None:
            name, path = "client_ca", access.client_ca
            context.load_verify_locations(access.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        option = name.replace("_", "-")
        raise ConfigError(f"--{option} {path}: {error.strerror or 'cannot be used'}", field=name) from None


class Guard:
    """Checks every request. `token` may be changed while it runs."""

    def __init__(self, token: str | None, *, names: tuple[str, ...] | None):
        """`names`: the only names, beside addresses, under which the page answers; None for any.

        Without a token, a web page from elsewhere could let its own name point at this machine and read the figures.
        """
        self.token, self._names = token, None if names is None else frozenset(one.lower() for one in names)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what may not pass; put the headers of safety on what does."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        return await handler(request)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, text="GET only\n", headers={hdrs.ALLOW: "GET, HEAD"})
        if request.can_read_body:
            return web.Response(status=413, text="no request bodies\n", headers={hdrs.CONNECTION: "close"})
        if not self._knows(request.headers.get(hdrs.HOST, "")):
            return web.Response(status=421, text="not a name of this server: see --host-name\n")
        path = request.path
        if self.token is None or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return None
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode()):
            return None
        return web.Response(
            status=401,
            text="a bearer token is needed\n",
            headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="enclavescale"'},
        )

    def _knows(self, header: str) -> bool:
        if self._names is None:
            return True
        if header.startswith("["):
            host = header[1:].partition("]")[0]
        else:
            host = header.rpartition(":")[0] if ":" in header else header
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return host.lower() in self._names
        return True


async def put_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal of aiohttp: every answer, errors too, carries `HEADERS` and no version of the server."""
    response.headers.update(HEADERS)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers[hdrs.SERVER] = "enclavescale"
