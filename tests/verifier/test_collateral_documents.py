"""TCB info, identities and evaluation numbers: what they say is what is written, and what departs is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.forge.dcap.documents import Document, Edit, as_v2, chained, drop, put, text_of
from tests.forge.dcap.documents import evaluation_numbers as forged_numbers
from tests.forge.dcap.documents import qe_identity as forged_identity
from tests.forge.dcap.documents import tcb_info as forged_info
from tests.forge.dcap.world import NOW
from tests.verifier.corpus import documents
from tests.verifier.selecting import Real, real
from verifier.abi.collateral import (
    parse_enclave_identity,
    parse_evaluation_numbers,
    parse_signed,
    parse_tcb_info,
    signed_document,
)
from verifier.errors import CollateralMalformed, CollateralTooLarge, CollateralUnsupported, VerificationError
from verifier.limits import MAX_SIGNED_DOCUMENT_BYTES
from verifier.tcb.status import TcbStatus

FMSPC = bytes.fromhex("00806f050000")
SIGNATURE = "5a" * 64


def info(tee: str = "tdx", **changes: Any) -> Document:
    base = forged_info(tee=tee, fmspc=FMSPC, pce_id=bytes(2), issued=NOW, next_update=NOW + 60, number=20)
    return base | changes


def identity() -> Document:
    return forged_identity(tee="tdx", issued=NOW, next_update=NOW + 60, number=20)


def numbers() -> Document:
    return forged_numbers(tee="tdx", issued=NOW, next_update=NOW + 60)


def ms(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()) * 1000


def svns(components: list[dict[str, int]]) -> tuple[int, ...]:
    return tuple(one["svn"] for one in components)


@pytest.mark.parametrize("one", real(), ids=lambda one: one.name)
def test_real_tcb_info_says_what_is_written(one: Real) -> None:
    plain, found = json.loads(one.json["tcb_info"]), parse_tcb_info(one.json["tcb_info"].encode())
    assert found.tee == plain.get("id", "SGX").lower()
    assert (found.version, found.evaluation_number) == (plain["version"], plain["tcbEvaluationDataNumber"])
    assert (found.issued_ms, found.next_update_ms) == (ms(plain["issueDate"]), ms(plain["nextUpdate"]))
    assert (found.fmspc, found.pce_id) == (bytes.fromhex(plain["fmspc"]), bytes.fromhex(plain["pceId"]))
    for level, written in zip(found.levels, plain["tcbLevels"], strict=True):  # delivered in descending order
        tcb = written["tcb"]
        if found.version == 3:
            assert level.sgx_svns == svns(tcb["sgxtcbcomponents"])
        else:
            assert level.sgx_svns == tuple(tcb[f"sgxtcbcomp{i:02}svn"] for i in range(1, 17))
        assert level.tdx_svns == (svns(tcb["tdxtcbcomponents"]) if found.tee == "tdx" else None)
        assert (level.pce_svn, level.status) == (tcb["pcesvn"], written["tcbStatus"])
        assert level.tcb_date_ms == ms(written["tcbDate"])
        assert level.advisory_ids == tuple(written.get("advisoryIDs", ()))
    for module, written in zip(found.tdx_module_identities, plain.get("tdxModuleIdentities", []), strict=True):
        assert (module.id, module.mrsigner) == (written["id"], bytes.fromhex(written["mrsigner"]))
        assert [level.isv_svn for level in module.levels] == [it["tcb"]["isvsvn"] for it in written["tcbLevels"]]
    if found.tee == "tdx":
        assert found.tdx_component_names[0] == "TDX Module"
        assert found.sgx_component_names[0] == "Early Microcode Update"


@pytest.mark.parametrize("one", real(), ids=lambda one: one.name)
def test_real_identity_says_what_is_written(one: Real) -> None:
    plain, found = json.loads(one.json["qe_identity"]), parse_enclave_identity(one.json["qe_identity"].encode())
    assert (found.id, found.version, found.isv_prod_id) == (plain["id"], 2, plain["isvprodid"])
    for name in ("miscselect", "attributes", "mrsigner"):
        assert getattr(found, name) == bytes.fromhex(plain[name])
    assert found.miscselect_mask == bytes.fromhex(plain["miscselectMask"])
    assert found.attributes_mask == bytes.fromhex(plain["attributesMask"])
    assert [level.isv_svn for level in found.levels] == [level["tcb"]["isvsvn"] for level in plain["tcbLevels"]]


def test_evaluation_numbers_come_newest_first() -> None:
    document = numbers()
    document["tcbEvalNumbers"].reverse()
    found = parse_evaluation_numbers(text_of(document))
    assert (found.tee, [one.number for one in found.numbers]) == ("tdx", [20, 19, 18])
    assert found.numbers[0].tcb_date_ms == ms("2025-08-13T00:00:00Z")


@pytest.mark.parametrize("space", ["", " \n\t"])
def test_the_signed_bytes_are_the_delivered_ones(space: str) -> None:
    inner = json.dumps(info(), indent=3)
    found = parse_signed(f'{space}{{{space}"tcbInfo"{space}:{space}{inner}{space},"signature":"{SIGNATURE}"}}{space}')
    assert found.signed_bytes == inner.encode()
    assert found.signature == bytes.fromhex(SIGNATURE)
    assert found.document == parse_tcb_info(inner)


def test_members_of_the_envelope_come_in_any_order() -> None:
    inner = text_of(numbers())
    text = f'{{"signature":"{SIGNATURE}","x":[1],"tcbEvaluationDataNumbers":{inner}}}'
    assert parse_signed(text.encode()).signed_bytes == inner.encode()


ENVELOPES = {
    "no document": f'{{"signature":"{SIGNATURE}"}}',
    "two documents": f'{{"tcbInfo":{{}},"enclaveIdentity":{text_of(identity())},"signature":"{SIGNATURE}"}}',
    "a document that is text": f'{{"tcbInfo":"x","signature":"{SIGNATURE}"}}',
    "no signature": f'{{"tcbInfo":{text_of(info())}}}',
    "a short signature": f'{{"tcbInfo":{text_of(info())},"signature":"5a"}}',
    "a signature with spaces": f'{{"tcbInfo":{text_of(info())},"signature":"{"5a " * 42}5a"}}',
    "a signature of digits": f'{{"tcbInfo":{text_of(info())},"signature":5}}',
    "the document twice": f'{{"tcbInfo":{text_of(info())},"tcbInfo":{text_of(info())},"signature":"{SIGNATURE}"}}',
    "no object": "[]",
}


@pytest.mark.parametrize("text", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_other_envelopes_are_refused(text: str) -> None:
    with pytest.raises(CollateralMalformed):
        parse_signed(text)


def test_the_first_identity_format_is_named_as_unsupported() -> None:
    document = identity() | {"version": 1}
    for name in ("qeIdentity", "enclaveIdentity"):
        with pytest.raises(CollateralUnsupported):
            parse_signed(f'{{"{name}":{text_of(document)},"signature":"{SIGNATURE}"}}')


def test_a_document_too_large_is_not_parsed() -> None:
    with pytest.raises(CollateralTooLarge):
        parse_tcb_info(" " * MAX_SIGNED_DOCUMENT_BYTES + text_of(info()))


def first(*path: str | int) -> tuple[str | int, ...]:
    return ("tcbLevels", 0, *path)


SGX = first("tcb", "sgxtcbcomponents")
TDX = first("tcb", "tdxtcbcomponents")
MALFORMED: dict[str, tuple[Edit, str]] = {
    "no version": (drop("version"), "tcb_info.version"),
    "version true": (put("version", to=True), "tcb_info.version"),
    "version text": (put("version", to="3"), "tcb_info.version"),
    "another TEE": (put("id", to="SNP"), "tcb_info.id"),
    "no id": (drop("id"), "tcb_info.id"),
    "no tcbType": (drop("tcbType"), "tcb_info.tcbType"),
    "FMSPC too short": (put("fmspc", to="00"), "tcb_info.fmspc"),
    "FMSPC with spaces": (put("fmspc", to="0080 6f05 00"), "tcb_info.fmspc"),
    "FMSPC not hexadecimal": (put("fmspc", to="zz806f050000"), "tcb_info.fmspc"),
    "PCE id null": (put("pceId", to=None), "tcb_info.pceId"),
    "a negative evaluation number": (put("tcbEvaluationDataNumber", to=-1), "tcb_info.tcbEvaluationDataNumber"),
    "a huge evaluation number": (put("tcbEvaluationDataNumber", to=1 << 32), "tcb_info.tcbEvaluationDataNumber"),
    "a date of another form": (put("issueDate", to="2026-W06-1T00:00:00Z"), "tcb_info.issueDate"),
    "a date in other digits": (put("issueDate", to="٢٠٢٦-02-02T00:00:00Z"), "tcb_info.issueDate"),
    "a date with an offset": (put("issueDate", to="2026-02-02T00:00:00+00:00"), "tcb_info.issueDate"),
    "the thirtieth of February": (put("nextUpdate", to="2026-02-30T00:00:00Z"), "tcb_info.nextUpdate"),
    "a leap second": (put("nextUpdate", to="2026-06-30T23:59:60Z"), "tcb_info.nextUpdate"),
    "the year zero": (put("nextUpdate", to="0000-06-30T23:59:00Z"), "tcb_info.nextUpdate"),
    "levels that are no array": (put("tcbLevels", to={}), "tcb_info.tcbLevels"),
    "a level that is no object": (put("tcbLevels", 0, to=1), "tcb_info.tcbLevels"),
    "a tcb that is no object": (put(*first("tcb"), to=[]), "tcb_info.tcbLevels.tcb"),
    "a level without tcb": (drop(*first("tcb")), "tcb_info.tcbLevels.tcb"),
    "a level without date": (drop(*first("tcbDate")), "tcb_info.tcbLevels.tcbDate"),
    "a level without status": (drop(*first("tcbStatus")), "tcb_info.tcbLevels.tcbStatus"),
    "advisories null": (put(*first("advisoryIDs"), to=None), "tcb_info.tcbLevels.advisoryIDs"),
    "an advisory number": (put(*first("advisoryIDs"), to=[1]), "tcb_info.tcbLevels.advisoryIDs"),
    "an advisory with a line break": (put(*first("advisoryIDs"), to=["a\nb"]), "tcb_info.tcbLevels.advisoryIDs"),
    "a very long advisory": (put(*first("advisoryIDs"), to=["a" * 65]), "tcb_info.tcbLevels.advisoryIDs"),
    "components as an object": (put(*SGX, to={}), "tcb_info.tcbLevels.sgxtcbcomponents"),
    "a component that is a number": (put(*SGX, 3, to=7), "tcb_info.tcbLevels.sgxtcbcomponents"),
    "a component that is an array": (put(*SGX, 3, to=[["svn", 1]]), "tcb_info.tcbLevels.sgxtcbcomponents"),
    "an empty component": (put(*SGX, 3, to={}), "tcb_info.tcbLevels.sgxtcbcomponents"),
    "a component with another name": (put(*SGX, 3, to={"snv": 3}), "tcb_info.tcbLevels.sgxtcbcomponents"),
    "a component SVN null": (put(*TDX, 15, "svn", to=None), "tcb_info.tcbLevels.tdxtcbcomponents"),
    "a component SVN beyond all": (put(*TDX, 15, "svn", to=10**30), "tcb_info.tcbLevels.tdxtcbcomponents"),
    "a category that is no text": (put(*SGX, 0, to={"svn": 5, "category": 1}), "tcb_info.tcbLevels.category"),
    "a type that is an array": (put(*SGX, 0, to={"svn": 5, "type": []}), "tcb_info.tcbLevels.type"),
    "no tdxModule": (drop("tdxModule"), "tcb_info.tdxModule"),
    "a tdxModule that is text": (put("tdxModule", to="x"), "tcb_info.tdxModule"),
    "no module identities": (put("tdxModuleIdentities", to=[]), "tcb_info.tdxModuleIdentities"),
    "module identities null": (put("tdxModuleIdentities", to=None), "tcb_info.tdxModuleIdentities"),
    "a module identity without id": (drop("tdxModuleIdentities", 0, "id"), "tcb_info.tdxModuleIdentities.id"),
    "one module in two writings": (
        put("tdxModuleIdentities", 0, "id", to="tdx_01"),
        "tcb_info.tdxModuleIdentities",
    ),
    "a module without levels": (
        put("tdxModuleIdentities", 0, "tcbLevels", to=[]),
        "tcb_info.tdxModuleIdentities.tcbLevels",
    ),
    "a module ISVSVN of 65536": (
        put("tdxModuleIdentities", 0, "tcbLevels", 0, "tcb", "isvsvn", to=65536),
        "tcb_info.tdxModuleIdentities.tcbLevels.isvsvn",
    ),
    "nested members that nobody reads": (
        put("later", to=json.loads("[" * 40 + "]" * 40)),
        "tcb_info",
    ),
}


@pytest.mark.parametrize(("edit", "field"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_tcb_info_is_refused_by_member(edit: Edit, field: str) -> None:
    with pytest.raises(CollateralMalformed) as caught:
        parse_tcb_info(text_of(edit(info())))
    assert caught.value.field == field


MALFORMED_IDENTITIES: dict[str, tuple[Edit, str]] = {
    "another enclave": (put("id", to="PCE"), "qe_identity.id"),
    "MISCSELECT of 3 bytes": (put("miscselect", to="000000"), "qe_identity.miscselect"),
    "attributes of 15 bytes": (put("attributes", to="11" * 15), "qe_identity.attributes"),
    "ISVPRODID of 65536": (put("isvprodid", to=65536), "qe_identity.isvprodid"),
    "an ISVSVN of -1": (put("tcbLevels", 0, "tcb", "isvsvn", to=-1), "qe_identity.tcbLevels.isvsvn"),
    "SWHardeningNeeded": (put("tcbLevels", 0, "tcbStatus", to="SWHardeningNeeded"), "qe_identity.tcbLevels.tcbStatus"),
}


@pytest.mark.parametrize(("edit", "field"), MALFORMED_IDENTITIES.values(), ids=MALFORMED_IDENTITIES.keys())
def test_malformed_identity_is_refused_by_member(edit: Edit, field: str) -> None:
    with pytest.raises(CollateralMalformed) as caught:
        parse_enclave_identity(text_of(edit(identity())))
    assert caught.value.field == field


MALFORMED_NUMBERS: dict[str, tuple[Edit, str]] = {
    "no numbers": (put("tcbEvalNumbers", to=[]), "tcb_evaluation_numbers.tcbEvalNumbers"),
    "a number twice": (
        put("tcbEvalNumbers", 0, "tcbEvaluationDataNumber", to=19),
        "tcb_evaluation_numbers.tcbEvalNumbers",
    ),
    "no date": (drop("tcbEvalNumbers", 0, "tcbDate"), "tcb_evaluation_numbers.tcbEvalNumbers.tcbDate"),
    "an entry that is no object": (put("tcbEvalNumbers", 0, to=1), "tcb_evaluation_numbers.tcbEvalNumbers"),
    "another TEE": (put("id", to="SNP"), "tcb_evaluation_numbers.id"),
}


@pytest.mark.parametrize(("edit", "field"), MALFORMED_NUMBERS.values(), ids=MALFORMED_NUMBERS.keys())
def test_malformed_numbers_are_refused_by_member(edit: Edit, field: str) -> None:
    with pytest.raises(CollateralMalformed) as caught:
        parse_evaluation_numbers(text_of(edit(numbers())))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "document",
    [
        info(version=1),
        info(version=4),
        info(tcbType=1),
        info(version=2),
        as_v2(info("sgx")) | {"id": "TDX"},
    ],
)
def test_other_versions_and_types_are_unsupported(document: Document) -> None:
    with pytest.raises(CollateralUnsupported):
        parse_tcb_info(text_of(document))
    with pytest.raises(CollateralUnsupported):
        parse_evaluation_numbers(text_of(numbers() | {"version": 2}))


@pytest.mark.parametrize("member", ["tdxModule", "tdxModuleIdentities"])
def test_sgx_tcb_info_has_no_tdx_module(member: str) -> None:
    with pytest.raises(CollateralMalformed):
        parse_tcb_info(text_of(info("sgx") | {member: info()[member]}))


def test_version_2_means_the_same_as_version_3() -> None:
    flat, nested = parse_tcb_info(text_of(as_v2(info("sgx")))), parse_tcb_info(text_of(info("sgx")))
    assert flat.levels == nested.levels
    assert (flat.tee, flat.version) == ("sgx", 2)
    assert set(flat.sgx_component_names) == {None}
    assert parse_tcb_info(text_of(as_v2(info("sgx")) | {"id": "SGX"})).levels == flat.levels


def test_levels_are_sorted_as_matching_walks_them() -> None:
    document = info()
    expected = parse_tcb_info(text_of(document)).levels
    document["tcbLevels"].reverse()
    document["tdxModuleIdentities"][0]["tcbLevels"].reverse()
    found = parse_tcb_info(text_of(document))
    assert found.levels == expected
    assert [level.isv_svn for level in found.tdx_module_identities[0].levels] == [7, 5, 2]


def doubled(**changes: Any) -> Edit:
    """The first level once more, with members of its `tcb` or its own changed."""

    def edit(document: Document) -> Document:
        again = json.loads(json.dumps(document["tcbLevels"][0]))
        for name, value in changes.items():
            (again["tcb"] if name in again["tcb"] else again)[name] = value
        document["tcbLevels"].append(again)
        return document

    return edit


def test_equal_levels_are_refused_whatever_else_they_say() -> None:
    for edit in (doubled(), doubled(tcbStatus="Revoked"), doubled(tcbDate="2020-01-01T00:00:00Z")):
        with pytest.raises(CollateralMalformed):
            parse_tcb_info(text_of(edit(info())))
    assert len(parse_tcb_info(text_of(doubled(pcesvn=12)(info()))).levels) == 5


def test_levels_of_an_enclave_may_differ_by_date_alone() -> None:
    later = doubled(tcbDate="2025-09-01T00:00:00Z", tcbStatus="OutOfDate")
    levels = parse_enclave_identity(text_of(later(identity()))).levels
    assert [level.status for level in levels[:2]] == [TcbStatus.OUT_OF_DATE, TcbStatus.UP_TO_DATE]
    with pytest.raises(CollateralMalformed):
        parse_enclave_identity(text_of(doubled()(identity())))


def test_a_module_has_each_level_once() -> None:
    document = info()
    levels = document["tdxModuleIdentities"][0]["tcbLevels"]
    levels.append(levels[0] | {"tcbDate": "2020-01-01T00:00:00Z"})
    with pytest.raises(CollateralMalformed):
        parse_tcb_info(text_of(document))


def test_components_may_say_their_svn_last() -> None:
    document, expected = info(), parse_tcb_info(text_of(info()))
    for level in document["tcbLevels"]:
        for name in ("sgxtcbcomponents", "tdxtcbcomponents"):
            level["tcb"][name] = [dict(reversed(one.items())) for one in level["tcb"][name]]
    assert parse_tcb_info(text_of(document)) == expected


def test_names_of_components_that_cannot_be_shown_are_left_out() -> None:
    edits = chained(put(*SGX, 0, "type", to="x\x1b[2J"), put(*SGX, 1, "type", to=""), put(*SGX, 2, "type", to="ü"))
    names = parse_tcb_info(text_of(edits(info()))).sgx_component_names
    assert names[:4] == (None, "OS/VMM", None, "BIOS")


def test_members_of_later_formats_are_passed_over() -> None:
    extra = {"later": [{"a": 1, "b": [True, None]}], "flag": True}
    document = info() | extra
    document["tcbLevels"][0] |= extra
    document["tcbLevels"][0]["tcb"] |= extra
    document["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][0] |= extra
    document["tdxModuleIdentities"][0] |= extra
    assert parse_tcb_info(text_of(document)) == parse_tcb_info(text_of(info()))


@pytest.mark.parametrize("case", documents(), ids=lambda case: case.name)
def test_documents_of_the_corpus(case: Any) -> None:
    """Those that Intel's library calls ill-formed do not parse; for the others a signature is still wanting."""
    data = (case.folder / case.entry["files"]["json"]).read_bytes()
    if case.entry["evidence_type"] == "dcap_tcb_eval_numbers":
        found = json.loads(data)
        signed_document("tcb_evaluation_numbers", found["tcbEvalNumbers_raw"], found["signature"])
        return
    try:
        parse_signed(data)
    except VerificationError:
        return
    assert case.entry["expected"]["reason"].endswith(("TCB_INFO_INVALID_SIGNATURE", "IDENTITY_INVALID_SIGNATURE"))
