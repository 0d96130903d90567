"""Hostile TCBs: quoting enclaves, levels, TDX modules, relaunch (ATTESTATION.md §4, §5, §11.1 items 1, 3, 10 to 12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.forge.dcap.cases_quote import case
from tests.forge.dcap.documents import QE_SIGNER, drop, put, svn_level
from tests.forge.dcap.judge import Case
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.policies import lenient
from tests.forge.dcap.world import MRSIGNER, SGX3, SGX5, TDX4, TDX5, TDX5_15, TDX5_EXTENDED, World

MODULE_3 = ("tdxModuleIdentities", 0)
MODULE_1 = ("tdxModuleIdentities", 1)


def svn(minor: int, major: int = 1, microcode: int = 6) -> bytes:
    """TEE_TCB_SVN of a TDX module."""
    return bytes([minor, major, microcode]) + bytes(13)


def components(index: int, value: int) -> Platform:
    """The genuine platform with one component of another SVN."""
    svns = list(Platform().components)
    svns[index] = value
    return replace(Platform(), components=tuple(svns))


def strict(name: str, code: str, step: str | None, world: World, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, world=world.but(**changes), policy=lenient())


def all_levels(document: dict[str, Any], index: int, value: int) -> dict[str, Any]:
    """Every level demands `value` of the SGX component at `index`."""
    for level in document["tcbLevels"]:
        level["tcb"]["sgxtcbcomponents"][index]["svn"] = value
    return document


def backwards(document: dict[str, Any]) -> dict[str, Any]:
    document["tcbLevels"].reverse()
    return document


QUOTING_ENCLAVE = [
    case("an attacker's quoting enclave", "QE_IDENTITY", "qe_identity", TDX4, qe={"mrsigner": MRSIGNER}),
    case("an attacker's quoting enclave, SGX", "QE_IDENTITY", "qe_identity", SGX3, qe={"mrsigner": MRSIGNER}),
    case("the SGX quoting enclave vouching for a TD", "QE_IDENTITY", "qe_identity", TDX4,
         qe={"mrsigner": QE_SIGNER, "isvprodid": b"\x01\x00"}),
    case("another product of the same signer", "QE_IDENTITY", "qe_identity", SGX3, qe={"isvprodid": b"\x02\x00"}),
    case("debug quoting enclave", "QE_IDENTITY", "qe_identity", TDX5_15, qe={"attributes": b"\x17" + bytes(15)}),
    case("quoting enclave that is not initialised", "QE_IDENTITY", "qe_identity", SGX3,
         qe={"attributes": b"\x14" + bytes(15)}),
    case("MISCSELECT of the quoting enclave", "QE_IDENTITY", "qe_identity", SGX3,
         qe={"miscselect": b"\x01\x00\x00\x00"}),
    case("attribute outside the identity", "QE_IDENTITY", "qe_identity", SGX5,
         qe={"attributes": b"\x15\x01" + bytes(14)}),
    case("identity that demands a bit outside its mask", "QE_IDENTITY", "qe_identity", TDX4,
         qe_identity_edit=put("attributes", to="15000000000000000000000000000000")),
    case("quoting enclave below every level", "TCB_NOT_SUPPORTED", "match_qe", TDX4, qe={"isvsvn": b"\x01\x00"}),
    case("quoting enclave below every level, SGX", "TCB_NOT_SUPPORTED", "match_qe", SGX3, qe={"isvsvn": bytes(2)}),
    case("revoked quoting enclave", "TCB_REVOKED", "revoked", TDX4, qe={"isvsvn": b"\x02\x00"}),
    case("revoked quoting enclave, SGX", "TCB_REVOKED", "revoked", SGX3, qe={"isvsvn": b"\x05\x00"}),
    strict("out-of-date quoting enclave", "TCB_STATUS_REFUSED", "status", TDX4, qe={"isvsvn": b"\x06\x00"}),
]  # fmt: skip

PLATFORM = [
    case("component below every level", "TCB_NOT_SUPPORTED", "match_platform", TDX4, platform=components(0, 0)),
    case("last named component below every level", "TCB_NOT_SUPPORTED", None, SGX3, platform=components(7, 0)),
    case("PCESVN below every level", "TCB_NOT_SUPPORTED", "match_platform", SGX3, platform=replace(Platform(),
        pce_svn=4)),
    case("last component of the lists short", "TCB_NOT_SUPPORTED", "match_platform", SGX3,
         tcb_info_edit=lambda d: all_levels(d,
        15, 1)),
    case("microcode of the TDX module below every level", "TCB_NOT_SUPPORTED", None, TDX4, body={"tee_tcb_svn": svn(7,
        1, 0)}),
    case("module version 0 below every level", "TCB_NOT_SUPPORTED", None, TDX4, body={"tee_tcb_svn": svn(0, 0)}),
    case("revoked platform", "TCB_REVOKED", "revoked", TDX4, platform=components(0, 1)),
    case("revoked platform, SGX", "TCB_REVOKED", "revoked", SGX3, platform=replace(Platform(), pce_svn=10)),
    case("platform status Revoked at the top", "TCB_REVOKED", "revoked", TDX5,
         tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="Revoked")),
    strict("out-of-date platform", "TCB_STATUS_REFUSED", "status", SGX3, platform=components(0, 4)),
    strict("out-of-date platform hidden by an up-to-date module", "TCB_STATUS_REFUSED", "status", TDX4,
           platform=components(1, 4)),
    strict("PCESVN that only fits a lower level", "TCB_STATUS_REFUSED", "status", SGX3,
           platform=replace(Platform(), pce_svn=12)),
    strict("late microcode of the TDX module", "TCB_STATUS_REFUSED", "status", TDX4, body={"tee_tcb_svn": svn(7, 1,
        5)}),
    strict("levels delivered worst first", "TCB_STATUS_REFUSED", None, SGX3, tcb_info_edit=backwards,
           platform=components(0, 4)),
    *[
        strict(f"platform {status}", "TCB_STATUS_REFUSED", "status", world,
               tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to=status))
        for status, world in (
            ("SWHardeningNeeded", SGX3), ("ConfigurationNeeded", SGX3), ("ConfigurationAndSWHardeningNeeded", TDX4),
            ("OutOfDate", TDX4), ("OutOfDateConfigurationNeeded", TDX5),
        )
    ],
]  # fmt: skip


MODULE = [
    case("foreign TDX module", "TDX_MODULE_MISMATCH", "module", TDX4, body={"mrsignerseam": b"\x01" * 48}),
    case("foreign TDX module by its last byte", "TDX_MODULE_MISMATCH", "module", TDX5_15,
         body={"mrsignerseam": bytes(47) + b"\x01"}),
    case("debug TDX module", "TDX_MODULE_MISMATCH", "module", TDX4, body={"seam_attributes": b"\x01" + bytes(7)}),
    case("SEAMATTRIBUTES outside the mask", "TDX_MODULE_MISMATCH", "module", TDX4,
         body={"seam_attributes": bytes(7) + b"\x80"}, tcb_info_edit=put(*MODULE_1, "attributesMask",
                                                                         to="FF" * 7 + "00")),
    case("module of version 0 with foreign signer", "TDX_MODULE_MISMATCH", "module", TDX4,
         body={"tee_tcb_svn": svn(7, 0), "mrsignerseam": b"\x01" * 48}),
    case("module of an unknown version", "TDX_MODULE_MISMATCH", None, TDX4, body={"tee_tcb_svn": svn(7, 2)}),
    case("module of version 16, where TDX_10 is meant in hex", "TDX_MODULE_MISMATCH", None, TDX4,
         body={"tee_tcb_svn": svn(7, 10)}, tcb_info_edit=put(*MODULE_1, "id", to="TDX_10")),
    case("no module identities", "TDX_MODULE_MISMATCH", None, TDX4, tcb_info_edit=drop("tdxModuleIdentities")),
    case("an empty list of module identities", "COLLATERAL_MALFORMED", None, TDX4,
         tcb_info_edit=put("tdxModuleIdentities", to=[])),
    case("one module's identity twice", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put(*MODULE_3, "id",
        to="TDX_01")),
    case("the signer of another module version", "TDX_MODULE_MISMATCH", "choose_module", TDX4,
         tcb_info_edit=put(*MODULE_1, "mrsigner", to="01" * 48)),
    case("revoked module", "TCB_REVOKED", "revoked", TDX4, body={"tee_tcb_svn": svn(4)}),
    case("revoked module of version 3", "TCB_REVOKED", "revoked", TDX5, body={"tee_tcb_svn": svn(2, 3)}),
    case("module below every level", "TCB_NOT_SUPPORTED", "match_module", TDX4, body={"tee_tcb_svn": svn(1)}),
    strict("out-of-date module beside an up-to-date platform", "TCB_STATUS_REFUSED", "converge", TDX4,
           body={"tee_tcb_svn": svn(5)}),
    strict("out-of-date quoting enclave beside an up-to-date platform", "TCB_STATUS_REFUSED", "converge", SGX3,
           qe={"isvsvn": b"\x07\x00"}),
    case("revoked module beside an up-to-date platform", "TCB_REVOKED", "converge", TDX4, body={"tee_tcb_svn": svn(3)}),
    strict("out-of-date module", "TCB_STATUS_REFUSED", "status", TDX4, body={"tee_tcb_svn": svn(6)}),
    strict("module out of date by its own identity", "TCB_STATUS_REFUSED", "status", TDX4,
           tcb_info_edit=put(*MODULE_1, "tcbLevels", to=[svn_level(8, "2026-01-01", "UpToDate"),
                                                         svn_level(7, "2025-01-01", "OutOfDate")])),
]  # fmt: skip


def td15(launch: bytes, current: bytes) -> Callable[[World], World]:
    return lambda world: world.but(body={"tee_tcb_svn": launch, "tee_tcb_svn_2": current})


RELAUNCH = [
    strict("launched on an old module, updated since", "TCB_STATUS_REFUSED", "relaunch", td15(svn(5), svn(8))(TDX5_15)),
    strict("launched on an old module", "TCB_STATUS_REFUSED", "status", td15(svn(6), svn(7))(TDX5_15)),
    strict("launched on an old module, extended report", "TCB_STATUS_REFUSED", "status",
           td15(svn(6), svn(7))(TDX5_EXTENDED)),
    strict("launched and running on an old module", "TCB_STATUS_REFUSED", "status", td15(svn(6), svn(6))(TDX5_15)),
    case("launched on a revoked module", "TCB_REVOKED", "revoked", td15(svn(4), svn(7))(TDX5_15)),
    case("launched below every level", "TCB_NOT_SUPPORTED", None, td15(svn(1), svn(7))(TDX5_15)),
    case("running below every level", "TCB_NOT_SUPPORTED", "match_module", td15(svn(7), svn(1))(TDX5_15)),
    case("running a module of an unknown version", "TCB_NOT_SUPPORTED", "match_module", td15(svn(7), svn(7,
        9))(TDX5_15)),
    case("running with microcode below every level", "TCB_NOT_SUPPORTED", None, td15(svn(7), svn(7, 1, 0))(TDX5_15)),
    strict("relaunch advised and configuration needed", "TCB_STATUS_REFUSED", "status",
           td15(svn(6), svn(7))(TDX5_15), tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="ConfigurationNeeded")),
    Case(name="current module out of date", code="TCB_STATUS_REFUSED", step="current", world=td15(svn(7),
        svn(6))(TDX5_15),
         policy=lenient(tcb={"judge_current": True})),
    case("current module revoked", "TCB_REVOKED", "revoked", td15(svn(7), svn(4))(TDX5_15)),
    case("current module revoked, extended report", "TCB_REVOKED", "revoked", td15(svn(7), svn(3))(TDX5_EXTENDED)),
    strict("current module revoked under a policy that does not judge the current TCB", "TCB_REVOKED", "revoked",
           td15(svn(7), svn(4))(TDX5_15)),
    Case(name="current module revoked under strict", code="TCB_REVOKED", step="revoked",
         world=td15(svn(7), svn(4))(TDX5_15), built_in="strict"),
]  # fmt: skip

CASES = [*QUOTING_ENCLAVE, *PLATFORM, *MODULE, *RELAUNCH]
