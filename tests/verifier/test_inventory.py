"""What a set holds: every item's state, and what a platform still lacks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.forge.dcap.certificates import issue, issue_crl
from tests.forge.dcap.judge import anchor
from tests.forge.dcap.world import DAY, NOW, PCK, PCK_CA, PCK_CRL, ROOT, ROOT_CRL, SGX3, TCB_SIGNER, TDX4, World
from tests.forge.rim import world as rim
from tests.verifier.corpus import Case, documents
from tests.verifier.selecting import NOW_MS, Real, changed, held, real
from verifier.errors import NoTrustRoots
from verifier.inventory import Inventory, Item, take_inventory, to_json
from verifier.trust.certificate import parse_certificate
from verifier.trust.load import load_collateral
from verifier.trust.rim_root import NVIDIA_RIM_ROOT
from verifier.trust.roots import INTEL_SGX_ROOT, Root
from verifier.trust.store import Collateral
from verifier.vendor_inventory import VendorJudge

ANCHOR = anchor(TDX4.mint().root)
CERTIFICATES = ["tcb_signer", "pck_ca", "root_ca"]


def stock(*worlds: World, now_ms: int = NOW_MS, more: Collateral | None = None) -> Inventory:
    collateral = held(*worlds)
    return take_inventory(collateral if more is None else collateral.merged(more), [ANCHOR], now_ms)


def item(inventory: Inventory, kind: str) -> Item:
    (found,) = [one for one in inventory.items if one.kind == kind]
    return found


@pytest.mark.parametrize("one", real(), ids=lambda one: one.name)
def test_a_real_set_is_all_valid(one: Real) -> None:
    found = take_inventory(Collateral.from_json(one.text), [INTEL_SGX_ROOT], one.now_ms)
    assert found.ok
    assert {item.state for item in found.items} == {"valid"}
    assert {item.kind for item in found.items} >= {"tcb_info", "qe_identity", "pck_crl", "root_ca_crl", "tcb_signer"}
    assert {item.root for item in found.items} == {"intel-sgx-root-ca"}
    (platform,) = found.platforms
    assert platform.missing == ()
    assert (platform.tee, platform.fmspc) == (one.asking.tee, one.asking.fmspc)
    expires = one.asking.of(Collateral.from_json(one.text), one.now_ms).expires_ms
    assert platform.expires_ms is not None
    assert 0 <= platform.expires_ms - expires <= 1  # a list ends a millisecond before its next update


@pytest.mark.parametrize("case", documents(), ids=lambda case: case.name)
def test_documents_of_the_corpus(case: Case) -> None:
    path = case.path("json")
    assert path is not None
    found = take_inventory(load_collateral([path]), [INTEL_SGX_ROOT], case.at * 1000)
    assert found.ok is (case.entry["expected"]["verdict"] == "ok")
    assert found.items
    for one in found.items:
        assert (one.state == "valid") is (one.code is None)
        assert bool(one.remedy) is (one.code is not None)
    json.dumps(to_json(found))


STATES = {
    "TCB info expired": (TDX4.but(tcb_info_window=(NOW - 9, NOW - 1)), "tcb_info", "expired", "COLLATERAL_EXPIRED"),
    "TCB info of the future": (
        TDX4.but(tcb_info_window=(NOW + 1, NOW + 9)), "tcb_info", "not_yet_valid", "COLLATERAL_NOT_YET_VALID",
    ),
    "TCB info of a stranger": (
        TDX4.but(tcb_info_signed_with="stranger"), "tcb_info", "refused", "COLLATERAL_SIGNATURE",
    ),
    "identity edited": (
        TDX4.but(qe_identity_sent=lambda text: text + " "), "qe_identity", "refused", "COLLATERAL_SIGNATURE",
    ),
    "PCK CRL expired": (
        TDX4.but(pck_crl=replace(PCK_CRL, next_update=NOW)), "pck_crl", "expired", "COLLATERAL_EXPIRED",
    ),
    "PCK CRL of a stranger": (
        TDX4.but(pck_crl=replace(PCK_CRL, signed_with="stranger")), "pck_crl", "refused", "COLLATERAL_SIGNATURE",
    ),
    "root CRL of the future": (
        TDX4.but(root_crl=replace(ROOT_CRL, this_update=NOW + 1)), "root_ca_crl", "not_yet_valid",
        "COLLATERAL_NOT_YET_VALID",
    ),
    "root CRL of a stranger": (
        TDX4.but(root_crl=replace(ROOT_CRL, signed_with="stranger")), "root_ca_crl", "refused", "COLLATERAL_SIGNATURE",
    ),
    "a list of nobody here": (
        TDX4.but(pck_crl=replace(PCK_CRL, issuer_name="Somebody")), "crl", "refused", "CRL_ISSUER",
    ),
    "signer expired": (
        TDX4.but(tcb_signer=replace(TCB_SIGNER, not_after=NOW - 1)), "tcb_signer", "expired", "CERT_EXPIRED",
    ),
    "signer of the future": (
        TDX4.but(tcb_signer=replace(TCB_SIGNER, not_before=NOW + 1)), "tcb_signer", "not_yet_valid",
        "CERT_NOT_YET_VALID",
    ),
    "signer revoked": (
        TDX4.but(root_crl=replace(ROOT_CRL, revoked=(TCB_SIGNER.serial,))), "tcb_signer", "refused", "CERT_REVOKED",
    ),
    "signer revoked by a list that is out of date": (
        TDX4.but(root_crl=replace(ROOT_CRL, next_update=NOW - 1, revoked=(TCB_SIGNER.serial,))), "tcb_signer",
        "refused", "CERT_REVOKED",
    ),
    "signer is a CA": (
        TDX4.but(tcb_signer=replace(TCB_SIGNER, is_ca=True)), "tcb_signer", "refused", "CERT_CONSTRAINT",
    ),
    "PCK CA revoked": (TDX4.but(root_crl=replace(ROOT_CRL, revoked=(PCK_CA.serial,))), "pck_ca", "refused",
                       "CERT_REVOKED"),
    "PCK CA expired": (TDX4.but(pck_ca=replace(PCK_CA, not_after=NOW - 1)), "pck_ca", "expired", "CERT_EXPIRED"),
    "PCK CA is no CA": (TDX4.but(pck_ca=replace(PCK_CA, is_ca=False, path_length=None)), "pck_ca", "refused",
                        "CERT_CONSTRAINT"),
    "PCK CA may not sign lists": (
        TDX4.but(pck_ca=replace(PCK_CA, usage=(False, False, True, False))), "pck_crl", "refused", "CERT_CONSTRAINT",
    ),
    "root expired": (TDX4.but(root=replace(ROOT, not_after=NOW - 1)), "root_ca", "expired", "CERT_EXPIRED"),
    "root in its own list": (
        TDX4.but(root_crl=replace(ROOT_CRL, revoked=(ROOT.serial,))), "root_ca", "refused", "CERT_REVOKED",
    ),
    "root not signed by itself": (
        TDX4.but(root=replace(ROOT, signed_with="stranger")), "root_ca", "refused", "CERT_SIGNATURE",
    ),
    "root of another name": (
        TDX4.but(root=replace(ROOT, common_name="Intel Root")), "certificate", "refused", "ROOT_UNTRUSTED",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("world", "kind", "state", "code"), STATES.values(), ids=STATES.keys())
def test_one_thing_wrong_is_found_where_it_is(world: World, kind: str, state: str, code: str) -> None:
    found = stock(world)
    assert not found.ok
    one = item(found, kind)
    assert (one.state, one.code) == (state, code)
    assert one.message
    assert one.remedy


def test_what_hangs_on_a_signer_falls_with_it() -> None:
    found = stock(TDX4.but(tcb_signer=replace(TCB_SIGNER, not_after=NOW - 1)))
    assert {one.kind: one.code for one in found.items if one.code} == dict.fromkeys(
        ("tcb_info", "qe_identity", "tcb_signer"), "CERT_EXPIRED"
    )


def test_pck_certificates_are_judged_and_say_their_platform() -> None:
    leaf, *_ = TDX4.pck_chain()
    found = stock(TDX4, more=Collateral.of([leaf]))
    assert found.ok
    one = item(found, "pck_certificate")
    assert one.subject.startswith(TDX4.platform.fmspc.hex().upper())
    assert one.signer == "Intel SGX PCK Platform CA"
    revoked = stock(TDX4.but(pck_crl=replace(PCK_CRL, revoked=(PCK.serial,))), more=Collateral.of([leaf]))
    assert item(revoked, "pck_certificate").code == "CERT_REVOKED"
    stray = Collateral.of([issue(replace(PCK, signed_with="stranger"), PCK_CA)])
    assert item(stock(TDX4, more=stray), "pck_certificate").code == "PCK_EXTENSION_INVALID"
    alone = take_inventory(Collateral.of([leaf]), [ANCHOR], NOW_MS)
    assert item(alone, "pck_certificate").code == "CERT_CHAIN_INVALID"


def test_items_under_an_explicit_root_count() -> None:
    stranger = TDX4.but(seed="stranger")
    both = held(TDX4, stranger)
    roots = [ANCHOR, replace(anchor(stranger.mint().root), label="stranger")]
    assert take_inventory(both, roots, NOW_MS).ok
    only = take_inventory(both, roots[:1], NOW_MS)
    assert not only.ok
    assert {one.code for one in only.items if one.code} >= {"ROOT_UNTRUSTED", "CERT_SIGNATURE"}
    assert {one.root for one in take_inventory(both, roots, NOW_MS).items} == {"forge", "stranger"}


def test_without_roots_nothing_is_judged() -> None:
    with pytest.raises(NoTrustRoots):
        take_inventory(held(TDX4), [], NOW_MS)


def test_an_empty_set_is_not_ok() -> None:
    assert not take_inventory(Collateral.empty(), [ANCHOR], NOW_MS).ok


def test_parts_that_cannot_be_read_stand_with_their_source() -> None:
    found = stock(TDX4, more=Collateral.of([b"junk", b"\x30\x03\x30\x01\x00"]))
    broken = [one for one in found.items if one.state == "unreadable"]
    assert [(one.kind, one.source, one.code) for one in broken] == [
        ("unknown", "item 0", "COLLATERAL_MALFORMED"),
        ("certificate", "item 1", "CERT_CHAIN_INVALID"),
    ]
    assert not found.ok


def test_items_are_sorted_documents_first() -> None:
    found = stock(SGX3, TDX4)
    assert [one.kind for one in found.items] == [
        "tcb_info", "tcb_info", "qe_identity", "qe_identity", "root_ca_crl", "pck_crl", *CERTIFICATES,
    ]  # fmt: skip
    assert [one.subject.split()[0] for one in found.items[:4]] == ["SGX", "TDX", "QE", "TD_QE"]


MISSING = {
    "TCB info expired": (held(TDX4.but(tcb_info_window=(NOW - 9, NOW - 1))), ("tcb_info",)),
    "no identity": (changed(TDX4.mint().collateral, qe_identity=""), ("qe_identity",)),
    "the other TEE's identity": (held(TDX4.but(qe_identity_tee="sgx")), ("qe_identity",)),
    "no lists": (changed(TDX4.mint().collateral, pck_crl="", root_ca_crl=""), ("root_ca_crl", "pck_crl")),
    "no PCK CA": (changed(TDX4.mint().collateral, pck_crl_issuer_chain=""), ("pck_crl",)),
}


@pytest.mark.parametrize(("collateral", "missing"), MISSING.values(), ids=MISSING.keys())
def test_what_a_platform_lacks(collateral: Collateral, missing: tuple[str, ...]) -> None:
    (platform,) = take_inventory(collateral, [ANCHOR], NOW_MS).platforms
    assert platform.missing == missing


def test_a_platform_needs_the_list_of_its_own_ca() -> None:
    """Known where its PCK certificate is at hand; else any PCK CA's list will do."""
    processor = replace(PCK_CA, common_name="Intel SGX PCK Processor CA", key="processor ca", serial=7)
    lists = Collateral.of([issue(processor, ROOT), issue_crl(PCK_CRL, processor)])
    only = changed(TDX4.mint().collateral, pck_crl="").merged(lists)
    (platform,) = take_inventory(only, [ANCHOR], NOW_MS).platforms
    assert (platform.missing, platform.pck_cas) == ((), ("Intel SGX PCK Processor CA",))
    (platform,) = take_inventory(only.merged(Collateral.of([TDX4.pck_chain()[0]])), [ANCHOR], NOW_MS).platforms
    assert platform.missing == ("pck_crl",)


def test_a_platform_gets_the_best_of_its_kind() -> None:
    newer = TDX4.but(number=21, tcb_info_window=(NOW - DAY, NOW + 2 * DAY))
    (platform,) = stock(TDX4, newer).platforms
    assert (platform.evaluation_number, platform.qe_evaluation_number) == (21, 21)
    assert platform.expires_ms == NOW_MS + 2 * DAY * 1000


def test_as_json() -> None:
    found = to_json(stock(TDX4.but(tcb_info_window=(NOW - 3 * DAY, NOW - DAY))))
    assert json.loads(json.dumps(found)) == found
    assert (found["ok"], found["at"]) == (False, "2026-02-02T06:40:00Z")
    assert found["states"] == {"valid": 6, "expired": 1, "not_yet_valid": 0, "refused": 0, "unreadable": 0}
    assert found["earliest_expiry"] == "2026-02-27T06:40:00Z"
    first = found["items"][0]
    assert (first["kind"], first["state"], first["code"], first["days_left"]) == (
        "tcb_info", "expired", "COLLATERAL_EXPIRED", -1,
    )  # fmt: skip
    assert first["next_update"] == "2026-02-01T06:40:00Z"
    assert found["platforms"] == [
        {
            "tee": "tdx",
            "fmspc": TDX4.platform.fmspc.hex(),
            "pce_id": TDX4.platform.pce_id.hex(),
            "complete": False,
            "missing": ["tcb_info"],
            "pck_cas": ["Intel SGX PCK Platform CA"],
            "tcb_evaluation_number": None,
            "qe_evaluation_number": 20,
            "expires": "2026-02-27T06:40:00Z",
            "days_left": 25,
        }
    ]


@pytest.mark.parametrize("years", [0, 100])
def test_a_manifest_stands_under_its_own_root(years: int) -> None:
    """An operator's, beside NVIDIA's root: current, or expired."""
    own = Root(label="operator", spki=parse_certificate(issue(rim.ROOT)).spki, simulated=False)
    data, now_ms = rim.DRIVER.mint(), NOW_MS + years * 365 * DAY * 1000
    found = VendorJudge(Collateral.of([data]), (), (NVIDIA_RIM_ROOT, own), now_ms).rim(data).finding
    assert found.root == "operator"
    assert (None if found.error is None else found.error.code) == ("CERT_EXPIRED" if years else None)
    alone = VendorJudge(Collateral.of([data]), (), (NVIDIA_RIM_ROOT,), now_ms).rim(data).finding
    assert alone.root is None
