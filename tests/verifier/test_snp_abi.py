"""SNP reports, AMD's extensions and tables, Azure's blob: what is written is read again, and the other way round."""

from __future__ import annotations

import random
import ssl
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.forge.snp import reports
from tests.forge.snp.certificates import integer, tlv
from tests.forge.snp.reports import LAYOUT, SIGNED, SIZE, Entry, Hcl, table
from tests.forge.snp.world import GENOA, GENUINE, MILAN, TURIN, VLEK, ek_extensions
from verifier.abi.amd import (
    EK_EXTENSION_OIDS,
    GUIDS,
    PRODUCTS,
    EkExtensions,
    TableEntry,
    TcbVersion,
    encode_certificate_table,
    parse_certificate_table,
    parse_ek_extensions,
)
from verifier.abi.hcl import HclReport, parse_hcl_report
from verifier.abi.snp import GuestPolicy, PlatformInfo, SnpReport, parse_snp_report
from verifier.errors import EkExtensionInvalid, SnpMalformed, VerificationError
from verifier.formats.snp_evidence import read_endorsements
from verifier.trust.certificate import parse_certificate

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
THREE = st.tuples(*[st.integers(0, 255)] * 3)


def octets(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


@st.composite
def snp_reports(draw: st.DrawFn) -> SnpReport:
    """Any report of versions 2 to 5."""
    version = draw(st.integers(2, 5))
    numbers = {name: draw(U64) for name in ("current_tcb", "platform_info", "reported_tcb", "committed_tcb")}
    return SnpReport(
        version=version,
        guest_svn=draw(U32),
        policy=draw(U64) | 1 << 17,
        family_id=draw(octets(16)),
        image_id=draw(octets(16)),
        vmpl=draw(U32),
        signature_algorithm=draw(U32),
        key_info=draw(st.integers(0, 31)),
        report_data=draw(octets(64)),
        measurement=draw(octets(48)),
        host_data=draw(octets(32)),
        id_key_digest=draw(octets(48)),
        author_key_digest=draw(octets(48)),
        report_id=draw(octets(32)),
        report_id_ma=draw(octets(32)),
        cpuid=draw(THREE) if version >= 3 else None,
        chip_id=draw(octets(64)),
        current_version=draw(THREE),
        committed_version=draw(THREE),
        launch_tcb=draw(U64),
        launch_mitigations=draw(U64) if version == 5 else None,
        current_mitigations=draw(U64) if version == 5 else None,
        signature=draw(octets(96)),
        **numbers,
    )


@given(snp_reports())
def test_a_report_is_read_as_it_was_written(report: SnpReport) -> None:
    written = report.encode()
    assert len(written) == SIZE
    assert parse_snp_report(written) == report
    assert report.signed_bytes == written[:SIGNED]


@given(snp_reports(), st.integers(0, SIZE * 8 - 1))
def test_a_report_with_another_bit_says_something_else_or_nothing(report: SnpReport, bit: int) -> None:
    """No bit is passed over: each changes what is read, or is refused."""
    written = bytearray(report.encode())
    written[bit // 8] ^= 1 << bit % 8
    try:
        changed = parse_snp_report(bytes(written))
    except VerificationError:
        return
    assert changed != report
    assert changed.encode() == bytes(written)


@pytest.mark.parametrize("name", list(GENUINE))
def test_fields_are_where_amd_puts_them(name: str) -> None:
    world = GENUINE[name]
    if world.hcl is not None or name == "certificate table":
        return
    data = world.mint().report
    report = parse_snp_report(data)

    def at(field: str) -> bytes:
        offset, size = LAYOUT[field]
        return data[offset : offset + size]

    assert report.measurement == at("measurement")
    assert report.report_id_ma == at("report_id_ma")
    assert report.reported_tcb.to_bytes(8, "little") == at("reported_tcb")
    assert report.launch_tcb.to_bytes(8, "little") == at("launch_tcb")
    assert bytes(report.current_version) == at("current_version")
    assert report.signature[:48] == at("r")[47::-1]
    assert report.signature[48:] == at("s")[47::-1]
    assert report.key_info == int.from_bytes(at("key_info"), "little")


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 4000])
def test_a_report_has_its_size(size: int) -> None:
    with pytest.raises(SnpMalformed):
        parse_snp_report(bytes(size))


def test_bits_have_their_names() -> None:
    policy = GuestPolicy(0x1F | 2 << 8 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 24 | 1 << 40)
    assert policy.abi_minimum == (2, 0x1F)
    assert policy.smt
    assert policy.single_socket
    assert policy.ciphertext_hiding
    clear = ("debug", "migrate_ma", "cxl_allow", "rapl_disabled", "mem_aes_256_xts", "page_swap_disabled")
    assert not any(getattr(policy, name) for name in clear)
    assert policy.unknown == 1 << 40
    platform = PlatformInfo(0b0110_0101 | 1 << 9)
    assert platform.smt
    assert platform.ecc
    assert platform.alias_check_complete
    assert platform.iommu_write_safe
    assert not any(getattr(platform, name) for name in ("tsme", "rapl_disabled", "ciphertext_hiding", "tio"))
    assert platform.unknown == 1 << 9


@given(octets(8), st.sampled_from(PRODUCTS))
def test_a_tcb_is_read_as_it_was_written(data: bytes, product: str) -> None:
    assert TcbVersion.decode(data, product).encode() == data
    assert TcbVersion.of(int.from_bytes(data, "little"), product).encode() == data


@given(octets(8), octets(8), st.sampled_from(PRODUCTS))
def test_tcbs_are_compared_by_component(first: bytes, second: bytes, product: str) -> None:
    one, other = TcbVersion.decode(first, product), TcbVersion.decode(second, product)
    assert (one.below(other) == ()) is all(a >= b for a, b in zip(first, second, strict=True))


def test_layouts_of_tcbs() -> None:
    milan = TcbVersion.decode(bytes([4, 1, 0, 0, 0, 0, 24, 219]), "Milan")
    assert (milan.boot_loader, milan.tee, milan.snp, milan.microcode, milan.fmc) == (4, 1, 24, 219, None)
    turin = TcbVersion.decode(bytes([1, 2, 3, 4, 0, 0, 0, 81]), "Turin")
    assert (turin.fmc, turin.boot_loader, turin.tee, turin.snp, turin.microcode) == (1, 2, 3, 4, 81)
    assert milan.below(turin) == turin.below(milan) == ("layout",)


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)


@st.composite
def ek_facts(draw: st.DrawFn) -> EkExtensions:
    product = draw(st.sampled_from(PRODUCTS))
    return EkExtensions(
        struct_version=draw(st.integers(0, 255)),
        product_name=draw(TEXTS),
        tcb=TcbVersion.decode(draw(octets(8)), product),
        hwid=draw(st.none() | octets(64) | octets(8)),
        csp_id=draw(st.none() | TEXTS),
    )


@given(ek_facts())
def test_extensions_are_read_as_they_were_written(facts: EkExtensions) -> None:
    written = facts.encode()
    assert parse_ek_extensions(written) == facts
    assert parse_ek_extensions(dict(reversed(written.items())) | {"2.5.29.14": b"other"}) == facts
    assert set(written) <= EK_EXTENSION_OIDS


def test_a_hwid_may_stand_in_an_octet_string() -> None:
    bare = parse_ek_extensions(parse_certificate(GENOA.certificates()[0]).extensions)
    assert bare.hwid is not None
    wrapped = GENOA.but(hwid=tlv(4, bare.hwid))
    assert parse_ek_extensions(parse_certificate(wrapped.certificates()[0]).extensions) == bare


@pytest.mark.parametrize(
    ("name", "line"),
    [("Milan-B0", "Milan"), ("Genoa", "Genoa"), ("Bergamo-A1", "Genoa"), ("Siena", "Genoa"), ("Turin-C1", "Turin"),
     ("Venice", None), ("Milano", None), ("-Genoa", None)],
)  # fmt: skip
def test_product_lines(name: str, line: str | None) -> None:
    found = ek_extensions("Genoa", bytes(8), name, None, None)
    pairs = {"1.3.6.1.4.1.3704.1." + ".".join(map(str, key)): value for key, value in found.items()}
    assert parse_ek_extensions(pairs).product == line


def test_every_extension_but_the_reserved_ones_is_needed() -> None:
    pairs = EkExtensions(
        struct_version=0, product_name="Genoa", tcb=TcbVersion.decode(bytes(8), "Genoa"), hwid=bytes(range(64))
    ).encode()
    for oid in pairs:
        rest = {key: value for key, value in pairs.items() if key != oid}
        if oid.endswith((".3.4", ".3.5", ".3.6", ".3.7", "1.4")):
            parse_ek_extensions(rest)
        else:
            with pytest.raises(EkExtensionInvalid):
                parse_ek_extensions(rest)
    with pytest.raises(EkExtensionInvalid):
        parse_ek_extensions(pairs | {"1.3.6.1.4.1.3704.1.3.10": integer(0)})


ENTRIES = st.lists(
    st.builds(TableEntry, st.sampled_from(sorted(GUIDS.values())) | octets(16), st.binary(min_size=1, max_size=40)),
    max_size=16,
).map(tuple)


@given(ENTRIES, st.integers(0, 100))
def test_a_certificate_table_is_read_as_it_was_written(entries: tuple[TableEntry, ...], padding: int) -> None:
    if any(entry.guid == bytes(16) for entry in entries):
        return
    assert parse_certificate_table(encode_certificate_table(entries) + bytes(padding)) == entries


def test_guids_are_read_in_both_orders() -> None:
    for kind, guid in GUIDS.items():
        mixed = UUID(bytes=guid).bytes_le
        assert TableEntry(guid, b"x").kind == TableEntry(mixed, b"x").kind == kind
    assert TableEntry(bytes(16), b"x").kind is None


def test_entries_may_lie_in_any_order() -> None:
    chain = GENOA.certificates()
    head = 24 * 3
    data = table(
        Entry("ask", b"", offset=head + len(chain[0]), size=len(chain[1])),
        Entry("vcek", chain[0] + chain[1], offset=head, size=len(chain[0])),
    )
    assert [(one.kind, one.data) for one in parse_certificate_table(data)] == [("ask", chain[1]), ("vcek", chain[0])]


@given(
    st.builds(
        HclReport,
        version=st.integers(1, 2),
        request_type=U32,
        report=octets(SIZE),
        hash_type=st.integers(1, 3),
        runtime_data=st.binary(max_size=300),
        padding=st.integers(0, 300),
    )
)
def test_a_blob_is_read_as_it_was_written(blob: HclReport) -> None:
    assert parse_hcl_report(blob.encode()) == blob


@pytest.mark.parametrize("hash_type", [1, 2, 3])
def test_the_digest_of_runtime_data(hash_type: int) -> None:
    made = Hcl(hash_type=hash_type, user_data=bytes(range(64)))
    blob = parse_hcl_report(made.encode(bytes(SIZE)))
    assert blob.runtime_digest() == made.report_data()
    assert blob.user_data() == bytes(range(64))


WAYS: dict[str, Any] = {
    "DER": b"".join,
    "PEM": lambda chain: "".join(map(ssl.DER_cert_to_PEM_cert, chain)).encode(),
    "table": lambda chain: table(*(Entry(kind, one) for kind, one in zip(("vcek", "ask", "ark"), chain, strict=True))),
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("world", [MILAN, TURIN, VLEK], ids=["Milan", "Turin", "VLEK"])
def test_endorsements_come_in_three_ways(way: str, world: Any) -> None:
    chain = world.certificates()
    certificates, crls = read_endorsements(WAYS[way](chain))
    assert [one.der for one in certificates] == list(chain)
    assert crls == ()


def test_a_list_in_a_table_is_read() -> None:
    minted = GENOA.mint()
    entries = (Entry("vcek", minted.certificates[0]), Entry("crl", minted.crls[0]), Entry("other", b"anything"))
    certificates, crls = read_endorsements(table(*entries, page=0x4000))
    assert (len(certificates), len(crls)) == (1, 1)


def test_many_certificates_are_refused() -> None:
    one = GENOA.certificates()[0]
    with pytest.raises(VerificationError, match="more than 16"):
        read_endorsements(one * 17)
    with pytest.raises(VerificationError, match="bytes of certificates"):
        read_endorsements(bytes(40_000))


def test_the_forge_and_the_parser_agree_on_noise() -> None:
    """Two descriptions of one layout, written apart, read the same fields from random bytes."""
    rng = random.Random(7)
    for _ in range(50):
        fields: dict[str, int | bytes] = {
            name: rng.randbytes(size) for name, (_, size) in LAYOUT.items() if not name.startswith("reserved")
        }
        fields |= {"version": 5, "policy": 1 << 17, "key_info": 0, "r": rng.randbytes(48), "s": rng.randbytes(48)}
        report = parse_snp_report(reports.encode(fields))
        assert report.report_id == fields["report_id"]
        assert report.chip_id == fields["chip_id"]
        assert report.current_mitigations == int.from_bytes(fields["current_mitigations"], "little")  # type: ignore[arg-type]
        assert report.committed_tcb == int.from_bytes(fields["committed_tcb"], "little")  # type: ignore[arg-type]
