"""Every released schema reads what every other version of it wrote (FULL_TRANSITIVE).

What is in schemas/avsc is released: its files never change (tests/schemas/test_schema_rules.py holds their digests). A
change is a new file, NAME.v2.avsc, and is judged here against all before it.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from typing import Any

import pytest

from schemas.pins import NAMES
from tests.house.compatibility import problems
from tests.house.source import ROOT

AVSC = ROOT / "schemas" / "avsc"


def released() -> dict[str, dict[int, Any]]:
    found: dict[str, dict[int, Any]] = {}
    for path in sorted(AVSC.glob("*.avsc")):
        match = re.fullmatch(r"(\w+)\.v(\d+)\.avsc", path.name)
        assert match, path.name
        found.setdefault(match[1], {})[int(match[2])] = json.loads(path.read_text())
    return found


def test_every_schema_has_its_versions_without_a_gap() -> None:
    found = released()
    assert set(found) == set(NAMES)
    for name, versions in found.items():
        assert sorted(versions) == list(range(1, len(versions) + 1)), name


@pytest.mark.parametrize("name", NAMES)
def test_every_version_reads_every_other(name: str) -> None:
    versions = released()[name]
    for reader, writer in itertools.product(versions, versions):
        assert problems(versions[reader], versions[writer]) == [], f"{name}: v{reader} reads v{writer}"


def beacon() -> Any:
    return copy.deepcopy(released()["SignedBeacon"][1])


def _field(raw: Any, name: str) -> Any:
    return next(one for one in raw["fields"] if one["name"] == name)


CHANGES: dict[str, tuple[Any, bool, bool]] = {
    "a field with a default": (
        lambda raw: raw["fields"].append({"name": "x", "type": "long", "default": 0}),
        True,
        True,
    ),
    "a field without": (lambda raw: raw["fields"].append({"name": "x", "type": "long"}), False, True),
    "a field less": (lambda raw: raw["fields"].pop(), True, False),
    "a wider size": (
        lambda raw: _field(raw, "signature").update(type={"type": "fixed", "name": "Other", "size": 65}),
        False,
        False,
    ),
    "text for bytes": (lambda raw: _field(raw, "signature").update(type="string"), False, False),
    "a branch more": (
        lambda raw: _field(raw, "signature").update(type=["null", _field(raw, "signature")["type"]]),
        True,
        False,
    ),
}
"""Change of SignedBeacon -> does the new version read the old one, does the old one read the new one?"""


@pytest.mark.parametrize("change", CHANGES)
def test_the_rules_tell_what_can_be_read(change: str) -> None:
    alter, forward, backward = CHANGES[change]
    old, new = beacon(), beacon()
    alter(new)
    assert not problems(old, old)
    assert (not problems(new, old), not problems(old, new)) == (forward, backward)


@pytest.mark.parametrize(
    ("reader", "writer", "reads"),
    [
        ("long", "int", True),
        ("int", "long", False),
        ("double", "float", True),
        (["null", "long"], "int", True),
        ("long", ["null", "long"], False),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, True),
        ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}, False),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "string"}, False),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, {"type": "enum", "name": "E", "symbols": ["A", "B"]}, False),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, {"type": "enum", "name": "E", "symbols": ["A"]}, True),
        ({"type": "fixed", "name": "F", "size": 1}, {"type": "fixed", "name": "G", "size": 1}, False),
    ],
)
def test_the_rules_follow_the_specification(reader: Any, writer: Any, reads: bool) -> None:
    assert (not problems(reader, writer)) is reads
