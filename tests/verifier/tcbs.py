"""Small TCB documents made by hand, and the inputs of `evaluate` for a case of the corpus."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.verifier.corpus import Case
from verifier.abi.collateral import (
    EnclaveIdentity,
    IsvSvnLevel,
    TcbInfo,
    TcbLevel,
    TdxModule,
    parse_enclave_identity,
    parse_tcb_info,
)
from verifier.abi.pck import PckExtension, parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.abi.tdx import TdReport
from verifier.tcb.evaluate import evaluate
from verifier.tcb.status import TcbReport, TcbStatus
from verifier.trust.certificate import parse_certificate

DAY = 86_400_000
OLD, MIDDLE, NEW = 100 * DAY, 200 * DAY, 300 * DAY
"""Dates of three levels, UTC milliseconds."""


def padded(*svns: int) -> tuple[int, ...]:
    return (*svns, *(0,) * (16 - len(svns)))


def level(
    *svns: int,
    status: str = "UpToDate",
    pce_svn: int = 10,
    tdx: tuple[int, ...] | None = None,
    date: int | None = NEW,
    advisories: tuple[str, ...] = (),
) -> TcbLevel:
    return TcbLevel(
        sgx_svns=padded(*svns),
        pce_svn=pce_svn,
        tdx_svns=None if tdx is None else padded(*tdx),
        status=TcbStatus(status),
        tcb_date_ms=date,
        advisory_ids=advisories,
    )


def svn_level(svn: int, status: str = "UpToDate", date: int | None = NEW, *advisories: str) -> IsvSvnLevel:
    return IsvSvnLevel(isv_svn=svn, status=TcbStatus(status), tcb_date_ms=date, advisory_ids=advisories)


def module(
    name: str | None, *levels: IsvSvnLevel, mrsigner: bytes = bytes(48), attributes: bytes = bytes(8)
) -> TdxModule:
    return TdxModule(id=name, mrsigner=mrsigner, attributes=attributes, attributes_mask=b"\xff" * 8, levels=levels)


def tcb_info(*levels: TcbLevel, tee: str = "sgx", **changes: Any) -> TcbInfo:
    base = TcbInfo(
        tee=tee,
        version=3,
        issued_ms=NEW,
        next_update_ms=NEW + 30 * DAY,
        fmspc=bytes(6),
        pce_id=bytes(2),
        evaluation_number=17,
        levels=levels,
        tdx_module=module(None) if tee == "tdx" else None,
    )
    return replace(base, **changes)


def identity(*levels: IsvSvnLevel) -> EnclaveIdentity:
    return EnclaveIdentity(
        id="QE",
        version=2,
        issued_ms=NEW,
        next_update_ms=NEW + 30 * DAY,
        evaluation_number=18,
        miscselect=bytes(4),
        miscselect_mask=b"\xff" * 4,
        attributes=bytes(16),
        attributes_mask=b"\xff" * 16,
        mrsigner=bytes(32),
        isv_prod_id=1,
        levels=levels,
    )


def platform(*svns: int, pce_svn: int = 10) -> PckExtension:
    return PckExtension(
        ppid=bytes(16),
        component_svns=padded(*svns),
        pce_svn=pce_svn,
        cpu_svn=bytes(16),
        pce_id=bytes(2),
        fmspc=bytes(6),
        sgx_type=0,
    )


def judge(
    info: TcbInfo,
    *svns: int,
    pce_svn: int = 10,
    qe: int = 8,
    qe_identity: EnclaveIdentity | None = None,
    td: tuple[int, ...] | None = None,
    td_now: tuple[int, ...] | None = None,
    mrsignerseam: bytes = bytes(48),
    seam_attributes: bytes = bytes(8),
) -> TcbReport:
    """`evaluate` of a platform with these components against `info`."""
    return evaluate(
        tee=info.tee,
        pck=platform(*svns, pce_svn=pce_svn),
        qe_isv_svn=qe,
        tee_tcb_svn=None if td is None else bytes(padded(*td)),
        tee_tcb_svn_2=None if td_now is None else bytes(padded(*td_now)),
        mrsignerseam=None if td is None else mrsignerseam,
        seam_attributes=None if td is None else seam_attributes,
        tcb_info=info,
        qe_identity=qe_identity or identity(svn_level(8)),
    )


def judged() -> list[Case]:
    """Cases of the corpus for which Intel's library says what launch and current TCB are worth."""
    from tests.verifier.corpus import quotes

    return [case for case in quotes() if "launch" in (case.entry.get("intel_qvl") or {})]


def inputs(case: Case) -> dict[str, Any]:
    """What `evaluate` is given for a case, straight from its files: nothing is verified."""
    quote_file, collateral_file, pck_file = case.path("quote"), case.path("collateral"), case.path("pck_cert")
    assert quote_file is not None
    assert collateral_file is not None
    quote, collateral = parse_quote(quote_file.read_bytes()), json.loads(collateral_file.read_text())
    body = quote.body if isinstance(quote.body, TdReport) else None
    if quote.signature.certification.kind == 5:
        ders = split_chain(quote.signature.certification.data)
    else:
        assert pck_file is not None
        ders = (x509.load_pem_x509_certificate(pck_file.read_bytes()).public_bytes(Encoding.DER),)
    extension = next(one for der in ders if (one := parse_certificate(der).pck_extension) is not None)
    return {
        "tee": quote.tee,
        "pck": parse_pck_extension(extension),
        "qe_isv_svn": quote.signature.qe_report.isv_svn,
        "tee_tcb_svn": None if body is None else body.tee_tcb_svn,
        "tee_tcb_svn_2": None if body is None else body.tee_tcb_svn_2,
        "mrsignerseam": None if body is None else body.mrsignerseam,
        "seam_attributes": None if body is None else body.seam_attributes,
        "tcb_info": parse_tcb_info(collateral["tcb_info"]),
        "qe_identity": parse_enclave_identity(collateral["qe_identity"]),
    }
