"""Remember verdicts: a bounded LRU that can never answer what verification would not (DESIGN §6).

A verdict depends on evidence, collateral, policy and `now`. The key holds all but the last; each entry says for which
`now` it is certain, and outside of that the evidence is verified again. Verification runs in worker threads: a lock
guards the map, never a verification.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from schemas.records import Policy, SessionEvidence
from verifier.composite import Memory
from verifier.errors import VerificationError
from verifier.limits import SESSION_CACHE_ENTRIES
from verifier.session import ProvenSession, evidence_digest, verify_session
from verifier.trust.store import Collateral


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: ProvenSession | VerificationError
    from_ms: int | None
    until_ms: int | None

    def certain_at(self, now_ms: int) -> bool:
        return (self.from_ms is None or self.from_ms <= now_ms) and (self.until_ms is None or now_ms <= self.until_ms)


def cache_key(
    *,
    evidence: SessionEvidence,
    binding_bytes: bytes,
    report_data: bytes,
    session_id: bytes,
    policy_digest: bytes,
    role: str,
    collateral_digest: bytes = b"",
) -> bytes:
    """SHA-256 over all that a verdict depends on except `now`; 32 bytes. No collateral: an empty digest."""
    digest = hashlib.sha256(b"enclavescale/verdict/1\x00")
    parts = (
        evidence_digest(evidence.items, binding_bytes),
        policy_digest,
        report_data,
        session_id,
        role.encode(),
        collateral_digest,
    )
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


class SessionCache:
    """At most `entries` verdicts, positive and negative; the least recently used leaves first."""

    def __init__(self, entries: int = SESSION_CACHE_ENTRIES) -> None:
        if entries < 1:
            raise ValueError("a cache needs at least one entry")
        self._entries = entries
        self._map: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lock = Lock()
        self._memory = Memory()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._map)

    def verify(
        self,
        *,
        evidence: SessionEvidence,
        binding_bytes: bytes,
        report_data: bytes,
        session_id: bytes,
        policy: Policy,
        policy_digest: bytes,
        role: str,
        now_ms: int,
        collateral: Collateral | None = None,
    ) -> ProvenSession:
        """`verify_session` with memory: the same result but for its claims, the same error.

        Claims, the parsed evidence, would be most of what is kept of a session. `policy_digest` must be `policy`'s.
        """
        key = cache_key(
            evidence=evidence,
            binding_bytes=binding_bytes,
            report_data=report_data,
            session_id=session_id,
            policy_digest=policy_digest,
            role=role,
            collateral_digest=b"" if collateral is None else collateral.digest,
        )
        entry = self._look_up(key, now_ms)
        if entry is None:
            try:
                session = verify_session(
                    evidence=evidence,
                    binding_bytes=binding_bytes,
                    report_data=report_data,
                    session_id=session_id,
                    policy=policy,
                    role=role,
                    now_ms=now_ms,
                    collateral=collateral,
                    memory=self._memory,
                )
                entry = _Entry(session.proven(), session.valid_from_ms, session.expires_ms)
            except VerificationError as error:
                entry = _Entry(error.replica(), error.holds_from_ms, error.holds_until_ms)
            self._store(key, entry)
        if isinstance(entry.answer, VerificationError):
            raise entry.answer.replica()
        return entry.answer

    def _look_up(self, key: bytes, now_ms: int) -> _Entry | None:
        with self._lock:
            entry = self._map.get(key)
            if entry is None or not entry.certain_at(now_ms):
                self.misses += 1
                return None
            self._map.move_to_end(key)
            self.hits += 1
            return entry

    def _store(self, key: bytes, entry: _Entry) -> None:
        with self._lock:
            self._map[key] = entry
            self._map.move_to_end(key)
            while len(self._map) > self._entries:
                self._map.popitem(last=False)
