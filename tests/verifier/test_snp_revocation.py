"""Which revocation list of AMD's counts: the operator's, and never one that the host sends with its evidence."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from tests.forge.composite.world import SNP, Case
from tests.forge.snp.world import ASK, CRL
from verifier.errors import CertRevoked, RevocationUnchecked
from verifier.session import VerifiedSession, verify_session
from verifier.trust import list_signature
from verifier.trust.certificate import parse_certificate
from verifier.trust.crl import parse_crl
from verifier.trust.list_signature import signed_list
from verifier.trust.store import Collateral

HOST = SNP.but(gpus=(), sensors=(), rims=())


def pem(label: str, data: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(data).decode()}-----END {label}-----\n".encode()


def session(*, sent: bool, held: bool, revoked: tuple[int, ...] = ()) -> VerifiedSession:
    """The session of a host that sends AMD's list beside its certificates, which revokes some; or whose operator holds
    one that revokes none."""
    minted = SNP.cpu.mint()
    brought = SNP.cpu.but(crls=(replace(CRL, revoked=revoked),)).mint().crls[0]
    text = b"".join(pem("CERTIFICATE", one) for one in minted.certificates)
    given: dict[str, Any] = Case(name="list", code="", step=None, host=HOST).arguments()
    items = [
        replace(one, data=text + (pem("X509 CRL", brought) if sent else b"")) if one.kind == "snp_certificates" else one
        for one in given["evidence"].items
    ]
    given["evidence"] = replace(given["evidence"], items=tuple(items))
    return verify_session(**given | {"collateral": Collateral.of(minted.crls if held else ())})


@pytest.mark.parametrize("sent", [False, True])
def test_only_the_operators_list_satisfies_the_demand(sent: bool) -> None:
    assert session(sent=sent, held=True).claims.quote.revocation == "checked"
    with pytest.raises(RevocationUnchecked):
        session(sent=sent, held=False)


def test_the_hosts_own_list_can_revoke() -> None:
    for held in (False, True):
        with pytest.raises(CertRevoked):
            session(sent=True, held=held, revoked=(ASK.serial,))


def test_a_lists_signature_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the same bytes are parsed."""
    minted, asked = SNP.cpu.mint(), []

    def verify_signed(*given: Any) -> bool:
        asked.append(given)
        return True

    monkeypatch.setattr(list_signature, "verify_signed", verify_signed)
    list_signature._signed.cache_clear()
    for _ in range(3):
        assert signed_list(parse_crl(minted.crls[0]), parse_certificate(minted.certificates[2]))
    list_signature._signed.cache_clear()
    assert len(asked) == 1
