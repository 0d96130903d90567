"""Unusual and genuine: what must be accepted, with the status it earns. Strictness that refuses these is a fault."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

from tests.forge.dcap.cases_collateral import pem_of_hex
from tests.forge.dcap.cases_quote import section, with_pck
from tests.forge.dcap.cases_tcb import backwards, svn, td15
from tests.forge.dcap.certificates import PROCESSOR_CA_NAME
from tests.forge.dcap.documents import as_v2, put
from tests.forge.dcap.judge import Case
from tests.forge.dcap.keys import other_s
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.world import NOW, PCK, PCK_CA, PCK_CRL, SGX3, TDX4, TDX5_15, TDX5_EXTENDED, World, pem_chain

UNDER_PROCESSOR_CA = Platform(instance_id=None, configuration=None, sgx_type=0)


def good(name: str, world: World, status: str = "UpToDate", **changes: Any) -> tuple[Case, str]:
    return Case(name=name, code="", step=None, world=world.but(**changes)), status


def reordered(order: tuple[int, ...]) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    return lambda chain: tuple(chain[index] for index in order)


def base64_crl(held: dict[str, str]) -> dict[str, str]:
    return held | {"pck_crl": base64.b64encode(bytes.fromhex(held["pck_crl"])).decode()}


GENUINE_CASES = [
    good("zero padding", TDX4, padding=bytes(3064)),
    good("the other s of both signatures", TDX4, section=lambda one: replace(
        one, quote_signature=other_s(one.quote_signature), qe_report_signature=other_s(one.qe_report_signature))),
    good("no authentication data", SGX3, auth_data=b""),
    good("authentication data of 1000 bytes", TDX4, auth_data=bytes(1000)),
    good("a NUL behind the chain", TDX4, chain_text=lambda text: text + b"\x00"),
    good("CRLF in the chain", SGX3, chain_text=lambda text: text.replace(b"\n", b"\r\n")),
    *[good(f"chain in order {order}", TDX4, chain=reordered(order)) for order in permutations(range(3))],
    *[good(f"certification type {kind}, PCK chain in the collateral", with_pck(SGX3 if kind == 1 else TDX4),
           certification=(kind, bytes(size))) for kind, size in ((1, 36), (2, 404), (3, 404))],
    good("PCK leaf alone", TDX4, certification=(4, pem_chain(TDX4.pck_chain()[0]).encode())),
    good("PCK Processor CA", SGX3, pck_ca=replace(PCK_CA, common_name=PROCESSOR_CA_NAME), platform=UNDER_PROCESSOR_CA),
    good("PCK certificate that ends now", TDX4, pck=replace(PCK, not_after=NOW)),
    good("PCK CRL that ends in a second", TDX4, pck_crl=replace(PCK_CRL, next_update=NOW + 1)),
    good("TCB info issued now", SGX3, tcb_info_window=(NOW, NOW + 60)),
    good("TCB info that ends now", SGX3, tcb_info_window=(NOW - 60, NOW)),
    good("CRL as PEM", TDX4, collateral=pem_of_hex("pck_crl")),
    good("CRL as base64", TDX4, collateral=base64_crl),
    good("a CRL number of 70 bits", TDX4, pck_crl=replace(PCK_CRL, number=1 << 70)),
    good("TCB info of version 2", SGX3, tcb_info_edit=as_v2),
    good("members nobody knows yet", TDX4, tcb_info_edit=lambda document: document | {"later": {"deep": [1, None,
        "x"]}}),
    good("levels delivered worst first", SGX3, tcb_info_edit=backwards),
    good("QE levels delivered worst first", TDX4, qe_identity_edit=backwards),
    good("spaces in the signed text", TDX4, tcb_info_text=lambda text: f" {text}\n"),
    good("an advisory beside UpToDate", SGX3, tcb_info_edit=put("tcbLevels", 0, "advisoryIDs", to=["INTEL-SA-09999"])),
    good("module version 3", TDX4, body={"tee_tcb_svn": svn(7, 3)}),
    good("module version 0", TDX4, body={"tee_tcb_svn": svn(7, 0)}),
    good("module version 0 behind", TDX4, "OutOfDate", body={"tee_tcb_svn": svn(4, 0)}),
    good("a newer module than any level's", TDX4, body={"tee_tcb_svn": svn(255)}),
    good("a debug TD, reported", TDX4, body={"td_attributes": b"\x01\x00\x00\x10" + bytes(4)}),
    good("a service TD, reported", TDX5_15, body={"mrservicetd": b"\x01" * 48}),
    good("a configurable enclave's report", SGX3, body={"reserved1": b"\x01" * 28, "reserved3": b"\x02" * 96}),
    good("out of date", SGX3, "OutOfDate", platform=Platform(pce_svn=12)),
    good("launched on an old module", td15(svn(6), svn(7))(TDX5_15), "TDRelaunchAdvised"),
    good("launched on an old module, extended report", td15(svn(6), svn(7))(TDX5_EXTENDED), "TDRelaunchAdvised"),
    good("launched on an old module, configuration needed", td15(svn(6), svn(7))(TDX5_15),
         "TDRelaunchAdvisedConfigurationNeeded", tcb_info_edit=put("tcbLevels", 0, "tcbStatus",
                                                                   to="ConfigurationNeeded")),
    good("running on an old module", td15(svn(7), svn(6))(TDX5_15)),
    good("reserved header bytes", TDX4, section=section(), header=lambda one: replace(one, reserved=b"\x01" * 4)),
]  # fmt: skip
