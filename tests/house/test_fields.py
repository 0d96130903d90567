"""The field reference is what the schemas say, and says something of every field."""

from __future__ import annotations

import re

from schemas.pins import pin
from schemas.topics import TOPICS
from tests.house import fields


def test_field_reference_is_what_the_schemas_say() -> None:
    assert fields.PAGE.read_text() == fields.render(), "run `make docs`"


def test_field_reference_has_every_field_with_its_meaning() -> None:
    sections = fields.render().split("\n## ")[1:]
    assert len(sections) == len(TOPICS)
    for spec, section in zip(TOPICS, sections, strict=True):
        if spec.schema is None:
            continue
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*) \|$", section, re.MULTILINE)
        named = {one["name"] for record in fields._records(pin(spec.schema).raw, set()) for one in record["fields"]}
        assert {name for name, _, _ in rows} == named
        assert [name for name, _, text in rows if not text] == []
