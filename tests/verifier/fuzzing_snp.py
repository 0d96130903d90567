"""Fuzz targets of SNP evidence: reports, Azure's blob, certificate tables, AMD's extensions, whole verifications.

Reports are also changed and signed again: the forged chip's key is at hand, so that hostile values reach the steps
behind the signature.
"""

from __future__ import annotations

import random
from functools import cache

from tests.forge.snp import reports
from tests.forge.snp.keys import ec_sign
from tests.forge.snp.reports import SIGNED
from tests.forge.snp.world import GENUINE, Minted
from tests.verifier.fuzzing import Seed
from tests.verifier.fuzzing_amd import mutate_snp
from tests.verifier.fuzzing_target import Target, Unsound
from verifier.abi import x509
from verifier.abi.amd import encode_certificate_table, parse_certificate_table, parse_ek_extensions
from verifier.abi.der import DerError
from verifier.abi.hcl import parse_hcl_report
from verifier.abi.snp import SNP_REPORT_BYTES, parse_snp_report
from verifier.claims import Claims
from verifier.formats.snp import VerifiedSnpReport, verify_snp_report
from verifier.formats.snp_evidence import parse_snp_evidence, read_endorsements
from verifier.policy.base import AllOf
from verifier.policy.snp import STRICT_SNP, SnpDemands, snp_rules, snp_warnings
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.crl import Crl, parse_crl
from verifier.trust.roots import Root

PLAIN = tuple(name for name, world in GENUINE.items() if world.hcl is None and name != "certificate table")


@cache
def minted(name: str) -> Minted:
    """The forged world of that name, made once."""
    return GENUINE[name].mint()


@cache
def held(name: str) -> tuple[tuple[Certificate, ...], tuple[Crl, ...], Root]:
    """Its certificates, lists and root, parsed."""
    world = minted(name)
    return (
        tuple(map(parse_certificate, world.certificates)),
        tuple(map(parse_crl, world.crls)),
        Root(label="forge", spki=world.root, simulated=False),
    )


@cache
def plain_reports() -> tuple[Seed, ...]:
    return tuple(Seed(name, "snp", minted(name).report, name) for name in PLAIN)


@cache
def evidence() -> tuple[Seed, ...]:
    """Reports as they arrive, with what stands around them."""
    kinds = {"Azure": "hcl"}
    return tuple(Seed(name, kinds.get(name, "snp"), minted(name).report, name) for name in GENUINE)


@cache
def blobs() -> tuple[Seed, ...]:
    return (Seed("Azure", "hcl", minted("Azure").report, "Azure"),)


@cache
def tables() -> tuple[Seed, ...]:
    return tuple(
        Seed(name, "table", reports.table(*entries, page=page))
        for name, entries, page in (
            ("VCEK chain", _entries("Genoa v3"), 0x4000),
            ("VLEK alone", _entries("VLEK of Milan")[:1], 0),
            ("with a list", (*_entries("Turin v5"), reports.Entry("crl", minted("Turin v5").crls[0])), 0x3000),
        )
    )


def _entries(name: str) -> tuple[reports.Entry, ...]:
    kinds = ("vlek" if "VLEK" in name else "vcek", "ask", "ark")
    return tuple(reports.Entry(kind, der) for kind, der in zip(kinds, GENUINE[name].certificates(), strict=True))


@cache
def extensions() -> tuple[Seed, ...]:
    """The sequences of extensions of endorsement keys."""
    found = []
    for name in ("Milan v2", "Turin v5", "VLEK of Genoa"):
        pairs = held(name)[0][0].extensions
        data = b"".join(_extension(oid, value) for oid, value in pairs.items())
        found.append(Seed(name, "der", _tlv(0x30, data)))
    return tuple(found)


def _extension(oid: str, value: bytes) -> bytes:
    numbers = [int(one) for one in oid.removeprefix("1.3.6.1.4.1.3704.1.").split(".")]
    return _tlv(0x30, _tlv(0x06, bytes.fromhex("2b060104019c7801") + bytes(numbers)) + _tlv(0x04, value))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([tag, size] if size < 0x80 else [tag, 0x82, size >> 8, size & 0xFF]) + content


@cache
def endorsements() -> tuple[Seed, ...]:
    """What is sent beside a report: DER one after another, PEM, a table."""
    from tests.verifier.fuzzing import pem_text

    chain = minted("Genoa v3").certificates
    return (
        Seed("DER", "der", b"".join(chain)),
        Seed("PEM", "pem", b"".join(pem_text(b"CERTIFICATE", one) for one in chain)),
        Seed("table", "table", tables()[0].data),
    )


# --- Parsers


def _report(seed: Seed, data: bytes) -> None:
    if parse_snp_report(data).encode() != data:
        raise Unsound("a parsed report is not written as it was read")


def _hcl(seed: Seed, data: bytes) -> None:
    parsed = parse_hcl_report(data)
    if parsed.encode() != data or len(parsed.runtime_digest()) != 64:
        raise Unsound("a parsed blob is not written as it was read")
    parsed.user_data()


def _table(seed: Seed, data: bytes) -> None:
    entries = parse_certificate_table(data)
    if parse_certificate_table(encode_certificate_table(entries)) != entries:
        raise Unsound("a certificate table changes its meaning when it is written")


def _extensions(seed: Seed, data: bytes) -> None:
    try:
        found = x509.extensions_of(data, 0, len(data), "extensions")
    except DerError:  # a certificate's own parser refuses before us
        return
    parsed = parse_ek_extensions({oid: value for oid, (_, value) in found.items()})
    if parse_ek_extensions(parsed.encode()) != parsed:
        raise Unsound("AMD's extensions change their meaning when they are written")


# --- Verification


@cache
def _signed_parts() -> frozenset[bytes]:
    return frozenset(parse_snp_evidence(minted(name).report).raw[:SIGNED] for name in GENUINE)


def _verify(seed: Seed, data: bytes) -> None:
    verified = _verified(seed.group, data)
    if verified.report.encode()[:SIGNED] not in _signed_parts():
        raise Unsound("a report that nobody signed was accepted")


def _verified(name: str, data: bytes) -> VerifiedSnpReport:
    """The claims, after every rule was asked."""
    certificates, crls, root = held(name)
    now_ms = minted(name).at * 1000
    verified = verify_snp_report(report=data, endorsements=certificates, crls=crls, trust_roots=(root,), now_ms=now_ms)
    claims = Claims(quote=verified, now_ms=now_ms)  # type: ignore[arg-type,unused-ignore]
    for demands in (STRICT_SNP, SnpDemands()):
        AllOf(snp_rules(demands), "snp").failures(claims)
    snp_warnings(verified)
    if not verified.registers["measurement"] or verified.reported_tcb.encode() != verified.registers["reported_tcb"]:
        raise Unsound("claims that do not add up")
    return verified


def _sign_again(rng: random.Random, seed: Seed, data: bytes) -> bytes:
    changed = mutate_snp(rng, seed.data, data)[:SNP_REPORT_BYTES].ljust(SNP_REPORT_BYTES, b"\x00")
    world = GENUINE[seed.group]
    r, s = ec_sign(world.ek.key, changed[:SIGNED])
    written = r.to_bytes(48, "little").ljust(72, b"\x00") + s.to_bytes(48, "little").ljust(72, b"\x00")
    return changed[:SIGNED] + written + changed[SIGNED + len(written) :]


def _verify_signed(seed: Seed, data: bytes) -> None:
    _verified(seed.group, data)


SNP_TARGETS = (
    Target("snp_report", plain_reports, _report, 8),
    Target("hcl", blobs, _hcl, 6),
    Target("certificate_table", tables, _table, 6),
    Target("ek_extensions", extensions, _extensions, 8),
    Target("snp_endorsements", endorsements, lambda seed, data: read_endorsements(data) and None, 6),
    Target("verify_snp", evidence, _verify, 4),
    Target("verify_snp_signed", plain_reports, _verify_signed, 4, _sign_again),
)
