"""The rules every schema keeps: dataclasses agree, nullables give a reason, numbers have a unit, texts are pinned."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any

import pytest

from schemas import records as record_classes
from schemas.pins import NAMES, pin
from tests.schemas.examples import AVSC, GOLDEN, named_types, records

UNITS = ("_w", "_mw", "_w2", "_ms", "_hz", "_mj", "_ppm", "_micro", "_pico", "_w_per_s", "_days", "_windows")
PURE_NUMBERS = {
    # positions and versions
    *("seq", "revision", "chunk", "chunks", "counter", "policy_counter", "version", "partition"),
    *("first_offset", "last_offset", "close_offset", "gap_ranges", "min_tcb_evaluation_number"),
    # counts of what the name says
    *("samples_scheduled", "samples_taken", "stalls_coarse", "dropped_reports", "gpus", "hosts", "tenants"),
    *("readings_taken", "enrolled_hosts", "reporting_hosts", "enrolled_gpus", "reporting_gpus", "count"),
    *("accepted", "late_accepted", "duplicates", "late_refused", "accepted_count", "refused_count", "gap_records"),
    *("records", "offset"),
    *("k_min_hosts", "k_min_tenants", "evidence_checks_per_window", "group_size", "groups"),
    # shapes
    *("transitions_shape", "pane_sums_shape", "histogram_shape"),
    # in the unit of the release, which is the field beside them
    *("sensitivity_l1", "sensitivity_l2_squared"),
}
RECORDS = [pytest.param(name, record, node, id=f"{name}-{record}") for name, record, node in records()]


def _hint(node: Any, types_here: dict[str, Any]) -> Any:
    if isinstance(node, list):
        branches = [_hint(one, types_here) for one in node if one != "null"]
        hint = branches[0]
        for branch in branches[1:]:
            hint = hint | branch
        return hint | None if "null" in node else hint
    if isinstance(node, str) and node in types_here:
        node = types_here[node]
    kind = node["type"] if isinstance(node, dict) else node
    if kind == "record":
        return getattr(record_classes, node["name"])
    if kind == "array":
        return types.GenericAlias(tuple, (_hint(node["items"], types_here), ...))
    return {"string": str, "bytes": bytes, "fixed": bytes, "boolean": bool, "int": int, "long": int}[kind]


@pytest.mark.parametrize(("name", "record", "node"), RECORDS)
def test_schema_record_and_dataclass_agree(name: str, record: str, node: dict[str, Any]) -> None:
    cls = getattr(record_classes, record)
    assert [field["name"] for field in node["fields"]] == [field.name for field in dataclasses.fields(cls)]
    hints = typing.get_type_hints(cls)
    expected = {field["name"]: _hint(field["type"], named_types(name)) for field in node["fields"]}
    assert {key: str(hint) for key, hint in hints.items()} == {key: str(hint) for key, hint in expected.items()}
    for field in dataclasses.fields(cls):
        nullable = type(None) in typing.get_args(hints[field.name])
        assert (field.default is None) == nullable, f"{record}.{field.name}: None is the default of nullables only"


def test_schema_every_dataclass_is_in_a_schema() -> None:
    assert set(record_classes.__all__) == {record for _, record, _ in records()}


@pytest.mark.parametrize(("name", "record", "node"), RECORDS)
def test_schema_nullables_default_to_null_and_give_a_reason(name: str, record: str, node: dict[str, Any]) -> None:
    fields = node["fields"]
    for field, following in zip(fields, [*fields[1:], None], strict=True):
        union = field["type"] if isinstance(field["type"], list) else []
        if "null" not in union:
            assert "default" not in field, field["name"]
            continue
        assert union[0] == "null", field["name"]
        assert field["default"] is None, field["name"]
        if not field["name"].endswith("_absent_reason"):
            assert following is not None, field["name"]
            assert following["name"] == f"{field['name']}_absent_reason"
            assert following["type"] == ["null", "string"], field["name"]


@pytest.mark.parametrize(("name", "record", "node"), RECORDS)
def test_schema_numbers_have_a_unit_and_everything_a_doc(name: str, record: str, node: dict[str, Any]) -> None:
    assert node["doc"].strip()
    for field in node["fields"]:
        assert field["doc"].strip(), field["name"]
        leaf = field["type"]
        leaf = next(one for one in leaf if one != "null") if isinstance(leaf, list) else leaf
        leaf = leaf["items"] if isinstance(leaf, dict) and leaf["type"] == "array" else leaf
        if leaf in ("int", "long"):
            known = field["name"].endswith(UNITS) or field["name"] in PURE_NUMBERS
            assert known, f"{field['name']}: a number needs its unit in its name, or a place in PURE_NUMBERS"


@pytest.mark.parametrize("name", NAMES)
def test_schema_text_is_pinned(name: str) -> None:
    pinned = json.loads((GOLDEN / "avsc.sha256.json").read_text())
    found = hashlib.sha256((AVSC / f"{name}.v1.avsc").read_bytes()).hexdigest()
    assert pinned[f"{name}.v1"] == found, (
        f"{name}.v1.avsc changed. Signatures cover the digest of its text: a released schema never changes. "
        f"Add {name}.v2.avsc beside it, with golden bytes of its own."
    )
    assert pin(name).sha256.hex() == found


def test_schema_every_file_is_pinned() -> None:
    pinned = json.loads((GOLDEN / "avsc.sha256.json").read_text())
    assert {f"{path}.avsc" for path in pinned} == {path.name for path in AVSC.glob("*.avsc")}
    assert {f"{name}.v1" for name in NAMES} <= set(pinned)


def test_schema_one_name_has_one_definition() -> None:
    """Records that several files share are the same in each, docs apart."""
    found: dict[str, tuple[str, str]] = {}

    def expand(node: Any, known: dict[str, Any]) -> Any:
        if isinstance(node, str):
            return expand(known[node], known) if node in known else node
        if isinstance(node, list):
            return [expand(one, known) for one in node]
        if isinstance(node, dict):
            deep = {key: expand(one, known) for key, one in node.items() if key in ("type", "items", "fields")}
            return {key: one for key, one in node.items() if key in ("name", "size", "default")} | deep
        return node

    for name, record, node in records():
        text = json.dumps(expand(node, named_types(name)), sort_keys=True)
        other, seen = found.setdefault(record, (name, text))
        assert seen == text, f"{record} differs between {other} and {name}"
