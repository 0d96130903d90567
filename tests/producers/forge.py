"""Hosts, sessions and windows for the producer tests. Keys are real, the quote is not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from producers.config import ClassProfile, HostProfile, Schedule, SessionFacts, host_binding, session_facts
from producers.privacy import Budget, privacy_parameters
from producers.sample.source import NO_CONDITIONS, Conditions, Readings
from producers.seal import SealedReport
from schemas.codec import encode_binding, session_id_of
from schemas.records import EvidenceItem, SessionEvidence

SCHEDULE = Schedule(window_ms=10_000)
START_MS = 1_772_625_600_000
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass
class FakeSource:
    """Level plus a ramp, with the ticks named in `missing` not read."""

    gpus: int = 2
    kind: str = "trace"
    sampler_mode: str = "instant"
    level_w: float = 150.0
    missing: tuple[int, ...] = ()
    calls: list[int] = field(default_factory=list)
    seen: Conditions = NO_CONDITIONS

    def window(self, start_ms: int, end_ms: int) -> Readings:
        self.calls.append(start_ms)
        ticks = (end_ms - start_ms) // 100
        ramp = np.tile(np.arange(ticks, dtype=np.float32) / 10, (self.gpus, 1)) + np.float32(self.level_w)
        ramp[:, list(self.missing)] = np.nan
        return ramp

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        return self.seen


def gpu_class(source: FakeSource | None = None, model: str = "A100", high: int = 400) -> ClassProfile:
    return ClassProfile(
        model=model,
        capacity_w=800,
        edges_w=(100, 200, 300),
        clip_low_w=0,
        clip_high_w=high,
        source=source or FakeSource(),
    )


def host(host_id: str = "host-1", domain: str = "row-1", *classes: ClassProfile) -> HostProfile:
    return HostProfile(host_id=host_id, domain=domain, classes=classes or (gpu_class(),))


class FakeSession:
    """A real P-256 key, bound to the facts; evidence that names no hardware."""

    def __init__(self, facts: SessionFacts) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public_key = self._key.public_key()
        point = self.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.binding = host_binding(facts, point, created_at_ms=START_MS)
        self.session_id = session_id_of(encode_binding(self.binding))
        item = EvidenceItem(kind="tdx_quote_v4", data=b"quote", subject_absent_reason="cpu")
        self.evidence = SessionEvidence(binding=self.binding, items=(item,))

    def sign(self, preimage: bytes) -> bytes:
        r, s = utils.decode_dss_signature(self._key.sign(preimage, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")

    def verify(self, signature: bytes, preimage: bytes) -> None:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        self.public_key.verify(utils.encode_dss_signature(r, s), preimage, ec.ECDSA(hashes.SHA256()))


def session_for(profile: HostProfile, budget: Budget | None = None, schedule: Schedule = SCHEDULE) -> FakeSession:
    privacy = privacy_parameters(budget or Budget(), profile.classes, schedule)
    return FakeSession(session_facts(profile, schedule, privacy))


def report(number: int, host_id: str = "host-1", size: int = 100, domain: str = "row-1") -> SealedReport:
    """Stand-in bytes for the spool: it never looks inside."""
    end_ms = START_MS + (number + 1) * 10_000
    digest = number.to_bytes(32, "big")
    value = number.to_bytes(4, "big") * (size // 4)
    return SealedReport(host_id, domain, number, digest, end_ms - 10_000, end_ms, value, number == 0)
