"""Strict JSON: what two readers could read differently is refused, and members' bytes are found as they stand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.abi import json as strict
from verifier.errors import CollateralMalformed, CollateralTooLarge
from verifier.limits import MAX_COLLATERAL_BYTES, MAX_JSON_CONTAINERS, MAX_JSON_DEPTH, MAX_JSON_MEMBERS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


def plain(value: Any) -> Any:
    """A decoded value as `json` would give it."""
    if isinstance(value, tuple):
        return {key: plain(inner) for key, inner in value}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


@given(OBJECTS, st.sampled_from([None, 0, 2]), st.booleans(), st.sampled_from(["", " \r\n\t"]))
def test_it_reads_what_json_reads(value: dict[str, Any], indent: int | None, ascii_only: bool, space: str) -> None:
    text = space + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + space
    assert {key: plain(inner) for key, inner in strict.loads(text.encode(), "x").items()} == value
    assert {key: plain(inner) for key, inner in strict.loads(text, "x").items()} == value


@given(OBJECTS, st.sampled_from([None, 2]), st.sampled_from(["", " \n"]))
def test_members_stand_where_they_say(value: dict[str, Any], indent: int | None, space: str) -> None:
    text = space + json.dumps(value, indent=indent) + space
    found = strict.members(text, "x")
    assert list(found) == list(value)
    for key, member in found.items():
        assert json.loads(text[member.start : member.stop]) == value[key] == plain(member.value)


REFUSED = {
    "a key twice": b'{"a":1,"a":1}',
    "an array": b"[]",
    "a number": b"1",
    "nothing": b"",
    "a float": b'{"a":1.0}',
    "an exponent": b'{"a":1e3}',
    "not a number": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "text behind": b"{} {}",
    "text before": b"x{}",
    "a comma too many": b'{"a":1,}',
    "no comma": b'{"a":1 "b":2}',
    "no colon": b'{"a" 1}',
    "a key that is no text": b"{1:1}",
    "unclosed": b'{"a":1',
    "an unclosed text": b'{"a":"',
    "a line break in a text": b'{"a":"\n"}',
    "single quotes": b"{'a':1}",
    "a comment": b'{"a":1}//',
    "a leading zero": b'{"a":01}',
    "a plus sign": b'{"a":+1}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "Latin-1": '{"a":"ü"}'.encode("latin-1"),
    "an overlong encoding": b'{"a":"\xc0\xaf"}',
    "thousands of digits": b'{"a":' + b"9" * 5000 + b"}",
    "many digits in a long text": b'{"a":"' + b"x" * 40_000 + b'","b":' + b"9" * 21 + b"}",
    "endless nesting": b'{"a":' + b"[" * 16_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_malformed_text_is_refused(text: bytes) -> None:
    with pytest.raises(CollateralMalformed) as caught:
        strict.loads(text, "thing.part")
    assert caught.value.field == "thing.part"
    decoded = text.decode("latin-1")
    if text not in (REFUSED["UTF-16"], REFUSED["Latin-1"], REFUSED["an overlong encoding"]):
        with pytest.raises(CollateralMalformed):
            strict.members(decoded, "thing.part")


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"' + b"x" * MAX_COLLATERAL_BYTES + b'"}',
        b'{"a":[' + b"{}," * MAX_JSON_CONTAINERS + b"{}]}",
        b'{"a":[' + b"10," * (MAX_JSON_MEMBERS + 1) + b"1]}",
    ],
    ids=["bytes", "containers", "members"],
)
def test_too_large_is_said_before_it_is_parsed(text: bytes) -> None:
    with pytest.raises(CollateralTooLarge):
        strict.loads(text, "x")


def test_the_message_shows_no_more_than_it_must() -> None:
    key = "k" * 10_000
    with pytest.raises(CollateralMalformed) as caught:
        strict.loads(json.dumps({"a": 1})[:-1] + f',"{key}":1,"{key}":2}}', "x")
    assert len(str(caught.value)) < 100


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if depth % 2 else (("a", value),)
    return value


@pytest.mark.parametrize("depth", [1, MAX_JSON_DEPTH - 2, MAX_JSON_DEPTH - 1])
def test_unread_values_may_be_nested(depth: int) -> None:
    strict.check_unread(nested(depth), "x")


@pytest.mark.parametrize("value", [nested(MAX_JSON_DEPTH), nested(MAX_JSON_DEPTH + 1), [(("a", 1), ("a", 1))]])
def test_unread_values_are_bounded_and_have_no_key_twice(value: Any) -> None:
    with pytest.raises(CollateralMalformed):
        strict.check_unread(value, "x")
