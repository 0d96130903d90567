"""Hostile quotes: structure, header, signatures, binding (ATTESTATION.md §1, §11.1 items 2, 13 to 16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.forge.dcap.judge import Case
from tests.forge.dcap.world import SGX3, SGX5, TDX4, TDX5, TDX5_15, TDX5_EXTENDED, World, pem_chain

BODY_END_TDX4, BODY_END_SGX3 = 48 + 584, 48 + 384


def case(name: str, code: str, step: str | None, world: World, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, world=world.but(**changes))


def header(**changes: Any) -> Callable[[Any], Any]:
    return lambda one: replace(one, **changes)


def section(**changes: Any) -> Callable[[Any], Any]:
    return lambda one: replace(one, **changes)


def overwrite(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + value + data[offset + len(value) :]


def flip(offset: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def with_pck(world: World, seed: str = "") -> World:
    """The world with a PCK chain among its collateral, for quotes that carry none: its own, or another's."""
    chain = pem_chain(*world.but(seed=seed).pck_chain())
    return world.but(collateral=lambda held: held | {"pck_certificate_chain": chain})


STRUCTURE = [
    case("empty", "QUOTE_MALFORMED", None, TDX4, quote=lambda q: b""),
    case("half a header", "QUOTE_MALFORMED", None, TDX4, quote=lambda q: q[:24]),
    case("header only", "QUOTE_MALFORMED", None, TDX4, quote=lambda q: q[:48]),
    case("half a body", "QUOTE_MALFORMED", None, SGX3, quote=lambda q: q[:300]),
    case("no signature size", "QUOTE_MALFORMED", None, SGX3, quote=lambda q: q[:BODY_END_SGX3]),
    case("truncated by one byte", "QUOTE_MALFORMED", None, TDX4, quote=lambda q: q[:-1]),
    case("truncated by one byte, v3", "QUOTE_MALFORMED", None, SGX3, quote=lambda q: q[:-1]),
    case("truncated by one byte, v5", "QUOTE_MALFORMED", None, TDX5_15, quote=lambda q: q[:-1]),
    case("huge signature size", "QUOTE_MALFORMED", None, TDX4, section_size=0xFFFFFFFF),
    case("signature size of zero", "QUOTE_MALFORMED", None, TDX4, section_size=0),
    case("huge outer size", "QUOTE_MALFORMED", None, TDX4, section=section(outer_size=0xFFFFFFFF)),
    case("outer size too short", "QUOTE_MALFORMED", None, TDX4, section=section(outer_size=100)),
    case("huge inner size", "QUOTE_MALFORMED", None, TDX4, section=section(data_size=0xFFFFFFFF)),
    case("huge inner size, v3", "QUOTE_MALFORMED", None, SGX3, section=section(data_size=0x7FFFFFFF)),
    case("inner size too short", "QUOTE_MALFORMED", None, SGX3, section=section(data_size=100)),
    case("huge authentication data", "QUOTE_MALFORMED", None, TDX4, section=section(auth_size=0xFFFF)),
    case("bytes behind the certification data", "QUOTE_MALFORMED", None, TDX4, section=section(tail=b"\x00")),
    case("bytes behind the certification data, v3", "QUOTE_MALFORMED", None, SGX3, section=section(tail=b"\x00")),
    case("a byte behind the quote", "QUOTE_MALFORMED", "padding", TDX4, padding=bytes(16) + b"\x01"),
    case("more padding than a quote may have", "QUOTE_MALFORMED", None, TDX4, padding=bytes(1 << 16)),
    case("outer type 5", "QUOTE_MALFORMED", "outer_type", TDX4, section=section(outer_kind=5)),
    case("inner type 6", "QUOTE_MALFORMED", "certification_type", with_pck(TDX4), section=section(kind=6)),
    case("inner type 0", "QUOTE_MALFORMED", "certification_type", with_pck(SGX3), section=section(kind=0)),
    case("inner type 7", "QUOTE_MALFORMED", "certification_type", with_pck(TDX4), section=section(kind=7)),
    case("plain PPID and no PCK certificate", "CERTIFICATION_UNSUPPORTED", None, SGX3, certification=(1, bytes(36))),
    case(
        "encrypted PPID and no PCK certificate", "CERTIFICATION_UNSUPPORTED", None, TDX4, certification=(3, bytes(404))
    ),
    case(
        "encrypted PPID and the PCK certificate of another",
        "CERTIFICATION_UNSUPPORTED",
        None,
        with_pck(TDX4, "another"),
        certification=(3, bytes(404)),
    ),
    case(
        "PCK leaf alone, its issuer unknown",
        "CERT_CHAIN_INVALID",
        None,
        TDX4.but(collateral=lambda held: held | {"pck_crl_issuer_chain": ""}),
        certification=(4, pem_chain(TDX4.pck_chain()[0]).encode()),
    ),
    case("descriptor one byte too small", "QUOTE_MALFORMED", "body_size", TDX5, header=header(size=583)),
    case("descriptor of a TD 1.5 size", "QUOTE_MALFORMED", "body_size", TDX5, header=header(size=648)),
    case("descriptor of size zero", "QUOTE_MALFORMED", "body_size", TDX5_15, header=header(size=0)),
    case("descriptor of a huge size", "QUOTE_MALFORMED", "body_size", TDX5_EXTENDED, header=header(size=1 << 31)),
    case("body of type 9", "QUOTE_VERSION_UNSUPPORTED", None, TDX5, header=header(body_type=9)),
    case("body of type 0", "QUOTE_VERSION_UNSUPPORTED", None, TDX5, header=header(body_type=0)),
    case("SGX body under TDX", "QUOTE_MALFORMED", "body_type", SGX5, header=header(tee_type=0x81)),
    case("TD body under SGX", "QUOTE_MALFORMED", "body_type", TDX5, header=header(tee_type=0)),
]

HEADER = [
    case("version 2", "QUOTE_VERSION_UNSUPPORTED", "version", TDX4, header=header(version=2)),
    case("version 6", "QUOTE_VERSION_UNSUPPORTED", "version", TDX4, header=header(version=6)),
    case("version 0x0104", "QUOTE_VERSION_UNSUPPORTED", "version", TDX4, header=header(version=0x0104)),
    case("v3 of TDX", "TEE_TYPE_UNSUPPORTED", "tee_type", SGX3, header=header(tee_type=0x81)),
    case("v3 with reserved bytes set", "TEE_TYPE_UNSUPPORTED", "tee_type", SGX3, header=header(tee_type=0x10000)),
    case("v4 of an unknown TEE", "TEE_TYPE_UNSUPPORTED", "tee_type", TDX4, header=header(tee_type=0x82)),
    case("v4 TD called SGX", "QUOTE_MALFORMED", None, TDX4, header=header(tee_type=0)),
    case("v5 of an unknown TEE", "TEE_TYPE_UNSUPPORTED", "tee_type", TDX5, header=header(tee_type=0x181)),
    case("P-384 key type", "KEY_TYPE_UNSUPPORTED", "header", TDX4, header=header(key_type=3)),
    case("EPID key type", "KEY_TYPE_UNSUPPORTED", "header", SGX3, header=header(key_type=0)),
    case("foreign vendor", "QE_VENDOR_UNKNOWN", "header", TDX4, header=header(vendor=bytes(16))),
    case("vendor off by a bit", "QE_VENDOR_UNKNOWN", "header", SGX3,
         header=header(vendor=bytes.fromhex("939a7233f79c4ca9940a0db3957f0606"))),
    Case(name="TDX quote where SGX is asked for", code="TEE_TYPE_UNSUPPORTED", step="tee", world=TDX4, tee="sgx"),
    Case(name="SGX quote where TDX is asked for", code="TEE_TYPE_UNSUPPORTED", step="tee", world=SGX3, tee="tdx"),
]  # fmt: skip

SIGNATURES = [
    case("QE report signed by a stranger", "QE_REPORT_SIGNATURE", "qe_report", TDX4, qe_signed_with="stranger"),
    case("QE report signed by a stranger, v3", "QE_REPORT_SIGNATURE", "qe_report", SGX3, qe_signed_with="stranger"),
    case("QE report signed by the PCK CA", "QE_REPORT_SIGNATURE", "qe_report", TDX4, qe_signed_with="pck ca"),
    case("QE report signed by the attestation key", "QE_REPORT_SIGNATURE", "qe_report", TDX5_15,
         qe_signed_with="/attestation key"),
    case("QE signature of zeros", "QE_REPORT_SIGNATURE", "qe_report", SGX3,
         section=section(qe_report_signature=bytes(64))),
    case("QE binds another key", "QE_BINDING", "qe_binding", TDX4, qe_binding=overwrite(0, bytes(32))),
    case("QE binding off by a bit", "QE_BINDING", "qe_binding", SGX3, qe_binding=flip(31)),
    case("QE binding with a tail", "QE_BINDING", "qe_binding", TDX4, qe_binding=overwrite(63, b"\x01")),
    case("authentication data changed", "QE_BINDING", "qe_binding", TDX4, section=section(auth_data=bytes(32))),
    case("authentication data dropped", "QE_BINDING", "qe_binding", SGX3, section=section(auth_data=b"")),
    case("quote signed by a stranger", "QUOTE_SIGNATURE", "quote_signature", TDX4, quote_signed_with="stranger"),
    case("quote signed by the PCK key", "QUOTE_SIGNATURE", "quote_signature", SGX3, quote_signed_with="pck"),
    case("signature of zeros", "QUOTE_SIGNATURE", "quote_signature", TDX5, section=section(quote_signature=bytes(64))),
    case("signature of r = s = n", "QUOTE_SIGNATURE", "quote_signature", TDX4, section=section(
        quote_signature=bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551") * 2)),
    case("MRTD changed after signing", "QUOTE_SIGNATURE", "quote_signature", TDX4, quote=flip(48 + 136)),
    case("MRENCLAVE changed after signing", "QUOTE_SIGNATURE", "quote_signature", SGX3, quote=flip(48 + 64)),
    case("report data changed after signing", "QUOTE_SIGNATURE", "quote_signature", TDX5_15, quote=flip(54 + 583)),
    case("TEE_TCB_SVN_2 changed after signing", "QUOTE_SIGNATURE", "quote_signature", TDX5_15, quote=flip(54 + 584)),
    case("last byte of the extended report changed", "QUOTE_SIGNATURE", "quote_signature", TDX5_EXTENDED,
         quote=flip(54 + 884)),
    case("user data changed after signing", "QUOTE_SIGNATURE", "quote_signature", TDX4, quote=flip(28)),
    case("SVNs in the header changed after signing", "QUOTE_SIGNATURE", "quote_signature", SGX3, quote=flip(8)),
]  # fmt: skip

CASES = [*STRUCTURE, *HEADER, *SIGNATURES]
