"""NVIDIA reports, opaque data and DICE extensions: written as they were read, decoded as devices mean them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.forge.nvidia.judge import EVERYTHING, Case, verify
from tests.forge.nvidia.world import FIRMWARE, GPU_OPAQUE, GPUS, HOPPER, LS10, SHA384_OID, SWITCHES, composite, tcb_info
from verifier.abi.dice import CompositeDeviceId, Fwid, TcbInfo, parse_dice
from verifier.abi.nvidia import MeasurementBlock, NvidiaReport, parse_nvidia_report
from verifier.abi.nvidia_opaque import OpaqueField, parse_opaque, read_facts, vbios_text
from verifier.errors import DiceInvalid, NvidiaReportMalformed, VerificationError
from verifier.formats.nvidia import mode_of
from verifier.policy.nvidia import STRICT_NVIDIA, NvidiaDemands, nvidia_rules, nvidia_warnings


def sized(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


digests = st.tuples(st.integers(0, 0x7F), sized(48))
streams = st.tuples(st.integers(0x80, 0xFF), st.binary(min_size=1, max_size=100))
values = st.one_of(digests, streams)
blocks = st.dictionaries(st.integers(1, 0xEF), values, min_size=1, max_size=40).map(
    lambda found: tuple(MeasurementBlock(index, kind, value) for index, (kind, value) in found.items())
)
fields = st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=64), max_size=20).map(
    lambda found: tuple(OpaqueField(kind=kind, value=value) for kind, value in found.items())
)


@st.composite
def reports(draw: Any) -> NvidiaReport:
    slot = draw(st.integers(0, 7))
    return NvidiaReport(
        nonce=draw(sized(32)), slot=slot, param1=draw(st.integers(0, 255)), param2=slot | draw(st.integers(0, 15)) << 4,
        blocks=draw(blocks), responder_nonce=draw(sized(32)), opaque=draw(fields), signature=draw(sized(96)),
    )  # fmt: skip


@given(reports())
def test_reports_round_trip(report: NvidiaReport) -> None:
    data = report.encode()
    assert parse_nvidia_report(data) == report
    assert data == report.signed_bytes() + report.signature
    for wrong in (data[:-1], data + b"\x00", data[1:]):
        with pytest.raises(NvidiaReportMalformed):
            parse_nvidia_report(wrong)


@given(st.binary(max_size=300))
def test_any_bytes_cause_our_error_or_none(data: bytes) -> None:
    for parse in (parse_nvidia_report, parse_opaque, parse_dice):
        with contextlib.suppress(VerificationError):
            parse(data)


@given(fields)
def test_opaque_data_round_trip(found: tuple[OpaqueField, ...]) -> None:
    assert parse_opaque(b"".join(one.encode() for one in found)) == found


fwids = st.builds(Fwid, algorithm=st.just(SHA384_OID), digest=sized(48))
labels = st.none() | st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20)
numbers = st.none() | st.integers(0, 1 << 63)
bit_strings = st.none() | st.binary(min_size=1, max_size=5).map(lambda content: b"\x00" + content)
octets = st.none() | st.binary(max_size=20)
tcb_infos = st.builds(
    TcbInfo, vendor=labels, model=labels, version=labels, svn=numbers, layer=numbers, index=numbers,
    fwids=st.lists(fwids, max_size=4).map(tuple), flags=bit_strings, vendor_info=octets, type=octets,
    flag_mask=bit_strings,
)  # fmt: skip


@given(tcb_infos)
def test_tcb_info_round_trip(info: TcbInfo) -> None:
    assert parse_dice(info.encode()) == info


@given(fwids)
def test_device_ids_round_trip(fwid: Fwid) -> None:
    device_key = parse_dice(composite(HOPPER)).device_key  # type: ignore[union-attr]
    found = CompositeDeviceId(device_key=device_key, fwid=fwid)
    assert parse_dice(found.encode()) == found


def test_flags_have_names() -> None:
    assert parse_dice(tcb_info(FIRMWARE)).flags_set == ("not_configured", "fixed_width")  # type: ignore[union-attr]
    assert TcbInfo(flags=bytes.fromhex("0418")).flags_set == ("debug", "not_replay_protected")
    assert TcbInfo(flags=bytes.fromhex("000000000100")).flags_set == ("fixed_width",)
    assert TcbInfo(flags=bytes.fromhex("00000001")).flags_set == ("bit23",)
    assert TcbInfo().flags_set == ()


@pytest.mark.parametrize("flags", ["", "08", "0801", "0101", "07"])
def test_flags_that_are_no_bits_are_refused(flags: str) -> None:
    with pytest.raises(DiceInvalid):
        parse_dice(TcbInfo(flags=bytes.fromhex(flags)).encode())


@pytest.mark.parametrize(
    ("value", "gpu", "text"),
    [
        ("009f009601000000", True, "96.00.9F.00.01"),
        ("008800970f000000", True, "97.00.88.00.0F"),
        (b"96.10.73.00.01".hex(), False, "96.10.73.00.01"),
        (b"96.10.5a.00.0b\x00\x00".hex(), False, "96.10.5A.00.0B"),
    ],
)
def test_vbios_versions(value: str, gpu: bool, text: str) -> None:
    assert vbios_text(bytes.fromhex(value), gpu=gpu) == text


def test_facts_of_a_gpu() -> None:
    facts = read_facts(parse_nvidia_report(HOPPER.mint().report).opaque, "gpu")
    assert (facts.driver_version, facts.vbios_version) == ("550.90.07", "96.00.9F.00.01")
    assert (facts.project, facts.project_sku, facts.chip_sku, facts.project_sku_mod) == ("1010", "0200", "882", "")
    assert (facts.board_id, facts.nvdec0_disabled, facts.protected_pcie, facts.feature_flag) == (945, True, True, 2)
    assert facts.switch_pdis == tuple(sorted(SWITCHES))
    assert facts.measurement_counts == (0, 1, 4, 1)
    assert facts.pdi is None
    assert facts.gpu_pdis is None


def test_facts_of_a_switch() -> None:
    facts = read_facts(parse_nvidia_report(LS10.mint().report).opaque, "switch")
    assert (facts.driver_version, facts.vbios_version) == (None, "96.10.73.00.01")
    assert (facts.pdi, facts.gpu_pdis, facts.switch_pdis) == (SWITCHES[0], tuple(sorted(GPUS)), None)
    assert facts.position_id == 0


MODES = [
    (None, None, "UNSTATED"), (0, None, "PASSTHROUGH"), (1, None, "PASSTHROUGH"), (2, None, "PPCIE"),
    (3, None, "UNKNOWN"), (3, True, "UNKNOWN"), (None, True, "PPCIE"), (None, False, "PASSTHROUGH"), (2, True, "PPCIE"),
    (0, False, "PASSTHROUGH"), (2, False, "CONTRADICTORY"), (0, True, "CONTRADICTORY"), (1, True, "CONTRADICTORY"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "protected", "mode"), MODES)
def test_modes(flag: int | None, protected: bool | None, mode: str) -> None:
    fields = tuple(OpaqueField(kind=kind, value=value) for kind, value in GPU_OPAQUE.items())
    facts = replace(read_facts(fields, "gpu"), feature_flag=flag, protected_pcie=protected)
    assert mode_of(facts) == mode


def test_registers_are_what_a_policy_names() -> None:
    device = verify(HOPPER.mint())
    assert device.registers["driver_version"] == b"550.90.07"
    assert device.registers["vbios_version"] == b"96.00.9F.00.01"
    assert device.registers["block64"] == bytes(48)
    assert len(device.registers) == 66
    assert device.mode == "PPCIE"
    assert "driver_version" not in verify(LS10.mint()).registers


def test_what_is_not_judged_is_said() -> None:
    bare = HOPPER.but(opaque={20: None}, answers=(), rims=())
    device = verify(bare.mint(), nonce=None)
    said = " ".join(nvidia_warnings(None, device))
    for words in ("no nonce", "not bound", "not compared", "revocation", "developer tools"):
        assert words in said
    judged = " ".join(nvidia_warnings(EVERYTHING, verify(HOPPER.mint())))
    assert "no nonce" not in judged
    assert "not bound" not in judged
    assert "developer tools" in judged


def test_a_partial_comparison_is_said() -> None:
    device = verify(HOPPER.but(rims=HOPPER.rims[:1]).mint())
    assert device.reference.outcome == "match"
    assert any("no manifest for vbios" in one for one in nvidia_warnings(None, device))


def test_every_failure_is_named() -> None:
    device = verify(HOPPER.but(opaque={20: None, 21: None, 36: None}, answers=(), rims=()).mint(), nonce=None)
    codes = [error.code for error in nvidia_rules(NvidiaDemands()).failures(device)]
    assert codes == ["NONCE_UNCHECKED", "DEVICE_MODE", "FWID_UNBOUND", "REFERENCE_MISSING", "REVOCATION_UNCHECKED"]
    assert [error.code for error in nvidia_rules(STRICT_NVIDIA).failures(device)] == ["FWID_UNBOUND"]


def test_a_policy_with_a_version_that_is_none_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no driver version"):
        nvidia_rules(NvidiaDemands(min_driver_version="newest"))


def test_a_case_without_policy_is_only_verified() -> None:
    world = HOPPER.but(opaque={20: None, 21: None, 36: None}, answers=(), rims=())
    device = Case(name="bare", code="", step=None, world=world, demands=None, nonce=None).judge()
    assert (device.fwid_bound, device.revocation.state, device.reference) == ("not_bound", "unchecked", None)
    assert device.fwid == FIRMWARE
    assert device.nonce_checked is False
