"""Verified claims: all that a policy ever sees."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import SessionBinding
from verifier.formats.dcap import VerifiedQuote


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """A verified quote, judged at `now_ms` (UTC milliseconds)."""

    quote: VerifiedQuote
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaims(Claims):
    """The claims of a session: its quote, the binding the report data is meant to name, the grade of the first mile.

    `report_data` (64 bytes) is H(binding) as the caller computed it from the bytes received; `first_mile` is what the
    verified evidence earns, whatever a report says.
    """

    binding: SessionBinding
    report_data: bytes
    first_mile: str
