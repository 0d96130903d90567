"""Cases of attestation evidence with what a correct verifier says: some carried here, all where they are mounted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.verifier.vectors import DATA, SHARED

CARRIED = (DATA / "corpus", DATA / "devices")
QUOTES = ("sgx_v", "tdx_v")
NO_COLLATERAL_AT = 1_600_000_000
"""For quotes whose time nobody recorded: 2020-09-13, inside every certificate of the chains they carry."""

REFUSALS: dict[str, set[str]] = {
    "quote:STATUS_INVALID_QUOTE_SIGNATURE": {"QUOTE_SIGNATURE"},
    "quote:STATUS_INVALID_QE_REPORT_DATA": {"QE_BINDING"},
    "quote:STATUS_INVALID_QE_REPORT_SIGNATURE": {"QE_REPORT_SIGNATURE"},
    "quote:STATUS_QE_IDENTITY_MISMATCH": {"QE_IDENTITY", "COLLATERAL_MISMATCH"},
    "quote:STATUS_TCB_INFO_MISMATCH": {"COLLATERAL_MISMATCH"},
    "quote:STATUS_TCB_NOT_SUPPORTED": {"TCB_NOT_SUPPORTED"},
    "quote:STATUS_TDX_MODULE_MISMATCH": {"TDX_MODULE_MISMATCH"},
    "quote:STATUS_UNSUPPORTED_QUOTE_FORMAT": {"QUOTE_MALFORMED", "QE_VENDOR_UNKNOWN", "QUOTE_VERSION_UNSUPPORTED"},
    "quote does not parse": {"QUOTE_MALFORMED", "TEE_TYPE_UNSUPPORTED", "QUOTE_VERSION_UNSUPPORTED"},
    "quote does not parse / no PCK chain": {"CERT_CHAIN_INVALID"},
    "pck_chain:STATUS_SGX_CRL_EXPIRED": {"COLLATERAL_EXPIRED"},
    "pck_chain:STATUS_SGX_CRL_INVALID_SIGNATURE": {"COLLATERAL_SIGNATURE"},
    "pck_chain:STATUS_SGX_CRL_UNKNOWN_ISSUER": {"CRL_ISSUER"},
    "pck_chain:STATUS_SGX_PCK_CERT_CHAIN_EXPIRED": {"CERT_EXPIRED"},
    "pck_chain:STATUS_SGX_PCK_CERT_CHAIN_UNTRUSTED": {"ROOT_UNTRUSTED"},
    "pck_chain:STATUS_SGX_PCK_REVOKED": {"CERT_REVOKED"},
    "tcb_info:STATUS_TCB_INFO_INVALID_SIGNATURE": {"COLLATERAL_SIGNATURE"},
    "tcb_info:STATUS_SGX_TCB_INFO_EXPIRED": {"COLLATERAL_EXPIRED"},
    "tcb_info:STATUS_SGX_TCB_INFO_INVALID": {"COLLATERAL_MALFORMED"},
    "tcb_info:STATUS_SGX_TCB_INFO_UNSUPPORTED_FORMAT": {"COLLATERAL_MALFORMED"},
    "tcb_info:STATUS_SGX_TCB_SIGNING_CERT_REVOKED": {"CERT_REVOKED"},
    "qe_identity:STATUS_SGX_ENCLAVE_IDENTITY_INVALID_SIGNATURE": {"COLLATERAL_SIGNATURE"},
    "qe_identity:STATUS_SGX_ENCLAVE_IDENTITY_EXPIRED": {"COLLATERAL_EXPIRED"},
    "issuer is not a CA": {"CERT_CHAIN_INVALID", "CERT_ROLE_INVALID", "CERT_CONSTRAINT"},
    "TCB status Revoked": {"TCB_REVOKED"},
    "crypto checks fail: isv_sig": {"QUOTE_SIGNATURE"},
    "PCK certificate not yet valid (Intel QVL checks only notAfter; dcap-qvl rejects)": {"CERT_NOT_YET_VALID"},
    "TCB info not yet valid (Intel QVL does not check issueDate; dcap-qvl rejects)": {"COLLATERAL_NOT_YET_VALID"},
    "collateral issueDate/thisUpdate in the future (Intel QVL does not look at it)": {"COLLATERAL_NOT_YET_VALID"},
    "certification data type 3 carries no PCK chain; PCK certificate must be supplied out of band": {
        "CERTIFICATION_UNSUPPORTED"
    },
    "debug attribute set": {"DEBUG_ENABLED"},
}
"""What the corpus calls the reason of a refusal, and the codes of ours that say it; `TCB status …` is a status."""

OTHER_CODES = {"tdx_v4-intelqvl-sample": {"COLLATERAL_MALFORMED"}}
"""Cases that are refused for a graver reason: this one's TCB info has component SVNs beyond 255, cut off elsewhere."""


@dataclass(frozen=True)
class Case:
    """One case: its entry in the manifest, and the directory its files lie in."""

    entry: dict[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return str(self.entry["id"])

    @property
    def at(self) -> int:
        """Unix seconds at which it is judged."""
        return NO_COLLATERAL_AT if self.entry["at"] is None else int(self.entry["at"])

    def path(self, what: str) -> Path | None:
        """The file of that kind, if the case has one."""
        name = self.entry["files"].get(what)
        return None if name is None else self.folder / name

    def expected(self, policy: str) -> dict[str, Any]:
        """What the manifest expects under "authentic" or "strict"."""
        found: dict[str, Any] = self.entry["expected" if policy == "authentic" else "expected_strict"]
        return found

    def codes(self, policy: str) -> set[str]:
        """The codes that may stand for the manifest's reason."""
        if self.name in OTHER_CODES:
            return OTHER_CODES[self.name]
        reason = str(self.expected(policy)["reason"])
        if self.expected(policy)["verdict"] in ("parse_and_crypto_ok", "n/a"):
            return {"COLLATERAL_MISSING"}
        if reason.startswith("TCB status "):
            return {"TCB_REVOKED"} if reason.endswith(" Revoked") else {"TCB_STATUS_REFUSED"}
        return REFUSALS[reason]


def _cases(folder: Path) -> list[Case]:
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return []
    return [Case(entry, folder) for entry in json.loads(manifest.read_text())["cases"]]


@cache
def cases() -> tuple[Case, ...]:
    """The carried cases and, where it is mounted, the whole corpus; a case in both stands once."""
    carried = [case for folder in CARRIED for case in _cases(folder)]
    names = {case.name for case in carried}
    return (*carried, *(case for case in _cases(SHARED) if case.name not in names))


def quotes() -> list[Case]:
    """SGX and TDX quotes."""
    return [case for case in cases() if case.entry["evidence_type"].startswith(QUOTES)]


def documents() -> list[Case]:
    """Collateral on its own: JSON documents and TCB evaluation numbers."""
    return [case for case in cases() if case.entry["evidence_type"].startswith("dcap_")]
