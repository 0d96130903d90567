"""Quotes that carry no chain: it is found from the roots down, whatever else is at hand and in whatever order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.forge.dcap.certificates import Cert, issue
from tests.forge.dcap.judge import anchor, collateral_of
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.world import DAY, NOW, PCK, PCK_CA, ROOT, SGX3, TDX4, World
from tests.verifier.selecting import NOW_MS
from verifier.errors import CertChainInvalid, CertExpired, VerificationError
from verifier.formats import certification
from verifier.formats.dcap import VerifiedQuote, verify_quote
from verifier.trust.certificate import parse_certificate
from verifier.trust.store import Collateral

EXTENSION = Platform().extension()
LEAF, CA, ROOT_DER = SGX3.pck_chain()
CHAIN = (LEAF, CA, ROOT_DER)
WITHOUT_CHAIN = {
    "type 1": SGX3.but(certification=(1, bytes(36))),
    "type 2": SGX3.but(certification=(2, bytes(276))),
    "type 3": TDX4.but(certification=(3, bytes(404))),
    "type 4": TDX4.but(certification=(4, LEAF)),
}
ATTACKER_ROOT, ATTACKER_CA = replace(ROOT, key="attacker root"), replace(PCK_CA, key="attacker ca")


def leaf(key: str, serial: int, issuer: Cert = PCK_CA, **changes: object) -> bytes:
    return issue(replace(PCK, key=key, serial=serial, extension=EXTENSION, **changes), issuer)  # type: ignore[arg-type]


def judge(
    world: World, *pools: Iterable[bytes], now_ms: int = NOW_MS, endorsed: bool = False, bare: bool = False
) -> VerifiedQuote:
    """The quote verified with certificates in the order given, and its own collateral.

    That comes without its PCK chain, or, `bare`, without any.
    """
    chains = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain")[: 3 if bare else 1]
    minted = world.but(collateral=lambda held: held | dict.fromkeys(chains, "")).mint()
    ders = [der for pool in pools for der in pool]
    held = Collateral.of(ders)
    return verify_quote(
        quote=minted.quote,
        collateral=collateral_of([minted]) if endorsed else held.merged(collateral_of([minted])),
        endorsements=[parse_certificate(der) for der in ders] if endorsed else (),
        trust_roots=[anchor(minted.root)],
        now_ms=now_ms,
    )


JUNK: dict[str, tuple[bytes, ...]] = {
    "PCK certificates of an attacker's CA": tuple(leaf(f"junk {n}", 100 + n, ATTACKER_CA) for n in range(40)),
    "certificates for the genuine PCK key": tuple(leaf("pck", 200 + n, ATTACKER_CA) for n in range(20)),
    "twenty genuine PCK certificates": tuple(leaf(f"fleet {n}", 300 + n) for n in range(20)),
    "the CA's key under another root": (issue(PCK_CA, ATTACKER_ROOT), issue(ATTACKER_ROOT)),
    "CAs by name": tuple(issue(replace(ATTACKER_CA, serial=400 + n), ATTACKER_ROOT) for n in range(20)),
    "the root's key, signed by others": tuple(
        issue(replace(ROOT, signed_with="attacker", serial=500 + n)) for n in range(20)
    ),
    "expired, the PCK certificate": (leaf("pck", 600, not_after=NOW - 5),),
    "expired, the CA": (issue(replace(PCK_CA, serial=601, not_after=NOW - 5), ROOT),),
    "expired, the root": (issue(replace(ROOT, serial=602, not_after=NOW - 5)),),
    "of the future": (leaf("pck", 603, not_before=NOW + DAY, not_after=NOW + 9_000 * DAY),),
    "on other curves": tuple(leaf(f"junk {n}", 700 + n, curve="p384") for n in range(20)),
    "copies": CHAIN * 10,
}


def undated(quote: VerifiedQuote) -> VerifiedQuote:
    """Without what names the set and its times."""
    return replace(quote, used=None, collateral=None, valid_from_ms=0, expires_ms=0)


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
@pytest.mark.parametrize("world", WITHOUT_CHAIN.values(), ids=WITHOUT_CHAIN.keys())
def test_nothing_hides_the_genuine_chain(world: World, junk: tuple[bytes, ...]) -> None:
    expected = judge(world, CHAIN)
    for pools in ((CHAIN, junk), (junk, CHAIN), (junk[::-1], CHAIN[::-1])):
        for endorsed in (False, True):
            found = judge(world, *pools, endorsed=endorsed)
            assert found.valid_from_ms <= NOW_MS <= found.expires_ms <= expected.expires_ms
            assert undated(found) == undated(expected)


def test_the_limit_counts_genuine_keys_and_the_named_platform_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certification, "MAX_PCK_CANDIDATES", 3)
    others = Platform(ppid=bytes(range(16)), cpu_svn=bytes(range(50, 66))).extension()
    fleet = [
        issue(replace(PCK, key=f"fleet {n}", serial=1 + n, extension=others, not_before=1), PCK_CA) for n in range(9)
    ]
    ppid, cpu_svn = Platform().ppid, bytes(Platform().components)
    for data in (ppid + bytes(20), bytes(256) + cpu_svn + bytes(4)):
        judge(SGX3.but(certification=(1, data)), fleet, JUNK["PCK certificates of an attacker's CA"], CHAIN)
    with pytest.raises(VerificationError) as caught:
        judge(SGX3.but(certification=(1, b"")), (*fleet, CA, ROOT_DER))
    assert caught.value.code == "CERTIFICATION_UNSUPPORTED"


def test_of_several_the_valid_one_counts_and_for_as_long_as_it_does() -> None:
    old = leaf("pck", 800, not_after=NOW + DAY)
    new = leaf("pck", 801, not_before=NOW + DAY // 2, not_after=NOW + 9 * DAY)
    world = WITHOUT_CHAIN["type 1"]
    for pool in ((old, new, CA, ROOT_DER), (CA, new, ROOT_DER, old)):
        found = judge(world, pool)
        assert (found.pck_serial_hex, found.expires_ms) == ("320", (NOW + DAY // 2) * 1000 - 1)
        later = judge(world, pool, now_ms=found.expires_ms + 1000)
        assert (later.pck_serial_hex, later.valid_from_ms) == ("321", (NOW + DAY // 2) * 1000)
        with pytest.raises(CertExpired) as caught:
            judge(world, pool, now_ms=(NOW + 10 * DAY) * 1000)
        assert caught.value.holds_from_ms == caught.value.holds_until_ms == (NOW + 10 * DAY) * 1000


REASONS = {
    "another root": ((LEAF, issue(PCK_CA, ATTACKER_ROOT), issue(ATTACKER_ROOT)), "ROOT_UNTRUSTED"),
    "no root": ((LEAF, CA), "CERT_CHAIN_INVALID"),
    "a CA nobody signed": ((LEAF, issue(replace(PCK_CA, signed_with="x"), ROOT), ROOT_DER), "CERT_SIGNATURE"),
    "a PCK certificate nobody signed": ((leaf("pck", 7, signed_with="x"), CA, ROOT_DER), "CERT_SIGNATURE"),
    "a PCK certificate by another name": ((leaf("pck", 7, common_name="PCK"), CA, ROOT_DER), "CERT_ROLE_INVALID"),
    "nothing": ((), "CERTIFICATION_UNSUPPORTED"),
}


@pytest.mark.parametrize(("pool", "code"), REASONS.values(), ids=REASONS.keys())
def test_the_reason_is_named_in_any_order(pool: tuple[bytes, ...], code: str) -> None:
    junk = JUNK["twenty genuine PCK certificates"][:10]
    for ders in ((*pool, *junk), (*junk, *pool)):
        with pytest.raises(VerificationError) as caught:
            judge(WITHOUT_CHAIN["type 1"], ders, bare=True)
        assert caught.value.code == code


@pytest.mark.parametrize("data", [LEAF + CA, b"", LEAF + b"\x00", LEAF * 4])
def test_type_4_is_one_certificate(data: bytes) -> None:
    with pytest.raises(CertChainInvalid) as caught:
        judge(TDX4.but(certification=(4, data)), CHAIN)
    assert caught.value.field == "certification_data"
