"""Rules on what a session claims beside its quote: binding, source, sampler mode, first mile."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.contract import FIRST_MILE_GRADES
from verifier.claims import SessionClaims
from verifier.errors import (
    FirstMileTooLow,
    PolicyEmpty,
    SamplerModeRefused,
    SourceRefused,
)


@dataclass(frozen=True, slots=True)
class SourceAccepted:
    """The binding's source of readings is accepted. An empty list: `PolicyEmpty`."""

    accepted: tuple[str, ...]

    def check(self, claims: SessionClaims) -> None:
        """`SourceRefused`."""
        if not self.accepted:
            raise PolicyEmpty("accepted_sources is empty", field="accepted_sources")
        if claims.binding.source not in self.accepted:
            raise SourceRefused(f"source {claims.binding.source!r}", field="source")


@dataclass(frozen=True, slots=True)
class SamplerModeAccepted:
    """The binding's sampler mode is accepted. An empty list: `PolicyEmpty`."""

    accepted: tuple[str, ...]

    def check(self, claims: SessionClaims) -> None:
        """`SamplerModeRefused`."""
        if not self.accepted:
            raise PolicyEmpty("accepted_sampler_modes is empty", field="accepted_sampler_modes")
        if claims.binding.sampler_mode not in self.accepted:
            raise SamplerModeRefused(f"sampler mode {claims.binding.sampler_mode!r}", field="sampler_mode")


@dataclass(frozen=True, slots=True)
class FirstMileAtLeast:
    """The first mile's earned grade is at least `minimum`; a minimum nobody defined refuses."""

    minimum: str

    def check(self, claims: SessionClaims) -> None:
        """`FirstMileTooLow`."""
        grades = FIRST_MILE_GRADES
        if self.minimum not in grades or grades.index(claims.first_mile) < grades.index(self.minimum):
            raise FirstMileTooLow(f"{claims.first_mile} is below {self.minimum}", field="first_mile")
