"""What a host agent is told: GPU classes, hosts, the schedule of sampling; and what its session must be bound to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields

from power_model.grid import Grid
from producers.sample.source import ReadingSource
from schemas.contract import FIRST_MILE_GRADES, PROTOCOL
from schemas.errors import ConfigError
from schemas.records import Beacon, ClipRange, ConfidentialCompute, PrivacyParameters, SessionBinding, StateGrid

_NO_CC = ConfidentialCompute(
    gpu_cc_mode_absent_reason="not_queried",
    gpu_dev_tools_absent_reason="not_queried",
    gpu_ready_absent_reason="not_queried",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Window, pane (ms) and sampling rate (Hz). Raises `ConfigError` unless they divide each other."""

    window_ms: int = 60_000
    pane_ms: int = 1_000
    sample_hz: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.sample_hz <= 1000 or 1000 % self.sample_hz:
            raise ConfigError("sample_hz must divide 1000", field="sample_hz")
        if self.pane_ms <= 0 or self.pane_ms % self.tick_ms:
            raise ConfigError("a pane must be a whole number of ticks", field="pane_ms")
        if self.window_ms <= 0 or self.window_ms % self.pane_ms or self.ticks < 2:
            raise ConfigError("a window must be a whole number of panes, of two ticks at least", field="window_ms")

    @property
    def tick_ms(self) -> int:
        """Time between two ticks, ms."""
        return 1000 // self.sample_hz

    @property
    def ticks(self) -> int:
        """Ticks per window."""
        return self.window_ms // self.tick_ms

    @property
    def ticks_per_pane(self) -> int:
        """Ticks per pane."""
        return self.pane_ms // self.tick_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassProfile:
    """GPUs of one model on a host. Clip bounds and capacity come from enrolment, never from readings; units W."""

    model: str
    capacity_w: int
    edges_w: tuple[int, ...]
    clip_low_w: int
    clip_high_w: int
    source: ReadingSource
    enforced_limit_w: int | None = None

    def __post_init__(self) -> None:
        Grid(self.edges_w)
        if not 0 <= self.clip_low_w <= self.edges_w[0] or not self.edges_w[-1] <= self.clip_high_w:
            raise ConfigError("the clip range must enclose the grid's edges", field="clip_low_w")
        if self.capacity_w <= 0:
            raise ConfigError("capacity must be positive", field="capacity_w")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProfile:
    """One host: identity, GPU classes (one per model, one source kind and sampler mode) and public state."""

    host_id: str
    domain: str
    classes: tuple[ClassProfile, ...]
    first_mile: str = "NONE"
    confidential_compute: ConfidentialCompute = field(default=_NO_CC)
    group_label: str | None = None

    def __post_init__(self) -> None:
        if not self.host_id or not self.domain or not self.classes:
            raise ConfigError("a host needs an id, a domain and at least one GPU class", field="host_id")
        if self.first_mile not in FIRST_MILE_GRADES:
            raise ConfigError(f"first_mile must be one of {', '.join(FIRST_MILE_GRADES)}", field="first_mile")
        if len({c.model for c in self.classes}) != len(self.classes):
            raise ConfigError("one class per GPU model", field="classes")
        if len({c.source.kind for c in self.classes}) != 1 or len({c.source.sampler_mode for c in self.classes}) != 1:
            raise ConfigError("a session binds one source and one sampler mode", field="classes")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """Fields of the session binding that this configuration determines; names as in `SessionBinding`."""

    host_id: str
    domain: str
    source: str
    sampler_mode: str
    sample_hz: int
    window_ms: int
    pane_ms: int
    privacy: PrivacyParameters
    clip_ranges: tuple[ClipRange, ...]
    state_grids: tuple[StateGrid, ...]
    config_digest: bytes


def session_facts(profile: HostProfile, schedule: Schedule, privacy: PrivacyParameters) -> SessionFacts:
    """Return what a host's session must be bound to; `config_digest` is SHA-256 over canonical JSON of the rest."""
    classes = sorted(profile.classes, key=lambda c: c.model)
    effective = {
        "schedule": [schedule.window_ms, schedule.pane_ms, schedule.sample_hz],
        "classes": [
            [c.model, c.source.gpus, c.capacity_w, list(c.edges_w), c.clip_low_w, c.clip_high_w] for c in classes
        ],
        "source": [classes[0].source.kind, classes[0].source.sampler_mode],
        "releases": [[r.release, r.sensitivity_l1, r.epsilon_micro, r.scale_micro] for r in privacy.releases],
        "group_size": privacy.group_size,
    }
    text = json.dumps(effective, sort_keys=True, separators=(",", ":"))
    return SessionFacts(
        host_id=profile.host_id,
        domain=profile.domain,
        source=classes[0].source.kind,
        sampler_mode=classes[0].source.sampler_mode,
        sample_hz=schedule.sample_hz,
        window_ms=schedule.window_ms,
        pane_ms=schedule.pane_ms,
        privacy=privacy,
        clip_ranges=tuple(ClipRange(model=c.model, low_w=c.clip_low_w, high_w=c.clip_high_w) for c in classes),
        state_grids=tuple(StateGrid(model=c.model, edges_w=c.edges_w) for c in classes),
        config_digest=hashlib.sha256(text.encode()).digest(),
    )


def host_binding(
    facts: SessionFacts,
    public_key: bytes,
    *,
    created_at_ms: int,
    beacon: Beacon | None = None,
    gpu_identities_digest: bytes | None = None,
) -> SessionBinding:
    """Return the binding of a host session with `public_key` (65 bytes, uncompressed point)."""
    return SessionBinding(
        protocol=PROTOCOL,
        role="host",
        session_public_key=public_key,
        host_id=facts.host_id,
        domain=facts.domain,
        source=facts.source,
        sampler_mode=facts.sampler_mode,
        config_digest=facts.config_digest,
        sample_hz=facts.sample_hz,
        window_ms=facts.window_ms,
        pane_ms=facts.pane_ms,
        privacy=facts.privacy,
        clip_ranges=facts.clip_ranges,
        state_grids=facts.state_grids,
        gpu_identities_digest=gpu_identities_digest,
        gpu_identities_digest_absent_reason=None if gpu_identities_digest else "no_gpu_attestation",
        beacon=beacon,
        beacon_absent_reason=None if beacon else "no_beacon_received",
        created_at_ms=created_at_ms,
        policy_signers=(),
        core_version_absent_reason="not_an_aggregator",
        cluster_id_absent_reason="not_an_aggregator",
        topic_ids=(),
    )


def check_binding(binding: SessionBinding, facts: SessionFacts) -> None:
    """Raise `ConfigError` naming the first field in which a session's binding differs from the configuration."""
    for item in fields(facts):
        if getattr(binding, item.name) != getattr(facts, item.name):
            raise ConfigError(f"the session is bound to another {item.name}", field=item.name)
