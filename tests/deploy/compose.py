"""The compose file as data: services, and what a service's container would run."""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from tests.deploy import test_image
from tests.house.source import ROOT

FILE = ROOT / "docker-compose.yml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("enclavescale")}
STAGES = {one["image"]: one["build"]["target"] for one in OURS.values() if "build" in one}
"""Image -> the stage of deploy/Dockerfile that it is."""


def command_line(name: str) -> list[str]:
    """What the container of one of our services runs, program first: the image's where the service says nothing."""
    service, stage = OURS[name], STAGES[OURS[name]["image"]]
    entrypoint = service.get("entrypoint") or json.loads(test_image.instruction(stage, "ENTRYPOINT"))
    image_command = [] if "entrypoint" in service else json.loads(test_image.instruction(stage, "CMD"))
    return [one.replace("$$", "$") for one in [*entrypoint, *service.get("command", image_command)]]


def arguments(name: str, signer: str) -> list[str]:
    """Arguments of `enclavescale` in the service's command line; the shell's part done, with the signer's key."""
    program, *rest = command_line(name)
    if program == "sh":
        text = rest[-1].removeprefix("exec ")
        program, *rest = [signer if "signer.hex" in one else one for one in shlex.split(text)]
    assert program == "enclavescale"
    return rest


def mounts(name: str) -> dict[str, str]:
    """Place in the container -> volume or path of the tree."""
    found = {}
    for one in SERVICES[name].get("volumes", ()):
        source, target, *_ = one.split(":")
        found[target] = source
    return found
