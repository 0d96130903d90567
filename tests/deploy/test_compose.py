"""docker-compose.yml: valid, pinned, on loopback, hardened, and every command line one that the program takes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from enclavescale.agent.file import load_spec
from enclavescale.cli.policy import demo_policy
from enclavescale.fleet import AGGREGATOR_ID
from tests.broker.kafka import KAFKA_VERSION
from tests.deploy import command_lines
from tests.deploy.compose import DOCUMENT, FILE, OURS, SERVICES, STAGES, arguments, mounts
from tests.deploy.test_image import stages
from tests.house.source import ROOT
from tests.registry import server as registry
from tests.tools import find_tool, need_tool

SIGNER = "04" + "6b" * 64
COMPOSE = ROOT / "deploy" / "compose"
SETUP = COMPOSE / "setup.sh"
AGENTS = [name for name, one in OURS.items() if STAGES[one["image"]] == "agent"]
ONE_SHOT = ("setup", "tail", "demo")


def test_compose_reads_it() -> None:
    """With Docker's own plugin, or with the library that it reads the file with."""
    tool = find_tool("compose-spec")
    command = [tool] if tool is not None else [need_tool("docker"), "compose", "--file"]
    command += [str(FILE)] if tool is not None else [str(FILE), "config"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if tool is None and "unknown command: docker compose" in done.stdout + done.stderr:
        pytest.skip("needs docker with its compose plugin, or compose-spec")
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= {
        name for name in SERVICES if "profiles" not in SERVICES[name]
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_on_loopback_and_watched(name: str) -> None:
    service = SERVICES[name]
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert tag != "latest"
    assert name in OURS or re.search(r"\d+\.\d+\.\d+", tag), "a release, not a moving tag"
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")
    inherited = name in OURS and any("HEALTHCHECK" in line for line in stages()[STAGES[image + ":" + tag]])
    assert (name in ONE_SHOT) != (inherited or "test" in service.get("healthcheck", {}))
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    for other, wanted in service.get("depends_on", {}).items():
        one_shot = other in ONE_SHOT
        assert wanted["condition"] == ("service_completed_successfully" if one_shot else "service_healthy")


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_nothing_they_do_not_need(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert not {"privileged", "user", "cap_add", "network_mode", "pid"} & service.keys()


def test_volumes_are_declared_and_files_are_there() -> None:
    sources = [source for name in SERVICES for source in mounts(name).values()]
    assert {one for one in sources if not one.startswith(".")} == set(DOCUMENT["volumes"])
    assert [one for one in sources if one.startswith(".") and not (ROOT / one).exists()] == []
    own = [mounts(name)["/var/lib/enclavescale"] for name in AGENTS]
    assert len(set(own)) == len(own), "a spool belongs to one agent"


def test_versions_are_those_that_are_tested() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert SERVICES["schema-registry"]["image"] == f"apicurio/apicurio-registry:{registry.VERSION}"


@pytest.mark.parametrize("name", [one for one in OURS if one != "setup"])
def test_the_program_takes_every_command_line(name: str, tmp_path: Path) -> None:
    context = command_lines.parse(arguments(name, SIGNER), tmp_path)
    assert context.info_name == {"worker": "worker", "page": "serve", "tail": "tail", "demo": "demo"}.get(
        name, "produce"
    )
    if name == "worker":
        assert context.params["host_id"] == AGGREGATOR_ID, "as the demo's policy enrols it"
        assert context.params["tee"] == "simulated"
    if name in ("worker", "page"):
        assert context.params["signers"] == (SIGNER,)


def test_the_program_takes_every_command_of_setup(tmp_path: Path) -> None:
    lines = [one.strip() for one in SETUP.read_text().splitlines() if one.strip().startswith("enclavescale ")]
    assert len(lines) == 7
    (tmp_path / "f").touch()
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])[1:]
        files = {"fleet.toml", "policy.avro", "signer.pem", "passphrase"}
        words = ["/f" if one in files else one for one in words]  # parse puts a file in its place
        assert command_lines.parse(words, tmp_path)
    assert subprocess.run(["sh", "-n", str(SETUP)], check=False).returncode == 0


def test_the_hosts_are_those_that_setup_enrols(tmp_path: Path) -> None:
    (count,) = re.findall(r"--from-demo tee --hosts (\d+)", SETUP.read_text())
    specs = [load_spec(tomllib.loads((COMPOSE / f"{name}.toml").read_text())) for name in AGENTS]
    assert {mounts(name)["/etc/enclavescale/agent.toml"] for name in AGENTS} == {
        f"./deploy/compose/{name}.toml" for name in AGENTS
    }
    enrolled = {host.host_id for host in demo_policy(tmp_path, int(count)).hosts}
    ours = [host.host_id for spec in specs for host in spec.hosts]
    assert sorted(ours) == sorted(enrolled)
    for spec in specs:
        assert spec.tee == "simulated"
        assert spec.policy.startswith("/setup/")
        assert spec.tee_directory == "/setup/tee"


def test_prometheus_asks_every_worker_and_agent() -> None:
    named = {}
    for role in ("workers", "agents"):
        (group,) = yaml.safe_load((COMPOSE / "targets" / f"{role}.yml").read_text())
        named[role] = group["targets"]
    assert named == {"workers": ["worker:9465"], "agents": [f"{name}:9464" for name in AGENTS]}
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    asked = [file for job in config["scrape_configs"] for one in job["file_sd_configs"] for file in one["files"]]
    assert sorted(asked) == ["targets/agents.yml", "targets/workers.yml"]
    for name in AGENTS:
        assert load_spec(tomllib.loads((COMPOSE / f"{name}.toml").read_text())).listen.endswith(":9464")


def test_grafana_finds_prometheus_and_its_dashboards() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "enclavescale.yml").read_text())["providers"]
    place = mounts("grafana")[provider["options"]["path"]]
    assert len([json.loads(one.read_text()) for one in (ROOT / place).glob("*.json")]) >= 4
