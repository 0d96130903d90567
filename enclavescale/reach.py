"""Is there a cluster, does it let this client in, has it the topic? Bounded waits, and the reason where it is known."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from cryptography import x509

from enclavescale.errors import ClusterUnreachable, TopicFailed
from schemas.errors import ConfigError, EnclaveScaleError
from stream_jobs.kafka_errors import NotAuthorized, TlsFailed, access_error
from stream_jobs.kafka_tls import ssl_context

REACH_S = 10.0
"""Longest wait for a first answer of a cluster, s."""

ROUND_S = 0.5
"""One question to a cluster, s; after it, what the client library has met is looked at."""

SETTLED_ROUNDS = 2
"""Rounds after which a broker's refusal counts: of several brokers another one may still answer."""

HANDSHAKE_S = 3.0
"""Longest wait for one broker's handshake when a reason is looked for, s."""

DEFAULT_PORT = 9092
TOKEN_CALLBACK = "oauth_cb"  # noqa: S105  a name; `stream_jobs.kafka_tokens` loads much
NO_REASON = "Somebody takes the connection and says nothing: is security.protocol that of this listener?"
NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""OpenSSL's words for an answer that is not TLS."""


class Ear:
    """Hears a client's errors: its `error_cb`. `refusal` is the first one of a broker that does not let it in."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.refusal: EnclaveScaleError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take one."""
        self.refusal = self.refusal or access_error(error)
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the sum of the others
            self.reasons.append(error.str())


def check(
    kafka: Mapping[str, str], wait_s: float = REACH_S, clock: Callable[[], float] = time.monotonic
) -> AdminClient:
    """A client that a cluster has answered. Raises ClusterUnreachable, AuthenticationFailed, TlsFailed, TokenFailed,
    ConfigError, and KafkaException for properties that the client library refuses."""
    token_file: Any = kafka.get(TOKEN_CALLBACK)
    if callable(token_file):
        token_file()  # the client library would wait for ten seconds and not say why
    ear = Ear()
    settings: dict[str, Any] = {**kafka, "error_cb": ear, "log_level": 0}
    admin = AdminClient(settings)
    deadline, rounds = clock() + wait_s, 0
    while True:
        try:
            admin.list_topics(timeout=ROUND_S)
            return admin
        except KafkaException as error:
            said = _said(error)
        admin.poll(0)  # hands out what the client has met
        rounds += 1
        if ear.refusal is not None and rounds >= SETTLED_ROUNDS:
            raise _explained(ear.refusal, kafka)
        if clock() >= deadline:
            reason = ear.reasons[0] if ear.reasons else f"{said}. {NO_REASON}"
            raise ClusterUnreachable(f"no broker answered within {wait_s:.0f} s: {reason}")


def metadata(client: Any, topic: str | None = None) -> Any:
    """Metadata of a cluster, from a consumer or an admin client. Raises ClusterUnreachable within `REACH_S`."""
    try:
        return client.list_topics(topic, timeout=REACH_S) if topic else client.list_topics(timeout=REACH_S)
    except KafkaException as error:
        raise ClusterUnreachable(f"no broker answered within {REACH_S:.0f} s: {_said(error)}") from error


def partitions_of_topic(client: Any, topic: str) -> list[int]:
    """Numbers of a topic's partitions. Raises NotAuthorized, or TopicFailed if there is no such topic."""
    found = metadata(client, topic).topics[topic]
    if found.error is not None or not found.partitions:
        reason = found.error.str() if found.error is not None else "no partitions"
        if isinstance(access_error(found.error), NotAuthorized):
            raise NotAuthorized(f"{topic}: {reason}", field=topic)
        raise TopicFailed(f"{topic}: {reason}", field=topic)
    return sorted(found.partitions)


def _said(error: KafkaException) -> str:
    return error.args[0].str() if error.args and hasattr(error.args[0], "str") else str(error)


def _explained(refusal: EnclaveScaleError, kafka: Mapping[str, str]) -> EnclaveScaleError:
    """The same; where TLS failed, with the reason, which librdkafka keeps to itself."""
    if not isinstance(refusal, TlsFailed):
        return refusal
    for host, port in servers(kafka.get("bootstrap.servers") or kafka.get("metadata.broker.list") or ""):
        with contextlib.suppress(ConfigError):
            if (reason := handshake_failure(kafka, host, port)) is not None:
                return TlsFailed(f"{host}:{port}: {reason}")
    return refusal


def servers(text: str) -> list[tuple[str, int]]:
    """Hosts and ports of `bootstrap.servers`."""
    found = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        place = part.split("://", 1)[-1]
        host, colon, port = place.rpartition(":")
        if not colon or "]" in port or not port.isdigit():
            host, port = place, str(DEFAULT_PORT)
        found.append((host.strip("[]"), int(port)))
    return found


def handshake_failure(kafka: Mapping[str, str], host: str, port: int) -> str | None:
    """Why a handshake of TLS with one broker fails, None where it does not or nobody is there. Raises ConfigError."""
    context = ssl_context(kafka)
    try:
        with (
            socket.create_connection((host, port), HANDSHAKE_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            # A server's alert about our certificate comes after the handshake; one that is content is silent.
            wrapped.settimeout(ROUND_S)
            wrapped.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"the broker's certificate is not accepted: {error.verify_message}"
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        if error.reason in NO_TLS:
            return "the broker does not speak TLS there: is security.protocol that of this listener?"
        own = _own_certificate(kafka)
        return f"the broker does not accept this client: {own or error.reason or 'TLS alert'}"
    except OSError:
        return None
    return None


def _own_certificate(kafka: Mapping[str, str]) -> str | None:
    """What is wrong with this client's certificate, as far as its own dates say."""
    place, text = kafka.get("ssl.certificate.location"), kafka.get("ssl.certificate.pem")
    if not place and not text:
        return "it wants a certificate, and none is configured (ssl.certificate.location)"
    try:
        data = Path(place).read_bytes() if place else str(text).encode()
        end = x509.load_pem_x509_certificate(data).not_valid_after_utc
    except (OSError, ValueError):
        return None
    if end < datetime.datetime.now(datetime.UTC):
        return f"its certificate ended {end:%Y-%m-%d %H:%M} UTC"
    return None
