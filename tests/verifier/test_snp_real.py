"""Real SNP reports: AMD's roots as they are pinned, Azure's blobs, and every case of the corpus by the library."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.verifier.corpus import Case, cases
from tests.verifier.vectors import DATA
from verifier.claims import Claims
from verifier.errors import VerificationError
from verifier.formats.snp import VerifiedSnpReport, verify_snp_report
from verifier.policy.base import AllOf
from verifier.policy.snp import STRICT_SNP, SnpDemands, snp_rules, snp_warnings
from verifier.trust.amd_roots import AMD_ROOTS, ROOT_OF
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.crl import parse_crl
from verifier.trust.path import PathCache
from verifier.trust.roots import Root

CASES = [case for case in cases() if case.entry["evidence_type"] == "snp"]
AZURE, DEVICES = DATA / "azure", DATA / "devices"
BLOBS = {"milan-v2": 1_685_654_539_000, "milan-v3": 1_740_674_023_000, "genoa-v3": 1_740_277_308_000}
"""Blobs and a time at which their VCEK is valid, UTC milliseconds."""

SPKI_DIGESTS = {
    "Milan": "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    "Genoa": "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    "Turin": "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
}


def read(path: Path | None) -> bytes:
    assert path is not None
    return path.read_bytes()


def verify(case: Case, chains_seen: PathCache | None = None) -> VerifiedSnpReport:
    certificates = [parse_certificate(read(case.path(what))) for what in ("ek_cert", "ask", "ark") if case.path(what)]
    roots: tuple[Root, ...] = AMD_ROOTS
    if case.path("trust_root") is not None:
        spki = parse_certificate(read(case.path("trust_root"))).spki
        roots = (Root(label="corpus", spki=spki, simulated=False),)
    return verify_snp_report(
        report=read(case.path("report")),
        endorsements=certificates,
        crls=[parse_crl(read(case.path("crl")))] if case.path("crl") else [],
        trust_roots=roots,
        now_ms=case.at * 1000,
        chains_seen=chains_seen,
    )


def outcome(case: Case) -> str:
    try:
        verify(case)
    except VerificationError:
        return "reject"
    return "ok"


@pytest.mark.parametrize("product", list(ROOT_OF))
def test_roots_are_amds(product: str) -> None:
    root = ROOT_OF[product]
    assert hashlib.sha256(root.spki).hexdigest() == SPKI_DIGESTS[product]
    certificate = parse_certificate((DEVICES / f"{product.lower()}_ark.der").read_bytes())
    assert certificate.spki == root.spki
    assert certificate.common_name == f"ARK-{product}"
    assert certificate.signed_by(certificate)
    assert not root.simulated


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_of_the_corpus(case: Case) -> None:
    assert outcome(case) == case.expected("authentic")["verdict"]


@pytest.mark.parametrize("case", [one for one in CASES if "expected_strict" in one.entry], ids=lambda case: case.name)
def test_a_case_of_the_corpus_under_strict_demands(case: Case) -> None:
    if case.expected("authentic")["verdict"] != "ok":
        return
    claims = Claims(quote=verify(case), now_ms=case.at * 1000)  # type: ignore[arg-type,unused-ignore]
    failures = AllOf(snp_rules(STRICT_SNP), "snp").failures(claims)
    assert ("reject" if failures else "ok") == case.expected("strict")["verdict"]


def test_memory_changes_no_verdict() -> None:
    seen = PathCache()
    for case in CASES:
        if outcome(case) == "ok":
            assert verify(case, seen) == verify(case, seen) == verify(case)


def test_a_real_turin_report() -> None:
    case = next(one for one in CASES if one.name == "snp-v5-turin-mstav-85da705e")
    verified = verify(case)
    assert (verified.product, verified.key_type, verified.quote_version) == ("Turin", "VCEK", 5)
    assert verified.reported_tcb.fmc == 1
    assert verified.hwid == verified.report.chip_id[:8]
    assert verified.ek_serial_hex == "0"
    assert verified.platform.iommu_write_safe
    assert verified.platform.unknown == verified.policy.unknown == 0
    assert verified.revocation == "unchecked"
    claims = Claims(quote=verified, now_ms=case.at * 1000)  # type: ignore[arg-type,unused-ignore]
    found = AllOf(snp_rules(SnpDemands()), "snp").failures(claims)
    assert [error.code for error in found] == ["REVOCATION_UNCHECKED", "POLICY_EMPTY"]


def test_a_real_vlek_report() -> None:
    verified = verify(next(one for one in CASES if one.name == "snp-v3-milan-trustee-decdab94"))
    assert (verified.key_type, verified.csp_id, verified.hwid) == ("VLEK", "CN=cc-us-east-2.amazonaws.com", None)
    assert verified.platform_ids == ()
    assert verified.registers["csp_id"] == b"CN=cc-us-east-2.amazonaws.com"
    assert any("names no chip" in warning for warning in snp_warnings(verified))


def endorsements(name: str) -> list[Certificate]:
    product = name.partition("-")[0]
    files = (AZURE / f"{name}.vcek.der", DEVICES / f"{product}_ask.der", DEVICES / f"{product}_ark.der")
    return [parse_certificate(path.read_bytes()) for path in files]


@pytest.mark.parametrize("name", list(BLOBS))
def test_a_real_blob_of_azure(name: str) -> None:
    blob = (AZURE / f"{name}.hcl.bin").read_bytes()
    verified = verify_snp_report(
        report=blob, endorsements=endorsements(name), crls=(), trust_roots=AMD_ROOTS, now_ms=BLOBS[name]
    )
    assert verified.runtime_data is not None
    assert b"HCLAkPub" in verified.runtime_data
    assert verified.report.report_data == hashlib.sha256(verified.runtime_data).digest() + bytes(32)
    assert verified.report_data != verified.report.report_data
    bound = verify_snp_report(
        report=blob, endorsements=endorsements(name), crls=(), trust_roots=AMD_ROOTS, now_ms=BLOBS[name],
        report_data=verified.report_data,
    )  # fmt: skip
    assert bound == verified


def test_every_byte_of_a_blob_counts() -> None:
    """Whatever byte of it is changed, the blob is refused, or says the same; nothing of it can be exchanged."""
    blob = bytearray((AZURE / "genoa-v3.hcl.bin").read_bytes())
    held = endorsements("genoa-v3")
    accepted = set()
    for at in range(0, len(blob), 13):
        changed = blob.copy()
        changed[at] ^= 0x10
        try:
            verify_snp_report(
                report=bytes(changed), endorsements=held, crls=(), trust_roots=AMD_ROOTS, now_ms=BLOBS["genoa-v3"],
                chains_seen=SEEN,
            )  # fmt: skip
        except VerificationError:
            continue
        accepted.add(at)
    assert accepted <= set(range(12, 16)), "only request_type, which says nothing of the report"


SEEN = PathCache()


def test_the_notice_names_every_blob() -> None:
    notice = (AZURE / "NOTICE").read_text()
    for path in AZURE.iterdir():
        if path.name != "NOTICE":
            assert hashlib.sha256(path.read_bytes()).hexdigest() in notice
