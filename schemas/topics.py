"""The topics, declared once: names, what they carry, and the settings they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DAY_MS = 24 * 3600 * 1000
AUDIT_RETENTION_MS = 30 * DAY_MS
"""One audit retention for everything that carries evidence, ms: an audit needs superseded records too."""

MAX_MESSAGE_BYTES = 512 * 1024
"""`max.message.bytes` of the reports topic: the largest evidence bundle (8 GPUs with chains) with room to spare."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic. `schema` names the pinned schema of its values, None for foreign bytes; `config` is Kafka's."""

    name: str
    role: str
    key: str
    schema: str | None
    description: str
    config: Mapping[str, str]


_AUDIT: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": str(AUDIT_RETENTION_MS),
    "retention.bytes": "-1",  # by time alone: a flood must not push evidence out
    "unclean.leader.election.enable": "false",  # an acknowledged record stays where it is
}
_LARGE = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}

TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(
        name="enclavescale.window-reports.v1",
        role="reports",
        key="domain",
        schema="SignedRecord",
        description="Host reports and control records. Explicit partition per domain, named by the policy.",
        # CLOCK_SKEW rests on the broker's append time. Stored uncompressed, so that max.message.bytes bounds what a
        # reader must hold: a compressed batch of a few KiB may unpack to gigabytes. Producers may still compress.
        config={
            **_AUDIT,
            **_LARGE,
            "message.timestamp.type": "LogAppendTime",
            "compression.type": "uncompressed",
        },
    ),
    TopicSpec(
        name="enclavescale.fleet-power.v1",
        role="output",
        key="domain/window_start_ms",
        schema="SignedFleetPower",
        description="Power, swing and margin per domain and window. Same partition number as the source.",
        config={**_AUDIT, **_LARGE},
    ),
    TopicSpec(
        name="enclavescale.window-manifests.v1",
        role="manifests",
        key="domain/window_start_ms",
        schema="SignedWindowManifest",
        description="Digests of the reports behind each output. Same partition number as the source.",
        config={**_AUDIT, **_LARGE},
    ),
    TopicSpec(
        name="enclavescale.rejections.v1",
        role="rejections",
        key="the rejected record's key",
        schema=None,
        description="Dead letters: original bytes and the reason in headers. Same partition number as the source.",
        # Room for the original at its largest plus headers.
        config={**_AUDIT, "max.message.bytes": str(MAX_MESSAGE_BYTES + 16 * 1024)},
    ),
    TopicSpec(
        name="enclavescale.policy.v1",
        role="policy",
        key="policy/<counter>",
        schema="SignedPolicy",
        description="Signed policies, content-addressed by digest.",
        config={**_AUDIT, "max.message.bytes": str(8 * 1024 * 1024)},  # 10,000 enrolled hosts
    ),
    TopicSpec(
        name="enclavescale.collateral.v1",
        role="collateral",
        key="kind/id/<digest>",
        schema="CollateralItem",
        description="TCB info, QE identities, revocation lists, certificates, reference measurements.",
        config={**_AUDIT, **_LARGE},
    ),
    TopicSpec(
        name="enclavescale.beacons.v1",
        role="beacons",
        key="beacon/<nonce>",
        schema="SignedBeacon",
        description="Fresh random values that bound the age of evidence.",
        config=_AUDIT,
    ),
)


def settings_of(spec: TopicSpec, *, replication: int = 3, retention_ms: int = AUDIT_RETENTION_MS) -> dict[str, str]:
    """The settings of a topic with `replication` copies that is kept for `retention_ms`.

    One copy may be away: of three, two must have a record before it is acknowledged.
    """
    in_sync = max(1, min(2, replication - 1))
    return {**spec.config, "retention.ms": str(retention_ms), "min.insync.replicas": str(in_sync)}


_AT_LEAST = frozenset({"retention.ms", "min.insync.replicas"})


def meets(setting: str, found: str | None, declared: str) -> bool:
    """Does a setting do what is declared? More copies and longer retention do (-1 is for ever), all else is exact."""
    if found is None or setting not in _AT_LEAST:
        return found == declared
    try:
        has, needs = int(found), int(declared)
    except ValueError:
        return False
    return has == -1 or (needs != -1 and has >= needs)


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Names of the topics by role; each can be renamed, all share one prefix by default."""

    reports: str = "enclavescale.window-reports.v1"
    output: str = "enclavescale.fleet-power.v1"
    manifests: str = "enclavescale.window-manifests.v1"
    rejections: str = "enclavescale.rejections.v1"
    policy: str = "enclavescale.policy.v1"
    collateral: str = "enclavescale.collateral.v1"
    beacons: str = "enclavescale.beacons.v1"

    @classmethod
    def with_prefix(cls, prefix: str) -> TopicNames:
        """Names under another prefix than `enclavescale`, for instance a tenant's namespace."""
        return cls(**{spec.role: prefix + spec.name.removeprefix("enclavescale") for spec in TOPICS})
