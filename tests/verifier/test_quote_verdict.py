"""The verdict on a quote as JSON: three outcomes, tiers of the trust vector, claims of every kind of report."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from tests.forge.dcap.judge import anchor
from tests.forge.dcap.world import TDX4
from tests.verifier.quote_claims import (
    DAY,
    MRSIGNER,
    MRTD,
    NOW,
    PPID,
    REPORT_DATA,
    enclave,
    part,
    report,
    state,
    td,
)
from verifier.abi.tdx import TdReport
from verifier.claims import Claims
from verifier.errors import CollateralMissing, VerificationError
from verifier.formats.dcap import verify_quote
from verifier.policy.quote import AUTHENTIC, STRICT, QuotePolicy, parse_quote_policy, quote_rules, quote_warnings
from verifier.policy.quote_policy import MeasuredCode, TdDemands
from verifier.trust.store import Collateral
from verifier.verdicts.quote import STAGES, claims_json, days_behind, quote_verdict
from verifier.verdicts.shell import moment

OPEN = {"unsafe_any_measurement": True, "unsafe_any_platform": True, "unsafe_any_report_data": True}
FLEET = parse_quote_policy({"tcb": {"accepted_statuses": ["UpToDate"]}, **OPEN}, "fleet")
WHOLE = parse_quote_policy(
    {
        "tcb": {"accepted_statuses": ["UpToDate"]},
        "report_data": REPORT_DATA.hex(),
        "platforms": [PPID],
        "measurements": [{"tee": "tdx", "mrtd": MRTD.hex()}, {"tee": "sgx", "mrsigner": MRSIGNER.hex()}],
    }
)


def judged(policy: QuotePolicy, claims: Claims) -> dict[str, Any]:
    said = quote_verdict(
        policy=policy,
        now_ms=claims.now_ms,
        quote=claims.quote,
        failures=quote_rules(policy).failures(claims),
        warnings=quote_warnings(policy, claims),
    )
    assert json.loads(json.dumps(said)) == said, "JSON as it stands"
    assert said["status"] == said["submods"]["cpu"]["ear.status"]
    return said


def vector(said: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = said["submods"]["cpu"]["ear.trustworthiness-vector"]
    return found


class TestStatus:
    def test_affirming(self) -> None:
        said = judged(STRICT, td())
        assert (said["status"], said["accepted"]) == ("affirming", True)
        assert vector(said) == {
            "instance-identity": 0, "configuration": 0, "executables": 0, "hardware": 2, "runtime-opaque": 2
        }  # fmt: skip
        assert vector(judged(FLEET, td()))["configuration"] == 2
        assert vector(judged(FLEET, enclave()))["configuration"] == 0
        for claims, configuration in ((td(), 2), (enclave(), 0)):
            said = judged(WHOLE, claims)
            assert said["status"] == "affirming"
            assert vector(said) == {
                "instance-identity": 2, "configuration": configuration, "executables": 2, "hardware": 2,
                "runtime-opaque": 2,
            }  # fmt: skip

    @pytest.mark.parametrize("switch", sorted(FLEET.unsafe))
    def test_an_unsafe_switch_is_never_affirming(self, switch: str) -> None:
        said = judged(replace(WHOLE, unsafe=(switch,)), td())
        assert (said["status"], said["accepted"]) == ("warning", True)
        assert judged(FLEET, td())["status"] == "warning"

    def test_a_root_that_is_not_the_vendors_is_never_affirming(self) -> None:
        claims = td()
        said = judged(WHOLE, replace(claims, quote=replace(claims.quote, root_label="ours:0123")))
        assert (said["status"], said["accepted"], vector(said)["hardware"]) == ("warning", True, 32)

    @pytest.mark.parametrize("rule", ["unsafe_allow_sept_ve", "unsafe_allow_reserved_bits", "allow_migratable"])
    def test_configuration_is_affirmed_only_by_all_rules_on_it(self, rule: str) -> None:
        assert vector(judged(replace(WHOLE, td=TdDemands(**{rule: True})), td()))["configuration"] == 0  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("changes", "aspect"),
        [
            ({"measurements": ()}, "executables"),
            ({"measurements": (MeasuredCode(label="x", tee="tdx", registers=()),)}, "executables"),
            ({"platforms": ()}, "instance-identity"),
            ({"report_data": None}, "instance-identity"),
            ({"tcb": replace(WHOLE.tcb, accepted_statuses=())}, "hardware"),
            ({"tees": ()}, "hardware"),
        ],
    )
    def test_an_empty_part_contraindicates_its_own_aspect(self, changes: dict[str, Any], aspect: str) -> None:
        said = judged(replace(WHOLE, **changes), td())
        assert said["codes"] == ["POLICY_EMPTY"]
        assert [name for name, tier in vector(said).items() if tier == 96] == [aspect]

    def test_what_is_empty_or_was_not_judged_is_never_affirmed(self) -> None:
        claims = td()
        for policy in (replace(WHOLE, measurements=(), platforms=()), replace(WHOLE, tees=("sgx",), platforms=())):
            said = quote_verdict(policy=policy, now_ms=NOW, quote=claims.quote, failures=[])
            assert (vector(said)["executables"], vector(said)["instance-identity"]) == (0, 0)

    @pytest.mark.parametrize(
        "claims",
        [
            td(tcb=report(state("OutOfDate"))),
            td(tcb=report(state("UpToDate"), state("OutOfDate"))),
            td(td_attributes=((1 << 28) | 1).to_bytes(8, "little")),
            enclave(debug=True),
        ],
    )
    def test_warning(self, claims: Claims) -> None:
        said = judged(AUTHENTIC, claims)
        assert (said["status"], said["accepted"]) == ("warning", True)
        assert 32 in vector(said).values()

    def test_a_simulated_root_is_never_hardware(self) -> None:
        said = judged(AUTHENTIC, td(simulated=True))
        assert vector(said)["hardware"] == 96
        assert said["claims"]["simulated"] is True

    @pytest.mark.parametrize(
        ("policy", "claims", "aspect"),
        [
            (STRICT, td(tcb=report(state("OutOfDate"))), "hardware"),
            (AUTHENTIC, td(tcb=report(state("Revoked"))), "hardware"),
            (STRICT, enclave(debug=True), "runtime-opaque"),
            (FLEET, td(td_attributes=bytes(8)), "configuration"),
            (FLEET, td(mrservicetd=b"\x01" * 48), "configuration"),
            (replace(FLEET, report_data=bytes(64)), td(), "instance-identity"),
            (replace(FLEET, platforms=("00" * 16,)), td(), "instance-identity"),
            (
                parse_quote_policy(
                    {"tcb": {"accepted_statuses": ["UpToDate"]}, "measurements": [{"tee": "tdx", "mrtd": "00" * 48}]}
                    | {"unsafe_any_platform": True, "unsafe_any_report_data": True}
                ),
                td(),
                "executables",
            ),
        ],
    )
    def test_contraindicated_in_the_aspect_that_is_wrong(
        self, policy: QuotePolicy, claims: Claims, aspect: str
    ) -> None:
        said = judged(policy, claims)
        assert (said["status"], said["accepted"]) == ("contraindicated", False)
        assert [name for name, tier in vector(said).items() if tier == 96] == [aspect]
        assert said["codes"] == said["submods"]["cpu"]["enclavescale"]["codes"] != []
        assert said["tcb_status"] == str(claims.quote.tcb.status if claims.quote.tcb else None)
        assert said["claims"]["report_data"] == REPORT_DATA.hex()
        assert said["verified"] == list(STAGES)


def refused(error: VerificationError) -> dict[str, Any]:
    return quote_verdict(policy=STRICT, now_ms=NOW, quote=None, failures=[error])


def test_a_failed_verification_gives_nothing_but_why_and_how_far() -> None:
    error = CollateralMissing("no TCB info", field="tcb_info")
    error.verified = ("format", "pck_chain", "signatures")
    said = refused(error)
    assert [said[name] for name in ("claims", "tcb", "tcb_status", "advisory_ids", "collateral")] == [None] * 5
    assert said["verified"] == ["format", "pck_chain", "signatures"]
    assert said["errors"] == [
        {"code": "COLLATERAL_MISSING", "field": "tcb_info", "message": "no TCB info", "remedy": error.remedy}
    ]
    assert refused(CollateralMissing("x", field="x"))["verified"] == []


def test_codes_stand_once_and_errors_all() -> None:
    claims = td(td_attributes=(1 << 29).to_bytes(8, "little"))
    said = judged(FLEET, claims)
    assert said["codes"] == ["TD_ATTRIBUTES"]
    assert len(said["errors"]) == 2


class TestClaims:
    def test_every_field_of_a_td_report_is_there_by_its_name(self) -> None:
        extended = {field.name: bytes([number]) * 48 for number, field in enumerate(fields(TdReport), 1)}
        sizes = {"td_attributes": 8, "seam_attributes": 8, "xfam": 8, "report_data": 64, "tee_tcb_svn": 16}
        body = {name: value[:1] * sizes.get(name, 48) for name, value in extended.items()}
        said = claims_json(td(**body).quote)
        assert {name: said[name] for name in body} == {name: value.hex() for name, value in body.items()}
        assert said["td_attributes_decoded"]["reserved"] != "0x0"

    def test_what_a_report_does_not_have_is_not_there(self) -> None:
        said = claims_json(td().quote)
        assert "mrservicetd" not in said
        assert said["td_attributes_decoded"] == {
            "debug": False, "tud": 0, "sept_ve_disable": True, "migratable": False, "pks": False,
            "key_locker": False, "perfmon": False, "reserved": "0x0",
        }  # fmt: skip

    def test_an_enclaves(self) -> None:
        said = claims_json(enclave(isv_svn=9, product=3).quote)
        assert (said["isvsvn"], said["isvprodid"], said["mrenclave"]) == (9, 3, "cc" * 32)

    def test_platform(self) -> None:
        said = claims_json(td().quote)
        assert said["platform_ids"] == [said["ppid"], said["platform_instance_id"]]
        assert said["platform_configuration"] is None
        pck = replace(td().quote.pck, configuration=(True, None, False), platform_instance_id=None)
        said = claims_json(replace(td().quote, pck=pck))
        assert said["platform_configuration"] == {"dynamic_platform": True, "cached_keys": None, "smt_enabled": False}
        assert said["platform_instance_id"] is None


class TestHowFarBehind:
    def test_days_are_whole_and_the_worst_part_counts(self) -> None:
        parts = (
            part("platform", "OutOfDate", superseded=NOW - 3 * DAY - 1),
            part("tdx_module", "OutOfDate", superseded=NOW - 5 * DAY),
            part("qe", "UpToDate"),
        )
        said = judged(AUTHENTIC, td(tcb=report(state("OutOfDate", *parts))))["tcb"]
        assert said["days_behind"] == 5
        assert [one["days_behind"] for one in said["launch"]["parts"]] == [3, 5, 0]
        assert said["launch"]["parts"][1]["superseded"] == moment(NOW - 5 * DAY)

    def test_never_negative(self) -> None:
        early = state("OutOfDate", part("platform", "OutOfDate", superseded=NOW + DAY))
        assert days_behind(early, NOW) == 0


def test_collateral_names_what_expires_first() -> None:
    minted = TDX4.mint()
    held = Collateral.from_json(minted.collateral_json)
    quote = verify_quote(
        quote=minted.quote, collateral=held, trust_roots=[anchor(minted.root)], now_ms=minted.at * 1000
    )
    claims = Claims(quote=quote, now_ms=minted.at * 1000)
    said = quote_verdict(policy=STRICT, now_ms=claims.now_ms, quote=quote, failures=[])["collateral"]
    assert (said["earliest_expiry"], said["earliest_expiry_of"]) == (
        moment((minted.at + 25 * 86_400) * 1000),
        "pck_crl",
    )
    assert said["digest"] == f"sha256:{held.digest.hex()}"
    left = {one["kind"]: (one["days_left"], one["evaluation_number"]) for one in said["windows"]}
    assert left == {
        "tcb_info": (27, 20), "qe_identity": (28, 20), "pck_crl": (25, None), "root_ca_crl": (265, None),
        "tcb_signer": (left["tcb_signer"][0], None),
    }  # fmt: skip


def test_moments() -> None:
    assert moment(None) is None
    assert {moment(one) for one in (-(10**17), 10**17)} == {"-100000000000000000 ms", "100000000000000000 ms"}
    assert moment(1_768_089_600_999) == "2026-01-11T00:00:00Z"
