"""librdkafka's property names, as operators know them, to Faust's and aiokafka's: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka.abc import AbstractTokenProvider
from faust.auth import Credentials, OAuthCredentials
from faust.types.auth import SASLMechanism

from schemas.errors import ConfigError
from stream_jobs.kafka_tls import TLS_PROPERTIES, ssl_context
from stream_jobs.kafka_tokens import OIDC_PROPERTIES, TOKEN_CALLBACK, FileTokens, OidcTokens, TokenFile

DEFAULT_PORT = 9092
_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def _seconds(text: str) -> float:
    return int(text) / 1000.0


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


# librdkafka's name -> (Faust's setting, how its text is read)
CONSUMER_PROPERTIES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "client.id": ("broker_client_id", str),
    "session.timeout.ms": ("broker_session_timeout", _seconds),
    "heartbeat.interval.ms": ("broker_heartbeat_interval", _seconds),
    "max.poll.interval.ms": ("broker_max_poll_interval", _seconds),
    "socket.timeout.ms": ("broker_request_timeout", _seconds),
    "topic.metadata.refresh.interval.ms": ("consumer_metadata_max_age_ms", int),
    "connections.max.idle.ms": ("consumer_connections_max_idle_ms", int),
    "max.partition.fetch.bytes": ("consumer_max_fetch_size", int),
    "fetch.message.max.bytes": ("consumer_max_fetch_size", int),
    "group.instance.id": ("consumer_group_instance_id", str),
    "check.crcs": ("broker_check_crcs", _flag),
}
# Read below, together.
CONNECTION_PROPERTIES = (
    frozenset(
        {
            "bootstrap.servers",
            "metadata.broker.list",
            "security.protocol",
            "sasl.mechanism",
            "sasl.mechanisms",
            "sasl.username",
            "sasl.password",
            TOKEN_CALLBACK,
        }
    )
    | TLS_PROPERTIES
    | OIDC_PROPERTIES
)
SECURITY_PREFIXES = ("ssl.", "sasl.", "https.", "enable.sasl.", "enable.ssl.")
"""A property that begins so and is not known here could change who is believed: it is refused, never left out."""
# What the worker's correctness rests on: never from outside.
DECIDED_BY_THE_WORKER = frozenset(
    {
        "group.id",
        "enable.auto.commit",
        "auto.commit.interval.ms",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "isolation.level",
        "partition.assignment.strategy",
        "group.protocol",
    }
)


@dataclass(frozen=True, slots=True)
class FaustConnection:
    """What came of the properties: `brokers` and `settings` for `faust.App`, and the names that reached nobody here.

    `ignored` are properties only librdkafka has (the output producer gets them all); names only, never values.
    """

    brokers: list[str]
    settings: dict[str, Any]
    ignored: tuple[str, ...]

    def __repr__(self) -> str:
        return f"FaustConnection(brokers={self.brokers!r}, settings={sorted(self.settings)!r})"  # no secrets


def faust_connection(properties: Mapping[str, str]) -> FaustConnection:
    """Translate `properties` (librdkafka's names, values as text); raises `ConfigError` naming the property."""
    for name in sorted(DECIDED_BY_THE_WORKER & properties.keys()):
        raise ConfigError(f"{name} is decided by the worker", field=f"kafka.{name}")
    settings: dict[str, Any] = {}
    for name, (faust_name, read) in CONSUMER_PROPERTIES.items():
        if name in properties:
            try:
                settings[faust_name] = read(str(properties[name]))
            except ValueError:
                raise ConfigError(f"{name} cannot be read", field=f"kafka.{name}") from None
    credentials = _credentials(properties)
    if credentials is not None:
        settings["broker_credentials"] = credentials
    unknown = sorted(properties.keys() - CONSUMER_PROPERTIES.keys() - CONNECTION_PROPERTIES)
    for name in unknown:
        if name.startswith(SECURITY_PREFIXES):
            raise ConfigError(f"{name} means nothing to the worker's consumer", field=f"kafka.{name}")
    return FaustConnection(_brokers(properties), settings, tuple(unknown))


def _brokers(properties: Mapping[str, str]) -> list[str]:
    text = properties.get("bootstrap.servers") or properties.get("metadata.broker.list") or ""
    urls = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        host = part.split("://", 1)[-1]  # librdkafka accepts a protocol in front; security.protocol is what counts
        has_port = host.rpartition("]")[2].count(":") == 1
        urls.append(f"aiokafka://{host}" if has_port else f"aiokafka://{host}:{DEFAULT_PORT}")
    if not urls:
        raise ConfigError("no broker is named", field="kafka.bootstrap.servers")
    return urls


def _credentials(properties: Mapping[str, str]) -> Credentials | None:
    protocol = str(properties.get("security.protocol", "plaintext")).lower()
    if protocol not in _PROTOCOLS:
        raise ConfigError(f"security.protocol: one of {', '.join(_PROTOCOLS)}", field="kafka.security.protocol")
    context = ssl_context(properties) if protocol.endswith("ssl") else None
    if not protocol.startswith("sasl"):
        return None if context is None else faust.SSLCredentials(context)
    mechanism = str(properties.get("sasl.mechanism") or properties.get("sasl.mechanisms") or "").upper()
    if mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=_tokens(properties), ssl_context=context)
    if mechanism not in _MECHANISMS:
        offered = ", ".join((*_MECHANISMS, "OAUTHBEARER"))
        raise ConfigError(f"sasl.mechanism {mechanism or '(none)'}: one of {offered}", field="kafka.sasl.mechanism")
    for name in ("sasl.username", "sasl.password"):
        if not properties.get(name):
            raise ConfigError(f"{name} is missing", field=f"kafka.{name}")
    return faust.SASLCredentials(
        username=properties["sasl.username"],
        password=properties["sasl.password"],
        ssl_context=context,
        mechanism=SASLMechanism(mechanism),
    )


def _tokens(properties: Mapping[str, str]) -> AbstractTokenProvider:
    """What hands out tokens: a file, or a provider asked by the grant of client credentials."""
    file = properties.get(TOKEN_CALLBACK)
    if isinstance(file, TokenFile):
        return FileTokens(file)
    method = str(properties.get("sasl.oauthbearer.method", "default")).lower()
    if method == "oidc":
        return OidcTokens(properties)
    raise ConfigError(
        "OAUTHBEARER without tokens",
        field="kafka.sasl.oauthbearer.method",
        remedy="Give sasl.oauthbearer.token.file, or sasl.oauthbearer.method=oidc with the provider's properties.",
    )
