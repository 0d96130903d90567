"""A set of collateral: what a platform gets of it at a time, and that nothing else in it hides or replaces that."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from tests.forge.dcap.certificates import TCB_SIGNER_NAME, issue, issue_crl
from tests.forge.dcap.judge import anchor
from tests.forge.dcap.world import (
    DAY,
    NOW,
    PCK_CA,
    PCK_CRL,
    ROOT,
    ROOT_CRL,
    SGX3,
    TCB_SIGNER,
    TDX4,
    World,
    pem,
)  # fmt: skip
from tests.verifier.selecting import NOW_MS, Real, asking, changed, held, real
from verifier.errors import (
    CertConstraint,
    CertExpired,
    CollateralExpired,
    CollateralMalformed,
    CollateralMissing,
    CollateralNotYetValid,
    CollateralTooLarge,
    CrlIssuer,
    TrustRootInvalid,
    VerificationError,
)
from verifier.limits import MAX_COLLATERAL_ITEMS
from verifier.trust import selection
from verifier.trust.certificate import parse_certificate
from verifier.trust.contents import Contents
from verifier.trust.crl import parse_crl
from verifier.trust.store import Collateral, PlatformCollateral

KINDS = ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl", "tcb_signer"]


def kinds(found: PlatformCollateral) -> list[str]:
    return [window.kind for window in found.windows]


@pytest.mark.parametrize("one", real(), ids=lambda one: one.name)
def test_a_real_set_serves_its_platform(one: Real) -> None:
    found = one.asking.of(Collateral.from_json(one.text), one.now_ms)
    assert kinds(found) == KINDS
    assert (found.tcb_info.fmspc, found.tcb_info.pce_id) == (one.asking.fmspc, one.asking.pce_id)
    assert found.qe_identity.id == {"sgx": "QE", "tdx": "TD_QE"}[one.asking.tee]
    assert found.pck_crl.der.hex() == one.json["pck_crl"]
    assert found.root_crl.der.hex() == one.json["root_ca_crl"]
    assert found.valid_from_ms == max(window.issued_ms for window in found.windows)
    assert found.valid_from_ms <= one.now_ms <= found.expires_ms
    numbers = [window.evaluation_number for window in found.windows]
    assert numbers == [found.tcb_info.evaluation_number, found.qe_identity.evaluation_number, None, None, None]


@pytest.mark.parametrize("one", real(), ids=lambda one: one.name)
def test_the_interval_is_exact(one: Real) -> None:
    collateral = Collateral.from_json(one.text)
    found = one.asking.of(collateral, one.now_ms)
    for now_ms in (found.valid_from_ms, found.expires_ms):
        assert one.asking.of(Collateral.from_json(one.text), now_ms).windows == found.windows
    with pytest.raises(CollateralNotYetValid):
        one.asking.of(collateral, found.valid_from_ms - 1)
    with pytest.raises(CollateralExpired):
        one.asking.of(collateral, found.expires_ms + 1)


ENDS = {
    "TCB info": (TDX4.but(tcb_info_window=(NOW - DAY, NOW + 5)), 5_000),
    "QE identity": (TDX4.but(qe_identity_window=(NOW - DAY, NOW + 5)), 5_000),
    "PCK CRL": (TDX4.but(pck_crl=replace(PCK_CRL, next_update=NOW + 5)), 4_999),
    "root CRL": (TDX4.but(root_crl=replace(ROOT_CRL, next_update=NOW + 5)), 4_999),
    "signer": (TDX4.but(tcb_signer=replace(TCB_SIGNER, not_after=NOW + 5)), 5_000),
}


@pytest.mark.parametrize(("world", "last"), ENDS.values(), ids=ENDS.keys())
def test_windows_end_where_both_peers_end_them(world: World, last: int) -> None:
    """JSON and certificates inclusive (both libraries), lists exclusive (dcap-qvl), never later than either."""
    collateral, ask = held(world), asking(world)
    assert ask.of(collateral).expires_ms == NOW_MS + last
    ask.of(held(world), NOW_MS + last)
    with pytest.raises(VerificationError) as caught:
        ask.of(collateral, NOW_MS + last + 1)
    assert caught.value.code in ("COLLATERAL_EXPIRED", "CERT_EXPIRED")


BEGINS = {
    "TCB info": TDX4.but(tcb_info_window=(NOW, NOW + DAY)),
    "QE identity": TDX4.but(qe_identity_window=(NOW, NOW + DAY)),
    "PCK CRL": TDX4.but(pck_crl=replace(PCK_CRL, this_update=NOW)),
    "root CRL": TDX4.but(root_crl=replace(ROOT_CRL, this_update=NOW)),
    "signer": TDX4.but(tcb_signer=replace(TCB_SIGNER, not_before=NOW)),
}


@pytest.mark.parametrize("world", BEGINS.values(), ids=BEGINS.keys())
def test_windows_begin_where_they_say(world: World) -> None:
    collateral, ask = held(world), asking(world)
    assert ask.of(collateral).valid_from_ms == NOW_MS
    with pytest.raises(VerificationError) as caught:
        ask.of(collateral, NOW_MS - 1)
    assert caught.value.code in ("COLLATERAL_NOT_YET_VALID", "CERT_NOT_YET_VALID")


WIDE = TDX4.but(
    qe_identity_window=(NOW - 200 * DAY, NOW + 200 * DAY),
    pck_crl=replace(PCK_CRL, this_update=NOW - 200 * DAY, next_update=NOW + 200 * DAY),
    root_crl=replace(ROOT_CRL, this_update=NOW - 200 * DAY),
)
"""Everything but the TCB info is current for a long time."""


def numbered(number: int, issued: int, until: int, world: World = TDX4) -> World:
    """TCB info of that number, for so many days from now on."""
    return world.but(number=number, qe_number=20, tcb_info_window=(NOW + issued * DAY, NOW + until * DAY))


def test_the_highest_evaluation_number_counts_then_the_newest() -> None:
    worlds = [numbered(20, -3, 27), numbered(19, -1, 29), numbered(20, -2, 28), numbered(18, 0, 30)]
    for seed in range(6):
        random.Random(seed).shuffle(worlds)
        found = asking(TDX4).of(held(*worlds)).tcb_info
        assert (found.evaluation_number, found.issued_ms) == (20, NOW_MS - 2 * DAY * 1000)


def test_the_pick_changes_when_something_better_begins_or_ends() -> None:
    """Between the ends of an answer's interval every moment has that answer, outside another."""
    spans = [(19, -10, 20), (20, -8, -4), (21, 3, 9), (20, 5, 15)]
    worlds = [numbered(*span, WIDE) for span in spans]
    collateral, ask = held(*worlds), asking(TDX4)
    seen = []
    now_ms, end = NOW_MS - 9 * DAY * 1000, NOW_MS + 20 * DAY * 1000
    while now_ms < end:
        found = ask.of(held(*worlds), now_ms)
        assert found.valid_from_ms <= now_ms
        seen.append(found.tcb_info.evaluation_number)
        for moment in (found.valid_from_ms, (found.valid_from_ms + found.expires_ms) // 2, found.expires_ms):
            assert ask.of(collateral, moment).windows == found.windows
        now_ms = found.expires_ms + 1
    assert seen == [19, 20, 19, 21, 20, 19]


def test_the_newest_revocation_list_counts() -> None:
    older = TDX4.but(pck_crl=replace(PCK_CRL, this_update=NOW - 20 * DAY, revoked=(1,)))
    found = asking(TDX4).of(held(older, TDX4))
    assert (found.pck_crl.revokes(1), found.pck_crl.revokes(0x5A01)) == (False, True)


OLD_SIGNER = replace(TCB_SIGNER, serial=0x111, not_before=NOW - 900 * DAY, not_after=NOW - 30 * DAY)


def test_one_signing_key_in_two_certificates() -> None:
    """Intel's was issued anew in 2025 for the same key: any of them that is valid vouches."""
    collateral = held(TDX4, TDX4.but(tcb_signer=OLD_SIGNER))
    assert [w.issued_ms for w in asking(TDX4).of(collateral).windows if w.kind == "tcb_signer"] == [
        TCB_SIGNER.not_before * 1000
    ]
    revoking = replace(ROOT_CRL, revoked=(OLD_SIGNER.serial,))
    asking(TDX4).of(held(TDX4.but(root_crl=revoking), TDX4.but(tcb_signer=OLD_SIGNER, root_crl=revoking)))


CA_SIGNER = replace(TCB_SIGNER, is_ca=True, serial=5, key="ca")
STRANGER = TDX4.but(seed="stranger")
"""The same names, other keys."""

FORGED_NUMBER = TDX4.but(number=99, tcb_info_signed_with="stranger", qe_identity_signed_with="stranger")
FORGED_LISTS = TDX4.but(
    pck_crl=replace(PCK_CRL, this_update=NOW - 1, number=9, signed_with="stranger"),
    root_crl=replace(ROOT_CRL, this_update=NOW - 1, number=9, signed_with="stranger"),
)
BROKEN = {
    "tcb_info": '{"id":"TDX"',
    "qe_identity": "[]",
    "pck_crl": "30030201",
    "root_ca_crl": "zz",
    "tcb_info_issuer_chain": "-----BEGIN CERTIFICATE-----",
    "qe_identity_issuer_chain": pem(bytes(40)) + pem(b"\x30\x03abc"),
}
EXTRAS: dict[str, Callable[[], Collateral]] = {
    "a stranger's world under the same names": lambda: held(STRANGER),
    "documents of a higher number that nobody signed": lambda: held(FORGED_NUMBER),
    "newer lists that nobody signed": lambda: held(FORGED_LISTS),
    "another platform's": lambda: held(SGX3),
    "expired documents": lambda: held(numbered(30, -40, -1)),
    "documents of the future": lambda: held(numbered(30, 1, 20)),
    "what cannot be read": lambda: changed(TDX4.mint().collateral, **BROKEN),
    "members of other types": lambda: changed(TDX4.mint().collateral, tcb_info=1, pck_crl=["x"], root_ca_crl={}),
    "signatures exchanged": lambda: changed(TDX4.mint().collateral, tcb_info_signature="00" * 64),
    "a signer who is a CA": lambda: held(
        TDX4.but(tcb_signer=replace(TCB_SIGNER, is_ca=True, serial=5, key="ca"), number=99)
    ),
    "a signer who is expired": lambda: held(TDX4.but(tcb_signer=replace(OLD_SIGNER, key="old signer"), number=99)),
    "a second copy": lambda: held(TDX4),
    "the root as a certificate of another validity": lambda: held(TDX4.but(root=replace(ROOT, not_after=NOW - 1))),
    "forty signers by name": lambda: Collateral.of(
        [issue(replace(TCB_SIGNER, serial=900 + n, signed_with="stranger"), ROOT) for n in range(40)]
    ),
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS.keys())
def test_nothing_hides_or_replaces_what_is_good(extra: Callable[[], Collateral]) -> None:
    expected, more = asking(TDX4).of(held(TDX4)), extra()
    for collateral in (held(TDX4).merged(more), more.merged(held(TDX4))):
        found = asking(TDX4).of(collateral)
        assert found.windows == expected.windows
        assert (found.tcb_info, found.qe_identity) == (expected.tcb_info, expected.qe_identity)
        assert found.valid_from_ms <= NOW_MS <= found.expires_ms <= expected.expires_ms


def test_what_is_refused_is_the_best_candidates_reason() -> None:
    """Of a genuine document that has expired and a forgery the operator hears of the expired one."""
    with pytest.raises(CollateralExpired) as caught:
        asking(TDX4).of(held(numbered(20, -40, -1), FORGED_NUMBER))
    assert caught.value.field == "tcb_info.next_update"
    assert "out of date since 2026-02-01" in str(caught.value)


def without(*members: str) -> Collateral:
    return changed(TDX4.mint().collateral, **dict.fromkeys(members, ""))


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl"])
def test_what_is_missing_is_named(member: str) -> None:
    with pytest.raises(CollateralMissing) as caught:
        asking(TDX4).of(without(member))
    assert caught.value.field == member


def test_a_missing_issuer_chain_is_named() -> None:
    with pytest.raises(CollateralMissing) as caught:
        asking(TDX4).of(without("tcb_info_issuer_chain", "qe_identity_issuer_chain"))
    assert caught.value.field == "tcb_info.signer"
    assert TCB_SIGNER_NAME in str(caught.value)


UNREADABLE = {
    "tcb_info": "{}",
    "qe_identity": "{}",
    "pck_crl": "3000",
    "root_ca_crl": "3000",
    "tcb_info_issuer_chain": "x",
}


@pytest.mark.parametrize("member", UNREADABLE)
def test_what_cannot_be_read_is_not_called_missing(member: str) -> None:
    members: dict[str, Any] = {member: UNREADABLE[member]}
    if member.endswith("chain"):
        members["qe_identity_issuer_chain"] = ""
    with pytest.raises(CollateralMalformed):
        asking(TDX4).of(changed(TDX4.mint().collateral, **members))


@pytest.mark.parametrize("member", [*UNREADABLE, "qe_identity_issuer_chain"])
def test_what_an_unreadable_file_may_hold_is_not_called_missing(member: str) -> None:
    """A truncated download, say: which kind of thing is in it nobody can tell."""
    members = ["tcb_info_issuer_chain", "qe_identity_issuer_chain"] if member.endswith("chain") else [member]
    with pytest.raises(CollateralMalformed) as caught:
        asking(TDX4).of(without(*members).merged(Collateral.of([b'{"half":'])))
    assert "not JSON" in str(caught.value)


def test_a_float_nobody_reads_is_no_text() -> None:
    with pytest.raises(CollateralMalformed) as caught:
        asking(TDX4).of(changed(TDX4.mint().collateral, tcb_info=1.25))
    assert "not a text" in str(caught.value)
    assert changed(TDX4.mint().collateral, cached_at=1.25).digest == held(TDX4).digest
    text = "\ufeff" + TDX4.mint().collateral_json
    assert Collateral.from_json(text).digest == Collateral.from_json(text.encode()).digest == held(TDX4).digest


def test_which_of_several_signers_vouches_does_not_depend_on_order() -> None:
    """Windows and messages name the newest certificate of the key that signed."""
    younger = replace(TCB_SIGNER, serial=0x222, not_after=TCB_SIGNER.not_after + DAY)
    worlds = [TDX4.but(tcb_signer=one) for one in (OLD_SIGNER, TCB_SIGNER, younger)]
    for order in permutations(worlds):
        signers = [one for one in asking(TDX4).of(held(*order)).windows if one.kind == "tcb_signer"]
        assert [one.next_update_ms for one in signers] == [younger.not_after * 1000]
    gone = [replace(OLD_SIGNER, serial=n, not_after=NOW - n * DAY) for n in (3, 1, 2)]
    for order in permutations(gone):
        with pytest.raises(CertExpired) as caught:
            asking(TDX4).of(held(*(TDX4.but(tcb_signer=one) for one in order)))
        assert "ended at 2026-02-01" in str(caught.value)
    bad = [replace(TCB_SIGNER, is_ca=True), replace(TCB_SIGNER, not_after=NOW - DAY, critical_extra="1.2.3.4")]
    for order in permutations(bad):
        with pytest.raises(CertConstraint) as refused:
            asking(TDX4).of(held(*(TDX4.but(tcb_signer=one) for one in order)))
        assert "no CA" in str(refused.value)


def test_a_signer_that_cannot_be_parsed_is_not_called_missing() -> None:
    broken = issue(TCB_SIGNER, ROOT).replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101"))
    collateral = without("tcb_info_issuer_chain", "qe_identity_issuer_chain").merged(Collateral.of([broken]))
    with pytest.raises(VerificationError) as caught:
        asking(TDX4).of(collateral)
    assert caught.value.code == "CERT_CHAIN_INVALID"


def test_lists_of_other_issuers_do_not_count_as_missing() -> None:
    processor = replace(PCK_CA, common_name="Intel SGX PCK Processor CA", key="processor ca", serial=7)
    other = Collateral.of([issue_crl(PCK_CRL, processor)])
    with pytest.raises(CrlIssuer) as caught:
        asking(TDX4).of(without("pck_crl").merged(other))
    assert caught.value.field == "pck_crl.issuer"


def test_errors_say_what_is_held_instead() -> None:
    with pytest.raises(VerificationError) as caught:
        asking(TDX4).of(held(SGX3))
    assert "held: SGX" in str(caught.value)


def test_only_pinned_keys_of_p256_are_roots() -> None:
    bad = replace(anchor(TDX4.mint().root), spki=b"\x30\x00")
    with pytest.raises(TrustRootInvalid):
        replace(asking(TDX4), anchor=bad).of(held(TDX4))


def test_the_digest_stands_for_the_contents_in_any_order() -> None:
    one, other = held(TDX4), held(SGX3)
    assert one.merged(other).digest == other.merged(one).digest == one.merged(other, one).digest
    assert len({one.digest, other.digest, one.merged(other).digest, Collateral.empty().digest}) == 4
    assert len(one.digest) == 32
    collateral = TDX4.mint().collateral
    for member in collateral:
        assert changed(collateral, **{member: ""}).digest == one.digest or member not in (
            "qe_identity_issuer_chain", "tcb_info_issuer_chain",
        )  # fmt: skip
    assert changed(collateral, pck_crl=collateral["root_ca_crl"]).digest != one.digest


def test_items_of_every_type_make_the_same_set() -> None:
    world = held(TDX4)
    items: list[Any] = [document.signed for document in world.held_documents]
    items += [one.crl for one in world.crls] + list(world.certificates)
    assert Collateral.of(items).digest == world.digest
    assert Collateral.of([TDX4.mint().collateral_json.encode()]).digest == world.digest
    ders = [one.crl.der for one in world.crls] + [one.der for one in world.certificates]
    assert Collateral.of([*items[:2], *ders]).digest == world.digest


def test_certificates_are_told_apart() -> None:
    leaf, ca, root = TDX4.pck_chain()
    collateral = Collateral.of([leaf, ca, root, b"\x30\x03\x30\x01x"])
    assert [one.der for one in collateral.certificates] == [leaf, ca, root]
    assert [one.der for one in collateral.pck_certificates] == [leaf]
    assert [der for der, _ in collateral.unreadable_certificates] == [b"\x30\x03\x30\x01x"]
    assert [one.der for one in collateral.some_certificates(2)] == sorted([leaf, ca, root])[:2]
    assert [one.der for one in collateral.called(PCK_CA.common_name)] == [ca]


def test_a_set_has_an_end() -> None:
    junk = (b"\x30\x04\x30\x02" + n.to_bytes(2, "big") for n in range(MAX_COLLATERAL_ITEMS + 1))
    with pytest.raises(CollateralTooLarge):
        Collateral.of(junk)
    with pytest.raises(CollateralTooLarge):
        Collateral.of(b"junk" for _ in range(MAX_COLLATERAL_ITEMS + 1))
    half = [b"\x30\x04\x30\x02" + n.to_bytes(2, "big") for n in range(MAX_COLLATERAL_ITEMS // 2 + 1)]
    other = [b"\x30\x05\x30\x03\x01" + n.to_bytes(2, "big") for n in range(MAX_COLLATERAL_ITEMS // 2 + 1)]
    with pytest.raises(CollateralTooLarge):
        Collateral.of(half).merged(Collateral.of(other))


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"unknown":1}', b"\xff", b'{"tcb_info":1,"tcb_info":2}'])
def test_what_is_no_set_is_refused(text: bytes) -> None:
    with pytest.raises(CollateralMalformed):
        Collateral.from_json(text)


def test_revocation_is_checked_against_the_list_of_that_time() -> None:
    later = replace(ROOT_CRL, this_update=NOW + DAY, revoked=(TCB_SIGNER.serial,), number=2)
    collateral, ask = held(TDX4, TDX4.but(root_crl=later)), asking(TDX4)
    assert ask.of(collateral).expires_ms == NOW_MS + DAY * 1000 - 1
    with pytest.raises(VerificationError) as caught:
        ask.of(collateral, NOW_MS + DAY * 1000)
    assert (caught.value.code, caught.value.field) == ("CERT_REVOKED", "tcb_info.signer")
    ask.of(collateral)


def test_many_documents_of_one_platform() -> None:
    """An archive: every day's TCB info of a year; an audit gets that of its day."""
    collateral = held(*(numbered(20, -day, 30 - day, WIDE) for day in range(120)))
    for back in (0, 50, 119):
        now_ms = NOW_MS - back * DAY * 1000
        assert asking(TDX4).of(collateral, now_ms).tcb_info.issued_ms == now_ms


def test_best_first_is_by_rank() -> None:
    one = replace(PCK_CRL, number=2)
    contents = Contents()
    for crl in (PCK_CRL, one):
        contents.add_crl(parse_crl(issue_crl(crl, PCK_CA)))
    ordered = selection.best_first(list(contents.crls.values()))
    assert [held_crl.crl.number for held_crl in ordered] == [2, 1]


def test_a_v2_and_a_v3_document_of_one_platform() -> None:
    from tests.forge.dcap.documents import as_v2

    flat = SGX3.but(tcb_info_edit=as_v2, number=19)
    assert asking(SGX3).of(held(flat, SGX3)).tcb_info.version == 3
    assert asking(SGX3).of(held(flat.but(number=21), SGX3)).tcb_info.version == 2


def test_lists_come_in_every_writing() -> None:
    import base64

    collateral = TDX4.mint().collateral
    der = bytes.fromhex(collateral["pck_crl"])
    body = base64.b64encode(der).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    armoured = f"-----BEGIN X509 CRL-----\r\n{lines}\r\n-----END X509 CRL-----\r\n"
    expected = held(TDX4).digest
    for text in (body, lines, armoured, armoured.encode().hex(), der.hex().upper(), f" {der.hex()}\n"):
        assert changed(collateral, pck_crl=text).digest == expected


def test_parsed_certificates_are_kept() -> None:
    collateral = held(TDX4)
    assert collateral.certificates[0] is collateral.certificates[0]
    assert parse_certificate(collateral.certificates[0].der) == collateral.certificates[0]


def test_json_text_may_be_given_as_text_or_bytes() -> None:
    text = json.dumps(TDX4.mint().collateral, indent=2)
    assert Collateral.from_json(text).digest == Collateral.from_json(text.encode()).digest == held(TDX4).digest
