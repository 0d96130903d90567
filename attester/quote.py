"""What a source of hardware quotes must offer; each TEE's way of getting one enters here."""

from __future__ import annotations

from typing import Protocol

from schemas.records import EvidenceItem


class QuoteProvider(Protocol):
    """A TEE that quotes report data on demand."""

    @property
    def kind(self) -> str:
        """Kind of the CPU quote it makes (schemas: EvidenceItem.kind)."""

    @property
    def simulated(self) -> bool:
        """True: no hardware stands behind it."""

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """Evidence over `report_data` (64 bytes), the CPU quote first."""
