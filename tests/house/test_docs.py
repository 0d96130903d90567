"""The documents agree with the code: commands, topics, codes, decisions, changelog."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from schemas.topics import TOPICS, TopicSpec
from tests.house import asyncapi, codes
from tests.house.source import ROOT

README = (ROOT / "README.md").read_text()
DOCS = ROOT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
THREATS = (DOCS / "threat-model.md").read_text()


def cli_commands() -> set[str]:
    """Every command of the program, groups' commands as `topics create`."""
    click = importlib.import_module("click")
    main = importlib.import_module("enclavescale.cli").main

    def walk(command: object, prefix: str) -> set[str]:
        if isinstance(command, click.Group):
            return {name for key, one in command.commands.items() for name in walk(one, f"{prefix} {key}")}
        return {prefix.strip()}

    return walk(main, "")


def test_readme_and_program_name_the_same_commands() -> None:
    named = set(re.findall(r"^\| `enclavescale ([a-z -]+?)(?: [A-Z<\[].*)?` \|", README, re.MULTILINE))
    assert named, "README has a table of commands"
    if importlib.util.find_spec("enclavescale.cli") is None:
        pytest.skip("the command line is not there yet")
    assert named == cli_commands()


def test_readme_names_every_target_of_make_and_no_other() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make (\w+) ", "\n".join(re.findall(r'@echo "(make .*)"', makefile))))
    rules = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert targets <= rules
    assert set(re.findall(r"`make (\w+)`", README)) == targets


def test_make_help_is_the_default() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "make demo" in done.stdout


def test_every_local_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_changelog_has_unreleased_on_top() -> None:
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased"


DECISIONS = sorted((DOCS / "adr").glob("[0-9]*.md"))


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    index = (DOCS / "adr" / "README.md").read_text()
    for path in DECISIONS:
        assert f"({path.name})" in index, path.name


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_decision_says_what_was_rejected(path: Path) -> None:
    text = path.read_text()
    heads = re.findall(r"^## (\w+)", text, re.MULTILINE)
    assert heads == ["Status", "Context", "Decision", "Rejected"]
    rejected = text.split("## Rejected")[1]
    assert re.search(r"^- \S", rejected, re.MULTILINE), "at least one option with its reason"


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.role)
def test_operations_names_every_topic(spec: TopicSpec) -> None:
    row = next((line for line in OPERATIONS.splitlines() if f"`{spec.name}`" in line), None)
    assert row is not None
    assert f"`{spec.schema}`" in row or spec.schema is None


def test_operations_states_exit_codes() -> None:
    assert re.findall(r"^\| (\d) \|", OPERATIONS, re.MULTILINE) == ["0", "1", "2", "3"]


def test_codes_page_is_what_the_source_says() -> None:
    assert codes.PAGE.read_text() == codes.render(), "run `make docs`"


def test_verdict_codes_page_is_what_the_source_says() -> None:
    assert codes.VERDICTS.read_text() == codes.render_verdicts(), "run `make docs`"


def test_verdict_codes_page_has_every_cause_once() -> None:
    from verifier import errors

    named = re.findall(r"^\| `(\w+)` \|", codes.VERDICTS.read_text(), re.MULTILINE)
    causes = {one.code for one in vars(errors).values() if isinstance(one, type)} - {errors.VerificationError.code}
    assert sorted(named) == sorted(causes)
    assert {path.stem for path in (ROOT / "verifier" / "errors").glob("*.py")} - {"__init__", "base"} == set(
        codes.TOPICS
    )


def test_every_code_has_a_remedy() -> None:
    assert [code for code, one in codes.collect().items() if not one.remedy] == []


def test_threat_model_names_tests_that_exist() -> None:
    """A row either names a test or says that the attack is not yet defended."""
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    rows = [line.split("|")[1:-1] for line in THREATS.splitlines() if re.match(r"\| T\d+ ", line)]
    assert len(rows) > 20
    for row in rows:
        proof = row[-1].strip()
        named = re.findall(r"`(?:tests/)?([\w/]+\.py)(?:::(\w+))?`", proof)
        assert named or proof.startswith(("not yet defended", "no test yet", "accepted")), row[0]
        for file, function in named:
            text = sources.get(ROOT / "tests" / file)
            assert text is not None, f"{row[0].strip()}: tests/{file} does not exist"
            assert not function or f"def {function}(" in text, f"{row[0].strip()}: no {function} in {file}"


def test_asyncapi_is_what_the_topics_say() -> None:
    assert asyncapi.PAGE.read_text() == asyncapi.render(), "run `make docs`"
    document = json.loads(asyncapi.PAGE.read_text())
    assert {one["address"] for one in document["channels"].values()} == {spec.name for spec in TOPICS}
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            reference = message["payload"].get("schema", {}).get("$ref")
            assert reference is None or (asyncapi.PAGE.parent / reference).is_file()
