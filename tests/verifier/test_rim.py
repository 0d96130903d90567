"""Reference integrity manifests: NVIDIA's own, what a comparison says, and every bit of a signed one."""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forge.rim.judge import root_of
from tests.forge.rim.world import DRIVER, NOW, OPERATOR, SWITCH, VBIOS, value_of
from tests.verifier.corpus import Case, cases
from tests.verifier.vectors import DATA
from verifier.abi.nvidia import parse_nvidia_report
from verifier.abi.nvidia_opaque import read_facts
from verifier.abi.rim import RimDocument, RimEntry, driver_rim_id, is_rim, kind_of, parse_rim, vbios_rim_id
from verifier.abi.xml import C14N_11, EXCLUSIVE_C14N, canonical, parse_xml
from verifier.abi.xmldsig import parse_signed_xml
from verifier.errors import ReferenceMismatch, RimMalformed, VerificationError
from verifier.formats.rim import VerifiedRim, verify_rim
from verifier.formats.rim_compare import RimComparison, compare
from verifier.trust.certificate import parse_certificate
from verifier.trust.path import PathCache
from verifier.trust.rim_root import NVIDIA_RIM_ROOT
from verifier.trust.roots import Root

CASES = [case for case in cases() if case.entry["evidence_type"] == "nvidia_rim"]
REFUSALS = {
    "RIM signing certificate expired": "CERT_EXPIRED",
    "RIM: xml signature ok; chain does not end at the RIM root": "CERT_CHAIN_INVALID",
    "RIM: xml signature InvalidSignature: Signature verification failed: []; chain ok": "RIM_SIGNATURE",
    "RIM: xml signature InvalidDigest: Digest mismatch for reference 0 (); chain ok": "RIM_DIGEST",
}
"""What the corpus calls the reason of a refusal, and our code for it."""

REAL = DATA / "devices" / "NV_GPU_DRIVER_GH100_550.144.03.xml"
REAL_AT_MS = 1_767_113_810_000
SEEN = PathCache()


def outcome(data: bytes, at_ms: int) -> tuple[str, VerifiedRim | None]:
    """The code of the refusal, empty if there is none, and what was verified."""
    try:
        return "", verify_rim(data=data, trust_roots=[NVIDIA_RIM_ROOT], now_ms=at_ms, chains_seen=SEEN)
    except VerificationError as error:
        return error.code, None


def compared(case: Case, rim: VerifiedRim | RimDocument) -> RimComparison:
    report = parse_nvidia_report(_file(case, "report"))
    facts = read_facts(report.opaque, "gpu")
    found = compare(
        report.measurements(),
        [rim],
        vbios_version=facts.vbios_version,
        driver_version=facts.driver_version,
        nvdec0_disabled=bool(facts.nvdec0_disabled),
        product="GH100",
    )
    assert found is not None
    return found


def _file(case: Case, what: str) -> bytes:
    path = case.path(what)
    assert path is not None
    return path.read_bytes()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus(case: Case) -> None:
    data, expected = _file(case, "rim"), case.entry["expected"]
    code, verified = outcome(data, case.at * 1000)
    signature = expected.get("rim_signature", expected["verdict"])
    assert code == ("" if signature == "ok" else REFUSALS.get(expected.get("reason", ""), "RIM_DIGEST"))
    if expected["verdict"] in ("match", "mismatch"):
        found = compared(case, verified or parse_rim(data))
        assert found.outcome == expected["verdict"]
        assert list(found.mismatched_indexes) == expected["mismatched_indexes"]
        assert found.verified is (signature == "ok")
        assert not found.matched, "one manifest alone says half"


def test_the_pinned_root_is_the_one_nvidia_publishes() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = x509.load_pem_x509_certificate((DATA / "devices" / "rim_root.pem").read_bytes())
    root = parse_certificate(pem.public_bytes(Encoding.DER))
    assert root.spki == NVIDIA_RIM_ROOT.spki
    assert hashlib.sha256(root.spki).hexdigest().startswith("dec1dc316477aa85")
    assert root.common_name == "NVIDIA CoRIM signing Root CA"


def test_what_a_real_manifest_says() -> None:
    code, found = outcome(REAL.read_bytes(), REAL_AT_MS)
    assert code == ""
    assert found is not None
    assert (found.kind, found.version, found.product) == ("driver", "550.144.03", "GH100")
    assert found.document.edition == "GPU"
    assert found.document.manufacturer_id == 5703
    assert len(found.document.entries) == 64
    assert sorted(found.golden) == [7, *range(21, 41)]
    assert len(found.golden[35].alternatives) == 4
    assert found.signers == (
        "HCC RIM L4 Signer", "NVIDIA Reference Value L3 GH100 002", "NVIDIA Reference Value GH100 CA",
        "NVIDIA CoRIM signing Root CA",
    )  # fmt: skip
    assert (found.override, found.simulated, found.revocation) == (False, False, "unchecked")
    assert found.expires_ms == 1_798_649_810_000


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_real_manifest_ends_with_its_signer(offset: int) -> None:
    code, _ = outcome(REAL.read_bytes(), 1_798_649_810_000 + offset)
    assert code == ("CERT_EXPIRED" if offset > 0 else "")


def test_a_changed_byte_of_a_real_manifest_never_passes_for_another_meaning() -> None:
    """Some bytes mean nothing (white space in base64); no changed one changes what is accepted."""
    data, rng = REAL.read_bytes(), random.Random(9)
    genuine = parse_rim(data)
    for _ in range(600):
        at = rng.randrange(len(data))
        changed = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        code, found = outcome(changed, REAL_AT_MS)
        assert code or (found is not None and found.document == genuine), at


def test_every_byte_of_the_signed_values_counts() -> None:
    data = REAL.read_bytes()
    for index in (7, 21, 40):
        value = parse_rim(data).golden[index].alternatives[0].hex().encode()
        at = data.index(value)
        for place in range(at, at + len(value), 7):
            other = b"0" if data[place : place + 1] != b"0" else b"1"
            assert outcome(data[:place] + other + data[place + 1 :], REAL_AT_MS)[0] == "RIM_DIGEST"


def test_canonical_form_11_is_that_of_10_without_xml_attributes() -> None:
    """What lxml makes is what NVIDIA signed: the digest inside says so."""
    signed = parse_signed_xml(REAL.read_bytes())
    assert signed.actual_digest == signed.digest
    assert len(signed.certificates) == 4


def test_canonical_forms_differ_where_they_should() -> None:
    text = b'<a xmlns:x="urn:x" c="3" b="2"><x:d/></a>'
    root = parse_xml(text)
    assert canonical(root, C14N_11) == b'<a xmlns:x="urn:x" b="2" c="3"><x:d></x:d></a>'
    assert canonical(root, EXCLUSIVE_C14N) == b'<a b="2" c="3"><x:d xmlns:x="urn:x"></x:d></a>'


def test_a_part_of_a_document_keeps_the_namespaces_it_stands_in() -> None:
    root = parse_xml(b'<a xmlns="urn:a" xmlns:x="urn:x"><b>1</b> tail</a>')
    assert canonical(root[0], C14N_11) == b'<b xmlns="urn:a" xmlns:x="urn:x">1</b>'
    assert canonical(root[0], EXCLUSIVE_C14N) == b'<b xmlns="urn:a">1</b>'


@pytest.mark.parametrize(
    ("version", "kind"),
    [("550.144.03", "driver"), ("545.00", "driver"), ("1000.1", "driver"), ("96.00.5E.00.01", "vbios"),
     ("97.00.83.00.09", "vbios"), ("96.00.5e.00.01", "vbios")],
)  # fmt: skip
def test_kinds_by_version(version: str, kind: str) -> None:
    assert kind_of(version) == kind


@pytest.mark.parametrize(
    "version", ["", "1.0", "96.00.5E.00", "96.00.5E.00.01.02", "550", "550.", "v550.1", "5500000.1"]
)
def test_versions_of_nothing(version: str) -> None:
    with pytest.raises(RimMalformed):
        kind_of(version)


def test_ids_of_nvidias_service() -> None:
    assert driver_rim_id("GH100", "550.144.03") == "NV_GPU_DRIVER_GH100_550.144.03"
    assert driver_rim_id("GB100", "570.124.03") == "NV_GPU_CC_DRIVER_GB100_570.124.03"
    assert vbios_rim_id("1010", "0200", "882", "96.00.5e.00.01") == "NV_GPU_VBIOS_1010_0200_882_96005E0001"
    assert vbios_rim_id("5612", "0002", "890", "96.10.55.00.01", switch=True) == (
        "NV_SWITCH_BIOS_5612_0002_890_9610550001"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"-----BEGIN CERTIFICATE-----",
        b"<html>",
        b"<SoftwareIdentit>",
        b"\x30\x82",
        b"<!-- <SoftwareIdentity -->",
    ],
)
def test_what_does_not_begin_like_a_manifest(data: bytes) -> None:
    assert not is_rim(data)


@pytest.mark.parametrize(
    "ahead", [b"", b"\n", b'<?xml version="1.0" encoding="UTF-8"?>\n', b"<?xml version='1.0'?>"], ids=range(4)
)
def test_what_begins_like_a_manifest(ahead: bytes) -> None:
    assert is_rim(ahead + REAL.read_bytes())
    assert is_rim(ahead + b'<swid:SoftwareIdentity xmlns:swid="a">')


# --- Comparison


def verified(*worlds: Any) -> list[VerifiedRim]:
    return [
        verify_rim(data=world.mint(), trust_roots=[root_of(world)], now_ms=NOW * 1000, chains_seen=SEEN)
        for world in worlds
    ]


def device(rims: Any, **facts: Any) -> RimComparison | None:
    values = {index + 1: value_of(index) for index in range(64)} | facts.pop("values", {})
    facts = {"driver_version": "550.144.03", "vbios_version": "96.00.74.00.1A", "product": "GH100", **facts}
    return compare(values, rims, **facts)


def test_no_manifest_is_no_comparison() -> None:
    assert device([]) is None


def test_what_a_comparison_says() -> None:
    found = device(verified(VBIOS, DRIVER), values={22: bytes(48), 64: bytes(48)})
    assert found is not None
    assert (found.outcome, found.mismatched_indexes, found.missing) == ("mismatch", (21,), ())
    assert found.compared == (0, 1, 7, 12, 21, 23, 35)
    assert [use.kind for use in found.used] == ["driver", "vbios"]
    assert [use.version for use in found.used] == ["550.144.03", "96.00.74.00.1A"]
    assert all(use.digest is not None and use.verified and use.override for use in found.used)
    assert 63 not in found.unreferenced
    assert 40 in found.unreferenced
    assert found.verified
    assert not found.matched


def test_an_unverified_manifest_is_compared_but_never_matched() -> None:
    documents = [parse_rim(DRIVER.mint()), parse_rim(VBIOS.mint())]
    found = device(documents)
    assert found is not None
    assert (found.outcome, found.verified, found.matched) == ("match", False, False)
    assert {use.digest for use in found.used} == {None}
    mixed = device([*verified(DRIVER), documents[1]])
    assert mixed is not None
    assert not mixed.matched


def test_a_verified_manifest_goes_before_an_unverified_twin() -> None:
    found = device([parse_rim(DRIVER.mint()), *verified(DRIVER, VBIOS)])
    assert found is not None
    assert found.matched


def test_an_unverified_manifest_cannot_stand_in_for_a_verified_one() -> None:
    other = replace(parse_rim(DRIVER.mint()), entries=(RimEntry(index=7, name="a", active=True, size=1,
                                                                alternatives=(b"1",)),))  # fmt: skip
    with pytest.raises(ReferenceMismatch):
        device([other, *verified(DRIVER, VBIOS)])


def test_an_operators_manifest_is_always_shown_as_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.trust.rim_root.NVIDIA_RIM_ROOT", root_of(DRIVER))
    root = Root(label="operator", spki=root_of(OPERATOR).spki, simulated=False)
    data = OPERATOR.mint()
    rim = verify_rim(data=data, trust_roots=[root_of(DRIVER), root], now_ms=NOW * 1000)
    assert (rim.override, rim.root_label, rim.digest) == (True, "operator", hashlib.sha256(data).digest())
    genuine = verify_rim(data=VBIOS.mint(), trust_roots=[root_of(DRIVER), root], now_ms=NOW * 1000)
    assert not genuine.override
    found = device([rim, genuine])
    assert found is not None
    assert found.matched
    assert found.override
    assert [(use.override, use.root_label) for use in found.used] == [(True, "operator"), (False, "forge")]


def test_a_switch_needs_no_driver() -> None:
    found = device(verified(SWITCH, DRIVER, VBIOS), driver_version=None, vbios_version="96.10.55.00.01",
                   product="LS10", edition="SWITCH")  # fmt: skip
    assert found is not None
    assert found.matched
    assert [use.product for use in found.used] == ["LS10"]


# --- Properties

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='&<"'), min_size=1, max_size=128)
ENTRIES = st.integers(1, 64).flatmap(
    lambda size: st.tuples(
        TEXT, st.booleans(), st.just(size), st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=4)
    )
)
DOCUMENTS = st.builds(
    lambda version, product, edition, tag, creator, number, entries: RimDocument(
        kind=kind_of(version), version=version, product=product, edition=edition, tag_id=tag, creator=creator,
        manufacturer_id=number,
        entries=tuple(
            RimEntry(index=index, name=name, active=active or position == 0, size=size, alternatives=tuple(values))
            for position, (index, (name, active, size, values)) in enumerate(sorted(entries.items()))
        ),
    ),
    st.from_regex(r"[0-9]{3}\.[0-9]{1,4}\.[0-9]{2}", fullmatch=True)
    | st.from_regex(r"[0-9A-F]{2}(\.[0-9A-F]{2}){4}", fullmatch=True),
    TEXT, TEXT, TEXT, TEXT, st.integers(0, 2**32 - 1),
    st.dictionaries(st.integers(0, 238), ENTRIES, min_size=1, max_size=12),
)  # fmt: skip


@given(DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(document: RimDocument) -> None:
    assert parse_rim(document.encode()) == document
    assert is_rim(document.encode())


@given(DOCUMENTS, st.data())
@settings(max_examples=150, deadline=None)
def test_a_device_matches_exactly_if_every_active_value_is_one_of_its_alternatives(
    document: RimDocument, data: st.DataObject
) -> None:
    golden = document.golden
    measured = {index + 1: data.draw(st.sampled_from(entry.alternatives)) for index, entry in golden.items()}
    wrong = data.draw(st.sets(st.sampled_from(sorted(golden))))
    for index in wrong:
        measured[index + 1] = data.draw(
            st.binary(max_size=64).filter(lambda v, i=index: v not in golden[i].alternatives)
        )
    edition = document.edition
    found = compare(
        measured, [document], driver_version=document.version, vbios_version=document.version, edition=edition,
    ) if edition != "SWITCH" or document.kind == "vbios" else None  # fmt: skip
    if found is not None:
        assert found.mismatched_indexes == tuple(sorted(wrong))
        assert (found.outcome == "match") is not bool(wrong)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_no_bytes_cause_anything_but_our_error(data: bytes) -> None:
    for around in (data, b"<SoftwareIdentity>" + data + b"</SoftwareIdentity>", data + DRIVER.mint()):
        for read in (parse_rim, parse_signed_xml):
            try:
                read(around)
            except VerificationError:
                continue


@pytest.mark.quiet
def test_the_longest_documents_cost_little() -> None:
    entries = "".join(f'<Resource a{n}="1"/>' for n in range(900))
    spaces = " ".join(f'xmlns:n{n}="urn:{n}"' for n in range(28))
    many = " ".join(f'n{n % 28}:a{n}="1"' for n in range(1900))
    for text in (
        f"<a {spaces}>{entries}</a>",
        f"<a {spaces} {many}/>",
        "<a>" * 250 + "</a>" * 250,
        " " * 260_000 + "<a/>",
    ):
        begin = time.thread_time()
        for form in (C14N_11, EXCLUSIVE_C14N):
            canonical(parse_xml(text.encode()), form)
        assert time.thread_time() - begin < 0.1
