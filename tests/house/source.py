"""The project's own files, as the rules of the house read them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "power_model", "verifier", "attester", "producers", "stream_jobs", "enclavescale")


@cache
def _modules() -> tuple[tuple[Path, ast.Module], ...]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return tuple((path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of our packages with its syntax tree."""
    yield from _modules()


def files() -> list[Path]:
    """Every file that is tracked or about to be: what git knows and does not ignore, else everything but caches."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
