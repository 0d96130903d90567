"""systemd's units: hardened, given their time, starting what there is; their example files are the documented ones."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from enclavescale.agent.file import load_spec
from enclavescale.cli.doctor import DEFAULT_CONFIG
from enclavescale.settings import kafka_properties, load_file
from producers.agent import AgentConfig
from tests.deploy import command_lines
from tests.house.source import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
STATE = Path("/var/lib/enclavescale")
CONFIGURATION = DEFAULT_CONFIG.parent
SIGNER = "04" + "6b" * 64
EXPOSURE = 20
"""Tenths of systemd's exposure level: 0 to 10, below 2.0 is a service with little left to take away."""

NAMES = ("agent", "worker", "page")
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here; the unit is still parsed")
every_unit = pytest.mark.parametrize("name", NAMES)


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


def unit(name: str) -> Path:
    return SYSTEMD / f"enclavescale-{name}.service"


SERVICES = {name: parse(unit(name).read_text())["Service"] for name in NAMES}
SERVICE = SERVICES["agent"]


def seconds(key: str) -> float:
    (value,) = SERVICE[key]
    return float(value)


@every_unit
def test_every_unit_is_hardened(name: str) -> None:
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
        "LimitCORE": "0",
        "Restart": "always",
    }
    service = SERVICES[name]
    assert {key: service[key] for key in demanded} == {key: [value] for key, value in demanded.items()}
    assert service["SystemCallFilter"][0] == "@system-service"
    assert parse(unit(name).read_text())["Unit"]["StartLimitIntervalSec"] == ["0"], "or it gives up after five starts"


def test_each_unit_has_what_its_work_needs_and_no_more() -> None:
    assert SERVICE["DevicePolicy"] == ["closed"]
    assert SERVICE["DeviceAllow"] == ["char-nvidia* rw"], "the GPUs and nothing else"
    assert set(SERVICE["RestrictAddressFamilies"][0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}
    assert SERVICE["Type"] == ["notify"]
    for name in ("agent", "worker"):  # whoever has a session's key and asks the TEE
        one = SERVICES[name]
        assert one["CapabilityBoundingSet"] == one["AmbientCapabilities"] == ["CAP_DAC_OVERRIDE"]
        assert one["MemorySwapMax"] == ["0"]
        assert "-/sys/kernel/config/tsm/report" in one["ReadWritePaths"]
    page = SERVICES["page"]
    assert page["CapabilityBoundingSet"] == page["AmbientCapabilities"] == [""]
    assert "ReadWritePaths" not in page
    for name in ("worker", "page"):
        assert SERVICES[name]["PrivateDevices"] == ["yes"]
        assert SERVICES[name]["RestartPreventExitStatus"] == ["2 3"], "exit codes of docs/operations.md"


def test_the_unit_gives_the_agent_its_time() -> None:
    """Nobody gives signs of life while the last reports are sent, and nobody may be killed over that."""
    flush_s = float(str(AgentConfig.__dataclass_fields__["flush_s"].default))
    assert flush_s < seconds("WatchdogSec")
    assert flush_s < seconds("TimeoutStopSec")
    assert seconds("RestartSec") > 0


def test_the_agents_unit_starts_what_there_is(tmp_path: Path) -> None:
    program, *arguments = SERVICE["ExecStart"][0].split()
    assert program == "/opt/enclavescale/bin/enclavescale"
    assert arguments[-2:] == ["--config", str(DEFAULT_CONFIG)]
    assert command_lines.parse(arguments, tmp_path).info_name == "produce"
    assert Path("/var/lib") / SERVICE["StateDirectory"][0] == STATE


@pytest.mark.parametrize("name", ["worker", "page"])
def test_the_other_units_start_with_their_examples(name: str, tmp_path: Path) -> None:
    """The unit's line with the options of the example file, split as systemd splits them."""
    service = SERVICES[name]
    assert service["EnvironmentFile"] == [f"{CONFIGURATION}/{name}.env", f"-{CONFIGURATION}/{name}.secrets"]
    (line,) = [one for one in (SYSTEMD / f"{name}.env").read_text().splitlines() if not one.startswith("#")]
    variable, _, options = line.partition("=")
    program, *arguments = service["ExecStart"][0].replace(f"${variable}", options).replace("04…", SIGNER).split()
    assert program == "/opt/enclavescale/bin/enclavescale"
    context = command_lines.parse(arguments, tmp_path)
    assert context.info_name == {"worker": "worker", "page": "serve"}[name]
    assert context.params["listen"].startswith("127.0.0.1:")
    assert context.params["signers"] == (SIGNER,)
    assert kafka_properties(None, (), load_file(SYSTEMD / f"{name}.toml"), {})["security.protocol"] == "SASL_SSL"


def test_each_service_has_a_user_of_its_own() -> None:
    lines = [shlex.split(one) for one in (SYSTEMD / "enclavescale.sysusers").read_text().splitlines() if one[0] != "#"]
    assert [line[0] for line in lines] == ["u"] * len(NAMES)
    users = [SERVICES[name]["User"][0] for name in NAMES]
    assert users == [SERVICES[name]["Group"][0] for name in NAMES] == [line[1] for line in lines]
    assert len(set(users)) == len(NAMES)


@needs_systemd
@every_unit
def test_systemd_knows_every_line(name: str, tmp_path: Path) -> None:
    copy = tmp_path / unit(name).name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit(name).read_text(), flags=re.MULTILINE))
    command = [str(ANALYZE), "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if copy.name in line]
    newer = re.compile(r"Unknown (key|key name) '(RestartSteps|RestartMaxDelaySec)'")  # since 254
    assert [line for line in said if not newer.search(line)] == []


@needs_systemd
@every_unit
def test_systemd_finds_little_exposed(name: str) -> None:
    command = [str(ANALYZE), "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", str(unit(name))]
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


def test_the_pages_name_every_file_and_their_paths() -> None:
    agent, deploy = ((ROOT / "docs" / one).read_text() for one in ("agent.md", "deploy.md"))
    for path in SYSTEMD.iterdir():
        assert path.name in agent or path.name in deploy
    for place in (str(CONFIGURATION), str(STATE), SERVICE["EnvironmentFile"][0].lstrip("-")):
        assert place in agent
    for name in ("worker", "page"):
        for one in SERVICES[name]["EnvironmentFile"]:
            assert Path(one.lstrip("-")).name in deploy


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
