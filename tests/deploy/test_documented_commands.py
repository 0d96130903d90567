"""Every command that a page names is one of the program's, with options that it has; README names targets of make."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from enclavescale.cli import main
from tests.house.source import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "evidence").glob("*.md"))]
README = (ROOT / "README.md").read_text()


def named_commands(text: str) -> list[str]:
    """Command lines of `enclavescale` in fenced blocks and code spans, continued lines joined, comments cut off."""
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [one for block in fenced for one in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`(enclavescale [^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    found = []
    for line in [*lines, *spans]:
        start = re.search(r"(?:^|[\s(/])enclavescale +(?=[a-z-])", line.partition(" #")[0])
        if start and not re.search(r"(image|docker|helm|kubectl|cp|install|FROM) ", line[: start.start() + 1]):
            found.append(re.split(r" [|&>]| 2>|\)$| -- ", line.partition(" #")[0][start.end() :])[0].strip())
    return found


def resolve(words: list[str]) -> tuple[click.Command, list[click.Command], list[str]]:
    """The command that words begin with, the groups above it, the words behind it. Raises KeyError for none."""
    command: click.Command = main
    above: list[click.Command] = []
    rest = list(words)
    while isinstance(command, click.Group):
        while rest and rest[0].startswith("-"):  # options of the program itself, with or without a value
            option = rest.pop(0)
            takes = next((one for one in command.params if option in one.opts), None)
            if isinstance(takes, click.Option) and not takes.is_flag and rest:
                rest.pop(0)
        if not rest or not re.fullmatch(r"[a-z]+(-[a-z]+)*", rest[0]):
            break  # a group as such
        above.append(command)
        command = command.commands[rest.pop(0)]
    return command, above, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_commands_and_options_of_a_page_exist(page: Path) -> None:
    wrong = []
    for line in named_commands(page.read_text()):
        first = re.split(r"[|]", line.split()[0])[0]
        words = [first, *line.split()[1:]]
        if re.fullmatch(r"[a-z]+(\|[a-z]+)+", words[1] if len(words) > 1 else ""):
            words[1] = words[1].split("|")[0]  # `policy init|sign|…`
        try:
            command, above, rest = resolve(words)
        except KeyError as error:
            wrong.append(f"{line}: no {error}")
            continue
        known = {name for one in [command, *above] for param in one.params for name in param.opts} | {"--help", "-h"}
        given = {one.split("=")[0].rstrip(",.;:)") for one in rest if re.match(r"--[a-z]", one)}
        wrong += [f"{line}: no {one}" for one in sorted(given - known)]
    assert wrong == []


def test_something_is_looked_at() -> None:
    assert "topics create --partitions 2 --replication 1; do sleep 1; done" in named_commands(
        (ROOT / "docs" / "tutorial.md").read_text()
    )
    assert len(named_commands((ROOT / "docs" / "policy.md").read_text())) >= 8
    with pytest.raises(KeyError):
        resolve(["topics", "delete"])


def test_readme_begins_with_targets_of_make() -> None:
    (block,) = re.findall(r"^## Quick start.*?^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    commands = [line.partition("#")[0].split() for line in block.splitlines()]
    assert ["make", "demo"] in commands
    for command in commands:
        if command[0] == "make":
            done = subprocess.run([*command, "-n"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
        else:
            assert command[:3] == ["docker", "compose", "up"], "tests/deploy/test_compose_run.py runs it"
