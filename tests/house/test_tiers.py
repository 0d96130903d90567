"""What `tests/conftest.py` promises about tiers and about a missing broker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FAKE = """
import pytest
@pytest.mark.broker
def test_broker(): pass
@pytest.mark.soak
def test_soak(): pass
@pytest.mark.accept
def test_accept(): pass
def test_plain(): pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of four under our own conftest, in a place without Java and mvn."""
    here = Path(__file__).parents[1]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    for name in ("conftest.py", "broker"):
        (tmp_path / "tests" / name).symlink_to(here / name)
    (tmp_path / "tests" / "test_fake.py").write_text(FAKE)
    (tmp_path / "pyproject.toml").write_text((here.parent / "pyproject.toml").read_text())
    return tmp_path


def run(suite: Path, **environment: str) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "ENCLAVESCALE_TIER")}
    clean |= {"PATH": str(suite), "PYTHONPATH": str(suite), **environment}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_fake.py"]
    done = subprocess.run(command, cwd=suite, env=clean, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("tier", "counts"),
    [("test", "1 passed, 1 skipped, 2 deselected"), ("soak", "1 passed, 3 deselected"), ("accept", "2 passed, 2")],
)
def test_log_tier_selects(suite: Path, tier: str, counts: str) -> None:
    code, text = run(suite, ENCLAVESCALE_TIER=tier)
    assert code == 0
    assert counts in text


def test_log_unknown_tier_is_an_error(suite: Path) -> None:
    code, text = run(suite, ENCLAVESCALE_TIER="everything")
    assert code != 0
    assert "one of test, soak, accept" in text


def test_log_missing_java_is_counted_on_screen(suite: Path) -> None:
    code, text = run(suite)
    assert code == 0
    assert "BROKER TESTS SKIPPED: 1 (no Java, mvn)" in text
    assert "apt-get install" in text


def test_log_missing_java_fails_in_ci(suite: Path) -> None:
    code, text = run(suite, CI="true")
    assert code == 1
    assert "1 passed, 2 deselected, 1 error" in text
