"""Rules on what a session claims beside its quote: binding, source, sampler mode, devices, first mile."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.contract import FIRST_MILE_GRADES
from verifier.claims import CompositeClaims, SessionClaims
from verifier.errors import (
    FirstMileTooLow,
    GpuIdentitiesMismatch,
    PolicyEmpty,
    SamplerModeRefused,
    SourceRefused,
)
from verifier.nonces import gpu_identities_digest


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
class IdentitiesBound:
    """The binding names exactly the devices whose evidence was sent, by the digest of their keys; of none, nothing."""

    def check(self, claims: SessionClaims | CompositeClaims) -> None:
        """`GpuIdentitiesMismatch`."""
        shown = gpu_identities_digest(one.key_digest for one in claims.devices) if claims.devices else None
        named = None if claims.binding is None else claims.binding.gpu_identities_digest
        if named != shown:
            what = "no devices" if named is None else "other devices"
            raise GpuIdentitiesMismatch(
                f"the binding names {what}, the evidence shows {len(claims.devices)}", field="gpu_identities_digest"
            )


@dataclass(frozen=True, slots=True)
class FirstMileAtLeast:
    """The first mile's earned grade is at least `minimum`; a minimum nobody defined refuses."""

    minimum: str

    def check(self, claims: SessionClaims) -> None:
        """`FirstMileTooLow`."""
        grades = FIRST_MILE_GRADES
        if self.minimum not in grades or grades.index(claims.first_mile) < grades.index(self.minimum):
            why = f": {claims.first_mile_reason}" if claims.first_mile_reason else ""
            raise FirstMileTooLow(f"{claims.first_mile} is below {self.minimum}{why}", field="first_mile")
