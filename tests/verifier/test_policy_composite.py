"""Policy files on guests, devices and whole hosts: what they may say, and what their rules refuse."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.forge.composite.world import (
    GPU_0,
    LINKED,
    SNP,
    SWITCHES,
    TDX,
    Host,
    Minted,
    enrolment,
    mint,
    sensor_digest,
)
from tests.forge.composite.world import NOW as NOW_S
from tests.forge.dcap.judge import anchor
from tests.forge.dcap.world import MRTD
from tests.forge.nvidia import world as nvidia
from tests.forge.snp import world as snp
from tests.forge.spdm import world as spdm
from tests.verifier.test_policy_quote import TEMPLATE
from verifier.claims import CompositeClaims
from verifier.composite import UNCHECKED, VerifiedComposite, verify_composite
from verifier.errors import NonceMismatch, NoTrustRoots, PolicyInvalid, VerificationError
from verifier.policy.composite import (
    composite_rules,
    composite_warnings,
    expectations_of,
    nvidia_rules_of,
    spdm_rules_of,
)
from verifier.policy.grade import earned_grade
from verifier.policy.quote import AUTHENTIC, STRICT, parse_quote_policy
from verifier.trust.certificate import parse_certificate
from verifier.trust.roots import Root
from verifier.trust.store import Collateral

NOW = NOW_S * 1000
BLOCKS = {str(one.index): one.value.hex() for one in spdm.measurement_blocks()[:2]}
TCB = {"boot_loader": 10, "snp": 23, "microcode": 84}
FULL: dict[str, Any] = {
    "tees": ["tdx", "snp"],
    "unsafe_any_report_data": True,
    "tcb": {"accepted_statuses": ["UpToDate"]},
    "platforms": [one for host in (TDX, SNP) for one in enrolment(host).platform_ids],
    "snp": {
        "vmpls": [0],
        "abi_minimum": "0.31",
        "min_guest_svn": 7,
        "demand_policy": [],
        "demand_committed_firmware": True,
        "host_data": snp.HOST_DATA.hex(),
        "tcb_minimums": [{"product": "Genoa", "reported": TCB, "committed": TCB}],
    },
    "nvidia": {
        "unbound_kinds": ["switch"],
        "min_driver_version": "550.90",
        "driver_versions": [nvidia.DRIVER],
        "vbios_versions": [nvidia.VBIOS.lower(), "96.10.73.00.01"],
        "modes": ["PASSTHROUGH", "PPCIE", "UNSTATED"],
    },
    "spdm": {"versions": ["1.2"]},
    "devices": {"key_digests": [one.hex() for one in TDX.digests()], "first_mile": "SPDM_MEASURED"},
    "measurements": [
        {"tee": "tdx", "mrtd": MRTD.hex()},
        {"tee": "snp", "measurement": snp.MEASUREMENT.hex(), "product": "Genoa", "min_reported_tcb": TCB,
         "min_guest_svn": 7},
        {"tee": "spdm", "blocks": BLOCKS},
        {"tee": "nvidia", "driver_version": nvidia.DRIVER, "vbios_version": nvidia.VBIOS},
        {"tee": "nvidia", "vbios_version": "96.10.73.00.01"},
    ],
}  # fmt: skip
"""Everything a file may demand of hosts, and what the genuine ones satisfy."""


def changed(path: str, value: Any) -> dict[str, Any]:
    """FULL with one value replaced (`nvidia.modes`, `measurements.1.product`); None removes it."""
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


def minted(host: Host) -> Minted:
    """The host's evidence, made once as long as it is the same object."""
    held = _MINTED.get(id(host))
    if held is None or held[0] is not host:
        held = _MINTED[id(host)] = host, mint(host)
    return held[1]


_MINTED: dict[int, tuple[Host, Minted]] = {}


def roots_of(one: Minted) -> dict[str, list[Root]]:
    found: dict[str, list[Root]] = {
        use: [Root(label="forge", spki=parse_certificate(der).spki, simulated=False)]
        for use, der in one.roots.items()
        if use != "tdx"
    }
    return found | {"tdx": [anchor(one.roots["tdx"])]} if "tdx" in one.roots else found


def verified(host: Host, **changes: Any) -> VerifiedComposite:
    one = minted(host)
    given: dict[str, Any] = {
        "items": one.items, "collateral": one.collateral, "trust_roots": roots_of(one), "now_ms": NOW,
    }  # fmt: skip
    return verify_composite(**(given | changes))


def claims_of(host: Host, *, bound: bool = True, **changes: Any) -> CompositeClaims:
    found = verified(host, **changes)
    binding = minted(host).binding if bound else None
    return CompositeClaims(cpu=found.cpu, devices=found.devices, now_ms=NOW, binding=binding, tied=True)


def codes(table: dict[str, Any], host: Host = TDX, **changes: Any) -> list[str]:
    rules = composite_rules(parse_quote_policy(table))
    claims = claims_of(host, **changes)
    found = rules.failures(claims)
    if found:
        with pytest.raises(VerificationError) as caught:
            rules.check(claims)
        assert caught.value.code == found[0].code
    else:
        rules.check(claims)
    assert all(one.field and one.remedy for one in found)
    return [one.code for one in found]


HGX = SNP.but(gpus=LINKED, switches=SWITCHES, sensors=())


@pytest.mark.parametrize("host", [TDX, SNP], ids=["tdx", "snp"])
def test_what_satisfies_everything_passes(host: Host) -> None:
    assert codes(FULL, host) == []
    assert codes(FULL, host, bound=False) == []


def test_protected_pcie_with_switches() -> None:
    table = changed("devices", {"key_digests": [one.hex() for one in HGX.digests()], "first_mile": "GPU_ATTESTED"})
    assert codes(table, HGX) == []
    assert codes(table, HGX.but(switches=SWITCHES[:3])) == [
        "EVIDENCE_MISSING", "DEVICE_TOPOLOGY", "FIRST_MILE_TOO_LOW"
    ]  # fmt: skip


LOW = "FIRST_MILE_TOO_LOW"
"""What fails on the CPU or on a device earns no grade, either."""

CASES: list[tuple[str, dict[str, Any], Host, list[str]]] = [
    ("another TEE", changed("tees", ["tdx"]), SNP, ["TEE_REFUSED", LOW]),
    ("an older TCB", changed("snp.tcb_minimums.0.reported", {"microcode": 85}), SNP, ["SNP_TCB_TOO_OLD", LOW]),
    ("no minimum for the product", changed("snp.tcb_minimums.0.product", "Milan"), SNP, ["SNP_TCB_TOO_OLD", LOW]),
    ("no minimum at all", changed("snp.tcb_minimums", []), SNP, ["POLICY_EMPTY", LOW]),
    ("any TCB", changed("snp", {"unsafe_any_tcb": True}), SNP, []),
    ("another ABI", changed("snp.abi_minimum", "1.55"), SNP, ["SNP_POLICY", LOW]),
    ("a state the platform lacks", changed("snp.demand_platform", ["tsme"]), SNP, ["SNP_PLATFORM", LOW]),
    ("a policy the guest lacks", changed("snp.demand_policy", ["single_socket"]), SNP, ["SNP_POLICY", LOW]),
    ("other host data", changed("snp.host_data", "00" * 32), SNP, ["MEASUREMENT_UNKNOWN", LOW]),
    ("an ID key", changed("snp.id_key_digests", ["00" * 48]), SNP, ["SNP_SIGNER", LOW]),
    ("another VMPL", changed("snp.vmpls", [1]), SNP, ["SNP_VMPL", LOW]),
    ("SMT", changed("snp.allow_smt", False), SNP, ["SNP_POLICY", LOW]),
    ("another image", changed("measurements.1.measurement", "00" * 48), SNP, ["MEASUREMENT_UNKNOWN", LOW]),
    ("an image on an older TCB", changed("measurements.1.min_reported_tcb", {"snp": 24}), SNP,
     ["SNP_TCB_TOO_OLD", LOW]),
    ("an image of an older version", changed("measurements.1.min_guest_svn", 8), SNP, ["GUEST_SVN_TOO_LOW", LOW]),
    ("another machine", changed("platforms", ["00" * 64]), SNP, ["PLATFORM_NOT_ENROLLED", LOW]),
    ("guests are not judged on TDs", changed("snp.vmpls", [3]), TDX, []),
    ("no devices named", changed("devices.key_digests", None), TDX,
     ["POLICY_EMPTY", "PLATFORM_NOT_ENROLLED", LOW]),
    ("any device", changed("devices", {"unsafe_any_device": True, "first_mile": "NONE"}), TDX, []),
    ("any device earns nothing", changed("devices", {"unsafe_any_device": True, "first_mile": "GPU_ATTESTED"}), TDX,
     [LOW]),
    ("no minimum grade", changed("devices.first_mile", None), TDX, ["POLICY_EMPTY"]),
    ("a device is missing", FULL, TDX.but(gpus=(GPU_0,)), ["EVIDENCE_MISSING", LOW]),
    ("another driver", changed("nvidia.driver_versions", ["1.2"]), TDX,
     ["DEVICE_VERSION_REFUSED", "DEVICE_VERSION_REFUSED", LOW]),
    ("another mode", changed("nvidia.modes", ["PPCIE"]), TDX, ["DEVICE_MODE", "DEVICE_MODE", LOW]),
    ("another version of SPDM", changed("spdm.versions", ["1.3"]), TDX, ["DEVICE_MODE", LOW]),
    ("no versions of SPDM", changed("spdm.versions", []), TDX, ["POLICY_EMPTY", LOW]),
    ("a sensor with other firmware", changed("measurements.2.blocks", {"1": "00"}), TDX,
     ["MEASUREMENT_UNKNOWN", LOW]),
    ("GPUs with other firmware", changed("measurements.3.vbios_version", "96.00.9F.00.02"), TDX,
     ["MEASUREMENT_UNKNOWN", "MEASUREMENT_UNKNOWN", LOW]),
    ("no manifests", FULL, TDX.but(rims=()), ["REFERENCE_MISSING", "REFERENCE_MISSING", LOW]),
    ("no manifests, and the policy names blocks",
     changed("measurements.3.blocks", {"1": nvidia.value_of(1).hex()}), TDX.but(rims=()), []),
    ("no manifests, and the policy does without", changed("nvidia.unsafe_any_reference", True), TDX.but(rims=()),
     [LOW]),
    ("an unsafe switch earns no grade", changed("nvidia.unsafe_allow_unchecked_revocation", True),
     TDX.but(held=lambda held: [one for one in held if one[:1] == b"<"]), [LOW]),
    ("the binding names other devices", FULL, TDX.but(identities=lambda found: bytes(32)), ["GPU_IDENTITIES_MISMATCH"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "table", "host", "expected"), CASES, ids=[case[0] for case in CASES])
def test_one_demand_or_one_fact_changed(name: str, table: dict[str, Any], host: Host, expected: list[str]) -> None:
    assert codes(table, host) == expected


BAD: list[tuple[str, Any, str]] = [
    ("snp.vmpl", 0, "snp.vmpl"),
    ("snp.vmpls", [4], "snp.vmpls[0]"),
    ("snp.abi_minimum", "1", "snp.abi_minimum"),
    ("snp.abi_minimum", "1.256", "snp.abi_minimum"),
    ("snp.abi_minimum", 1.55, "snp.abi_minimum"),
    ("snp.demand_policy", ["debug"], "snp.demand_policy[0]"),
    ("snp.demand_platform", ["alias_check_complete"], "snp.demand_platform[0]"),
    ("snp.host_data", "00", "snp.host_data"),
    ("snp.id_key_digests", ["00"], "snp.id_key_digests[0]"),
    ("snp.tcb_minimums.0.product", "Rome", "snp.tcb_minimums[0].product"),
    ("snp.tcb_minimums.0.product", None, "snp.tcb_minimums[0].product"),
    ("snp.tcb_minimums.0.reported", None, "snp.tcb_minimums[0].reported"),
    ("snp.tcb_minimums.0.reported", {}, "snp.tcb_minimums[0].reported"),
    ("snp.tcb_minimums.0.reported", {"fmc": 1}, "snp.tcb_minimums[0].reported.fmc"),
    ("snp.tcb_minimums.0.reported", {"snp": 256}, "snp.tcb_minimums[0].reported.snp"),
    ("snp.unsafe_any_tcb", True, "snp.unsafe_any_tcb"),
    ("nvidia.mode", [], "nvidia.mode"),
    ("nvidia.modes", ["SPT"], "nvidia.modes[0]"),
    ("nvidia.unbound_kinds", ["spdm"], "nvidia.unbound_kinds[0]"),
    ("nvidia.min_driver_version", "new", "nvidia.min_driver_version"),
    ("nvidia.min_driver_version", "550.", "nvidia.min_driver_version"),
    ("spdm.versions", ["1.5"], "spdm.versions[0]"),
    ("spdm.grade", "x", "spdm.grade"),
    ("devices.key_digests", ["00"], "devices.key_digests[0]"),
    ("devices.key_digests", ["0a" * 32, "0A" * 32], "devices.key_digests"),
    ("devices.first_mile", "SPDM_SESSION", "devices.first_mile"),
    ("devices.unsafe_any_device", True, "devices.unsafe_any_device"),
    ("platforms", ["00" * 32], "platforms[0]"),
    ("measurements.1.measurement", None, "measurements[1]"),
    ("measurements.1.measurement", "00", "measurements[1].measurement"),
    ("measurements.1.product", None, "measurements[1].product"),
    ("measurements.1.mrtd", "00" * 48, "measurements[1].mrtd"),
    ("measurements.1.min_guest_svn", -1, "measurements[1].min_guest_svn"),
    ("measurements.2.blocks", {}, "measurements[2]"),
    ("measurements.2.blocks", {"0": "00"}, "measurements[2].blocks.0"),
    ("measurements.2.blocks", {"01": "00"}, "measurements[2].blocks.01"),
    ("measurements.2.blocks", {"255": "00"}, "measurements[2].blocks.255"),
    ("measurements.2.blocks", {"1": ""}, "measurements[2].blocks.1"),
    ("measurements.2.blocks", {"1": "00" * 1025}, "measurements[2].blocks.1"),
    ("measurements.2.driver_version", "1", "measurements[2].driver_version"),
    ("measurements.3.driver_version", "\ud800", "measurements[3].driver_version"),
    ("measurements.3.vbios_version", "\ud800", "measurements[3].vbios_version"),
    ("measurements.3.label", "\ud800", "measurements[3].label"),
    ("nvidia.driver_versions", ["\x07"], "nvidia.driver_versions[0]"),
    ("measurements.4.vbios_version", None, "measurements[4]"),
]


@pytest.mark.parametrize(("path", "value", "field"), BAD, ids=[ascii(f"{path}={value}")[:60] for path, value, _ in BAD])
def test_what_a_file_may_not_say(path: str, value: Any, field: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_quote_policy(changed(path, value))
    assert caught.value.field == field


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.text(max_size=8) | st.just("00" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = [path for path, _, _ in BAD]


@given(st.sampled_from(PLACES), VALUES)
def test_whatever_a_file_says_is_a_policy_or_refused(path: str, value: Any) -> None:
    try:
        policy = parse_quote_policy(changed(path, 0 if value is None else value))
    except PolicyInvalid:
        return
    assert len(policy.digest()) == 32


def test_the_template_accepts_no_host_as_it_stands() -> None:
    table = tomllib.loads(TEMPLATE.read_text())
    assert {("POLICY_EMPTY", "devices.key_digests"), ("POLICY_EMPTY", "devices.first_mile")} <= {
        (one.code, one.field) for one in composite_rules(parse_quote_policy(table)).failures(claims_of(TDX))
    }


def test_the_template_names_every_key() -> None:
    text = TEMPLATE.read_text()
    named = {key for name in ("snp", "nvidia", "spdm", "devices") for key in FULL[name]}
    named |= {key for measured in FULL["measurements"] for key in measured}
    named |= {path.split(".")[1] for path, value, field in BAD if field.startswith("snp.") and path == field}
    named |= {"unsafe_allow_unbound_firmware", "unsafe_any_reference", "unsafe_allow_ungraded", "csp_ids"}
    assert {key for key in named - {"vmpl"} if key not in text} == set()


def test_built_in_policies_report_devices() -> None:
    for policy in (AUTHENTIC, STRICT):
        assert composite_rules(policy).failures(claims_of(TDX, bound=False)) == []
        assert composite_rules(policy).failures(claims_of(SNP.but(rims=()), bound=False)) == []
    unbound = TDX.but(gpus=(GPU_0.but(opaque={**GPU_0.opaque, 20: None}),), sensors=())
    assert composite_rules(AUTHENTIC).failures(claims_of(unbound, bound=False)) == []
    assert [one.code for one in composite_rules(STRICT).failures(claims_of(unbound, bound=False))] == ["FWID_UNBOUND"]


def test_one_device_alone() -> None:
    found = verified(TDX)
    for policy in (AUTHENTIC, STRICT, parse_quote_policy(FULL)):
        for report in found.nvidia:
            assert nvidia_rules_of(policy, report).failures(report) == []
        for transcript in found.spdm:
            assert spdm_rules_of(policy, fresh=True).failures(transcript) == []
    (transcript,) = found.spdm
    assert [one.code for one in spdm_rules_of(parse_quote_policy(FULL), fresh=False).failures(transcript)] == [
        "NONCE_UNCHECKED"
    ]


def test_warnings_say_what_is_not_proven() -> None:
    found = composite_warnings(parse_quote_policy(FULL), claims_of(TDX), nonces="derived")
    assert "first mile SPDM_MEASURED: 2 GPUs attested, 1 SPDM device challenged and measured" in found
    assert any("relay" in one for one in found)
    alone = replace(claims_of(TDX, bound=False), cpu=None)
    said = composite_warnings(AUTHENTIC, alone, nonces=UNCHECKED)
    assert any("no CPU evidence" in one for one in said)
    assert any("nonces are not compared" in one for one in said)


class TestNonces:
    """What devices' nonces are compared with, by what is known."""

    def test_they_derive_from_the_report_data_that_the_cpu_turns_out_to_have(self) -> None:
        assert verified(TDX).nonces == "derived"

    def test_without_a_cpu_nothing_says_what_they_should_be(self) -> None:
        found = verified(TDX, items=minted(TDX).items[1:])
        assert (found.cpu, found.nonces) == (None, "unchecked")
        assert not any(one.fresh for one in found.devices)
        claims = CompositeClaims(cpu=None, devices=found.devices, now_ms=NOW)
        said = [one.code for one in composite_rules(parse_quote_policy(FULL)).failures(claims)]
        assert said == ["EVIDENCE_MISSING", *["NONCE_UNCHECKED"] * 3, "FIRST_MILE_TOO_LOW"]

    def test_one_nonce_for_all_is_demanded_of_all(self) -> None:
        nonce = bytes(range(32))
        host = TDX.but(nonces=lambda kind, subject, index, right: right if kind == "spdm" and not index else nonce)
        found = verified(host, nonce=nonce)
        assert found.nonces == "given"
        # The sensor's challenge has a nonce of its own, which nobody compared.
        assert {one.kind: one.fresh for one in found.devices} == {"nvidia": True, "spdm": False}
        with pytest.raises(NonceMismatch):
            verified(host)
        with pytest.raises(NonceMismatch):
            verified(TDX, nonce=nonce)

    def test_the_challenge_alone_does_not_make_measurements_fresh(self) -> None:
        nonce = bytes(range(32))
        host = TDX.but(gpus=(), nonces=lambda kind, subject, index, right: right if index else nonce)
        with pytest.raises(NonceMismatch) as caught:
            verified(host, nonce=nonce)
        assert caught.value.field == "sensor-0.rack7:2323.measurements.nonce"


def test_a_grade_names_what_it_lacks() -> None:
    policy = parse_quote_policy(FULL)
    grade, why = earned_grade(claims_of(TDX.but(rims=())), expectations_of(policy))
    assert grade == "NONE"
    assert why.startswith("REFERENCE_MISSING")
    assert earned_grade(claims_of(TDX.but(gpus=(), sensors=())), expectations_of(policy))[0] == "NONE"


def test_roots_count_for_their_use_only() -> None:
    roots = roots_of(minted(TDX))
    for use in ("nvidia", "spdm", "tdx"):
        with pytest.raises(NoTrustRoots):
            verified(TDX, trust_roots={**roots, use: []})
    without = verified(TDX, trust_roots={**roots, "rim": roots["nvidia"]})
    assert all(one.reference is None for one in without.nvidia)
    assert len(sensor_digest(TDX.sensors[0])) == 32


def test_amd_s_certificates_may_come_from_collateral() -> None:
    one = minted(SNP)
    der = snp.GENOA.certificates()
    bare = tuple(item for item in one.items if item.kind != "snp_certificates")
    held = one.collateral.merged(Collateral.of(list(der)))
    for products in (snp.GENOA, snp.TURIN):
        host = SNP.but(cpu=products, gpus=(), sensors=())
        given = minted(host)
        items = tuple(item for item in given.items if item.kind != "snp_certificates")
        found = verified(host, items=items, collateral=given.collateral.merged(Collateral.of(products.certificates())))
        assert found.cpu is not None
        assert found.cpu.tee == "snp"
    assert verified(SNP, items=bare, collateral=held).cpu is not None
    only_ek = (*bare[:1], replace(one.items[1], data=der[0]), *bare[1:])
    assert verified(SNP, items=only_ek, collateral=held).cpu is not None
    with pytest.raises(VerificationError) as caught:
        verified(SNP, items=bare)
    assert caught.value.code == "ENDORSEMENT_MISSING"
