"""What the core decides: rejections, outputs, control records it wants written."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import ControlSubject, FleetPower


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that was refused, once per source offset. `digest` is None for undecodable bytes."""

    offset: int
    code: str
    message: str
    domain: str | None
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Emission:
    """An output with its manifests, in the order in which they are published.

    `output_bytes`: the Avro bytes that are signed; `digest`: their identity. `manifests`: Avro bytes per chunk.
    """

    output: FleetPower
    output_bytes: bytes
    digest: bytes
    manifests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ControlWanted:
    """A control record the domain needs; whoever is live writes it, the first one in the log counts.

    `collateral_digest`, `subjects`: what else is in force (`stream_jobs.core.standing`), so that a restart may begin
    there.
    """

    kind: str
    domain: str
    policy_digest: bytes
    content_digest: bytes | None
    effective_from_ms: int | None
    closed_through_ms: int | None
    reason: str
    collateral_digest: bytes | None = None
    subjects: tuple[ControlSubject, ...] = ()


Effect = Rejection | Emission
