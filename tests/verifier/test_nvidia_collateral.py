"""A set of collateral with anybody's items in it: they refuse no honest host, and stand for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.forge.composite.world import DAY, DRIVER_RIM, GPU_0, NOW, SNP, TDX, VBIOS_RIM, Case, minted_rim
from tests.forge.dcap.certificates import Cert, Crl, issue_crl
from tests.forge.nvidia.certificates import Answer, List, answer_bytes, issue_list
from tests.forge.rim import world as rim
from tests.forge.snp.certificates import issue_crl as issue_ark_crl
from tests.forge.snp.world import CRL, GENOA
from verifier import vendor_collateral
from verifier.composite import Memory
from verifier.errors import OcspSignature, ReferenceMissing
from verifier.limits import MAX_RIM_CANDIDATES, MAX_RIMS_REMEMBERED
from verifier.session import VerifiedSession, verify_session
from verifier.trust.roots import Root
from verifier.trust.store import Collateral
from verifier.vendor_collateral import RimShelf

HOST = TDX.but(sensors=(), gpus=(GPU_0,))
CHAIN = GPU_0.certificates()


def session(*added: bytes, host: Any = HOST) -> VerifiedSession:
    """The session of an honest host, with more in its set of collateral."""
    given = Case(name="set", code="", step=None, host=host).arguments()
    held: Collateral = given["collateral"]
    return verify_session(**{**given, "collateral": held.merged(Collateral.of(added))})


def forged_list(place: int) -> bytes:
    what = List(
        issuer=place, this_update=NOW - 60, next_update=NOW + DAY, signed_with="attacker",
        revoked=tuple(one.serial for one in CHAIN),
    )  # fmt: skip
    return issue_list(what, CHAIN[place])


def forged_answer(place: int, **how: Any) -> bytes:
    what = Answer(about=place, this_update=NOW - 60, next_update=NOW + DAY, status="revoked", **how)
    return answer_bytes(what, CHAIN)


def junk_manifests(count: int) -> list[bytes]:
    """They come before the genuine ones, and say the versions of both."""
    genuine = minted_rim(DRIVER_RIM)
    at = genuine.index(b" ")
    names = " ".join((DRIVER_RIM.version, VBIOS_RIM.version))
    return [genuine[:at] + f"\t x{number:05d}='{names}'".encode() + genuine[at:] for number in range(count)]


@pytest.mark.parametrize("place", range(4))
def test_a_list_of_somebody_under_the_name_of_a_ca(place: int) -> None:
    assert session(forged_list(place)).first_mile == "GPU_ATTESTED"


@pytest.mark.parametrize("place", range(1, 5))
@pytest.mark.parametrize(
    "how",
    [{"signed_with": "attacker"}, {"responder": {"signed_with": "attacker"}}, {"certificates": False}],
    ids=["response", "responder", "no responder"],
)
def test_an_answer_of_somebody(place: int, how: dict[str, Any]) -> None:
    assert session(forged_answer(place, **how)).first_mile == "GPU_ATTESTED"


def test_an_answer_of_somebody_stands_for_none() -> None:
    host = HOST.but(gpus=(GPU_0.but(answers=GPU_0.answers[:2]),))
    with pytest.raises(OcspSignature):
        session(forged_answer(3, signed_with="attacker"), host=host)


@pytest.mark.parametrize("issuer", [rim.ROOT, rim.CA, rim.L3], ids=["root", "CA", "L3"])
def test_a_list_of_somebody_about_the_manifests_signers(issuer: Cert) -> None:
    """Also where nothing else speaks of them, which an operator's own manifests do not need."""
    forged = Crl(this_update=NOW - 60, next_update=NOW + DAY, digest="sha384", revoked=(rim.SIGNER.serial,))
    found = session(issue_crl(replace(forged, signed_with="attacker"), issuer))
    assert found.first_mile == "GPU_ATTESTED"


def test_manifests_are_checked_only_if_their_signer_is() -> None:
    """Who signs manifests is named by the last of three lists."""
    current = Crl(this_update=NOW - DAY, next_update=NOW + DAY, digest="sha384")
    lists = [issue_crl(current, one) for one in (rim.ROOT, rim.CA, rim.L3)]
    for given, state in ((lists, "checked"), (lists[:2], "unchecked"), (lists[1:], "unchecked")):
        (device,) = session(*given).claims.devices
        evidence: Any = device.evidence
        assert {one.revocation for one in evidence.rims} == {state}


def test_a_list_of_somebody_under_the_name_of_the_ark() -> None:
    forged = issue_ark_crl(replace(CRL, signed_with="stranger", revoked=(0x10001,)), GENOA.chain()[2])
    quote: Any = session(forged, host=SNP.but(gpus=(), sensors=(), rims=())).claims.quote
    assert quote.revocation == "checked"


def test_manifests_of_nobody_do_not_crowd_out_the_genuine_ones() -> None:
    assert session(*junk_manifests(MAX_RIM_CANDIDATES + 8)).first_mile == "GPU_ATTESTED"
    with pytest.raises(ReferenceMissing):
        session(*junk_manifests(2), host=HOST.but(rims=()))


def test_a_set_s_manifests_are_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are more of them than the shelf has places."""
    given = Case(name="set", code="", step=None, host=HOST).arguments()
    held = given["collateral"].merged(Collateral.of(junk_manifests(6)))
    seen: list[bytes] = []
    verified = vendor_collateral._verified

    def counted(data: bytes, roots: tuple[Root, ...]) -> Any:
        seen.append(data)
        return verified(data, roots)

    monkeypatch.setattr(vendor_collateral, "_verified", counted)
    memory = Memory(rims=RimShelf(2))
    for _ in range(3):
        assert verify_session(**{**given, "collateral": held}, memory=memory).first_mile == "GPU_ATTESTED"
    assert len(seen) <= 2 * len(held.rims)
    before = len(seen)
    verify_session(**{**given, "collateral": held, "now_ms": given["now_ms"] + 1}, memory=memory)
    assert len(seen) == before


def test_what_is_remembered_of_a_set_is_bounded() -> None:
    shelf, held = RimShelf(), Collateral.of([minted_rim(DRIVER_RIM)])
    for number in range(MAX_RIMS_REMEMBERED + 9):
        assert shelf._of(held, f"{number}.0", ()) == ()
    assert len(shelf._sets[held]) <= MAX_RIMS_REMEMBERED
    del held
    assert len(shelf._sets) == 0


def test_parts_of_a_set_are_sorted_once() -> None:
    held = Collateral.of([minted_rim(DRIVER_RIM), forged_answer(1, signed_with="attacker")])
    assert held.rims is held.rims
    assert held.ocsp_responses is held.ocsp_responses
