"""Secrets by file, by environment, never by option; nothing that is shown holds one."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from enclavescale.secrets import SECRETS
from enclavescale.settings import environment_name, kafka_properties
from schemas.errors import ConfigError
from stream_jobs.kafka_names import faust_connection
from stream_jobs.kafka_tls import TLS_PROPERTIES, ssl_context
from tests.cli.conftest import call
from tests.security.certificates import Authority

SECRET = "Geheim-0815-hunter2"


def kept(path: Path, text: str = f"{SECRET}\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_its_file_without_the_end_of_the_line(tmp_path: Path, ending: str) -> None:
    place = str(kept(tmp_path / "secret", f" {SECRET} {ending}"))
    by_file = kafka_properties("a:1", (), {"kafka": {"sasl.password.file": place}}, {})
    by_environment = kafka_properties("a:1", (), {}, {"ENCLAVESCALE_KAFKA_SASL_PASSWORD_FILE": place})
    by_option = kafka_properties("a:1", [f"sasl.password.file={place}"], {}, {})
    assert by_file == by_environment == by_option == {"bootstrap.servers": "a:1", "sasl.password": f" {SECRET} "}


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_every_secret_has_a_file_and_none_is_an_option(tmp_path: Path, name: str) -> None:
    place = kept(tmp_path / "secret")
    assert kafka_properties("a:1", (), {"kafka": {f"{name}.file": str(place)}}, {})[name] == SECRET
    done = call("topics", "check", "--bootstrap", "127.0.0.1:1", "-K", f"{name}={SECRET}", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["field"] == f"kafka.{name}"
    assert environment_name(name) in done.stderr
    assert SECRET not in done.output
    again = kafka_properties("a:1", (), {}, {environment_name(name): SECRET})
    assert again[name] == SECRET


def test_a_name_with_an_underscore_has_its_variable() -> None:
    assert kafka_properties("a:1", (), {}, {environment_name("log_level"): "3"})["log_level"] == "3"


def test_both_ways_at_once_are_refused(tmp_path: Path) -> None:
    table = {"kafka": {"sasl.password": "x", "sasl.password.file": str(kept(tmp_path / "secret"))}}
    with pytest.raises(ConfigError, match="give one of them"):
        kafka_properties("a:1", (), table, {})


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), ("\n", "empty"), ("x" * 70_000, "more than"), (None, "No such file")]
)
def test_a_file_without_a_secret_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "secret"
    if text is not None:
        kept(path, text)
    with pytest.raises(ConfigError, match=reason) as caught:
        kafka_properties("a:1", (), {"kafka": {"sasl.password.file": str(path)}}, {})
    assert caught.value.field == "kafka.sasl.password.file"
    assert str(path) in str(caught.value)


def test_a_directory_or_bytes_are_no_secret(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for path, reason in ((tmp_path, "a directory"), (tmp_path / "bytes", "not text")):
        with pytest.raises(ConfigError, match=reason):
            kafka_properties("a:1", (), {"kafka": {"sasl.password.file": str(path)}}, {})


def test_a_file_that_anybody_may_change_is_refused_and_one_to_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = {"kafka": {"sasl.password.file": str(kept(tmp_path / "secret", mode=0o606))}}
    with pytest.raises(ConfigError, match="anybody on this machine may change it") as caught:
        kafka_properties("a:1", (), table, {})
    assert "chmod 600" in caught.value.remedy
    kept(tmp_path / "secret", mode=0o644)
    with caplog.at_level(logging.WARNING):
        assert kafka_properties("a:1", (), table, {})["sasl.password"] == SECRET
    assert "anybody on this machine may read it" in caplog.text
    assert SECRET not in caplog.text
    caplog.clear()
    kept(tmp_path / "secret", mode=0o640)
    kafka_properties("a:1", (), table, {})
    assert caplog.text == ""


def test_the_client_key_is_looked_at_too(tmp_path: Path) -> None:
    key = kept(tmp_path / "client.key", "key", 0o602)
    with pytest.raises(ConfigError) as caught:
        kafka_properties("a:1", (), {"kafka": {"ssl.key.location": str(key)}}, {})
    assert caught.value.field == "kafka.ssl.key.location"


# --- what the worker's consumer makes of TLS ------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


BASE = {"bootstrap.servers": "a:1", "security.protocol": "ssl"}


def test_texts_leave_no_file_and_no_descriptor_behind(authority: Authority) -> None:
    leaf = authority.leaf("client", password=SECRET)
    given = {
        "ssl.ca.pem": authority.ca.read_text(),
        "ssl.certificate.pem": leaf.certificate.read_text(),
        "ssl.key.pem": leaf.key.read_text(),
        "ssl.key.password": SECRET,
    }
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    context = ssl_context(given)
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname


def test_a_locked_key_without_its_password_fails_and_asks_nobody(authority: Authority) -> None:
    leaf = authority.leaf("locked", password=SECRET)
    given = {"ssl.certificate.location": str(leaf.certificate), "ssl.key.location": str(leaf.key)}
    with pytest.raises(ConfigError) as caught:
        ssl_context(given)
    assert caught.value.field == "kafka.ssl.certificate.location"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"ssl.ca.pem": SECRET}, "ssl.ca.pem"),
        ({"ssl.ca.pem": "x", "ssl.ca.location": "y"}, "ssl.ca.pem"),
        ({"ssl.certificate.pem": SECRET}, "ssl.certificate.pem"),
        ({"ssl.certificate.pem": "x", "ssl.certificate.location": "y"}, "ssl.certificate.pem"),
        ({"ssl.key.pem": SECRET}, "ssl.certificate.location"),
        ({"ssl.key.pem": "x", "ssl.key.location": "y"}, "ssl.key.pem"),
        ({"ssl.crl.location": "/nowhere"}, "ssl.crl.location"),
        ({"ssl.cipher.suites": SECRET}, "ssl.cipher.suites"),
        ({"ssl.keystore.location": "x.p12"}, "ssl.keystore.location"),
        ({"ssl.engine.location": "x"}, "ssl.engine.location"),
        ({"sasl.kerberos.principal": "x"}, "sasl.kerberos.principal"),
        ({"enable.sasl.oauthbearer.unsecure.jwt": "true"}, "enable.sasl.oauthbearer.unsecure.jwt"),
    ],
)
def test_what_the_consumer_cannot_follow_is_named_without_its_value(given: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        faust_connection({**BASE, **given})
    assert caught.value.field == f"kafka.{field}"
    assert SECRET not in str(caught.value)


def test_a_directory_of_authorities_and_the_systems_own(tmp_path: Path) -> None:
    for place in (str(tmp_path), "probe"):
        assert ssl_context({"ssl.ca.location": place}).check_hostname
    assert "ssl.ca.pem" in TLS_PROPERTIES
