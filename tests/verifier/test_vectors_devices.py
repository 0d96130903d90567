"""Every SNP, NVIDIA and SPDM case of the corpus through the command line: verdict, codes, comparison, events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from enclavescale.cli import main
from tests.verifier.corpus import Case, cases

KINDS = {
    "snp": "snp",
    "nvidia_gpu": "nvidia-gpu",
    "nvidia_switch": "nvidia-switch",
    "nvidia_rim": "nvidia-rim",
    "spdm": "spdm",
}
MALFORMED = {"NVIDIA_REPORT_MALFORMED"}
SIGNED = {"SPDM_SIGNATURE"}
REFUSALS: dict[str, set[str]] = {
    "8 signed bytes between opaque data and signature": MALFORMED,
    "number of blocks does not fit the record": MALFORMED,
    "opaque field longer than the opaque data": MALFORMED,
    "parse: index out of range": MALFORMED,
    "response code is not MEASUREMENTS": MALFORMED,
    "signature length": MALFORMED,
    "FWID in the report differs from the leaf certificate": {"FWID_MISMATCH"},
    "chain does not end at the pinned root": {"ROOT_UNTRUSTED"},
    "chain has 2 certificates, 5 expected": {"CERT_CHAIN_INVALID"},
    "chain has 4 certificates, 5 expected": {"CERT_CHAIN_INVALID"},
    "chain has 6 certificates, 5 expected": {"CERT_CHAIN_INVALID"},
    "chain is not leaf first": {"CERT_CHAIN_INVALID"},
    "issuer is not a CA": {"CERT_CONSTRAINT"},
    "nonce mismatch (all-zero nonce)": {"NONCE_MISMATCH"},
    "nonce mismatch": {"NONCE_MISMATCH"},
    "report signature (SHA-256 instead of SHA-384)": {"NVIDIA_REPORT_SIGNATURE"},
    # A field that was altered may break the format, the nonce or a binding before its signature is looked at.
    "report signature": {
        "NVIDIA_REPORT_SIGNATURE", "NVIDIA_REPORT_MALFORMED", "NONCE_MISMATCH", "SNP_SIGNATURE", "SNP_MALFORMED",
        "SNP_CHIP_ID", "SNP_TCB_MISMATCH", "ENDORSEMENT_MISSING",
    },
    "RIM signing certificate expired": {"CERT_EXPIRED"},
    "RIM: xml signature InvalidDigest: Digest mismatch for reference 0 (); chain ok": {"RIM_DIGEST"},
    "RIM: xml signature InvalidSignature: Signature verification failed: []; chain ok": {"RIM_SIGNATURE"},
    "RIM: xml signature ok; chain does not end at the RIM root": {"CERT_CHAIN_INVALID", "ROOT_UNTRUSTED"},
    "ARK is not the pinned AMD root": {"ENDORSEMENT_MISSING", "ROOT_UNTRUSTED"},
    "ASK revoked by the ARK CRL": {"CERT_REVOKED"},
    "CHIP_ID does not equal HWID": {"SNP_CHIP_ID"},
    "CHIP_ID zero (MaskChipId): cannot be tied to the VCEK chip": {"SNP_CHIP_ID_MASKED"},
    "CRL expired": {"COLLATERAL_EXPIRED"},
    "EK issued by the ARK, not by the ASK": {"CERT_CHAIN_INVALID"},
    "EK outside validity": {"CERT_EXPIRED"},
    "POLICY.DEBUG set": {"DEBUG_ENABLED"},
    "REPORTED_TCB FMC does not equal the certificate FMC": {"SNP_TCB_MISMATCH"},
    "REPORTED_TCB above CURRENT_TCB": {"SNP_TCB_ORDER"},
    "REPORTED_TCB above the certificate TCB": {"SNP_TCB_MISMATCH"},
    "REPORTED_TCB below the certificate TCB": {"SNP_TCB_MISMATCH"},
    "SIGNING_KEY field 1 does not fit the VCEK certificate": {"SNP_SIGNING_KEY", "CERT_CHAIN_INVALID"},
    "SIGNING_KEY none / report not signed": {"SNP_UNSIGNED"},
    "SIGNING_KEY says VLEK, certificate is VCEK": {"SNP_SIGNING_KEY"},
    "Turin certificate HWID is not 8 bytes": {"EK_EXTENSION_INVALID"},
    "VCEK without HWID": {"EK_EXTENSION_INVALID"},
    "certificate chain signature: InvalidSignature": {"CERT_SIGNATURE"},
    "certificate chain signature: ValueError": {"ENDORSEMENT_MISSING", "CERT_SIGNATURE"},
    "no endorsement key certificate that verifies this report is in the collection (parse only)": {
        "ENDORSEMENT_MISSING"
    },
    "non-zero bytes above the 48 bytes of R": {"SNP_MALFORMED", "SNP_SIGNATURE"},
    "product name of the certificate does not fit chain/CPUID": {"SNP_PRODUCT"},
    "report requested by the host (VMPL 0xFFFFFFFF)": {"SNP_VMPL"},
    "report shorter than 1184 bytes": {"SNP_MALFORMED"},
    "report version 1 (early/fake report)": {"SNP_VERSION_UNSUPPORTED"},
    "report version 1": {"SNP_VERSION_UNSUPPORTED"},
    "report version 6": {"SNP_VERSION_UNSUPPORTED"},
    "signature algorithm": {"SNP_ALGORITHM_UNSUPPORTED"},
    "challenge signature invalid": {"SPDM_SIGNATURE", "SPDM_SEQUENCE", "SPDM_VERSION"},
    "challenge signature invalid; CertChainHash in CHALLENGE_AUTH wrong": {"SPDM_SIGNATURE"},
    "challenge signature invalid; measurements signature invalid": {
        "SPDM_SIGNATURE", "SPDM_SEQUENCE", "SPDM_VERSION",
    },
    "measurements signature invalid": SIGNED,
}  # fmt: skip
"""What the corpus calls the reason of a refusal, and the codes of ours that say it."""

DEVICE_CASES = [case for case in cases() if case.entry["evidence_type"] in KINDS]


def arguments(case: Case, policy: str, *, capture: bool = False) -> list[str]:
    """`enclavescale verify` for this case."""
    kind = KINDS[case.entry["evidence_type"]]
    what = "transcript" if kind == "spdm" else "rim" if kind == "nvidia-rim" else "report"
    if kind == "nvidia-rim" and case.path("report") is not None:
        what, kind = "report", "nvidia-gpu"
    found = ["verify", str(case.path("pcap" if capture else what)), "--kind", kind, "--policy", policy, "--json"]
    found += ["--at", str(case.at)]
    for endorsement in ("ek_cert", "ask", "ark", "crl", "cert_chain"):
        if (path := case.path(endorsement)) is not None:
            found += ["--endorsement", str(path)]
    if what == "report" and (path := case.path("rim")) is not None:
        found += ["--rim", str(path)]
    if (path := case.path("trust_root")) is not None:
        found += ["--trust-root", str(path)]
    if case.entry.get("nonce"):
        found += ["--nonce", case.entry["nonce"]]
    return found


def run(argv: list[str]) -> tuple[int, dict[str, Any]]:
    """Exit code and verdict, in this process."""
    result = CliRunner().invoke(main, argv)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 3), result.output
    return result.exit_code, json.loads(result.stdout)


def check(case: Case, policy: str, exit_code: int, verdict: dict[str, Any]) -> None:
    """The verdict is the manifest's, and a refusal says why."""
    expected = case.expected(policy)
    accepted = expected["verdict"] in ("ok", "match")
    assert exit_code == (0 if accepted else 3), (expected, verdict["errors"])
    assert verdict["accepted"] is accepted
    if "mismatched_indexes" in expected:
        assert verdict["reference"]["outcome"] == expected["verdict"]
        assert verdict["reference"]["mismatched_indexes"] == expected["mismatched_indexes"]
        assert verdict["reference"]["verified"] == (expected["rim_signature"] == "ok")
    if "events" in expected:
        assert verdict["events"] == expected["events"]
    if accepted:
        assert verdict["errors"] == []
        assert verdict["claims"] is not None
        return
    for error in verdict["errors"]:
        assert error["remedy"]
        assert error["field"]
        assert error["message"]
    if "reason" in expected:
        assert verdict["codes"][0] in REFUSALS[expected["reason"]], verdict["errors"]


@pytest.mark.parametrize("policy", ["authentic", "strict"])
@pytest.mark.parametrize("case", DEVICE_CASES, ids=lambda case: case.name)
def test_case(case: Case, policy: str) -> None:
    """Under both policies; the corpus expects nothing of a strict one where it does not say so."""
    exit_code, verdict = run(arguments(case, policy))
    if policy == "authentic" or "expected_strict" in case.entry:
        check(case, policy, exit_code, verdict)
    elif case.expected("authentic")["verdict"] not in ("ok", "match"):
        assert exit_code == 3


@pytest.mark.parametrize("case", [case for case in DEVICE_CASES if case.path("pcap")], ids=lambda case: case.name)
def test_capture(case: Case) -> None:
    """A capture of the same exchange says the same."""
    check(case, "authentic", *run(arguments(case, "authentic", capture=True)))


@pytest.mark.parametrize("case", DEVICE_CASES, ids=lambda case: case.name)
def test_kind_is_told_by_content(case: Case) -> None:
    """`--kind auto` finds the kind of whatever is well-formed; a switch's report looks like a GPU's."""
    argv = arguments(case, "authentic")
    at = argv.index("--kind")
    exit_code, verdict = run(argv[:at] + argv[at + 2 :])
    assert exit_code == (0 if case.expected("authentic")["verdict"] in ("ok", "match") else 3)
    if exit_code == 0:
        assert verdict["kind"] == argv[at + 1]


def test_claims_are_the_reports(tmp_path: Path) -> None:
    """Where a report is judged at all, its claims are those the corpus recorded."""
    seen = 0
    for case in DEVICE_CASES:
        fields = case.entry.get("fields")
        if not fields or case.entry["evidence_type"] not in ("snp", "nvidia_gpu", "nvidia_switch"):
            continue
        exit_code, verdict = run(arguments(case, "authentic"))
        if exit_code != 0:
            continue
        claims, seen = verdict["claims"], seen + 1
        if case.entry["evidence_type"] == "snp":
            assert claims["quote_version"] == fields["version"]
            assert claims["measurement"] == fields["measurement"]
            assert claims["chip_id"] == fields["chip_id"]
            assert (claims["vmpl"], claims["guest_svn"]) == (fields["vmpl"], fields["guest_svn"])
            assert claims["product"] == case.entry["product"]
            assert claims["debug"] == fields["policy_debug"]
        elif "spdm_version" in fields:
            assert claims["architecture"] == fields["arch"]
            assert claims["driver_version"] == (fields["driver_version"] or None)
            assert claims["fwid_bound"] == ("bound" if fields["fwid"] else "not_bound")
            assert len(claims["measurements"]) == fields["blocks"]
    assert seen
