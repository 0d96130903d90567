"""The images: their stages, what they start, what is in them, their health checks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from prometheus_client import CollectorRegistry

from enclavescale.cli.doctor import DEFAULT_CONFIG
from enclavescale.endpoint import Endpoint, endpoint_app
from enclavescale.health import Health, Need
from tests.deploy import command_lines
from tests.house.source import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
SYSTEMD = ROOT / "deploy" / "systemd"
STATE = "/var/lib/enclavescale"
FINAL = ("agent", "worker", "page", "cli")


def stages() -> dict[str, list[str]]:
    """Instructions of each stage by its name, those of the stage it begins with first; continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(None, (one.strip() for one in text.splitlines())):
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[start.group(2)] = list(found.get(start.group(1), ()))
        elif found:
            list(found.values())[-1].append(line)
    return found


def instruction(stage: str, name: str) -> str:
    return [line.removeprefix(name).strip() for line in stages()[stage] if line.startswith(f"{name} ")][-1]


def locked(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Package -> version and digests of its files."""
    text = path.read_text().replace("\\\n", " ")
    lines = re.findall(r"^([a-z0-9._-]+)==(\S+)\s(.*)$", text, re.MULTILINE)
    return {name: (version, frozenset(re.findall(r"sha256:\w+", rest))) for name, version, rest in lines}


def test_the_images_stages(tmp_path: Path) -> None:
    assert [one for one in stages() if one in FINAL] == list(FINAL)
    assert list(stages())[-1] == "cli", "the last is what is built without --target"
    for stage in FINAL:
        users = [line for line in stages()[stage] if line.startswith("USER ")]
        assert users == ["USER 10001"], "and never root again; a number, as runAsNonRoot wants it"
        assert json.loads(instruction(stage, "ENTRYPOINT")) == ["enclavescale"]
    for line in ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"):
        assert line in " ".join(stages()["agent"])
        assert line not in " ".join(stages()["worker"])
    assert instruction("agent", "VOLUME") == STATE
    command = json.loads(instruction("agent", "CMD"))
    assert command[-1] == str(DEFAULT_CONFIG)
    assert command_lines.parse(command, tmp_path).info_name == "produce"


def test_nothing_in_the_final_stages_compiles_or_installs() -> None:
    """Wheels alone go in, in a stage that is left behind; pip goes before the copy."""
    build = " ".join(stages()["build"])
    assert "--require-hashes --only-binary :all:" in build
    assert build.rstrip().endswith("pip uninstall --yes setuptools pip")
    for stage in FINAL:
        rest = " ".join(stages()[stage])
        assert not re.search(r"\b(apt-get|apk|pip|gcc|curl|wget|ADD)\b", rest)
        assert [line for line in stages()[stage] if line.startswith("COPY")] == [
            "COPY --from=build /opt/enclavescale /opt/enclavescale"
        ]
    bases = re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.MULTILINE)
    (default,) = re.findall(r"^ARG PYTHON=(\S+)", DOCKERFILE, re.MULTILINE)
    assert {one for one in bases if one not in stages()} == {"${PYTHON}"}
    assert default.count(":") == 1
    assert not default.endswith(":latest")


def test_the_image_has_what_runs_and_nothing_that_tests() -> None:
    """The image's lock is a part of the one that everything is tested with, with the same digests."""
    tested, image = locked(ROOT / "requirements.lock"), locked(ROOT / "deploy" / "requirements.lock")
    assert {name: image[name] for name in image if image[name] != tested.get(name)} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(group: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ]", one)[0].lower() for one in group}

    extras = project["optional-dependencies"]
    assert names(project["dependencies"]) | names(extras["otel"]) <= image.keys()
    build = {"setuptools"}  # taken out again
    assert names(extras["dev"]) - names(extras["otel"]) - names(project["dependencies"]) - build & image.keys() == set()


def test_the_image_has_every_package_and_no_more() -> None:
    build = " ".join(stages()["build"])
    packages = [path.parent.name for path in ROOT.glob("*/py.typed")]
    assert len(packages) > 5
    assert [name for name in packages if f"COPY {name} {name}" not in build] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [one for line in re.findall(r"COPY (?!--from)(.*?)(?= COPY| RUN|$)", build) for one in line.split()[:-1]]
    assert len(copied) > len(packages)
    assert [one for one in copied if any(fnmatch(one, pattern) for pattern in ignored)] == []
    assert {".git", ".venv", "docs", "tests"} <= set(ignored)


def test_the_images_health_checks_ask_livez() -> None:
    """The very command of each image, with this interpreter, against something alive and something that hangs."""
    commands = {stage: instruction(stage, "HEALTHCHECK").partition("CMD ")[2] for stage in ("agent", "worker", "page")}
    assert len(set(commands.values())) == 1
    assert not any(line.startswith("HEALTHCHECK") for line in stages()["cli"]), "what ends is not unhealthy"
    command = json.loads(commands["agent"])
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


def test_the_health_checks_ask_where_the_examples_listen() -> None:
    asked = {stage: re.findall(r"ENCLAVESCALE_LIVEZ=(\S+)", " ".join(stages()[stage])) for stage in FINAL[:3]}
    listen = {"agent": tomllib.loads((SYSTEMD / "agent.toml").read_text())["listen"]}
    for name in ("worker", "page"):
        (listen[name],) = re.findall(r"^OPTIONS=.*--listen (\S+)", (SYSTEMD / f"{name}.env").read_text(), re.MULTILINE)
    assert asked == {stage: [f"http://{address}/livez"] for stage, address in listen.items()}
