"""Collateral and beacon records. Field docs are in their `.avsc`."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records.session import Beacon


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralItem:
    """The value of the collateral topic: content-addressed material verification needs."""

    kind: str
    id: str
    data: bytes
    issuer_chain: bytes | None = None
    issuer_chain_absent_reason: str | None = None
    not_before_ms: int | None = None
    not_before_ms_absent_reason: str | None = None
    next_update_ms: int | None = None
    next_update_ms_absent_reason: str | None = None
    fetched_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBeacon:
    """The value of the beacons topic."""

    beacon: Beacon
    signature: bytes
