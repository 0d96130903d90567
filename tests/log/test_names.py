"""librdkafka's names to Faust's: the table, the refusals, and that secrets stay out of sight."""

from __future__ import annotations

import datetime
from pathlib import Path

import faust
import pytest
from confluent_kafka import Consumer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schemas.errors import ConfigError
from stream_jobs.kafka_names import CONNECTION_PROPERTIES, CONSUMER_PROPERTIES, faust_connection
from stream_jobs.settings import LogSettings, faust_settings

SERVERS = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime(2026, 1, 1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder: Path = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = serialization.BestAvailableEncryption(b"key-secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (folder / "key.pem").write_bytes(pem)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("a:1", ["aiokafka://a:1"]),
        ("a:1, b:2", ["aiokafka://a:1", "aiokafka://b:2"]),
        ("a", ["aiokafka://a:9092"]),
        ("SASL_SSL://a:1", ["aiokafka://a:1"]),
        ("[::1]:5", ["aiokafka://[::1]:5"]),
        ("[::1]", ["aiokafka://[::1]:9092"]),
    ],
)
def test_log_names_brokers(text: str, urls: list[str]) -> None:
    assert faust_connection({"bootstrap.servers": text}).brokers == urls


def test_log_names_every_property_of_the_table_is_known_to_librdkafka_and_faust() -> None:
    samples = {"client.id": "c", "group.instance.id": "i", "check.crcs": "true"}
    values = {name: samples.get(name, "7000") for name in CONSUMER_PROPERTIES}
    Consumer({**values, **SERVERS, "group.id": "g", "heartbeat.interval.ms": "1000"}).close()
    known = set(faust.Settings.SETTINGS)
    assert {setting for setting, _ in CONSUMER_PROPERTIES.values()} <= known
    settings = faust_connection({**values, **SERVERS}).settings
    assert settings["broker_session_timeout"] == 7.0
    assert settings["consumer_max_fetch_size"] == 7000
    assert settings["broker_check_crcs"] is True
    assert not CONNECTION_PROPERTIES & CONSUMER_PROPERTIES.keys()


def test_log_names_settings_are_faust_settings(tmp_path: Path) -> None:
    settings = faust_settings(LogSettings(), group="g", brokers=["aiokafka://a:1"], datadir=tmp_path)
    assert settings.keys() <= set(faust.Settings.SETTINGS) | {"id"}
    assert settings["stream_buffer_maxsize"] == 1024


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_log_names_sasl(mechanism: str) -> None:
    given = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "sasl.username": "u"}
    made = faust_connection({**SERVERS, **given, "sasl.password": "hidden-secret"})
    credentials = made.settings["broker_credentials"]
    assert credentials.protocol.value == "SASL_PLAINTEXT"
    assert credentials.mechanism.value == mechanism
    assert (credentials.username, credentials.password) == ("u", "hidden-secret")
    assert "hidden-secret" not in repr(made) + repr(credentials) + str(made)


def test_log_names_mutual_tls(certificate: tuple[str, str]) -> None:
    tls = {
        "security.protocol": "ssl",
        "ssl.ca.location": certificate[0],
        "ssl.certificate.location": certificate[0],
        "ssl.key.location": certificate[1],
        "ssl.key.password": "key-secret",
    }
    made = faust_connection({**SERVERS, **tls})
    context = made.settings["broker_credentials"].context
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert "key-secret" not in repr(made)
    sasl = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.username": "u", "sasl.password": "p"}
    named = faust_connection({**SERVERS, **tls, **sasl, "ssl.endpoint.identification.algorithm": "none"})
    assert named.settings["broker_credentials"].protocol.value == "SASL_SSL"
    assert not named.settings["broker_credentials"].ssl_context.check_hostname
    with pytest.raises(ConfigError) as caught:
        faust_connection({**SERVERS, **tls, "ssl.key.password": "wrong-secret"})
    assert "wrong-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"bootstrap.servers": ""}, "kafka.bootstrap.servers"),
        ({**SERVERS, "group.id": "g"}, "kafka.group.id"),
        ({**SERVERS, "enable.auto.commit": "true"}, "kafka.enable.auto.commit"),
        ({**SERVERS, "auto.offset.reset": "latest"}, "kafka.auto.offset.reset"),
        ({**SERVERS, "session.timeout.ms": "soon"}, "kafka.session.timeout.ms"),
        ({**SERVERS, "security.protocol": "tls"}, "kafka.security.protocol"),
        ({**SERVERS, "security.protocol": "sasl_plaintext"}, "kafka.sasl.mechanism"),
        (
            {**SERVERS, "security.protocol": "sasl_plaintext", "sasl.mechanism": "OAUTHBEARER"},
            "kafka.sasl.oauthbearer.method",
        ),
        (
            {**SERVERS, "security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "u"},
            "kafka.sasl.password",
        ),
        (
            {**SERVERS, "security.protocol": "ssl", "enable.ssl.certificate.verification": "false"},
            "kafka.enable.ssl.certificate.verification",
        ),
        ({**SERVERS, "security.protocol": "ssl", "ssl.ca.location": "/nowhere.pem"}, "kafka.ssl.ca.location"),
        ({**SERVERS, "security.protocol": "ssl", "ssl.key.location": "k"}, "kafka.ssl.certificate.location"),
        (
            {**SERVERS, "security.protocol": "ssl", "ssl.endpoint.identification.algorithm": "maybe"},
            "kafka.ssl.endpoint.identification.algorithm",
        ),
    ],
)
def test_log_names_refusals(properties: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        faust_connection(properties)
    assert caught.value.field == field


def test_log_names_what_only_librdkafka_has_is_named_without_its_value() -> None:
    made = faust_connection({**SERVERS, "linger.ms": "50", "plugin.library.paths": "hidden-secret"})
    assert made.ignored == ("linger.ms", "plugin.library.paths")
    assert "hidden-secret" not in repr(made)
