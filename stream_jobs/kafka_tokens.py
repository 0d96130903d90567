"""Tokens for SASL OAUTHBEARER: from a file that somebody else keeps fresh, or from an OpenID Connect provider.

librdkafka calls `TokenFile` itself and asks a provider by itself (`sasl.oauthbearer.method=oidc`); the classes for
aiokafka here do the same by the same properties.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]
from httpx2 import HTTPError

from schemas.errors import ConfigError, EnclaveScaleError

TOKEN_CALLBACK = "oauth_cb"  # noqa: S105 - a name
"""librdkafka's name, in Python, of what hands out tokens."""

OIDC_PROPERTIES = frozenset(
    {
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.scope",
        "sasl.oauthbearer.extensions",
        "sasl.oauthbearer.token.endpoint.url",
        "https.ca.location",
        "https.ca.pem",
    }
)

OPAQUE_S = 300.0
"""Lifetime taken for a token that does not say when it ends, s: its file is read again before."""

RENEW_AT = 0.8
"""Part of its lifetime after which a provider's token is renewed, as librdkafka does it."""

ASK_S = 10.0
"""Longest wait for a provider's answer, s."""

MAX_TOKEN_BYTES = 64 * 1024


class TokenFailed(EnclaveScaleError):
    """There is no token to show to the brokers."""

    code = "TOKEN_FAILED"
    remedy = "Check the token's file, or the provider's address, client id and secret and whether it answers."


class TokenFile(str):
    """The path of a file with a token, read whenever a client asks: call it as librdkafka's `oauth_cb`.

    It is a text so that it passes through everything that copies properties as text.
    """

    __slots__ = ()

    def __call__(self, _config: str = "") -> tuple[str, float]:
        """The token and the time of its end (Unix, s). Raises TokenFailed."""
        try:
            with Path(self).open(encoding="ascii") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise TokenFailed(f"the token's file cannot be read: {reason}") from None
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise TokenFailed("the token's file is empty, or too long")
        end = token_end(token)
        if end <= time.time():
            raise TokenFailed("the token in the file has ended; somebody has to put a new one there")
        return token, end

    def __str__(self) -> str:
        return self

    def __repr__(self) -> str:
        return f"TokenFile({str.__repr__(self)})"


def token_end(token: str, now: Callable[[], float] = time.time) -> float:
    """When a JSON Web Token ends (Unix, s), `OPAQUE_S` from now where it does not say. Nothing is verified."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return now() + OPAQUE_S


class FileTokens(AbstractTokenProvider):  # type: ignore[misc]
    """aiokafka's view of a `TokenFile`."""

    def __init__(self, file: TokenFile) -> None:
        self._file = file

    async def token(self) -> str:
        """The token as it is now. Raises TokenFailed."""
        return (await asyncio.to_thread(self._file))[0]


class OidcTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens by the grant of client credentials, kept until `RENEW_AT` of their lifetime. Raises ConfigError."""

    def __init__(self, properties: Mapping[str, str], now: Callable[[], float] = time.time) -> None:
        for name in ("client.id", "client.secret", "token.endpoint.url"):
            if not properties.get(f"sasl.oauthbearer.{name}"):
                full = f"sasl.oauthbearer.{name}"
                raise ConfigError(f"{full} is missing", field=f"kafka.{full}")
        self._endpoint = properties["sasl.oauthbearer.token.endpoint.url"]
        self._id, self._secret = properties["sasl.oauthbearer.client.id"], properties["sasl.oauthbearer.client.secret"]
        self._scope = properties.get("sasl.oauthbearer.scope")
        self._extensions = _extensions(properties.get("sasl.oauthbearer.extensions", ""))
        self._context = _https_context(properties)
        self._now = now
        self._token, self._renew_at = "", 0.0

    async def token(self) -> str:
        """A token that holds for a while. Raises TokenFailed; a token that still holds is used meanwhile."""
        now = self._now()
        if now >= self._renew_at:
            answer = await self._ask()
            self._token = str(answer["access_token"])
            end = token_end(self._token, self._now)
            if isinstance(answer.get("expires_in"), int | float):
                end = min(end, now + answer["expires_in"]) if "." in self._token else now + answer["expires_in"]
            self._renew_at = now + RENEW_AT * (end - now)
        return self._token

    def extensions(self) -> dict[str, str]:
        """What goes beside the token (RFC 7628)."""
        return self._extensions

    async def _ask(self) -> Mapping[str, Any]:
        # A client for one question: aiokafka asks on whatever loop it runs, and rarely.
        client = AsyncOAuth2Client(
            client_id=self._id, client_secret=self._secret, scope=self._scope, timeout=ASK_S, verify=self._context
        )
        async with client:
            try:
                answer = await client.fetch_token(self._endpoint, grant_type="client_credentials")
            except (AuthlibBaseError, HTTPError, ValueError) as error:
                # Not its text: an answer may repeat what it was asked with.
                raise TokenFailed(f"{self._endpoint}: {type(error).__name__}") from None
        if not isinstance(answer, Mapping) or not answer.get("access_token"):
            raise TokenFailed(f"{self._endpoint}: no token in the answer")
        return answer


def _extensions(text: str) -> dict[str, str]:
    pairs = [one.strip().partition("=") for one in text.split(",") if one.strip()]
    if any(not equals for _, equals, _ in pairs):
        raise ConfigError(
            "sasl.oauthbearer.extensions: NAME=VALUE, separated by commas", field="kafka.sasl.oauthbearer.extensions"
        )
    return {name: value for name, _, value in pairs}


def _https_context(properties: Mapping[str, str]) -> ssl.SSLContext:
    text, place = properties.get("https.ca.pem"), properties.get("https.ca.location")
    name = "https.ca.pem" if text else "https.ca.location"
    try:
        return ssl.create_default_context(cafile=None if text or place == "probe" else place, cadata=text or None)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "cannot be used"
        raise ConfigError(f"{name}: {reason}", field=f"kafka.{name}") from None
