"""What earns a grade: every switch that lets something pass, on CPU or devices, passes it and earns nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enclavescale.judging.composite import judge_composite
from enclavescale.judging.inputs import Inputs, NamedRoot
from schemas.codec import report_data_of
from schemas.records import RegisterRule, TrustRoot
from tests.forge.composite.cases import BLACKWELL_DEBUG
from tests.forge.composite.world import (
    DRIVER_RIM,
    GPU_0,
    GPU_1,
    LINKED,
    SENSOR,
    SNP,
    SWITCHES,
    TDX,
    VBIOS_RIM,
    Host,
    mint,
)
from tests.forge.dcap import world as dcap
from tests.forge.nvidia import world as nvidia
from tests.forge.snp import world as snp
from tests.forge.spdm import world as spdm
from tests.verifier.test_policy_composite import FULL, NOW, changed, claims_of, minted, verified
from verifier.abi.composite import CompositeFile
from verifier.claims import CompositeClaims
from verifier.policy.composite import composite_rules, expectations_of
from verifier.policy.devices import SESSION_NVIDIA, Alternative, EachDevice, Expectations, SpdmDemands
from verifier.policy.grade import earned_grade
from verifier.policy.quote import parse_quote_policy
from verifier.trust.roots import anchor_of
from verifier.trust.store import Collateral

GPUS = TDX.but(sensors=())
SENSORS = TDX.but(gpus=())
UNANSWERED = GPUS.but(held=lambda held: [one for one in held if one[:1] == b"<"])
BLACKWELL = GPUS.but(
    gpus=(BLACKWELL_DEBUG,), rims=(DRIVER_RIM.but(product="GB100"), VBIOS_RIM.but(product="GB100"))
)  # fmt: skip
IN_DEBUG = SENSORS.but(
    sensors=(
        SENSOR.but(
            blocks=(
                *spdm.measurement_blocks()[:-1],
                replace(spdm.measurement_blocks()[-1], value=bytes.fromhex("3f000000040000001f00000001000000")),
            )
        ),
    )
)
PARTLY_SIGNED = SENSORS.but(
    sensors=(SENSOR.but(story=(spdm.digests(), spdm.certificate(), spdm.challenge(), spdm.measure(1))),)
)
BLOCK_1 = Alternative(
    label="m", registers=(RegisterRule(register="block1", value=spdm.measurement_blocks()[0].value),)
)  # fmt: skip


def gpu(opaque: dict[int, Any]) -> Host:
    return GPUS.but(gpus=(GPU_0.but(opaque={**GPU_0.opaque, **opaque}), GPU_1))


def expected(host: Host, **changes: Any) -> Expectations:
    """What a session demands of this host, with some switches set: of GPUs, of SPDM devices, of both."""
    ours: dict[str, Any] = {
        "nvidia": replace(SESSION_NVIDIA, **changes.pop("gpus", {})),
        "spdm": replace(SpdmDemands(), **changes.pop("sensors", {})),
        "nvidia_firmware": None,
        "key_digests": tuple(one.hex() for one in host.digests()),
    }
    return replace(expectations_of(parse_quote_policy(FULL)), **(ours | changes))


def stale(host: Host) -> CompositeClaims:
    """Devices whose nonces nobody compared, beside a CPU."""
    alone = verified(host, items=minted(host).items[1:])
    return replace(claims_of(host), devices=alone.devices)


DEVICE_SWITCHES: list[tuple[str, Any, dict[str, Any], str]] = [
    ("any nonce of GPUs", stale(GPUS), {"gpus": {"demand_nonce": False}}, "NONCE_UNCHECKED"),
    ("any nonce of sensors", stale(SENSORS), {"sensors": {"demand_nonce": False}}, "NONCE_UNCHECKED"),
    ("any firmware", gpu({20: None}), {"gpus": {"demand_fwid": False}}, "FWID_UNBOUND"),
    ("GPUs that name no firmware", gpu({20: None}), {"gpus": {"unbound_kinds": ("gpu", "switch")}}, "FWID_UNBOUND"),
    ("any reference", GPUS.but(rims=()), {"gpus": {"demand_reference": False}}, "REFERENCE_MISSING"),
    ("no revocation", UNANSWERED, {"gpus": {"demand_revocation": False}}, "REVOCATION_UNCHECKED"),
    ("GPUs in debug mode", BLACKWELL, {"gpus": {"allow_debug": True}}, "DEVICE_DEBUG"),
    ("any mode", gpu({36: b"\x07\x00"}), {"gpus": {"modes": None}}, "DEVICE_MODE"),
    ("switches without a report", SNP.but(gpus=LINKED, sensors=()), {"gpus": {"allow_unattested_switches": True}},
     "DEVICE_TOPOLOGY"),
    ("GPUs not judged", GPUS.but(rims=()), {"nvidia": None}, "REFERENCE_MISSING"),
    ("sensors in debug mode", IN_DEBUG,
     {"sensors": {"allow_debug": True}, "spdm_firmware": (BLOCK_1,)}, "DEVICE_MODE"),
    ("sensors that sign a part", PARTLY_SIGNED,
     {"sensors": {"demand_grade": False}, "spdm_firmware": (BLOCK_1,)}, "FIRST_MILE_TOO_LOW"),
    ("sensors not judged", PARTLY_SIGNED, {"spdm": None, "spdm_firmware": (BLOCK_1,)}, "FIRST_MILE_TOO_LOW"),
    ("any firmware of sensors", SENSORS, {"spdm_firmware": None}, "POLICY_EMPTY"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found", "switch", "code"), DEVICE_SWITCHES, ids=[one[0] for one in DEVICE_SWITCHES]
)  # fmt: skip
def test_what_a_switch_lets_pass_of_a_device_earns_nothing(
    name: str, found: Any, switch: dict[str, Any], code: str
) -> None:
    host = found if isinstance(found, Host) else GPUS if "GPUs" in name else SENSORS
    claims = claims_of(found) if isinstance(found, Host) else found
    judged = expected(host, **switch)
    assert EachDevice(judged).failures(claims) == [], "the switch lets it pass"
    grade, why = earned_grade(claims, judged)
    assert (grade, why.split(":")[0]) == ("NONE", code)


@pytest.mark.parametrize("host", [GPUS, SENSORS, SNP.but(gpus=LINKED, switches=SWITCHES, sensors=())])
def test_a_switch_that_lets_nothing_pass_costs_nothing(host: Host) -> None:
    lax = {
        "gpus": {
            "demand_nonce": False, "demand_fwid": False, "demand_reference": False, "demand_revocation": False,
            "allow_debug": True, "allow_unattested_switches": True, "unbound_kinds": ("gpu", "switch"),
        },
        "sensors": {"demand_nonce": False, "demand_grade": False, "allow_debug": True},
    }  # fmt: skip
    assert earned_grade(claims_of(host), expected(host, **lax))[0] != "NONE"


def test_a_mask_on_a_block_does_not_stand_for_manifests() -> None:
    value = nvidia.value_of(1)
    for mask, grade in ((None, "GPU_ATTESTED"), (b"\xff" * 48, "GPU_ATTESTED"), (b"\x01" + bytes(47), "NONE")):
        named = Alternative(label="m", registers=(RegisterRule(register="block1", value=value, mask=mask),))
        found = earned_grade(claims_of(GPUS.but(rims=())), expected(GPUS, nvidia_firmware=(named,)))
        assert found[0] == grade, found


def test_a_block_of_another_alternative_does_not_stand_for_manifests() -> None:
    """What a device is not says nothing about it."""
    version = Alternative(
        label="v", registers=(RegisterRule(register="driver_version", value=nvidia.DRIVER.encode()),)
    )  # fmt: skip
    block = Alternative(label="b", registers=(RegisterRule(register="block1", value=bytes(48)),))
    grade, why = earned_grade(claims_of(GPUS.but(rims=())), expected(GPUS, nvidia_firmware=(version, block)))
    assert (grade, why.split(":")[0]) == ("NONE", "REFERENCE_MISSING")


def td(attributes: str) -> Host:
    return TDX.but(cpu=dcap.TDX4.but(body={**dcap.TDX4.body, "td_attributes": bytes.fromhex(attributes)}))


def guest(**fields: Any) -> Host:
    return SNP.but(cpu=snp.GENOA.but(fields=fields))


UNLISTED = SNP.but(cpu=snp.GENOA.but(crls=()))


def without(*path: str, **more: Any) -> dict[str, Any]:
    """FULL without some of its values, and with switches."""
    table = FULL
    for one in path:
        table = {key: value for key, value in table.items() if key != one}
    return {**table, **more}


def guests(**more: Any) -> dict[str, Any]:
    return changed("snp", {key: value for key, value in FULL["snp"].items() if key != "tcb_minimums"} | more)


def unminimal(table: dict[str, Any]) -> dict[str, Any]:
    measured = [{k: v for k, v in one.items() if k != "min_reported_tcb"} for one in table["measurements"]]
    return {**table, "measurements": measured}


CPU_SWITCHES: list[tuple[str, dict[str, Any], Host, str]] = [
    ("a TD under DEBUG", without(unsafe_allow_debug=True), td("0100001000000000"), "DEBUG_ENABLED"),
    ("a guest under DEBUG", without(unsafe_allow_debug=True),
     guest(policy=snp.POLICY | 1 << 19), "DEBUG_ENABLED"),
    ("a TD with #VE", without(tdx={"unsafe_allow_sept_ve": True}), td("00" * 8), "TD_ATTRIBUTES"),
    ("a TD that may migrate", without(tdx={"allow_migratable": True}), td("0000003000000000"), "TD_ATTRIBUTES"),
    ("a TD with unknown bits", without(tdx={"unsafe_allow_reserved_bits": True}), td("0000001000010000"),
     "TD_ATTRIBUTES"),
    ("a guest that may migrate", changed("snp.allow_migration_agent", True), guest(policy=snp.POLICY | 1 << 18),
     "SNP_POLICY"),
    ("a guest with unknown bits", changed("snp.unsafe_allow_unknown_policy_bits", True),
     guest(policy=snp.POLICY | 1 << 30), "SNP_POLICY"),
    ("a guest's platform with unknown bits", changed("snp.unsafe_allow_unknown_platform_bits", True),
     guest(platform_info=1 << 8 | 1 << 5 | 1), "SNP_PLATFORM"),
    ("a guest's platform of aliases", changed("snp.unsafe_allow_incomplete_alias_check", True),
     guest(platform_info=1), "SNP_PLATFORM"),
    ("a guest of no machine", without("platforms", "snp", unsafe_any_platform=True,
                                      snp={**FULL["snp"], "allow_masked_chip_id": True}),
     SNP.but(cpu=snp.VLEK), "SNP_CHIP_ID_MASKED"),
    ("any code", {**without("measurements", unsafe_any_measurement=True)}, TDX, "POLICY_EMPTY"),
    ("any platform", without("platforms", unsafe_any_platform=True), TDX, "POLICY_EMPTY"),
    ("any TCB of a guest", unminimal(guests(unsafe_any_tcb=True)), SNP, "POLICY_EMPTY"),
    ("a guest whose revocation nobody knows",
     changed("snp.unsafe_allow_unchecked_revocation", True), UNLISTED, "REVOCATION_UNCHECKED"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "table", "host", "code"), CPU_SWITCHES, ids=[one[0] for one in CPU_SWITCHES])
def test_what_a_switch_lets_pass_of_a_cpu_earns_nothing(
    name: str, table: dict[str, Any], host: Host, code: str
) -> None:
    policy = parse_quote_policy(table)
    # Sensors have measurements of their own.
    expectations = replace(
        expectations_of(policy), spdm_firmware=expectations_of(parse_quote_policy(FULL)).spdm_firmware
    )
    claims = claims_of(host)
    assert [one.code for one in composite_rules(policy).failures(claims)] == ["FIRST_MILE_TOO_LOW"], "nothing else"
    grade, why = earned_grade(claims, expectations)
    assert (grade, why.split(":")[0]) == ("NONE", code)
    assert earned_grade(claims_of(SNP if host.snp else TDX), expectations_of(parse_quote_policy(FULL)))[0] != "NONE"


def test_a_minimum_of_the_measurement_is_one() -> None:
    assert earned_grade(claims_of(SNP), expectations_of(parse_quote_policy(guests(unsafe_any_tcb=True))))[0] != "NONE"


def test_nothing_demanded_of_a_cpu_earns_nothing() -> None:
    assert earned_grade(claims_of(GPUS), expected(GPUS, cpu=None)) == ("NONE", "nothing is demanded of this CPU")
    assert earned_grade(replace(claims_of(GPUS), cpu=None), expected(GPUS))[0] == "NONE"


def judged(host: Host, table: dict[str, Any], report_data: bytes | None) -> dict[str, Any]:
    """What the command line says of the host's file, with its binding."""
    one = mint(host)
    roots = tuple(
        NamedRoot(
            use="intel" if use == "tdx" else use,
            anchor=anchor_of(TrustRoot(label=use, tee=use, certificate_der=der, simulated=False)),
        )
        for use, der in one.roots.items()
    )
    return judge_composite(
        Inputs(
            data=CompositeFile(one.items, one.binding_bytes).encode(), kind="composite", collateral=one.collateral,
            endorsements=Collateral.empty(), rims=(), trust_roots=roots, policy=parse_quote_policy(table), now_ms=NOW,
            report_data=report_data, nonces=(),
        )
    )  # fmt: skip


def test_only_report_data_that_somebody_expects_ties_devices_to_a_cpu() -> None:
    data = report_data_of(mint(TDX).binding_bytes)
    assert judged(TDX, FULL, data)["claims"]["first_mile"] == "SPDM_MEASURED"
    named = {key: value for key, value in FULL.items() if key != "unsafe_any_report_data"} | {"report_data": data.hex()}
    assert judged(TDX, named, None)["claims"]["first_mile"] == "SPDM_MEASURED"
    said = judged(TDX, FULL, None)
    assert (said["codes"], said["claims"]["first_mile"]) == (["FIRST_MILE_TOO_LOW"], "NONE")
    other = judged(TDX, {**named, "report_data": bytes(64).hex()}, None)
    assert other["codes"][0] == "REPORT_DATA_MISMATCH"
    assert other["claims"]["first_mile"] == "NONE"
