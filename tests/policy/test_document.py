"""Documents: what is written reads back as it was, and what is not exactly right is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclavescale.policy.document import (
    AT_ISSUE,
    MAX_DOCUMENT_BYTES,
    parse_document,
    policy_of,
    read_document,
    schema,
    to_json,
    to_toml,
    utc,
)
from enclavescale.policy.template import template
from schemas.codec import encode_policy
from schemas.errors import ConfigError
from schemas.mapping import to_jsonable
from schemas.records import Policy
from tests.policy.samples import TEE, any_policy, certificate_pem, demo, strict


def toml(text: str) -> Policy:
    return parse_document(text.encode(), as_json=False)


def table(policy: Policy) -> dict[str, Any]:
    found: dict[str, Any] = to_jsonable(policy)
    return found


def refused(value: Any, field: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        policy_of(value)
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.field == field
    assert "docs/policy.md" in caught.value.remedy or "UTC" in caught.value.remedy
    return caught.value


@pytest.mark.parametrize("policy", [demo(), strict()])
def test_what_is_written_reads_back_byte_for_byte(policy: Policy) -> None:
    for comments in (True, False):
        assert encode_policy(toml(to_toml(policy, comments=comments))) == encode_policy(policy)
    assert encode_policy(parse_document(to_json(policy).encode(), as_json=True)) == encode_policy(policy)


@settings(max_examples=60, deadline=None)
@given(any_policy())
def test_so_does_anything_that_the_record_can_hold(policy: Policy) -> None:
    assert toml(to_toml(policy)) == policy
    assert parse_document(to_json(policy).encode(), as_json=True) == policy


def test_every_field_is_explained_where_it_stands_first() -> None:
    text = to_toml(strict())
    lines = text.splitlines()
    for field in schema()["fields"]:
        if field["name"] != "limits":
            assert f"# {field['doc']}" in lines, field["name"]
    assert text.count("# Identity of the host.") == 1
    assert "not_after_ms = 1764304800000  # 2025-11-28T04:40:00Z" in lines


def test_what_signing_fills_in_may_be_left_out() -> None:
    bare = {name: value for name, value in table(strict()).items() if name not in AT_ISSUE}
    found = policy_of(bare)
    assert (found.counter, found.issued_at_ms, found.not_after_ms) == (0, 0, 0)
    text = to_toml(found)
    assert toml(text) == found
    assert "\ncounter" not in text


def test_what_has_a_default_may_be_left_out() -> None:
    given = table(strict())
    for name in ("max_colluding_ppm", "drift_cap_ppm", "history_windows", "forecast_horizons_ms"):
        del given["domains"][0][name]
    del given["measurements"][0]["registers"][0]["mask"]
    del given["revoked"]
    assert policy_of(given) == strict()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surplus": 1}, "surplus"),
        ({"version": None}, "version"),
        ({"version": True}, "version"),
        ({"version": 1.0}, "version"),
        ({"version": 2**31}, "version"),
        ({"counter": 2**63}, "counter"),
        ({"core_version": 2}, "core_version"),
        ({"core_version": "\ud800"}, "core_version"),
        ({"accepted_sources": "nvml"}, "accepted_sources"),
        ({"accepted_sources": ["nvml", 1]}, "accepted_sources[1]"),
        ({"limits": []}, "limits"),
        ({"limits": {}}, "limits.lateness_ms"),
        ({"hosts": {}}, "hosts"),
        ({"hosts": [1]}, "hosts[0]"),
        ({"hosts": [{"host": "h0"}]}, "hosts[0].host"),
        ({"unsafe_allow_create_time": 0}, "unsafe_allow_create_time"),
        ({"not_after_ms": "2026-01-31"}, "not_after_ms"),
        ({"not_after_ms": "soon"}, "not_after_ms"),
        ({"not_after_ms": "2026-01-31T12:00:00.0001Z"}, "not_after_ms"),
        ({"not_after_ms": 1.5}, "not_after_ms"),
    ],
)
def test_what_is_not_exactly_right_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    refused({**table(strict()), **change}, field)


@pytest.mark.parametrize(
    "name", [one["name"] for one in schema()["fields"] if one["name"] not in (*AT_ISSUE, "revoked")]
)
def test_no_other_field_may_be_missing(name: str) -> None:
    given = table(strict())
    del given[name]
    refused(given, name)


@pytest.mark.parametrize("digits", ["abc", "0x00", "zz", " ab", "ab ", "ａｂ", "-----BEGIN CERTIFICATE-----\nno\n"])
def test_bytes_are_hexadecimal(digits: str) -> None:
    given = table(strict())
    given["trust_roots"][0]["certificate_der"] = digits
    refused(given, "trust_roots[0].certificate_der")


def test_a_certificate_may_be_pem() -> None:
    given = table(strict())
    given["trust_roots"][0]["certificate_der"] = certificate_pem()
    assert policy_of(given).trust_roots[0].certificate_der == TEE.root_der


def test_a_likely_key_is_suggested() -> None:
    given = table(strict())
    given["domains"][0]["limit_mw"] = 1
    assert "Did you mean limit_w?" in refused(given, "domains[0].limit_mw").remedy


def test_moments_may_be_dates() -> None:
    moment = 1_764_304_800_123
    given = {**table(strict()), "not_after_ms": utc(moment), "effective_from_ms": "2025-11-28T05:40:00+01:00"}
    found = policy_of(given)
    assert (found.not_after_ms, found.effective_from_ms) == (moment, moment - 123)
    text = to_toml(strict()).replace("not_after_ms = 1764304800000", "not_after_ms = 2025-11-28T04:40:00.123Z")
    assert toml(text).not_after_ms == moment
    with pytest.raises(ConfigError, match="zone"):
        toml(to_toml(strict()).replace("not_after_ms = 1764304800000", "not_after_ms = 2025-11-28T04:40:00"))


@pytest.mark.parametrize("data", [b"\xff", b"[1]", b'{"version": 1, "version": 1}', b"{", b"NaN", b"[" * 100_000])
def test_json_that_is_none(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(data, as_json=True)
    assert caught.value.field == "source"


def test_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(to_json(strict()))
    assert read_document(path) == strict()
    path = tmp_path / "p.toml"
    path.write_text("\ufeff" + to_toml(strict()), encoding="utf-8")
    assert read_document(path) == strict()
    for name in ("none", "."):
        with pytest.raises(ConfigError):
            read_document(tmp_path / name)
    with path.open("wb") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(ConfigError, match="more than"):
        read_document(path)


_TEXT = to_toml(strict(), comments=False).encode()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(_TEXT) - 1), st.binary(min_size=1, max_size=3), st.integers(0, 40))
def test_damaged_documents_never_raise_anything_else(at: int, put: bytes, gone: int) -> None:
    try:
        found = parse_document(_TEXT[:at] + put + _TEXT[at + gone :], as_json=False)
    except ConfigError:
        return
    encode_policy(found)


def test_the_template_names_every_field_and_says_nothing_wrong() -> None:
    text = template()
    found = toml(text)
    assert (found.counter, found.hosts, found.domains, found.trust_roots) == (0, (), (), ())
    assert not any(getattr(found, name) for name in Policy.__dataclass_fields__ if name.startswith("unsafe_"))

    def names(declared: Any) -> set[str]:
        if isinstance(declared, list):
            return set().union(*map(names, declared))
        if not isinstance(declared, dict):
            return set()
        if declared["type"] == "array":
            return names(declared["items"])
        return {one["name"] for one in declared["fields"]}.union(*(names(one["type"]) for one in declared["fields"]))

    assert {name for name in names(schema()) if name not in text} <= {"max_collateral_age_ms_absent_reason"}
    assert json.loads(to_json(found)) == table(found)


def test_a_policy_of_dates_beyond_the_calendar_can_be_written() -> None:
    far = replace(strict(), not_after_ms=2**63 - 1)
    assert toml(to_toml(far)) == far
