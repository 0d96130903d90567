"""Rules on a TD's own state (ATTESTATION.md §7, defaults that refuse). They judge quotes of TDs only."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.abi.tdx import TdAttributes, TdReport
from verifier.claims import Claims
from verifier.errors import ServiceTdBound, TdAttributesRefused, TdxModuleMismatch, TeeTypeUnsupported
from verifier.formats.dcap import VerifiedQuote

_XFAM_ALWAYS = 0b11
"""x87 and SSE: always 1 in a TD that a TDX module started."""

_SERVICE_TDS = ("mrservicetd", "initial_servtd_hash", "current_servtd_hash")
"""Fields that name a service TD: 1.5 has the first, extended reports all of them."""


def td_of(claims: Claims) -> tuple[TdReport, TdAttributes]:
    """The TD report and its decoded attributes. `TeeTypeUnsupported` for anything but a TD."""
    quote = claims.quote
    if not isinstance(quote, VerifiedQuote) or not isinstance(quote.body, TdReport) or quote.attributes is None:
        raise TeeTypeUnsupported("a rule on TDs for a quote of no TD", field="tee_type")
    return quote.body, quote.attributes


@dataclass(frozen=True, slots=True)
class NoUntrustedBits:
    """No TUD bit beside DEBUG, which has its own rule: any of bits 1 to 7 makes the TD untrusted too."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        _, attributes = td_of(claims)
        if attributes.tud & ~1:
            raise TdAttributesRefused(f"TUD bits {attributes.tud:#04x}", field="td_attributes")


@dataclass(frozen=True, slots=True)
class SeptVeDisabled:
    """SEPT_VE_DISABLE set: else the host can provoke #VE inside the TD."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        if not td_of(claims)[1].sept_ve_disable:
            raise TdAttributesRefused("SEPT_VE_DISABLE is clear", field="td_attributes")


@dataclass(frozen=True, slots=True)
class NotMigratable:
    """MIGRATABLE clear: a migration TD could move the session key elsewhere."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        if td_of(claims)[1].migratable:
            raise TdAttributesRefused("the TD is MIGRATABLE", field="td_attributes")


@dataclass(frozen=True, slots=True)
class NoReservedBits:
    """No attribute we do not know, and the two XFAM bits every TD has."""

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        body, attributes = td_of(claims)
        if attributes.reserved:
            raise TdAttributesRefused(f"reserved bits {attributes.reserved:#x}", field="td_attributes")
        if body.xfam[0] & _XFAM_ALWAYS != _XFAM_ALWAYS:
            raise TdAttributesRefused("XFAM lacks x87 or SSE", field="xfam")


@dataclass(frozen=True, slots=True)
class ProductionModule:
    """Intel's production TDX module: SEAMATTRIBUTES zero, MRSIGNERSEAM zero, in all TCB info published so far."""

    def check(self, claims: Claims) -> None:
        """`TdxModuleMismatch`."""
        body, _ = td_of(claims)
        if any(body.seam_attributes) or any(body.mrsignerseam):
            raise TdxModuleMismatch("not a production TDX module", field="mrsignerseam")


@dataclass(frozen=True, slots=True)
class NoServiceTd:
    """No service TD bound, or one of those allowed (48 bytes each): it may move or read the TD's state.

    MRSERVICETD says which, and in extended reports the hashes of the one at launch and of the one now. What a report
    does not have, as 1.0 has none of them, passes: no service TD would show there.
    """

    allowed: tuple[bytes, ...] = ()

    def check(self, claims: Claims) -> None:
        """`ServiceTdBound`."""
        body = td_of(claims)[0]
        for field in _SERVICE_TDS:
            bound: bytes | None = getattr(body, field)
            if bound is not None and any(bound) and bound not in self.allowed:
                raise ServiceTdBound(f"service TD {bound.hex()}", field=field)


@dataclass(frozen=True, slots=True)
class TdFieldMatches:
    """`td_attributes` or `xfam` equals the expected 8 bytes in the bits of the mask."""

    field: str
    value: bytes
    mask: bytes

    def check(self, claims: Claims) -> None:
        """`TdAttributesRefused`."""
        body, _ = td_of(claims)
        measured = body.xfam if self.field == "xfam" else body.td_attributes
        if any((m ^ e) & k for m, e, k in zip(measured, self.value, self.mask, strict=True)):
            raise TdAttributesRefused(
                f"{measured.hex()}, where {self.value.hex()} under {self.mask.hex()} is demanded", field=self.field
            )
