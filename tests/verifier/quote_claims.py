"""Verified quotes made by hand, for rules that only look at claims. Nothing here was ever signed."""

from __future__ import annotations

from typing import Any

from tests.verifier.tcbs import DAY, platform
from verifier.abi.sgx import SgxReport
from verifier.abi.tdx import TdAttributes, TdReport
from verifier.claims import Claims
from verifier.formats.dcap import VerifiedQuote
from verifier.tcb.status import PartStatus, TcbReport, TcbState, TcbStatus

NOW = 1_000 * DAY
REPORT_DATA = bytes(range(64))
MRTD, RTMR1 = b"\xaa" * 48, b"\xbb" * 48
MRENCLAVE, MRSIGNER = b"\xcc" * 32, b"\xdd" * 32
PPID, INSTANCE = "11" * 16, "22" * 16
GOOD_TD = 1 << 28
"""SEPT_VE_DISABLE alone."""


def part(
    name: str, status: str, *advisories: str, date: int | None = NOW - 400 * DAY, superseded: int | None = None
) -> PartStatus:
    return PartStatus(
        part=name,
        status=TcbStatus(status),
        tcb_date_ms=date,
        advisory_ids=advisories,
        superseded_ms=superseded,
        newest_ms=date,
    )


def state(status: str, *parts: PartStatus) -> TcbState:
    held = parts or (part("platform", status), part("qe", "UpToDate"))
    dates = [one.tcb_date_ms for one in held if one.tcb_date_ms is not None]
    return TcbState(
        status=TcbStatus(status),
        tcb_date_ms=min(dates) if dates else None,
        advisory_ids=tuple(sorted({name for one in held for name in one.advisory_ids})),
        parts=held,
        shortfalls=(),
    )


def report(
    launch: TcbState,
    current: TcbState | None = None,
    *,
    status: str | None = None,
    number: int = 17,
    qe_number: int = 17,
) -> TcbReport:
    return TcbReport(
        status=launch.status if status is None else TcbStatus(status),
        tcb_date_ms=launch.tcb_date_ms,
        advisory_ids=launch.advisory_ids,
        launch=launch,
        current=launch if current is None else current,
        tcb_evaluation_number=number,
        qe_evaluation_number=qe_number,
    )


UP_TO_DATE = report(state("UpToDate"))


def td_body(**changes: Any) -> TdReport:
    zero = bytes(48)
    base: dict[str, Any] = dict.fromkeys(
        ("mrseam", "mrsignerseam", "mrconfigid", "mrowner", "mrownerconfig", "rtmr0", "rtmr2", "rtmr3"), zero
    )
    base |= {
        "tee_tcb_svn": bytes(16),
        "seam_attributes": bytes(8),
        "td_attributes": GOOD_TD.to_bytes(8, "little"),
        "xfam": b"\xe7" + bytes(7),
        "mrtd": MRTD,
        "rtmr1": RTMR1,
        "report_data": REPORT_DATA,
    }
    return TdReport(**(base | changes))


def enclave_body(*, debug: bool = False, isv_svn: int = 5, product: int = 7) -> SgxReport:
    raw = bytearray(384)
    raw[48:64] = bytes([0x07 if debug else 0x05]) + bytes(7) + b"\xe7" + bytes(7)
    raw[64:96], raw[128:160] = MRENCLAVE, MRSIGNER
    raw[256:260] = product.to_bytes(2, "little") + isv_svn.to_bytes(2, "little")
    raw[320:384] = REPORT_DATA
    return SgxReport(bytes(raw))


def quote(body: TdReport | SgxReport, **changes: Any) -> VerifiedQuote:
    td = isinstance(body, TdReport)
    attributes = TdAttributes(int.from_bytes(body.td_attributes, "little")) if isinstance(body, TdReport) else None
    pck = platform(5)
    object.__setattr__(pck, "ppid", bytes.fromhex(PPID))
    object.__setattr__(pck, "platform_instance_id", bytes.fromhex(INSTANCE))
    base: dict[str, Any] = {
        "tee": "tdx" if td else "sgx",
        "quote_version": 4 if td else 3,
        "body_type": None,
        "body": body,
        "attributes": attributes,
        "debug": attributes.debug if attributes is not None else isinstance(body, SgxReport) and body.debug,
        "pck": pck,
        "pck_serial_hex": "ab",
        "pck_issuer": "Intel SGX PCK Platform CA",
        "qe_isv_svn": 8,
        "root_label": "intel-sgx-root-ca",
        "simulated": False,
        "tcb": UP_TO_DATE,
        "used": None,
        "collateral": None,
        "padding": 0,
        "valid_from_ms": NOW - 10 * DAY,
        "expires_ms": NOW + 20 * DAY,
    }
    return VerifiedQuote(**(base | changes))


def td(now_ms: int = NOW, *, tcb: TcbReport | None = UP_TO_DATE, simulated: bool = False, **body: Any) -> Claims:
    """A TD's claims, with fields of its report changed."""
    return Claims(quote=quote(td_body(**body), tcb=tcb, simulated=simulated), now_ms=now_ms)


def enclave(now_ms: int = NOW, *, tcb: TcbReport | None = UP_TO_DATE, **body: Any) -> Claims:
    """An enclave's claims."""
    return Claims(quote=quote(enclave_body(**body), tcb=tcb), now_ms=now_ms)
