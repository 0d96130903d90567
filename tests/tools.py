"""Real tools beside Python that tests need: promtool, helm, Chromium, docker, Node.js.

Looked for in .tools/bin (`.ci/tools` fills it), in PATH and in Go's bin. Where one is missing the test is skipped and
says how to get it; with CI=true it fails, because a skipped check looks like a passed one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".tools" / "bin"
NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")}
"""Other names of a tool, best first."""

HOW = {
    "chromium": "apt-get install -y chromium",
    "promtool": ".ci/tools promtool",
    "prometheus": ".ci/tools promtool",
    "helm": ".ci/tools helm",
    "compose-spec": ".ci/tools compose-spec",
    "docker": "Docker's client with its compose plugin",
    "node": "Node.js 18 or newer: apt-get install -y nodejs npm",
    "npm": "apt-get install -y nodejs npm",
}
OPTIONAL = ("docker",)
"""Tools without which CI passes as well; what they check is then unchecked there."""


def find_tool(name: str) -> str | None:
    """Path of a tool, None where there is none."""
    folders = os.pathsep.join((str(TOOLS), os.environ.get("PATH", ""), str(Path.home() / "go" / "bin")))
    return next((found for one in NAMES.get(name, (name,)) if (found := shutil.which(one, path=folders))), None)


def need_tool(name: str) -> str:
    """Path of a tool; skips the test without it, or fails it with CI=true."""
    found = find_tool(name)
    if found is not None:
        return found
    text = f"needs {name}: {HOW.get(name, name)}"
    if os.environ.get("CI", "").lower() == "true" and name not in OPTIONAL:
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
