"""Rules of the house for source: docstrings, sizes, arrows, nothing of any one machine."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.source import PACKAGES, ROOT, files, modules

MAX_FUNCTION_LINES = 80
MAX_FILE_LINES = 450
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Put together from pieces, so that this file passes its own check.
MACHINE_PATHS = re.compile(r"(?<![\w.~$}-])/" + "(?:home|root|Users|work)" + r"/\w")
REGISTRY_HOSTS = re.compile("|".join(("pypi" + r"\.org", "python" + "hosted", r"maven\." + "org", "npm" + "js")))


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Name and node of the module's public classes and functions and of public classes' public methods."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for node in body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                yield prefix + node.name, node
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}{node.name}.")

    yield from walk(tree.body, "")


def test_every_public_name_has_a_docstring() -> None:
    missing = []
    for path, tree in modules():
        if tree.body and not ast.get_docstring(tree):
            missing.append(f"{path.relative_to(ROOT)}: the module")
        for name, node in public(tree):
            if not ast.get_docstring(node):  # type: ignore[arg-type]
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


def test_no_function_is_over_80_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_file_is_over_450_lines() -> None:
    paths = [path for path, _ in modules()] + sorted((ROOT / "tests").rglob("*.py"))
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: lines for name, lines in long.items() if lines > MAX_FILE_LINES} == {}


def test_every_package_is_typed_and_in_the_arrows() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        assert f'"{package}*"' in project, "packages.find"
        assert re.search(rf"layers = \[.*\b{package}\b.*\]", project), "import-linter"


def test_import_arrows_hold() -> None:
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program is not None, "import-linter comes with the lock"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_unsafe_switch_is_on_by_default() -> None:
    """A bypass is called unsafe_…, and no parameter or field of that name may default to true."""
    found = []
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                words = node.args
                named = [*words.posonlyargs, *words.args]
                pairs = [
                    *zip(named[len(named) - len(words.defaults) :], words.defaults, strict=True),
                    *zip(words.kwonlyargs, words.kw_defaults, strict=True),
                ]
                on = [arg.arg for arg, default in pairs if isinstance(default, ast.Constant) and default.value is True]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                value = node.value
                on = [node.target.id] if isinstance(value, ast.Constant) and value.value is True else []
            else:
                continue
            found += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in on if name.startswith("unsafe")]
    assert found == []


def readable() -> Iterator[tuple[str, str]]:
    for path in files():
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # recorded bytes
            continue


@pytest.mark.parametrize(("what", "pattern"), [("machine path", MACHINE_PATHS), ("registry host", REGISTRY_HOSTS)])
def test_no_file_names_a_machine_or_a_registry(what: str, pattern: re.Pattern[str]) -> None:
    found = []
    for name, text in readable():
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {what}: {line.strip()[:100]}")
    assert found == []


def test_lock_is_pinned_by_hash() -> None:
    text = (ROOT / "requirements.lock").read_text()
    requirements = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]  # the first is the header
    assert len(requirements) > 40
    for requirement in requirements:
        assert re.match(r"[A-Za-z0-9_.-]+==[^\s;]+ \\\n    --hash=sha256:[0-9a-f]{64}", requirement), requirement[:80]
    assert "://" not in text
