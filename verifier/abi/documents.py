"""TCB info, enclave identities and TCB evaluation numbers, as Intel signs them (PCS API v4; ATTESTATION.md §3)."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.tcb.status import TcbStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbLevel:
    """One level of TCB info: what a platform needs for it, and what it is worth.

    `sgx_svns` has 16 values 0..255, `tdx_svns` 16 or is None for SGX; `pce_svn` 0..65535; `tcb_date_ms` UTC
    milliseconds, None in the oldest formats; `advisory_ids` as listed.
    """

    sgx_svns: tuple[int, ...]
    pce_svn: int
    tdx_svns: tuple[int, ...] | None
    status: TcbStatus
    tcb_date_ms: int | None
    advisory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IsvSvnLevel:
    """One level of an enclave or TDX module identity: enclaves of at least `isv_svn` are of `status`."""

    isv_svn: int
    status: TcbStatus
    tcb_date_ms: int | None
    advisory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxModule:
    """A TDX module: MRSIGNER (48 bytes), SEAMATTRIBUTES (8 bytes) and their mask.

    `id` is None for the module of `tdxModule`, which has no levels of its own, else "TDX_01" and so on.
    """

    id: str | None
    mrsigner: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[IsvSvnLevel, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """TCB info of one FMSPC. `tee` "sgx" or "tdx"; `fmspc` 6 bytes, `pce_id` 2 bytes; times UTC milliseconds.

    `levels` in the order that matching walks them: descending. Component names (16 each, None where the vendor gives
    none) say in words what a component stands for.
    """

    tee: str
    version: int
    issued_ms: int
    next_update_ms: int
    fmspc: bytes
    pce_id: bytes
    evaluation_number: int
    levels: tuple[TcbLevel, ...]
    tdx_module: TdxModule | None = None
    tdx_module_identities: tuple[TdxModule, ...] = ()
    sgx_component_names: tuple[str | None, ...] = (None,) * 16
    tdx_component_names: tuple[str | None, ...] = (None,) * 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveIdentity:
    """Identity of a quoting enclave. `id` "QE", "TD_QE" or "QVE"; masks and values as bytes in report order.

    `miscselect` and its mask have 4 bytes, `attributes` and its mask 16, `mrsigner` 32; times UTC milliseconds.
    """

    id: str
    version: int
    issued_ms: int
    next_update_ms: int
    evaluation_number: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isv_prod_id: int
    levels: tuple[IsvSvnLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationNumber:
    """One TCB evaluation data set: its number and dates, UTC milliseconds."""

    number: int
    recovery_event_ms: int
    tcb_date_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationNumbers:
    """The TCB evaluation data sets that Intel supports for a TEE ("sgx" or "tdx"), newest first."""

    tee: str
    version: int
    issued_ms: int
    next_update_ms: int
    numbers: tuple[EvaluationNumber, ...]


Document = TcbInfo | EnclaveIdentity | EvaluationNumbers


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """A document with the exact bytes that were signed and the signature r‖s, 64 bytes. Nothing is verified yet."""

    document: Document
    signed_bytes: bytes
    signature: bytes
