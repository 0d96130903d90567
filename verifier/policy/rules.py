"""Rules on any quote: its TEE, debug, code, platform, report data, and an enclave's attributes and version."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.records import RegisterRule
from verifier.abi.sgx import SgxReport
from verifier.claims import Claims
from verifier.errors import (
    DebugEnabled,
    EnclaveAttributesRefused,
    EnrolmentAmbiguous,
    IsvSvnTooLow,
    MeasurementUnknown,
    PlatformNotEnrolled,
    PolicyEmpty,
    ReportDataMismatch,
    TcbUnevaluated,
    TeeRefused,
    TeeTypeUnsupported,
)
from verifier.formats.dcap import VerifiedQuote


@dataclass(frozen=True, slots=True)
class TeeAccepted:
    """The evidence is of one of these TEEs ("sgx", "tdx", "snp"). An empty list: `PolicyEmpty`."""

    accepted: tuple[str, ...]

    def check(self, claims: Claims) -> None:
        """`TeeRefused`."""
        if not self.accepted:
            raise PolicyEmpty("no TEE is accepted", field="tees")
        if claims.quote.tee not in self.accepted:
            raise TeeRefused(f"a quote of {claims.quote.tee}; accepted: {', '.join(self.accepted)}", field="tee")


@dataclass(frozen=True, slots=True)
class NoDebug:
    """DEBUG clear: the host of a debuggable TD, enclave or guest reads its memory."""

    def check(self, claims: Claims) -> None:
        """`DebugEnabled`."""
        if claims.quote.debug:
            raise DebugEnabled("it was started with DEBUG", field=_DEBUG_FIELDS.get(claims.quote.tee, "attributes"))


_DEBUG_FIELDS = {"tdx": "td_attributes", "snp": "policy"}


@dataclass(frozen=True, slots=True)
class TcbEvaluated:
    """The TCB status was evaluated against collateral, unless the policy says `unsafe_allow_unevaluated_tcb`."""

    unsafe_allow_unevaluated: bool

    def check(self, claims: Claims) -> None:
        """`TcbUnevaluated`."""
        if not claims.quote.tcb_evaluated and not self.unsafe_allow_unevaluated:
            raise TcbUnevaluated("no collateral was evaluated for this platform", field="tcb")


@dataclass(frozen=True, slots=True)
class ReportDataIs:
    """Report data equals what the verifier expects, all 64 bytes."""

    expected: bytes

    def check(self, claims: Claims) -> None:
        """`ReportDataMismatch`."""
        if not hmac.compare_digest(claims.quote.report_data, self.expected):
            raise ReportDataMismatch(f"report data is {claims.quote.report_data.hex()}", field="report_data")


@dataclass(frozen=True, slots=True)
class ReportDataDemanded:
    """Stands where a policy demands report data and nobody said which: a quote of anything, of any age, would pass."""

    def check(self, claims: Claims) -> None:
        """`PolicyEmpty`, always."""
        raise PolicyEmpty(
            "nothing says what this quote was made for",
            field="report_data",
            remedy="Say which report data you expect (--report-data), or set unsafe_any_report_data in the policy.",
        )


@dataclass(frozen=True, slots=True)
class RegisterMatches:
    """One measured register equals the expected value in the bits that count (mask None: all of them)."""

    rule: RegisterRule

    def check(self, claims: Claims) -> None:
        """`MeasurementUnknown`; `PolicyEmpty` for a mask under which every value would match."""
        check_register(self.rule, claims.quote.registers)


def check_register(rule: RegisterRule, registers: Mapping[str, bytes]) -> None:
    """One of `registers` is what the rule says. `MeasurementUnknown`, `PolicyEmpty`."""
    measured, expected = registers.get(rule.register), rule.value
    mask = rule.mask if rule.mask is not None else b"\xff" * len(expected)
    if not any(mask):
        raise PolicyEmpty(f"the mask of {rule.register} is empty", field="measurements")
    if measured is None or not len(measured) == len(expected) == len(mask):
        raise MeasurementUnknown(f"no comparable register {rule.register}", field=rule.register)
    if any((m ^ e) & k for m, e, k in zip(measured, expected, mask, strict=True)):
        raise MeasurementUnknown(f"{rule.register} differs", field=rule.register)


@dataclass(frozen=True, slots=True)
class IsvSvnAtLeast:
    """The enclave's ISVSVN is at least `minimum`."""

    minimum: int

    def check(self, claims: Claims) -> None:
        """`IsvSvnTooLow`."""
        found = enclave_of(claims).isv_svn
        if found < self.minimum:
            raise IsvSvnTooLow(f"ISVSVN {found}, at least {self.minimum} is demanded", field="isvsvn")


@dataclass(frozen=True, slots=True)
class EnclaveAttributesMatch:
    """An enclave's attributes (16 bytes: flags, XFRM) equal the expected ones in the bits of the mask."""

    value: bytes
    mask: bytes

    def check(self, claims: Claims) -> None:
        """`EnclaveAttributesRefused`."""
        measured = enclave_of(claims).attributes
        if any((m ^ e) & k for m, e, k in zip(measured, self.value, self.mask, strict=True)):
            raise EnclaveAttributesRefused(
                f"{measured.hex()}, where {self.value.hex()} under {self.mask.hex()} is demanded", field="attributes"
            )


@dataclass(frozen=True, slots=True)
class PlatformEnrolled:
    """One of the platform's verified ids (lower-case hex) is among those enrolled for this host.

    Without enrolled ids it refuses, unless the policy says `unsafe_allow_unenrolled_platform`.
    """

    enrolled: tuple[str, ...]
    unsafe_allow_unenrolled: bool

    def check(self, claims: Claims) -> None:
        """`PlatformNotEnrolled`."""
        if not self.enrolled and self.unsafe_allow_unenrolled:
            return
        enrolled = {value.lower() for value in self.enrolled}
        if enrolled.isdisjoint(claims.quote.platform_ids):
            raise PlatformNotEnrolled("this platform is not enrolled for the host", field="platform_ids")


@dataclass(frozen=True, slots=True)
class PlatformOfOneHost:
    """No verified id of the platform is enrolled for another host than `host_id`; a machine has several names.

    `owner_of` tells the host an id (lower-case hex) is enrolled for, None if for none.
    """

    host_id: str
    owner_of: Callable[[str], str | None]

    def check(self, claims: Claims) -> None:
        """`EnrolmentAmbiguous`."""
        for one in claims.quote.platform_ids:
            owner = self.owner_of(one)
            if owner is not None and owner != self.host_id:
                raise EnrolmentAmbiguous(
                    f"{one[:16]}…, an id of this platform, is enrolled for {owner!r}", field="platform_ids"
                )


def enclave_of(claims: Claims) -> SgxReport:
    """The enclave's report. `TeeTypeUnsupported` for anything but an enclave."""
    quote = claims.quote
    if not isinstance(quote, VerifiedQuote) or not isinstance(quote.body, SgxReport):
        raise TeeTypeUnsupported("a rule on enclaves for a quote of none", field="tee_type")
    return quote.body
