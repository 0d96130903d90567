"""Policies on quotes: what each rule refuses, what a file may say, what the built-in ones mean."""

from __future__ import annotations

import contextlib
import copy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import verifier.policy
from tests.verifier.quote_claims import (
    GOOD_TD,
    INSTANCE,
    MRENCLAVE,
    MRSIGNER,
    MRTD,
    NOW,
    PPID,
    REPORT_DATA,
    RTMR1,
    UP_TO_DATE,
    enclave,
    report,
    state,
    td,
)
from verifier.claims import Claims
from verifier.errors import PolicyInvalid, TeeTypeUnsupported, VerificationError
from verifier.policy.base import AllOf, AnyOf, ForTee
from verifier.policy.quote import AUTHENTIC, BUILT_IN, STRICT, parse_quote_policy, quote_rules, quote_warnings
from verifier.policy.quote_policy import MeasuredCode
from verifier.policy.rules import IsvSvnAtLeast, NoDebug
from verifier.policy.tdx import SeptVeDisabled

TEMPLATE = Path(verifier.policy.__file__).parent / "fleet.toml"
FULL: dict[str, Any] = {
    "version": 1,
    "tees": ["tdx", "sgx"],
    "report_data": REPORT_DATA.hex(),
    "platforms": [INSTANCE.upper()],
    "tcb": {"accepted_statuses": ["UpToDate"], "min_evaluation_number": 17},
    "tdx": {"td_attributes": "0000001000000000", "xfam": {"value": "ff" * 8, "mask": "01" + "00" * 7}},
    "sgx": {"attributes": {"value": "05" + "00" * 15, "mask": "ff" * 8 + "00" * 8}},
    "measurements": [
        {"label": "other image", "tee": "tdx", "mrtd": "00" * 48},
        {"label": "image", "tee": "tdx", "mrtd": MRTD.hex(), "rtmr1": "0x" + RTMR1.hex()},
        {"tee": "sgx", "mrsigner": MRSIGNER.hex(), "isvprodid": 7, "min_isvsvn": 5},
        {"tee": "sgx", "mrenclave": MRENCLAVE.hex()},
    ],
}
"""Everything a file may demand, and what `td()` and `enclave()` satisfy."""


def changed(path: str, value: Any) -> dict[str, Any]:
    """FULL with one value replaced (`tdx.xfam`, `measurements.1.mrtd`); None removes it."""
    table = copy.deepcopy(FULL)
    *parents, last = path.split(".")
    place: Any = table
    for name in parents:
        place = place[int(name)] if name.isdigit() else place.setdefault(name, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return table


def codes(table: dict[str, Any], claims: Claims, report_data: bytes | None = None) -> list[str]:
    rules = quote_rules(parse_quote_policy(table), report_data=report_data)
    found = rules.failures(claims)
    if found:
        with pytest.raises(VerificationError) as caught:
            rules.check(claims)
        assert (caught.value.code, caught.value.field) == (found[0].code, found[0].field), "the first failure is raised"
    else:
        rules.check(claims)
    assert all(one.field and one.remedy for one in found)
    return [one.code for one in found]


@pytest.mark.parametrize("claims", [td(), enclave()], ids=["tdx", "sgx"])
def test_what_satisfies_everything_passes(claims: Claims) -> None:
    assert codes(FULL, claims) == []
    assert codes(FULL, claims, REPORT_DATA) == []


def bits(*set_: int) -> bytes:
    return (GOOD_TD | sum(1 << one for one in set_)).to_bytes(8, "little")


NO_TD_ATTRIBUTES = changed("tdx.td_attributes", None)
TD_CASES: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("debug", NO_TD_ATTRIBUTES, {"td_attributes": bits(0)}, ["DEBUG_ENABLED"]),
    ("TUD bit", NO_TD_ATTRIBUTES, {"td_attributes": bits(5)}, ["TD_ATTRIBUTES"]),
    ("SEPT_VE_DISABLE clear", NO_TD_ATTRIBUTES, {"td_attributes": bytes(8)}, ["TD_ATTRIBUTES"]),
    ("migratable", NO_TD_ATTRIBUTES, {"td_attributes": bits(29)}, ["TD_ATTRIBUTES"]),
    ("reserved", NO_TD_ATTRIBUTES, {"td_attributes": bits(40)}, ["TD_ATTRIBUTES"]),
    ("other attributes than named", FULL, {"td_attributes": bits(63)}, ["TD_ATTRIBUTES"]),
    ("XFAM without x87", changed("tdx.xfam", None), {"xfam": b"\xe6" + bytes(7)}, ["TD_ATTRIBUTES"]),
    ("XFAM in the mask", FULL, {"xfam": b"\xe6" + bytes(7)}, ["TD_ATTRIBUTES"] * 2),
    ("service TD", FULL, {"mrservicetd": b"\x01" * 48}, ["SERVICE_TD_BOUND"]),
    ("no service TD", FULL, {"mrservicetd": bytes(48)}, []),
    ("image", FULL, {"mrtd": b"\x01" * 48}, ["MEASUREMENT_UNKNOWN"]),
    ("one register of an image", FULL, {"rtmr1": b"\x01" * 48}, ["MEASUREMENT_UNKNOWN"]),
    ("report data", FULL, {"report_data": bytes(64)}, ["REPORT_DATA_MISMATCH"]),
    ("report data, last byte", FULL, {"report_data": REPORT_DATA[:63] + b"\x00"}, ["REPORT_DATA_MISMATCH"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "table", "body", "expected"), TD_CASES, ids=[case[0] for case in TD_CASES])
def test_one_fact_of_a_td_wrong(name: str, table: dict[str, Any], body: dict[str, Any], expected: list[str]) -> None:
    assert codes(table, td(**body)) == expected


@pytest.mark.parametrize(
    ("body", "table", "expected"),
    [
        ({"debug": True}, changed("sgx", {}), ["DEBUG_ENABLED"]),
        ({"debug": True}, FULL, ["DEBUG_ENABLED", "ENCLAVE_ATTRIBUTES"]),
        ({"isv_svn": 4}, FULL, []),
        ({"isv_svn": 4}, changed("measurements", FULL["measurements"][:3]), ["ISV_SVN_TOO_LOW"]),
        ({"product": 8}, changed("measurements", FULL["measurements"][:3]), ["MEASUREMENT_UNKNOWN"]),
        ({}, changed("measurements.3.mrenclave", "00" * 32), []),
        ({"isv_svn": 4}, changed("measurements.3.mrenclave", "00" * 32), ["MEASUREMENT_UNKNOWN"]),
        ({}, changed("tees", ["tdx"]), ["TEE_REFUSED"]),
    ],
)
def test_one_fact_of_an_enclave_wrong(body: dict[str, Any], table: dict[str, Any], expected: list[str]) -> None:
    assert codes(table, enclave(**body)) == expected


def test_every_failing_rule_is_named_in_order() -> None:
    body = {"td_attributes": bits(0, 29), "mrtd": bytes(47) + b"\x01", "mrservicetd": b"\x01" * 48}
    claims = td(tcb=report(state("OutOfDate")), **body)
    claims = replace(
        claims, quote=replace(claims.quote, pck=replace(claims.quote.pck, ppid=bytes(16), platform_instance_id=None))
    )
    assert codes(changed("measurements", FULL["measurements"][1:]), claims, bytes(64)) == [
        "REPORT_DATA_MISMATCH",
        "DEBUG_ENABLED",
        "TCB_STATUS_REFUSED",
        "SERVICE_TD_BOUND",
        "TD_ATTRIBUTES",
        "TD_ATTRIBUTES",
        "MEASUREMENT_UNKNOWN",
        "PLATFORM_NOT_ENROLLED",
    ]


def test_a_refusal_among_alternatives_says_why_each_failed() -> None:
    rules = quote_rules(parse_quote_policy(FULL))
    (error,) = rules.failures(td(mrtd=b"\x02" * 48))
    assert "measurement other image: mrtd differs" in str(error)
    assert "measurement image: mrtd differs" in str(error)


class TestEmpty:
    def test_an_empty_table_refuses_for_every_empty_part(self) -> None:
        rules = quote_rules(parse_quote_policy({}))
        assert [(one.code, one.field) for one in rules.failures(td())] == [
            ("POLICY_EMPTY", "report_data"),
            ("POLICY_EMPTY", "tcb.accepted_statuses"),
            ("POLICY_EMPTY", "measurements"),
            ("POLICY_EMPTY", "platforms"),
        ]

    @pytest.mark.parametrize("path", ["tees", "measurements", "platforms", "tcb.accepted_statuses"])
    def test_an_empty_list_refuses(self, path: str) -> None:
        assert "POLICY_EMPTY" in codes(changed(path, []), td())

    def test_a_measurement_of_nothing_refuses(self) -> None:
        nothing = MeasuredCode(label="x", tee="tdx", registers=())
        rules = quote_rules(replace(parse_quote_policy(FULL), measurements=(nothing,)))
        assert [one.code for one in rules.failures(td())] == ["POLICY_EMPTY"]

    def test_measurements_of_another_tee_are_none(self) -> None:
        assert codes(changed("measurements", FULL["measurements"][:2]), enclave()) == ["POLICY_EMPTY"]

    def test_a_quote_for_nothing_refuses(self) -> None:
        assert codes(changed("report_data", None), td()) == ["POLICY_EMPTY"]
        assert codes(changed("report_data", None), td(), REPORT_DATA) == []

    def test_compositions_of_nothing(self) -> None:
        for empty in (AllOf([], "x"), AnyOf([], "x", VerificationError)):
            with pytest.raises(VerificationError) as caught:
                empty.check(td())
            assert caught.value.code == "POLICY_EMPTY"
        assert [one.code for one in AllOf([], "x").failures(td())] == ["POLICY_EMPTY"]


class TestSwitches:
    @pytest.mark.parametrize(
        ("key", "table", "claims"),
        [
            ("unsafe_allow_debug", NO_TD_ATTRIBUTES, td(td_attributes=bits(0))),
            ("unsafe_any_measurement", changed("measurements", None), td(mrtd=bytes(48))),
            ("unsafe_any_platform", changed("platforms", None), td()),
            ("unsafe_any_report_data", changed("report_data", None), td()),
            ("tdx.unsafe_allow_sept_ve", NO_TD_ATTRIBUTES, td(td_attributes=bytes(8))),
            ("tdx.unsafe_allow_reserved_bits", NO_TD_ATTRIBUTES, td(td_attributes=bits(40))),
            ("tdx.allow_migratable", NO_TD_ATTRIBUTES, td(td_attributes=bits(29))),
        ],
    )
    def test_each_lets_one_thing_pass_and_is_shown(self, key: str, table: dict[str, Any], claims: Claims) -> None:
        assert codes(table, claims)
        opened = copy.deepcopy(table)
        place = opened.setdefault("tdx", {}) if "." in key else opened
        place[key.rpartition(".")[2]] = True
        assert codes(opened, claims) == []
        shown = any(key in one and "UNSAFE" in one for one in quote_warnings(parse_quote_policy(opened), claims))
        assert shown is ("unsafe_" in key)
        place[key.rpartition(".")[2]] = False
        assert codes(opened, claims), "off is as if it were not there"

    @pytest.mark.parametrize("field", ["mrservicetd", "initial_servtd_hash", "current_servtd_hash"])
    def test_every_service_td_a_report_names_must_be_allowed(self, field: str) -> None:
        hashes = dict.fromkeys(("mrservicetd", "initial_servtd_hash", "current_servtd_hash"), b"\x07" * 48)
        allowed = changed("tdx.service_tds", ["07" * 48])
        assert codes(allowed, td(**hashes)) == codes(allowed, td(**(hashes | {field: bytes(48)}))) == []
        wrong = td(**(hashes | {field: b"\x08" * 48}))
        assert codes(allowed, wrong) == ["SERVICE_TD_BOUND"]
        (error,) = quote_rules(parse_quote_policy(allowed)).failures(wrong)
        assert error.field == field

    def test_a_service_td_that_is_allowed(self) -> None:
        bound = td(mrservicetd=b"\x07" * 48)
        assert codes(changed("tdx.service_tds", ["07" * 48]), bound) == []
        assert codes(changed("tdx.service_tds", ["08" * 48]), bound) == ["SERVICE_TD_BOUND"]

    @pytest.mark.parametrize("key", ["unsafe_any_measurement", "unsafe_any_platform"])
    def test_one_that_would_silence_a_list_is_a_mistake(self, key: str) -> None:
        with pytest.raises(PolicyInvalid) as caught:
            parse_quote_policy(changed(key, True))
        assert caught.value.field == key


BAD: list[tuple[str, Any, str]] = [
    ("version", 2, "version"), ("version", True, "version"), ("versions", 1, "versions"),
    ("tees", "tdx", "tees"), ("tees", ["sev"], "tees[0]"), ("report_data", "00" * 65, "report_data"),
    ("report_data", "", "report_data"), ("report_data", 7, "report_data"), ("platforms", ["00"], "platforms[0]"),
    ("platforms", [PPID, "zz" * 16], "platforms[1]"), ("tcb", [], "tcb"), ("tcb.grace_days", -1, "tcb.grace_days"),
    ("tcb.grace_days", 1.5, "tcb.grace_days"), ("tcb.grace_days", True, "tcb.grace_days"),
    ("tcb.accepted_statuses", ["Revoked"], "tcb.accepted_statuses[0]"),
    ("tcb.accepted_statuses", ["uptodate"], "tcb.accepted_statuses[0]"), ("tcb.judge", True, "tcb.judge"),
    ("tcb.allowed_advisories", [1], "tcb.allowed_advisories[0]"), ("tdx.xfam", "00", "tdx.xfam"),
    ("tdx.xfam", {"mask": "ff" * 8}, "tdx.xfam.value"), ("tdx.xfam", {"value": "ff" * 8, "bits": 1}, "tdx.xfam.bits"),
    ("tdx.xfam", {"value": "ff" * 8, "mask": "00" * 8}, "tdx.xfam.mask"), ("tdx.debug", True, "tdx.debug"),
    ("tdx.unsafe_allow_sept_ve", "yes", "tdx.unsafe_allow_sept_ve"), ("sgx.flags", "00", "sgx.flags"),
    ("measurements", {"tee": "tdx"}, "measurements"), ("measurements.1.mrtd", "00" * 32, "measurements[1].mrtd"),
    ("measurements.1.tee", "sev", "measurements[1].tee"), ("measurements.1.tee", None, "measurements[1].tee"),
    ("measurements.1.mrenclave", "00" * 32, "measurements[1].mrenclave"),
    ("measurements.1.min_isvsvn", 1, "measurements[1].min_isvsvn"),
    ("measurements.1.label", 7, "measurements[1].label"),
    ("measurements.3.mrenclave", None, "measurements[3]"), ("measurements.2.mrsigner", None, "measurements[2]"),
    ("measurements", [{"tee": "tdx"}], "measurements[0]"), ("measurements", [{"tee": "sgx"}], "measurements[0]"),
    ("measurements", [{"tee": "tdx", "mrowner": "00" * 48, "mrseam": "00" * 48}], "measurements[0]"),
    *[("measurements", [{"tee": "tdx", name: "00" * 48}], "ok") for name in ("mrtd", "rtmr0", "rtmr3")],
    ("measurements.2.isvprodid", 65_536, "measurements[2].isvprodid"),
    ("unsafe_allow_everything", True, "unsafe_allow_everything"), ("unsafe_allow_debug", 1, "unsafe_allow_debug"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "field"), BAD, ids=[f"{path}={value}"[:60] for path, value, _ in BAD])
def test_what_a_file_may_not_say(path: str, value: Any, field: str) -> None:
    table = changed(path, value)
    if field == "ok":
        parse_quote_policy(table)
        return
    with pytest.raises(PolicyInvalid) as caught:
        parse_quote_policy(table)
    assert caught.value.field == field
    assert field in str(caught.value)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "tee", "value", "ff", "UpToDate"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["", "tee", "value", "ff", "UpToDate"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ["version", "tees", "report_data", "platforms", "tcb", "tdx", "sgx", "measurements", "unsafe_allow_debug", "x"]


@given(st.dictionaries(st.sampled_from(KEYS), JSONISH, max_size=4))
def test_a_file_is_read_or_invalid(table: dict[str, Any]) -> None:
    with contextlib.suppress(PolicyInvalid):
        assert quote_rules(parse_quote_policy(table)).failures(td())


class TestBuiltIn:
    @pytest.mark.parametrize("name", sorted(BUILT_IN))
    def test_they_know_their_names(self, name: str) -> None:
        assert BUILT_IN[name].name == name

    @pytest.mark.parametrize(
        ("status", "authentic", "strict"),
        [
            ("UpToDate", [], []),
            ("SWHardeningNeeded", [], ["TCB_STATUS_REFUSED"]),
            ("OutOfDate", [], ["TCB_STATUS_REFUSED"]),
            ("Revoked", ["TCB_REVOKED"], ["TCB_REVOKED", "TCB_STATUS_REFUSED"]),
        ],
    )
    def test_tcb(self, status: str, authentic: list[str], strict: list[str]) -> None:
        claims = td(tcb=report(state(status)))
        assert [one.code for one in quote_rules(AUTHENTIC).failures(claims)] == authentic
        assert [one.code for one in quote_rules(STRICT).failures(claims)] == strict

    @pytest.mark.parametrize("policy", [AUTHENTIC, STRICT])
    def test_a_revoked_tcb_that_runs_now(self, policy: Any) -> None:
        (error,) = quote_rules(policy).failures(td(tcb=report(state("UpToDate"), state("Revoked"))))
        assert (error.code, error.field) == ("TCB_REVOKED", "tcb.current.status")

    def test_debug(self) -> None:
        for claims in (td(td_attributes=bits(0)), enclave(debug=True)):
            assert quote_rules(AUTHENTIC).failures(claims) == []
            assert [one.code for one in quote_rules(STRICT).failures(claims)] == ["DEBUG_ENABLED"]

    @pytest.mark.parametrize("policy", [AUTHENTIC, STRICT])
    def test_they_judge_nothing_else(self, policy: Any) -> None:
        worse = report(state("UpToDate"), state("OutOfDate"))
        odd = td(tcb=worse, td_attributes=bytes(8), mrservicetd=b"\x01" * 48, xfam=bytes(8))
        assert quote_rules(policy).failures(odd) == []

    @pytest.mark.parametrize("policy", [AUTHENTIC, STRICT])
    def test_an_unevaluated_tcb_satisfies_neither(self, policy: Any) -> None:
        assert {one.code for one in quote_rules(policy).failures(td(tcb=None))} == {"TCB_UNEVALUATED"}

    def test_report_data_is_compared_where_it_is_given(self) -> None:
        assert quote_rules(STRICT, report_data=REPORT_DATA).failures(td()) == []
        (error,) = quote_rules(STRICT, report_data=REPORT_DATA[:32] + bytes(32)).failures(td())
        assert error.code == "REPORT_DATA_MISMATCH"


class TestWarnings:
    @pytest.mark.parametrize(
        ("claims", "word"),
        [
            (td(simulated=True), "SIMULATED"),
            (td(td_attributes=bits(0)), "DEBUG"),
            (td(tcb=report(state("OutOfDate"))), "OutOfDate is reported, not judged"),
            (td(tcb=report(state("UpToDate"), state("OutOfDate"))), "the TCB that runs now is OutOfDate"),
            (td(), "report data is not compared"),
        ],
    )
    def test_what_an_acceptance_does_not_mean(self, claims: Claims, word: str) -> None:
        assert any(word in one for one in quote_warnings(AUTHENTIC, claims))

    def test_nothing_to_say(self) -> None:
        assert quote_warnings(STRICT, td(), REPORT_DATA) == ()
        assert quote_warnings(parse_quote_policy(FULL), td()) == ()


class TestTemplate:
    TABLE = tomllib.loads(TEMPLATE.read_text())

    def test_it_is_read_and_accepts_nothing_as_it_stands(self) -> None:
        failures = quote_rules(parse_quote_policy(self.TABLE), report_data=REPORT_DATA).failures(td())
        assert {(one.code, one.field) for one in failures} == {
            ("POLICY_EMPTY", "measurements"),
            ("POLICY_EMPTY", "platforms"),
        }

    def test_filled_in_it_accepts_and_demands_what_strict_does_not(self) -> None:
        filled = self.TABLE | {"platforms": [PPID], "measurements": [{"tee": "tdx", "mrtd": MRTD.hex()}]}
        assert codes(filled, td(), REPORT_DATA) == []
        for body in ({"td_attributes": bytes(8)}, {"td_attributes": bits(29)}, {"mrservicetd": b"\x01" * 48}):
            assert quote_rules(STRICT).failures(td(**body)) == []
            assert codes(filled, td(**body), REPORT_DATA)

    def test_it_explains_every_key_there_is(self) -> None:
        text = TEMPLATE.read_text()
        named = {key for table in (FULL, FULL["tcb"], FULL["tdx"], FULL["sgx"]) for key in table}
        named |= {key for measured in FULL["measurements"] for key in measured}
        named |= {"unsafe_allow_debug", "unsafe_any_measurement", "unsafe_any_platform", "unsafe_any_report_data"}
        named |= {"grace_days", "allowed_advisories", "judge_current", "unsafe_allow_sept_ve", "service_tds"}
        named |= {"unsafe_allow_reserved_bits", "allow_migratable", "mrconfigid", "mrowner", "mrownerconfig", "mrseam"}
        assert {key for key in named if key not in text} == set()

    def test_every_default_it_states_is_the_default(self) -> None:
        bare = {key: self.TABLE[key] for key in ("version", "tees")} | {"tcb": {"accepted_statuses": ["UpToDate"]}}
        assert parse_quote_policy(bare) == parse_quote_policy(self.TABLE)


def test_digest_is_of_what_is_demanded() -> None:
    policy = parse_quote_policy(FULL)
    assert policy.digest() == parse_quote_policy(dict(reversed(FULL.items()))).digest()
    others = [
        changed("tcb.min_evaluation_number", 18),
        changed("measurements.1.rtmr1", None),
        changed("platforms", [PPID]),
    ]
    assert len({policy.digest(), *(parse_quote_policy(one).digest() for one in others)}) == 4


def test_a_rule_for_another_tee_says_nothing_and_alone_it_refuses() -> None:
    ForTee("tdx", SeptVeDisabled()).check(enclave())
    for rule, claims in ((SeptVeDisabled(), enclave()), (IsvSvnAtLeast(0), td())):
        with pytest.raises(TeeTypeUnsupported):
            rule.check(claims)  # type: ignore[attr-defined]


def test_failures_do_not_repeat_themselves() -> None:
    claims = td(td_attributes=bits(0))
    assert len(AllOf([NoDebug(), AllOf([NoDebug()], "again")], "policy").failures(claims)) == 1
    assert claims.now_ms == NOW
    assert claims.quote.tcb is UP_TO_DATE
