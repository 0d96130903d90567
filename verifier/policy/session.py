"""Rules on what a session claims: binding, code, platform, source, first mile."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from schemas.contract import FIRST_MILE_GRADES
from schemas.records import RegisterRule
from verifier.claims import Claims
from verifier.errors import (
    FirstMileTooLow,
    MeasurementUnknown,
    PlatformNotEnrolled,
    PolicyEmpty,
    ReportDataMismatch,
    SamplerModeRefused,
    SourceRefused,
    TcbUnevaluated,
)


@dataclass(frozen=True, slots=True)
class ReportDataBinds:
    """Report data = H(binding), all 64 bytes: the quote was made for this key, host and configuration."""

    def check(self, claims: Claims) -> None:
        """`ReportDataMismatch`."""
        if not hmac.compare_digest(claims.quote.report_data, claims.report_data):
            raise ReportDataMismatch("the quote names another binding", field="report_data")


@dataclass(frozen=True, slots=True)
class RegisterMatches:
    """One measured register equals the expected value in the bits that count (mask None: all of them)."""

    rule: RegisterRule

    def check(self, claims: Claims) -> None:
        """`MeasurementUnknown`; `PolicyEmpty` for a mask under which every value would match."""
        measured, expected = claims.quote.registers.get(self.rule.register), self.rule.value
        mask = self.rule.mask if self.rule.mask is not None else b"\xff" * len(expected)
        if not any(mask):
            raise PolicyEmpty(f"the mask of {self.rule.register} is empty", field="measurements")
        if measured is None or not len(measured) == len(expected) == len(mask):
            raise MeasurementUnknown(f"no comparable register {self.rule.register}", field=self.rule.register)
        if any((m ^ e) & k for m, e, k in zip(measured, expected, mask, strict=True)):
            raise MeasurementUnknown(f"{self.rule.register} differs", field=self.rule.register)


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
class TcbEvaluated:
    """The TCB status was evaluated against collateral, unless the policy says `unsafe_allow_unevaluated_tcb`."""

    unsafe_allow_unevaluated: bool

    def check(self, claims: Claims) -> None:
        """`TcbUnevaluated`."""
        if not claims.quote.tcb_evaluated and not self.unsafe_allow_unevaluated:
            raise TcbUnevaluated("no collateral was evaluated for this platform", field="tcb")


@dataclass(frozen=True, slots=True)
class SourceAccepted:
    """The binding's source of readings is accepted. An empty list: `PolicyEmpty`."""

    accepted: tuple[str, ...]

    def check(self, claims: Claims) -> None:
        """`SourceRefused`."""
        if not self.accepted:
            raise PolicyEmpty("accepted_sources is empty", field="accepted_sources")
        if claims.binding.source not in self.accepted:
            raise SourceRefused(f"source {claims.binding.source!r}", field="source")


@dataclass(frozen=True, slots=True)
class SamplerModeAccepted:
    """The binding's sampler mode is accepted. An empty list: `PolicyEmpty`."""

    accepted: tuple[str, ...]

    def check(self, claims: Claims) -> None:
        """`SamplerModeRefused`."""
        if not self.accepted:
            raise PolicyEmpty("accepted_sampler_modes is empty", field="accepted_sampler_modes")
        if claims.binding.sampler_mode not in self.accepted:
            raise SamplerModeRefused(f"sampler mode {claims.binding.sampler_mode!r}", field="sampler_mode")


@dataclass(frozen=True, slots=True)
class FirstMileAtLeast:
    """The first mile's earned grade is at least `minimum`; a minimum nobody defined refuses."""

    minimum: str

    def check(self, claims: Claims) -> None:
        """`FirstMileTooLow`."""
        grades = FIRST_MILE_GRADES
        if self.minimum not in grades or grades.index(claims.first_mile) < grades.index(self.minimum):
            raise FirstMileTooLow(f"{claims.first_mile} is below {self.minimum}", field="first_mile")
