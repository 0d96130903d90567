"""Kafka properties from file, environment and options; the documented example; secrets stay secret."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from enclavescale.agent import file as agent_file
from enclavescale.agent.file import ProduceSpec, load_spec
from enclavescale.settings import kafka_properties, load_file
from producers.privacy import default_budget
from schemas.errors import ConfigError
from tests.cli.conftest import call, process

SECRET = "hunter2-very-secret"
SIGNER = (
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""P-256's base point: a key that nobody signs with."""
AGENT = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()


def test_options_beat_the_file_and_the_file_beats_the_environment() -> None:
    environment = {
        "ENCLAVESCALE_KAFKA_BOOTSTRAP_SERVERS": "env:1",
        "ENCLAVESCALE_KAFKA_SASL_USERNAME": "env",
        "ENCLAVESCALE_KAFKA_LOG__LEVEL": "3",
        "ENCLAVESCALE_TIER": "test",
    }
    file = {
        "kafka": {"bootstrap": {"servers": "file:1"}, "socket.keepalive.enable": True},
        "kafka.linger.ms": 5,
        "other.name": "not Kafka's",
    }
    assert kafka_properties(None, (), None, environment) == {
        "bootstrap.servers": "env:1",
        "sasl.username": "env",
        "log_level": "3",
    }
    assert kafka_properties("option:1", ["kafka.linger.ms=7"], file, environment) == {
        "bootstrap.servers": "option:1",
        "sasl.username": "env",
        "log_level": "3",
        "socket.keepalive.enable": "true",
        "linger.ms": "7",
    }


def test_there_is_no_default_broker() -> None:
    with pytest.raises(ConfigError, match="no broker") as caught:
        kafka_properties(None, (), {}, {})
    assert caught.value.field == "kafka.bootstrap.servers"


@pytest.mark.parametrize("file", [{"kafka": SECRET}, {"kafka": {"sasl.password": [SECRET]}}])
def test_errors_of_the_file_never_show_a_value(file: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        kafka_properties("x:1", (), file, {})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("pair", [SECRET, f"sasl.pasword={SECRET}", f"security.protocol={SECRET}"])
def test_errors_of_options_never_show_a_value(pair: str) -> None:
    done = call("-v", "topics", "check", "--bootstrap", "127.0.0.1:1", "-K", pair, "--json")
    assert done.exit_code == 2
    assert SECRET not in done.stdout + done.stderr


def test_no_log_holds_a_secret(tmp_path: Path) -> None:
    """The worker, logging all it has, against nobody: from the environment, the file and an option."""
    config = tmp_path / "kafka.toml"
    config.write_text(f'[kafka]\n"sasl.username" = "{SECRET}-file"\n')
    options = ["--bootstrap", "127.0.0.1:1", "--kafka-config", str(config), "--group", "g", "--host-id", "a"]
    options += ["--policy-signer", SIGNER, "--simulated-tee", str(tmp_path / "tee")]
    options += ["-K", "security.protocol=SASL_PLAINTEXT", "-K", "sasl.mechanism=PLAIN"]
    log = ["-v", "--log-format", "json"]
    done = process(*log, "worker", *options, "--json", timeout_s=60, ENCLAVESCALE_KAFKA_SASL_PASSWORD=SECRET)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "CLUSTER_UNREACHABLE"
    assert SECRET not in done.stdout + done.stderr


def example(tmp_path: Path) -> Path:
    """The example of `docs/agent.md` as somebody would copy it, but for the port, which may be taken here."""
    (block,) = re.findall(r"```toml\n(.*?)```", AGENT, re.DOTALL)
    path = tmp_path / "produce.toml"
    path.write_text(block.replace(":9464", ":0"))
    return path


def test_the_documented_example_of_produce_loads(tmp_path: Path) -> None:
    table = load_file(example(tmp_path))
    spec = load_spec(table)
    assert [host.host_id for host in spec.hosts] == ["hall-a-host000"]
    properties = kafka_properties(None, (), table, {})
    assert properties["security.protocol"] == "SASL_SSL"
    assert "password" not in " ".join(properties), "secrets belong in the environment"


SPECS = [one for name, one in vars(agent_file).items() if name.endswith("Spec")]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_field_of_the_file_is_documented(spec: type[ProduceSpec]) -> None:
    assert len(SPECS) > 5
    documented = {name for name in spec.__dataclass_fields__ if f"`{name}`" in AGENT}
    assert documented == set(spec.__dataclass_fields__) - {"gated"}  # the demo's own


DEFAULTS = re.findall(
    r"^\| `(\w+)` \| `?([\w-]+)`? \|", AGENT[AGENT.index("## The file") : AGENT.index("## Life")], re.MULTILINE
)


@pytest.mark.parametrize(("field", "default"), DEFAULTS)
def test_documented_defaults_are_those_of_the_code(field: str, default: str) -> None:
    found = [str(one.__dataclass_fields__[field].default).lower() for one in SPECS if field in one.__dataclass_fields__]
    if field.endswith("_micro"):
        found = [str(getattr(default_budget(energy=False), field))]
    assert found == [default.lower()]


def test_the_documented_example_runs_up_to_its_policy(tmp_path: Path) -> None:
    done = call("produce", "--config", str(example(tmp_path)))
    assert done.exit_code == 2
    assert "policy.avro" in done.stderr


def test_unknown_fields_are_named(tmp_path: Path) -> None:
    table = {**tomllib.loads(example(tmp_path).read_text()), "polcy": "x"}
    with pytest.raises(ConfigError, match="polcy"):
        load_spec(table)
