"""How much one principal may take of the brokers: so that one host does not flood its neighbours' partition."""

from __future__ import annotations

from dataclasses import dataclass

from producers.backoff import CATCH_UP
from schemas.topics import MAX_MESSAGE_BYTES

REPORT_BYTES = 4096
"""Room for one report without evidence, bytes: twice what eight GPUs of a model need (docs/results/bench-host.json)."""

STEP_BYTES = 65_536
"""Rates are rounded up to this, bytes/s: below it, one record of the largest size alone would be throttled (Kafka's
window has 11 samples of 1 s)."""

HEADROOM = 2.0
"""On the pace at which a backlog leaves: requests, headers, a session that is renewed meanwhile."""

SMALL_READER_BYTES = 1_048_576
"""Bytes/s for hosts' reading: beacons, and one domain's outputs (some 10 KB a window) where they check it."""

READER_BYTES = 8 * 1_048_576
"""Bytes/s for a page or a consumer of outputs: an hour of outputs of 100 domains at 10 s (360 MB) within a minute."""

AUDITOR_BYTES = 32 * 1_048_576
"""Bytes/s for an auditor: a day of 1,000 hosts at 60 s (3 GB) in a minute and a half, beside live traffic."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Kafka's quotas of one principal per broker: bytes/s written and read, percent of one thread's time.

    None is no limit.
    """

    producer_byte_rate: int | None
    consumer_byte_rate: int | None
    request_percentage: int | None
    reason: str

    def settings(self) -> dict[str, int]:
        """By Kafka's names, only what is limited."""
        named = {
            "producer_byte_rate": self.producer_byte_rate,
            "consumer_byte_rate": self.consumer_byte_rate,
            "request_percentage": self.request_percentage,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Load:
    """What hosts make: the shortest window (ms), evidence again after so many windows, hosts of one principal, GPU
    models of one host."""

    window_ms: int = 60_000
    evidence_interval_windows: int = 6
    hosts: int = 1
    models: int = 1

    @property
    def steady_bytes_s(self) -> float:
        """Bytes/s of all hosts of the principal, evidence at its largest included."""
        window = self.models * REPORT_BYTES + MAX_MESSAGE_BYTES / max(1, self.evidence_interval_windows)
        return self.hosts * window / (self.window_ms / 1000)


def quota_of(role: str, load: Load) -> Quota:
    """The recommended quota of a role's principal."""
    if role in ("host", "checking-host"):
        pace = load.steady_bytes_s * CATCH_UP * HEADROOM
        rate = STEP_BYTES * -(-int(pace) // STEP_BYTES)
        reason = (
            f"{load.steady_bytes_s:,.0f} bytes/s steadily with evidence at its largest, {CATCH_UP:.0f} times as much "
            f"while a backlog leaves, {HEADROOM:.0f} times that for headroom"
        )
        return Quota(rate, SMALL_READER_BYTES, max(2, -(-load.hosts // 10)), reason)
    if role in ("page", "consumer"):
        return Quota(STEP_BYTES, READER_BYTES, 25, "reads outputs; writes nothing")
    if role == "auditor":
        return Quota(STEP_BYTES, AUDITOR_BYTES, 50, "reads days at once; must not slow live traffic")
    if role == "policy-admin":
        return Quota(READER_BYTES, READER_BYTES, 25, "a policy of 10,000 hosts has up to 8 MiB")
    if role == "topic-admin":
        return Quota(STEP_BYTES, STEP_BYTES, 25, "neither reads nor writes")
    return Quota(None, None, None, "no limit: a throttled worker is a late margin")
