"""Set-up says what is missing before it starts; results of the long tiers are written where they should be."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.results import write_result

PREFLIGHT = ROOT / ".ci" / "preflight"
SYSTEM_TOOLS = ("sh", "sed", "head", "id", "grep")


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A directory for $PATH that has nothing but the usual small tools."""
    for tool in SYSTEM_TOOLS:
        found = next(Path(where) / tool for where in ("/usr/bin", "/bin") if (Path(where) / tool).exists())
        (tmp_path / tool).symlink_to(found)
    return tmp_path


def fake(path: Path, name: str, script: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


def preflight(path: Path, what: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(path / "sh"), str(PREFLIGHT), what],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stdout + done.stderr


def test_no_python(bare_path: Path) -> None:
    code, text = preflight(bare_path, "python")
    assert code == 1
    assert "apt-get install -y --no-install-recommends python3 python3-venv" in text


def test_old_python(bare_path: Path) -> None:
    fake(bare_path, "python3", 'case "$*" in *version_info*) exit 1;; *-V*) echo Python 3.9.2;; esac')
    code, text = preflight(bare_path, "python")
    assert code == 1
    assert "python3 is Python 3.9.2" in text
    assert "python3.11-venv" in text


def test_python_without_venv(bare_path: Path) -> None:
    fake(bare_path, "python3", 'case "$*" in *ensurepip*) exit 1;; esac')
    code, text = preflight(bare_path, "python")
    assert code == 1
    assert "apt-get install -y --no-install-recommends python3-venv" in text


def test_python_is_enough(bare_path: Path) -> None:
    fake(bare_path, "python3", "exit 0")
    assert preflight(bare_path, "python") == (0, "")


@pytest.mark.parametrize(("ci", "expected"), [("", 0), ("true", 1)])
def test_no_java(bare_path: Path, ci: str, expected: int) -> None:
    fake(bare_path, "mvn", "exit 0")
    fake(bare_path, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    fake(bare_path, "apt-cache", "exit 1")
    code, text = preflight(bare_path, "java", CI=ci)
    assert code == expected
    assert "default-jre-headless\n" in text
    assert "maven" not in text


def test_no_mvn_and_no_java(bare_path: Path) -> None:
    fake(bare_path, "apt-cache", "echo Package: openjdk-17-jre-headless")
    code, text = preflight(bare_path, "java")
    assert code == 0
    assert "no Java >= 17 and mvn" in text
    assert "openjdk-17-jre-headless maven\n" in text


def test_java_is_enough(bare_path: Path) -> None:
    fake(bare_path, "mvn", "exit 0")
    fake(bare_path, "java", "echo 'openjdk version \"21\" 2023-09-19' >&2")
    assert preflight(bare_path, "java", CI="true") == (0, "")


def test_scripts_can_be_run() -> None:
    for script in (PREFLIGHT, ROOT / ".ci" / "run"):
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_results_are_written_only_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENCLAVESCALE_RESULTS", raising=False)
    assert write_result("kills", {"kills": 200}, seeds={"kills": 7}) is None
    monkeypatch.setenv("ENCLAVESCALE_RESULTS", str(tmp_path / "made"))
    path = write_result("kills", {"kills": 200}, seeds={"kills": 7})
    assert path is not None
    document = json.loads(path.read_text())
    assert document["seeds"] == {"kills": 7}
    assert document["result"] == {"kills": 200}
    with pytest.raises(ValueError, match=r"\.\./kills"):
        write_result("../kills", {}, seeds={})
