"""Hostile reports: structure, versions, signatures, what stands around them (§8.1, §11.2 items 1, 4, 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.forge.snp.judge import Case
from tests.forge.snp.keys import P384_ORDER
from tests.forge.snp.reports import LAYOUT, Entry, Hcl, table
from tests.forge.snp.world import AZURE, EXTENDED, GENOA, MILAN, POLICY, REPORT_DATA, TURIN, VLEK, World


def case(name: str, code: str, step: str | None, world: World, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, world=world.but(**changes))


def fields(world: World, **changes: int | bytes) -> dict[str, int | bytes]:
    return dict(world.fields) | changes


def overwrite(name: str, value: bytes, at: int = 0) -> Callable[[bytes], bytes]:
    """Bytes of a field changed after signing."""
    offset = LAYOUT[name][0] + at
    return lambda data: data[:offset] + value + data[offset + len(value) :]


def flip(name: str, at: int = 0) -> Callable[[bytes], bytes]:
    offset = LAYOUT[name][0] + at
    return lambda data: data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def reverse_scalars(data: bytes) -> bytes:
    """r and s big-endian, as nearly every other format has them."""
    (r, size), (s, _) = LAYOUT["r"], LAYOUT["s"]
    swapped = data[r : r + 48][::-1] + bytes(size - 48) + data[s : s + 48][::-1] + bytes(size - 48)
    return data[:r] + swapped + data[r + len(swapped) :]


STRUCTURE = [
    case("empty", "SNP_MALFORMED", None, GENOA, sent=lambda report: b""),
    case("truncated by one byte", "SNP_MALFORMED", None, GENOA, sent=lambda report: report[:-1]),
    case("only the signed part", "SNP_MALFORMED", None, TURIN, sent=lambda report: report[:0x2A0]),
    case("more than any evidence has", "SNP_MALFORMED", None, GENOA, sent=lambda report: report + bytes(1 << 16)),
    case("version 0", "SNP_VERSION_UNSUPPORTED", "version", MILAN, fields={"version": 0}),
    case("version 1", "SNP_VERSION_UNSUPPORTED", "version", MILAN, fields={"version": 1}),
    case("version 6", "SNP_VERSION_UNSUPPORTED", "version", GENOA, fields={"version": 6}),
    case("version 0x0203", "SNP_VERSION_UNSUPPORTED", "version", GENOA, fields={"version": 0x0203}),
    case("bit 17 of POLICY clear", "SNP_MALFORMED", "reserved", GENOA, fields={"policy": POLICY & ~(1 << 17)}),
    case("reserved bit of the key info", "SNP_MALFORMED", "reserved", GENOA, fields={"key_info": 1 << 5}),
    case("reserved word behind the key info", "SNP_MALFORMED", "reserved", GENOA, fields={"reserved_key_info": 1}),
    case("CPUID in version 2", "SNP_MALFORMED", "reserved", MILAN, fields={"cpuid": bytes([0x19, 1, 1])}),
    case("bytes behind the CPUID", "SNP_MALFORMED", "reserved", GENOA, fields={"reserved_cpuid": b"\x01"}),
    case("byte behind the current version", "SNP_MALFORMED", "reserved", GENOA, fields={"reserved_current": 1}),
    case("byte behind the committed version", "SNP_MALFORMED", "reserved", TURIN, fields={"reserved_committed": 1}),
    case("mitigations in version 3", "SNP_MALFORMED", "reserved", GENOA, fields={"launch_mitigations": 1}),
    case("mitigations in version 4", "SNP_MALFORMED", "reserved", GENOA, version=4, fields={"current_mitigations": 1}),
    case("last byte of the signed part", "SNP_MALFORMED", "reserved", TURIN,
         fields={"reserved_signed": bytes(151) + b"\x01"}),
    case("byte above r", "SNP_MALFORMED", "reserved", GENOA, sent=overwrite("r", b"\x01", 48)),
    case("last byte above s", "SNP_MALFORMED", "reserved", GENOA, sent=overwrite("s", b"\x80", 71)),
    case("byte behind the signature", "SNP_MALFORMED", "reserved", MILAN,
         fields={"reserved_signature": bytes(367) + b"\x01"}),
]  # fmt: skip

SIGNATURES = [
    case("algorithm 0", "SNP_ALGORITHM_UNSUPPORTED", "algorithm", GENOA, fields={"signature_algo": 0}),
    case("algorithm 2", "SNP_ALGORITHM_UNSUPPORTED", "algorithm", MILAN, fields={"signature_algo": 2}),
    case("signed by no key", "SNP_UNSIGNED", None, GENOA, fields={"key_info": 7 << 2}),
    case("VCEK masked", "SNP_UNSIGNED", "signed", GENOA, fields={"key_info": 2}),
    case("reserved signing key", "SNP_SIGNING_KEY", None, GENOA, fields={"key_info": 3 << 2}),
    case("signed by a stranger", "SNP_SIGNATURE", "signature", GENOA, signed_with="stranger"),
    case("signed by a stranger, Turin", "SNP_SIGNATURE", "signature", TURIN, signed_with="stranger"),
    case("VLEK report signed by a stranger", "SNP_SIGNATURE", "signature", VLEK, signed_with="stranger"),
    case("signature of zeros", "SNP_SIGNATURE", "signature", GENOA, signature=lambda rs: (0, 0)),
    case("s of zero", "SNP_SIGNATURE", "signature", GENOA, signature=lambda rs: (rs[0], 0)),
    case("r = s = n", "SNP_SIGNATURE", "signature", MILAN, signature=lambda rs: (P384_ORDER, P384_ORDER)),
    case("r and s exchanged", "SNP_SIGNATURE", "signature", GENOA, signature=lambda rs: rs[::-1]),
    case("r and s big-endian", "SNP_SIGNATURE", "signature", GENOA, sent=reverse_scalars),
    *(
        case(f"{name} changed after signing", "SNP_SIGNATURE", "signature", world, sent=flip(name))
        for name, world in (
            ("guest_svn", GENOA), ("family_id", MILAN), ("measurement", GENOA), ("report_data", TURIN),
            ("host_data", GENOA), ("id_key_digest", MILAN), ("author_key_digest", GENOA), ("report_id", TURIN),
            ("report_id_ma", GENOA), ("launch_tcb", GENOA), ("launch_mitigations", TURIN), ("vmpl", GENOA),
        )
    ),
    case("DEBUG cleared after signing", "SNP_SIGNATURE", "signature", GENOA, fields={"policy": POLICY | 1 << 19},
         sent=overwrite("policy", POLICY.to_bytes(8, "little"))),
    case("ALIAS_CHECK_COMPLETE set after signing", "SNP_SIGNATURE", "signature", GENOA, fields={"platform_info": 1},
         sent=overwrite("platform_info", b"\x21")),
]  # fmt: skip

REPORT_DATAS = [
    Case(name="report data of something else", code="REPORT_DATA_MISMATCH", step="report_data", world=GENOA,
         report_data=bytes(64)),
    Case(name="report data equal in its first half", code="REPORT_DATA_MISMATCH", step="report_data", world=TURIN,
         report_data=REPORT_DATA[:32] + bytes(32)),
    Case(name="report data too short", code="REPORT_DATA_MISMATCH", step="report_data", world=GENOA,
         report_data=REPORT_DATA[:63]),
    Case(name="user data of something else", code="REPORT_DATA_MISMATCH", step="report_data", world=AZURE,
         report_data=bytes(64)),
    Case(name="REPORT_DATA asked for, where the guest chose user data", code="REPORT_DATA_MISMATCH",
         step="report_data", world=AZURE, report_data=Hcl(user_data=REPORT_DATA).report_data()),
    Case(name="blob without user data", code="REPORT_DATA_MISMATCH", step="report_data",
         world=AZURE.but(hcl=Hcl()), report_data=REPORT_DATA),
]  # fmt: skip


def hcl(name: str, code: str, step: str | None, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, world=AZURE.but(hcl=Hcl(user_data=REPORT_DATA, **changes)))


def cut(size: int) -> Callable[[bytes, tuple[bytes, ...]], bytes]:
    return lambda whole, certificates: whole[:size]


HCLS = [
    Case(name="blob cut behind its report", code="HCL_MALFORMED", step=None, world=AZURE.but(evidence=cut(1216))),
    Case(name="only the magic of a blob", code="HCL_MALFORMED", step=None, world=AZURE.but(evidence=cut(4))),
    Case(name="runtime data cut", code="HCL_MALFORMED", step=None, world=AZURE.but(evidence=cut(1400))),
    hcl("another magic", "SNP_VERSION_UNSUPPORTED", None, magic=b"HCLB"),
    hcl("version 3 of the blob", "HCL_MALFORMED", None, version=3),
    hcl("reserved bytes of the blob", "HCL_MALFORMED", None, reserved=bytes(11) + b"\x01"),
    hcl("blob of a TD report", "TEE_TYPE_UNSUPPORTED", "hcl_report_type", report_type=4),
    hcl("blob of a VBS report", "TEE_TYPE_UNSUPPORTED", "hcl_report_type", report_type=1),
    hcl("blob with an error", "HCL_MALFORMED", "hcl_request", status=1),
    hcl("request version 2", "HCL_MALFORMED", "hcl_request", request_version=2),
    hcl("digest 0", "HCL_MALFORMED", None, hash_type=0),
    hcl("digest 4", "HCL_MALFORMED", None, hash_type=4),
    hcl("huge runtime data", "HCL_MALFORMED", None, size=0xFFFFFFFF),
    hcl("size of the data", "HCL_MALFORMED", "hcl_sizes", data_size=20),
    hcl("size of the report", "HCL_MALFORMED", "hcl_sizes", report_size=0),
    hcl("something behind the runtime data", "HCL_MALFORMED", "hcl_padding", padding=bytes(100) + b"\x01"),
    hcl("runtime data exchanged", "HCL_BINDING", "hcl_binding", runtime_sent=lambda data: data.replace(b"A", b"B")),
    hcl("user data exchanged", "HCL_BINDING", "hcl_binding",
        runtime_sent=lambda data: data.replace(REPORT_DATA.hex().encode(), bytes(64).hex().encode())),
    hcl("runtime data with a space more", "HCL_BINDING", "hcl_binding", runtime_sent=lambda data: data + b" "),
    hcl("runtime data that is no JSON", "HCL_MALFORMED", None, runtime_data=lambda data: data[:-1]),
    hcl("key of the runtime data twice", "HCL_MALFORMED", None,
        runtime_data=lambda data: data.replace(b'"keys"', b'"user-data"')),
    Case(name="user data too short", code="HCL_MALFORMED", step=None, world=AZURE.but(hcl=Hcl(user_data="00" * 63))),
    Case(name="user data that is no text", code="HCL_MALFORMED", step=None, world=AZURE.but(hcl=Hcl(user_data=7))),
    Case(name="tail of REPORT_DATA behind the digest", code="HCL_BINDING", step="hcl_binding",
         world=AZURE.but(fields={"report_data": Hcl(user_data=REPORT_DATA).report_data()[:63] + b"\x01"})),
    Case(name="SHA-512 digest called SHA-256", code="HCL_BINDING", step="hcl_binding",
         world=AZURE.but(fields={"report_data": Hcl(user_data=REPORT_DATA, hash_type=3).report_data()})),
]  # fmt: skip


def behind(name: str, code: str, made: Callable[[tuple[bytes, ...]], bytes]) -> Case:
    world = EXTENDED.but(evidence=lambda report, certificates: report + made(certificates))
    return Case(name=name, code=code, step=None, world=world)


TABLES = [
    behind("a byte behind the report", "SNP_MALFORMED", lambda held: b"\x01"),
    behind("table without its end", "SNP_MALFORMED", lambda held: table(Entry("vcek", held[0]), end=b"")[:24]),
    behind("table of seventeen entries", "SNP_MALFORMED", lambda held: table(*[Entry("other", b"x")] * 17)),
    behind("entry beyond the table", "SNP_MALFORMED", lambda held: table(Entry("vcek", held[0], size=0xFFFF))),
    behind("entry at a huge offset", "SNP_MALFORMED", lambda held: table(Entry("vcek", held[0], offset=0xFFFFFFFF))),
    behind("entry inside the head", "SNP_MALFORMED", lambda held: table(Entry("vcek", held[0], offset=24))),
    behind("entries that overlap", "SNP_MALFORMED",
           lambda held: table(Entry("vcek", held[0]), Entry("ask", held[1], offset=80))),
    behind("empty entry", "SNP_MALFORMED", lambda held: table(Entry("vcek", held[0]), Entry("other", b""))),
    behind("bytes of no entry", "SNP_MALFORMED", lambda held: table(Entry("vcek", held[0]), tail=b"\x01")),
    behind("entry that is no certificate", "CERT_CHAIN_INVALID", lambda held: table(Entry("vcek", held[0][1:]))),
    behind("list that is none", "COLLATERAL_MALFORMED", lambda held: table(Entry("crl", held[0]))),
    behind("table without an endorsement key", "ENDORSEMENT_MISSING", lambda held: table(Entry("ark", held[2]))),
    behind("table of foreign entries", "ENDORSEMENT_MISSING", lambda held: table(Entry("other", held[0]))),
]  # fmt: skip

CASES = [*STRUCTURE, *SIGNATURES, *REPORT_DATAS, *HCLS, *TABLES]
