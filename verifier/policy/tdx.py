"""Rules on a TD's own state (ATTESTATION.md §7, defaults that refuse)."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.claims import Claims
from verifier.errors import DebugEnabled, TdAttributesRefused, TdxModuleMismatch

_XFAM_ALWAYS = 0b11
"""x87 and SSE: always 1 in a TD that a TDX module started."""


@dataclass(frozen=True, slots=True)
class NoDebug:
    """DEBUG clear: the host of a debuggable TD reads its memory."""

    def check(self, claims: Claims) -> None:
        """`DebugEnabled`."""
        if claims.quote.attributes.debug:
            raise DebugEnabled("the TD was started with DEBUG", field="td_attributes")


@dataclass(frozen=True, slots=True)
class NoUntrustedBits:
    """No TUD bit beside DEBUG, which has its own rule: any of bits 1 to 7 makes the TD untrusted too."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        if claims.quote.attributes.tud & ~1:
            raise TdAttributesRefused(f"TUD bits {claims.quote.attributes.tud:#04x}", field="td_attributes")


@dataclass(frozen=True, slots=True)
class SeptVeDisabled:
    """SEPT_VE_DISABLE set: else the host can provoke #VE inside the TD."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        if not claims.quote.attributes.sept_ve_disable:
            raise TdAttributesRefused("SEPT_VE_DISABLE is clear", field="td_attributes")


@dataclass(frozen=True, slots=True)
class NotMigratable:
    """MIGRATABLE clear: a migration TD could move the session key elsewhere."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        if claims.quote.attributes.migratable:
            raise TdAttributesRefused("the TD is MIGRATABLE", field="td_attributes")


@dataclass(frozen=True, slots=True)
class NoReservedBits:
    """No attribute we do not know, and the two XFAM bits every TD has."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        if claims.quote.attributes.reserved:
            raise TdAttributesRefused(f"reserved bits {claims.quote.attributes.reserved:#x}", field="td_attributes")
        if claims.quote.body.xfam[0] & _XFAM_ALWAYS != _XFAM_ALWAYS:
            raise TdAttributesRefused("XFAM lacks x87 or SSE", field="xfam")


@dataclass(frozen=True, slots=True)
class ProductionModule:
    """Intel's production TDX module: SEAMATTRIBUTES zero, MRSIGNERSEAM zero, in all TCB info published so far."""

    def check(self, claims: Claims) -> None:
        """`TdxModuleMismatch`."""
        if any(claims.quote.body.seam_attributes) or any(claims.quote.body.mrsignerseam):
            raise TdxModuleMismatch("not a production TDX module", field="mrsignerseam")
