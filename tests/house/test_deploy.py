"""What is deployed agrees with the program: the unit, its example file, the image's stages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from enclavescale.agent.file import load_spec
from enclavescale.cli import main
from enclavescale.cli.doctor import DEFAULT_CONFIG
from enclavescale.endpoint import Endpoint, endpoint_app
from enclavescale.health import Health, Need
from producers.agent import AgentConfig
from tests.house.source import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
UNIT = SYSTEMD / "enclavescale-agent.service"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
STATE = Path("/var/lib/enclavescale")
EXPOSURE = 20
"""Tenths of systemd's exposure level: 0 to 10, below 2.0 is a service with little left to take away."""

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here; the unit is still parsed")


def parse(text: str) -> dict[str, dict[str, list[str]]]:
    """A unit's sections, keys and values, as systemd reads them: a key may stand several times."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in text.splitlines():
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            section = line.strip("[]")
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        assert section, line
        found[section][key.strip()].append(value.strip())
    return found


SERVICE = parse(UNIT.read_text())["Service"]


def seconds(key: str) -> float:
    (value,) = SERVICE[key]
    return float(value)


def test_the_unit_is_hardened() -> None:
    demanded = {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "ProtectKernelModules": "yes",
        "ProtectKernelTunables": "yes",
        "ProtectControlGroups": "yes",
        "ProtectClock": "yes",
        "RestrictNamespaces": "yes",
        "RestrictSUIDSGID": "yes",
        "LockPersonality": "yes",
        "MemoryDenyWriteExecute": "yes",
        "DevicePolicy": "closed",
        "LimitCORE": "0",
        "MemorySwapMax": "0",
        "Type": "notify",
        "Restart": "always",
        "User": "enclavescale",
    }
    assert {key: SERVICE[key] for key in demanded} == {key: [value] for key, value in demanded.items()}
    assert SERVICE["DeviceAllow"] == ["char-nvidia* rw"], "the GPUs and nothing else"
    assert SERVICE["CapabilityBoundingSet"] == SERVICE["AmbientCapabilities"] == ["CAP_DAC_OVERRIDE"]
    assert "-/sys/kernel/config/tsm/report" in SERVICE["ReadWritePaths"]
    assert set(SERVICE["RestrictAddressFamilies"][0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}
    assert SERVICE["SystemCallFilter"][0] == "@system-service"


def test_the_unit_gives_the_agent_its_time() -> None:
    """Nobody gives signs of life while the last reports are sent, and nobody may be killed over that."""
    flush_s = float(str(AgentConfig.__dataclass_fields__["flush_s"].default))
    assert flush_s < seconds("WatchdogSec")
    assert flush_s < seconds("TimeoutStopSec")
    assert seconds("RestartSec") > 0
    assert parse(UNIT.read_text())["Unit"]["StartLimitIntervalSec"] == ["0"], "or it gives up after five starts"


def test_the_unit_starts_what_there_is() -> None:
    program, *arguments = SERVICE["ExecStart"][0].split()
    assert program == "/opt/enclavescale/bin/enclavescale"
    assert arguments[-2:] == ["--config", str(DEFAULT_CONFIG)]
    assert CliRunner().invoke(main, [*arguments[:-2], "--help"]).exit_code == 0
    assert Path("/var/lib") / SERVICE["StateDirectory"][0] == STATE
    users = [line.split() for line in (SYSTEMD / "enclavescale.sysusers").read_text().splitlines() if line[0] != "#"]
    assert [(line[0], line[1]) for line in users] == [("u", SERVICE["User"][0])]


@needs_systemd
def test_systemd_knows_every_line(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    command = [str(ANALYZE), "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    newer = re.compile(r"Unknown (key|key name) '(RestartSteps|RestartMaxDelaySec)'")  # since 254
    assert [line for line in said if not newer.search(line)] == []


@needs_systemd
def test_systemd_finds_little_exposed() -> None:
    command = [str(ANALYZE), "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_example_file_is_the_documented_one_and_loads() -> None:
    table = tomllib.loads((SYSTEMD / "agent.toml").read_text())
    page = (ROOT / "docs" / "agent.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert tomllib.loads(block) == table
    spec = load_spec(table)
    assert Path(spec.spool).parent == STATE
    assert Path(spec.policy).parent == DEFAULT_CONFIG.parent
    assert (spec.tee, spec.hosts[0].source, spec.follow_beacons) == ("tsm", "nvml", True)
    assert spec.policy_signers, "nobody starts from an example that trusts everybody"


def test_the_page_names_every_file_and_their_paths() -> None:
    page = (ROOT / "docs" / "agent.md").read_text()
    for path in SYSTEMD.iterdir():
        assert path.name in page
    for place in (str(DEFAULT_CONFIG.parent), str(STATE), SERVICE["EnvironmentFile"][0].lstrip("-")):
        assert place in page


def stages() -> dict[str, list[str]]:
    """Instructions of each stage of the image by its name, in order; continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(None, (one.strip() for one in text.splitlines())):
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[start.group(2)] = list(found.get(start.group(1), ()))
        else:
            list(found.values())[-1].append(line)
    return found


def instruction(stage: str, name: str) -> str:
    return [line.removeprefix(name).strip() for line in stages()[stage] if line.startswith(f"{name} ")][-1]


def test_the_images_stages() -> None:
    assert list(stages()) == ["build", "base", "agent", "worker"], "the last is what is built without --target"
    for stage in ("agent", "worker"):
        users = [line for line in stages()[stage] if line.startswith("USER ")]
        assert users == ["USER enclavescale"], "and never root again"
        assert json.loads(instruction(stage, "ENTRYPOINT")) == ["enclavescale"]
        arguments = [one for one in json.loads(instruction(stage, "CMD")) if not one.startswith("/")]
        shown = arguments[:-1] if arguments[-1] == "--config" else arguments
        assert CliRunner().invoke(main, [*shown, "--help"]).exit_code == 0
    for line in ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"):
        assert line in " ".join(stages()["agent"])
        assert line not in " ".join(stages()["worker"])
    assert instruction("agent", "VOLUME") == str(STATE)
    assert json.loads(instruction("agent", "CMD"))[-1] == str(DEFAULT_CONFIG)


def test_the_image_has_every_package() -> None:
    build = " ".join(stages()["build"])
    packages = [path.parent.name for path in ROOT.glob("*/py.typed")]
    assert len(packages) > 5
    assert [name for name in packages if f"COPY {name} {name}" not in build] == []


def test_the_images_health_check_asks_livez() -> None:
    """The very command of the image, with this interpreter, against an agent that is alive and one that hangs."""
    command = json.loads(instruction("agent", "HEALTHCHECK").partition("CMD ")[2])
    (default,) = re.findall(r"ENCLAVESCALE_LIVEZ=(\S+)", DOCKERFILE)
    listen = tomllib.loads((SYSTEMD / "agent.toml").read_text())["listen"]
    assert default == f"http://{listen}/livez"
    now = [0.0]
    health = Health(lambda: now[0])
    health.expect("loop", Need.LIVE, within_s=60)
    codes = []
    with Endpoint("127.0.0.1:0", endpoint_app(CollectorRegistry(), health)) as endpoint:
        environment = {**os.environ, "ENCLAVESCALE_LIVEZ": f"http://127.0.0.1:{endpoint.port}/livez"}
        for now[0] in (0.0, 61.0):
            done = subprocess.run([sys.executable, *command[1:]], env=environment, timeout=60, check=False, stderr=-3)
            codes.append(done.returncode)
    assert command[0] == "python"
    assert codes == [0, 1]


_NO_NEW_CODE = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, Linux 6.3: what MemoryDenyWriteExecute= does with a filter
    sys.exit(77)
from enclavescale.cli import main
main(["bench", "host", "--windows", "3", "--agent-seconds", "0", "--json"])
"""


def test_the_host_side_needs_no_memory_to_write_code_into() -> None:
    """Noise, signatures and libraries run under what the unit denies."""
    assert SERVICE["MemoryDenyWriteExecute"] == ["yes"]
    command = [sys.executable, "-c", _NO_NEW_CODE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77:
        pytest.skip("needs Linux 6.3 to be tried without systemd")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["samples_per_s"] > 0
