"""What can be set is documented: options by the generated page, the agent's file by its guide."""

import dataclasses
import re

import click
import pytest

from enclavescale.agent import file as agent_file
from tests.house import configuration
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "agent.md").read_text()
HIDDEN = {"evidence_interval", "gated", "origin_ms", "start_ms"}
"""Of replays: named beside `speed`, or the demo's own."""


def test_the_page_is_what_the_code_says() -> None:
    assert configuration.PAGE.read_text() == configuration.page(), "run `make docs`"


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{name} {option.opts[0]}"
        for name, command in configuration.commands()
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and not option.help and "--json" not in option.opts
    ]
    assert silent == []


@pytest.mark.parametrize("kind", [agent_file.ProduceSpec, agent_file.HostSpec, agent_file.BudgetSpec])
def test_the_guide_names_every_field_of_the_file_with_its_default(kind: type) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", GUIDE, re.MULTILINE))
    for one in dataclasses.fields(kind):
        if one.name in HIDDEN:
            continue
        assert one.name in rows, one.name
        if isinstance(one.default, int | str) and one.default and kind is not agent_file.BudgetSpec:
            assert rows[one.name].strip(" `") == str(one.default), one.name
