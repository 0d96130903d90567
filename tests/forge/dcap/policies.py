"""Policy files' tables for the cases: one that demands everything of the genuine worlds, one that demands little."""

from __future__ import annotations

from typing import Any

from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.world import MRENCLAVE, MRSIGNER, MRTD, TD_BODY

Table = dict[str, Any]


def lenient(*, tcb: Table | None = None, **changes: Any) -> Table:
    """UpToDate at launch and no debug; a TD's own state; no code, platform or purpose: change one demand."""
    base: Table = {
        "unsafe_any_measurement": True,
        "unsafe_any_platform": True,
        "unsafe_any_report_data": True,
    }
    demanded = {"accepted_statuses": ["UpToDate"], "allowed_advisories": ["*"], "judge_current": False}
    return base | changes | {"tcb": demanded | (tcb or {})}


def code(**registers: Any) -> Table:
    """A measurement of a TD."""
    return {"label": "image", "tee": "tdx", **registers}


def enclave(**registers: Any) -> Table:
    """A measurement of an enclave."""
    return {"label": "enclave", "tee": "sgx", **registers}


FULL: Table = {
    "version": 1,
    "tcb": {"accepted_statuses": ["UpToDate"], "min_evaluation_number": 20, "grace_days": 14},
    "tdx": {"td_attributes": "0000001000000000", "xfam": "e702060000000000"},
    "sgx": {"attributes": "0500000000000000e700000000000000"},
    "measurements": [
        code(mrtd=MRTD.hex(), rtmr0=TD_BODY["rtmr0"].hex(), rtmr1={"value": TD_BODY["rtmr1"].hex(), "mask": "ff" * 48}),
        enclave(mrenclave=MRENCLAVE.hex(), mrsigner=MRSIGNER.hex(), isvprodid=7, min_isvsvn=3),
    ],
    "platforms": [Platform().ppid.hex()],
}
"""Everything a policy file can demand, and every genuine world satisfies."""
