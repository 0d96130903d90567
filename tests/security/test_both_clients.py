"""One configuration, two clients: whoever librdkafka lets in or not, aiokafka does, by every mechanism."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from enclavescale.reach import check
from enclavescale.settings import kafka_properties
from schemas.errors import ConfigError, EnclaveScaleError
from stream_jobs.kafka_names import faust_connection
from stream_jobs.kafka_tokens import FileTokens, OidcTokens, TokenFailed, TokenFile, token_end
from tests.security.certificates import Authority
from tests.security.estate import ROLES, Estate

CLIENT_ID, CLIENT_SECRET, KEY_PASSWORD = "fleet-client", "Geheim-oidc-4711", "Geheim-key-4711"
USER = ROLES["worker"]


def jwt(subject: str, end: float) -> str:
    """A token without a signature, as the test's broker takes it."""
    claims = {"sub": subject, "iat": int(time.time()), "exp": int(end)}
    parts = [json.dumps({"alg": "none"}), json.dumps(claims)]
    return ".".join([*(base64.urlsafe_b64encode(one.encode()).decode().rstrip("=") for one in parts), ""])


@pytest.fixture
def provider() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A provider of tokens on this machine: its address, and what it was asked."""
    asked: list[dict[str, str]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            given = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            asked.append(dict(urllib.parse.parse_qsl(body)))
            right = given == f"{CLIENT_ID}:{CLIENT_SECRET}"
            value: dict[str, Any] = {"error": "invalid_client", "error_description": given}
            if right:
                value = {"access_token": jwt(USER, time.time() + 600), "token_type": "Bearer", "expires_in": 600}
            data = json.dumps(value).encode()
            self.send_response(200 if right else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token", asked
        server.shutdown()
        thread.join(10)


def oidc(url: str, secret: str = CLIENT_SECRET) -> dict[str, str]:
    return {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": CLIENT_ID,
        "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.token.endpoint.url": url,
    }


def aiokafka_enters(kafka: dict[str, str]) -> set[str]:
    """Topics that the consumer under Faust sees with these properties; raises what aiokafka raises."""
    made = faust_connection(kafka)

    async def ask() -> set[str]:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=[one.removeprefix("aiokafka://") for one in made.brokers],
            request_timeout_ms=8_000,
            **credentials_to_aiokafka_auth(made.settings.get("broker_credentials")),
        )
        try:
            await consumer.start()
            return set(await consumer.topics())
        finally:
            await consumer.stop()

    return asyncio.run(ask())


def without_password(kafka: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in kafka.items() if name not in ("sasl.username", "sasl.password")}


def by_text(kafka: dict[str, str]) -> dict[str, str]:
    """The same certificates and key as texts."""
    files = {name: value for name, value in kafka.items() if name.endswith(".location")}
    others = {name: value for name, value in kafka.items() if name not in files}
    return others | {name.replace(".location", ".pem"): Path(value).read_text() for name, value in files.items()}


WAYS: dict[str, Callable[[Estate], dict[str, str]]] = {
    "plain": lambda estate: estate.broker.client(USER, "PLAIN"),
    "scram-256": lambda estate: estate.broker.client(USER, "SCRAM-SHA-256"),
    "scram-512": lambda estate: estate.broker.client(USER, "SCRAM-SHA-512"),
    "mutual": lambda estate: estate.broker.mutual(USER),
    "locked-key": lambda estate: estate.broker.mutual(USER, password=KEY_PASSWORD),
    "texts": lambda estate: by_text(estate.broker.mutual(USER)),
    "locked-texts": lambda estate: by_text(estate.broker.mutual(USER, password=KEY_PASSWORD)),
    "other-name-unchecked": lambda estate: (
        estate.broker.client(USER, listener="ELSEWHERE") | {"ssl.endpoint.identification.algorithm": "none"}
    ),
}


@pytest.mark.broker
@pytest.mark.parametrize("way", WAYS)
def test_both_are_let_in(estate: Estate, way: str) -> None:
    kafka = WAYS[way](estate)
    seen = set(check(kafka).list_topics(timeout=10).topics)
    assert "site.window-reports.v1" in seen
    assert aiokafka_enters(kafka) == seen


NOT_SO: dict[str, Callable[[Estate], dict[str, str]]] = {
    "password": lambda estate: estate.broker.client(USER) | {"sasl.password": "Falsch-4711"},
    "server-expired": lambda estate: estate.broker.client(USER, listener="EXPIRED"),
    "other-name": lambda estate: estate.broker.client(USER, listener="ELSEWHERE"),
    "authority": lambda estate: (
        estate.broker.client(USER) | {"ssl.ca.location": str(Authority(estate.directory / "stranger").ca)}
    ),
    "client-expired": lambda estate: estate.broker.mutual(USER, expired=True),
}


@pytest.mark.broker
@pytest.mark.parametrize("way", NOT_SO)
def test_neither_is_let_in(estate: Estate, way: str) -> None:
    kafka = NOT_SO[way](estate)
    with pytest.raises(EnclaveScaleError) as caught:
        check(kafka)
    assert caught.value.code in ("AUTHENTICATION_FAILED", "TLS_FAILED")
    with pytest.raises((KafkaError, OSError)):
        aiokafka_enters(kafka)


@pytest.mark.broker
def test_both_are_let_in_by_token(estate: Estate, tmp_path: Path, provider: tuple[str, list[dict[str, str]]]) -> None:
    """From a file, as the settings make it, and from a provider, which both of them ask."""
    file = tmp_path / "token"
    file.write_text(jwt(USER, time.time() + 600) + "\n")
    file.chmod(0o600)
    base = without_password(estate.broker.client(USER)) | {"sasl.mechanism": "OAUTHBEARER"}
    table = {"kafka": base | {"sasl.oauthbearer.token.file": str(file)}}
    url, asked = provider
    for kafka in (kafka_properties(None, (), table, {}), base | oidc(url)):
        seen = set(check(kafka).list_topics(timeout=10).topics)
        assert "site.window-reports.v1" in seen
        assert aiokafka_enters(kafka) == seen
    assert [one["grant_type"] for one in asked] == ["client_credentials"] * 2


def test_a_token_is_kept_until_most_of_its_life_is_over(provider: tuple[str, list[dict[str, str]]]) -> None:
    url, asked = provider
    now = [time.time()]
    tokens = OidcTokens(oidc(url) | {"sasl.oauthbearer.scope": "kafka"}, now=lambda: now[0])
    first = asyncio.run(tokens.token())
    assert first.count(".") == 2
    now[0] += 400
    assert asyncio.run(tokens.token()) == first
    assert len(asked) == 1
    assert asked[0]["scope"] == "kafka"
    now[0] += 100
    asyncio.run(tokens.token())
    assert len(asked) == 2


def test_a_provider_that_refuses_is_named_and_no_secret_is(provider: tuple[str, list[dict[str, str]]]) -> None:
    url, _ = provider
    with pytest.raises(TokenFailed) as caught:
        asyncio.run(OidcTokens(oidc(url, "Falsch-4711")).token())
    assert url in str(caught.value)
    assert "Falsch" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["client.id", "client.secret", "token.endpoint.url"])
def test_what_a_provider_needs_is_named(name: str) -> None:
    kafka = {**oidc("http://127.0.0.1:1/"), "bootstrap.servers": "a:1", "security.protocol": "SASL_PLAINTEXT"}
    del kafka[f"sasl.oauthbearer.{name}"]
    with pytest.raises(ConfigError, match="is missing") as caught:
        faust_connection(kafka)
    assert caught.value.field == f"kafka.sasl.oauthbearer.{name}"


def test_a_token_file_is_read_at_every_call_and_stays_itself_as_text(tmp_path: Path) -> None:
    path = tmp_path / "token"
    file = TokenFile(str(path))
    assert callable(str(file))
    assert str(file) == str(path)
    path.write_text("opaque\n")
    token, end = file()
    assert token == "opaque"
    assert 200 < end - time.time() <= 300
    later = int(time.time()) + 100
    path.write_text(jwt("a", later))
    assert file("")[1] == later == token_end(jwt("a", later))
    assert asyncio.run(FileTokens(file).token()) == path.read_text()
    path.write_text(jwt("a", time.time() - 10))
    with pytest.raises(TokenFailed, match="has ended"):
        file()
    path.write_text("")
    with pytest.raises(TokenFailed, match="empty"):
        file()
    path.unlink()
    with pytest.raises(TokenFailed, match="cannot be read"):
        file()
