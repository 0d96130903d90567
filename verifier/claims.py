"""Verified claims of a session: all that a policy ever sees."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import SessionBinding
from verifier.formats.tdx import VerifiedTdxQuote


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """A verified quote, the binding its report data is meant to name, and the grade of the first mile.

    `report_data` (64 bytes) is H(binding) as the caller computed it from the bytes received; `first_mile` is what the
    verified evidence earns, whatever a report says.
    """

    quote: VerifiedTdxQuote
    binding: SessionBinding
    report_data: bytes
    first_mile: str
