"""Verified quotes that a policy must not accept: each rule has one that only it refuses (ATTESTATION.md §7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.forge.dcap.documents import put
from tests.forge.dcap.judge import Case
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.policies import FULL, code, enclave, lenient
from tests.forge.dcap.world import (
    MRENCLAVE,
    MRSIGNER,
    MRTD,
    REPORT_DATA,
    SGX3,
    TD_BODY,
    TD_BODY_15,
    TDX4,
    TDX5_15,
    TDX5_EXTENDED,
    World,
)

OTHER_PLATFORM = Platform(ppid=bytes([7] * 16), instance_id=bytes([8] * 16))


def attributes(*bits: int) -> bytes:
    """TDATTRIBUTES with these bits."""
    return sum(1 << bit for bit in bits).to_bytes(8, "little")


def flipped(value: bytes, bit: int) -> bytes:
    """`value` with one bit changed, counted from its first byte's lowest."""
    return bytes(byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(value))


def under(name: str, code: str, step: str | None, world: World, policy: Mapping[str, Any], **changes: Any) -> Case:
    """A case judged under a policy file's table."""
    return Case(name=name, code=code, step=step, world=world, policy=policy, **changes)


def built_in(name: str, code: str, step: str | None, world: World, which: str = "strict") -> Case:
    """A case judged under a policy that is built in."""
    return Case(name=name, code=code, step=step, world=world, built_in=which)


def behind(day: str) -> Any:
    """TCB info whose best level is of `day`, and reached by nobody here."""

    def edit(document: dict[str, Any]) -> dict[str, Any]:
        document["tcbLevels"][0]["tcbDate"] = f"{day}T00:00:00Z"
        document["tcbLevels"][0]["tcb"]["pcesvn"] = 14
        return document

    return edit


PURPOSE = [
    Case(name="report data of another purpose", code="REPORT_DATA_MISMATCH", step="ReportDataIs", world=TDX4,
         report_data=bytes(64)),
    Case(name="report data equal in its first half", code="REPORT_DATA_MISMATCH", step="ReportDataIs", world=SGX3,
         report_data=REPORT_DATA[:32] + bytes(32)),
    Case(name="report data equal but for the last bit", code="REPORT_DATA_MISMATCH", step="ReportDataIs", world=TDX5_15,
         report_data=flipped(REPORT_DATA, 511)),
    Case(name="report data asked of the verifier", code="REPORT_DATA_MISMATCH", step="report_data", world=TDX4,
         early_report_data=bytes(64)),
    under("the policy's own report data", "REPORT_DATA_MISMATCH", "ReportDataIs", TDX4, lenient(report_data="00")),
    under("report data that nobody names", "POLICY_EMPTY", "ReportDataDemanded", TDX4,
          lenient(unsafe_any_report_data=False)),
    under("a TEE the policy does not accept", "TEE_REFUSED", "TeeAccepted", SGX3, lenient(tees=["tdx"])),
    under("the other TEE the policy does not accept", "TEE_REFUSED", "TeeAccepted", TDX4, lenient(tees=["sgx"])),
    under("no TEE accepted", "POLICY_EMPTY", "TeeAccepted", TDX4, lenient(tees=[])),
]  # fmt: skip

DEBUG = TDX4.but(body={"td_attributes": attributes(0, 28)})
STATE = [
    built_in("debug TD", "DEBUG_ENABLED", "NoDebug", DEBUG),
    built_in("debug enclave", "DEBUG_ENABLED", "NoDebug", SGX3.but(body={"attributes": b"\x07" + bytes(15)})),
    built_in("debug TD 1.5", "DEBUG_ENABLED", "NoDebug", TDX5_15.but(body={"td_attributes": attributes(0, 28)})),
    under("debug TD under a policy file", "DEBUG_ENABLED", "NoDebug", DEBUG, lenient()),
    under("TUD bit 1", "TD_ATTRIBUTES", "NoUntrustedBits", TDX4.but(body={"td_attributes": attributes(1, 28)}),
          lenient()),
    under("TUD bit 7", "TD_ATTRIBUTES", "NoUntrustedBits", TDX4.but(body={"td_attributes": attributes(7, 28)}),
          lenient()),
    under("SEPT_VE_DISABLE clear", "TD_ATTRIBUTES", "SeptVeDisabled", TDX4.but(body={"td_attributes": bytes(8)}),
          lenient()),
    under("MIGRATABLE", "TD_ATTRIBUTES", "NotMigratable", TDX4.but(body={"td_attributes": attributes(28, 29)}),
          lenient()),
    under("reserved attribute", "TD_ATTRIBUTES", "NoReservedBits", TDX4.but(body={"td_attributes": attributes(28, 40)}),
          lenient()),
    under("XFAM without SSE", "TD_ATTRIBUTES", "NoReservedBits", TDX4.but(body={"xfam": b"\x01" + bytes(7)}),
          lenient()),
    under("service TD", "SERVICE_TD_BOUND", "NoServiceTd", TDX5_15.but(body={"mrservicetd": bytes(47) + b"\x01"}),
          lenient()),
    under("service TD of the extended report", "SERVICE_TD_BOUND", "NoServiceTd",
          TDX5_EXTENDED.but(body={"mrservicetd": b"\x01" * 48}), lenient()),
    *[
        under(f"{field} of the extended report", "SERVICE_TD_BOUND", "NoServiceTd",
              TDX5_EXTENDED.but(body={field: bytes(47) + b"\x01", "mrservicetd": b"\x02" * 48}),
              lenient(tdx={"service_tds": ["02" * 48]}))
        for field in ("initial_servtd_hash", "current_servtd_hash")
    ],
    under("service TD that is not the allowed one", "SERVICE_TD_BOUND", "NoServiceTd",
          TDX5_15.but(body={"mrservicetd": b"\x01" * 48}), lenient(tdx={"service_tds": ["02" * 48]})),
    under("an attribute the policy does not expect", "TD_ATTRIBUTES", "TdFieldMatches",
          TDX4.but(body={"td_attributes": attributes(28, 63)}), lenient(tdx={"td_attributes": attributes(28).hex()})),
    under("a masked attribute that differs", "TD_ATTRIBUTES", "TdFieldMatches",
          TDX4.but(body={"td_attributes": attributes(28, 30)}),
          lenient(tdx={"td_attributes": {"value": attributes(28).hex(), "mask": attributes(28, 30).hex()}})),
    under("XFAM beyond what is allowed", "TD_ATTRIBUTES", "TdFieldMatches",
          TDX4.but(body={"xfam": bytes.fromhex("e702070000000000")}),
          lenient(tdx={"xfam": {"value": "0000000000000000", "mask": "0000010000000000"}})),
    under("an enclave's attributes", "ENCLAVE_ATTRIBUTES", "EnclaveAttributesMatch", SGX3,
          lenient(sgx={"attributes": {"value": "04" + "00" * 15, "mask": "ff" + "00" * 15}})),
    under("an enclave's XFRM", "ENCLAVE_ATTRIBUTES", "EnclaveAttributesMatch", SGX3,
          lenient(sgx={"attributes": {"value": "00" * 16, "mask": "00" * 8 + "80" + "00" * 7}})),
]  # fmt: skip

REGISTERS = {
    name: value for name, value in TD_BODY.items() if name in ("mrtd", "rtmr0", "rtmr1", "mrseam")
} | {name: bytes(48) for name in ("rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig")}  # fmt: skip

CODE = [
    *[
        under(f"{name} differs in its last bit", "MEASUREMENT_UNKNOWN", "RegisterMatches", TDX4,
              lenient(unsafe_any_measurement=False,
                      measurements=[code(**{"mrtd": MRTD.hex(), name: flipped(value, 383).hex()})]))
        for name, value in REGISTERS.items()
    ],
    under("a masked register differs", "MEASUREMENT_UNKNOWN", "RegisterMatches", TDX4, lenient(
        unsafe_any_measurement=False,
        measurements=[code(mrtd={"value": flipped(MRTD, 0).hex(), "mask": "01" + "00" * 47})])),
    under("one register of two differs", "MEASUREMENT_UNKNOWN", "RegisterMatches", TDX4, lenient(
        unsafe_any_measurement=False,
        measurements=[code(mrtd=MRTD.hex(), rtmr0="00" * 48)])),
    under("none of two images", "MEASUREMENT_UNKNOWN", "AnyOf", TDX4, lenient(
        unsafe_any_measurement=False,
        measurements=[code(mrtd="01" * 48), code(mrtd="02" * 48)])),
    under("an image of the other TEE", "POLICY_EMPTY", "AnyOf-empty", TDX4, lenient(
        unsafe_any_measurement=False, measurements=[enclave(mrenclave=MRENCLAVE.hex())])),
    under("no measurements", "POLICY_EMPTY", "AnyOf-empty", TDX4, lenient(unsafe_any_measurement=False)),
    under("MRENCLAVE differs", "MEASUREMENT_UNKNOWN", "RegisterMatches", SGX3, lenient(
        unsafe_any_measurement=False, measurements=[enclave(mrenclave=flipped(MRENCLAVE, 255).hex())])),
    under("MRSIGNER differs", "MEASUREMENT_UNKNOWN", "RegisterMatches", SGX3, lenient(
        unsafe_any_measurement=False, measurements=[enclave(mrsigner=flipped(MRSIGNER, 0).hex())])),
    under("another product of the signer", "MEASUREMENT_UNKNOWN", "RegisterMatches", SGX3, lenient(
        unsafe_any_measurement=False, measurements=[enclave(mrsigner=MRSIGNER.hex(), isvprodid=8)])),
    under("ISVSVN too low", "ISV_SVN_TOO_LOW", "IsvSvnAtLeast", SGX3, lenient(
        unsafe_any_measurement=False, measurements=[enclave(mrsigner=MRSIGNER.hex(), isvprodid=7, min_isvsvn=4)])),
    under("a new image under the full policy", "MEASUREMENT_UNKNOWN", None,
          TDX4.but(body={"mrtd": flipped(MRTD, 100)}), FULL, report_data=REPORT_DATA),
]  # fmt: skip

PLATFORMS = [
    under("another genuine platform", "PLATFORM_NOT_ENROLLED", "PlatformEnrolled", TDX4.but(platform=OTHER_PLATFORM),
          lenient(unsafe_any_platform=False, platforms=[Platform().ppid.hex()])),
    under("another genuine platform, SGX", "PLATFORM_NOT_ENROLLED", "PlatformEnrolled",
          SGX3.but(platform=OTHER_PLATFORM),
          lenient(unsafe_any_platform=False, platforms=[(Platform().instance_id or b"").hex()])),
    under("no platform named", "POLICY_EMPTY", "AllOf-empty", TDX4, lenient(unsafe_any_platform=False)),
    under("a platform id of zeros", "PLATFORM_NOT_ENROLLED", "PlatformEnrolled",
          TDX4.but(platform=Platform(ppid=bytes(16), instance_id=None, configuration=None)),
          lenient(unsafe_any_platform=False, platforms=["00" * 16])),
]  # fmt: skip

WITH_ADVISORIES = TDX4.but(tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="OutOfDate"))
ADVISED = SGX3.but(platform=Platform(pce_svn=12))
_LOW = {"accepted_statuses": ["UpToDate", "OutOfDate"]}

TCB = [
    built_in("SWHardeningNeeded under strict", "TCB_STATUS_REFUSED", "status",
             SGX3.but(tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="SWHardeningNeeded"))),
    built_in("OutOfDate under strict", "TCB_STATUS_REFUSED", "status", WITH_ADVISORIES),
    under("no status accepted", "POLICY_EMPTY", "status", TDX4, lenient(tcb={"accepted_statuses": []})),
    under("an advisory that is not allowed", "ADVISORY_REFUSED", "advisories", ADVISED,
          lenient(tcb={**_LOW, "allowed_advisories": ["INTEL-SA-01192"]})),
    under("no advisory allowed", "ADVISORY_REFUSED", "advisories", ADVISED, lenient(tcb={**_LOW,
        "allowed_advisories": []})),
    under("an advisory of the module", "ADVISORY_REFUSED", "advisories",
          TDX4.but(body={"tee_tcb_svn": bytes([6, 1, 6]) + bytes(13)}), lenient(tcb={**_LOW,
              "allowed_advisories": []})),
    under("TCB info of an older evaluation", "TCB_EVALUATION_TOO_OLD", "evaluation", TDX4.but(number=19, qe_number=20),
          lenient(tcb={"min_evaluation_number": 20})),
    under("QE identity of an older evaluation", "TCB_EVALUATION_TOO_OLD", "evaluation", SGX3.but(number=20,
        qe_number=19),
          lenient(tcb={"min_evaluation_number": 20})),
    under("grace that has ended", "TCB_STATUS_REFUSED", "status", SGX3.but(tcb_info_edit=behind("2026-01-01")),
          lenient(tcb={"grace_days": 30})),
    under("grace for a platform that is revoked", "TCB_REVOKED", None,
          SGX3.but(platform=Platform(pce_svn=10), tcb_info_edit=behind("2026-02-01")), lenient(tcb={"grace_days": 30})),
    under("grace for a quoting enclave beside a platform that needs hardening", "TCB_STATUS_REFUSED", "status",
          SGX3.but(tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="SWHardeningNeeded"), qe={"isvsvn": b"\x06\x00"}),
          lenient(tcb={"grace_days": 3650})),
    under("grace for a quoting enclave beside a platform to configure and harden", "TCB_STATUS_REFUSED", "status",
          SGX3.but(tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="ConfigurationAndSWHardeningNeeded"),
                   qe={"isvsvn": b"\x06\x00"}),
          lenient(tcb={"accepted_statuses": ["UpToDate", "ConfigurationNeeded"], "grace_days": 3650})),
    under("grace for a status that needs configuration", "TCB_STATUS_REFUSED", "status",
          TDX4.but(tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="ConfigurationNeeded")),
          lenient(tcb={"grace_days": 3000})),
    under("the current module under a policy file", "TCB_STATUS_REFUSED", "current",
          TDX5_15.but(body=TD_BODY_15 | {"tee_tcb_svn_2": bytes([6, 1, 6]) + bytes(13)}),
          lenient(tcb={"judge_current": True})),
]  # fmt: skip

CASES = [*PURPOSE, *STATE, *CODE, *PLATFORMS, *TCB]
