"""The file of `enclavescale produce` and `doctor`: what an agent is told, checked for sense before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from enclavescale.registry.options import RegistryOptions
from producers.privacy import Budget, default_budget
from schemas.contract import FIRST_MILE_GRADES
from schemas.errors import ConfigError
from schemas.mapping import from_jsonable

BUNDLED = "bundled:"
TRACE, NVML, DCGM, SIMULATED = "trace", "nvml", "dcgm", "simulated"
SOURCES = (TRACE, NVML, DCGM, SIMULATED)
TSM, SIMULATED_TEE = "tsm", "simulated"
TEES = (TSM, SIMULATED_TEE)
MAX_SPEED = 1_000_000
MAX_W_EVENT_WINDOWS = 1_000_000
"""Two years of windows of a minute."""
REMEDY = "docs/agent.md has a complete example of this file."


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSpec:
    """Where one host's readings of one GPU model come from.

    `trace`: `bundled:NAME`, the path of an nvidia-smi CSV log or of a directory of them; `seed`: hosts with one seed
    run in step; `spread_ticks`: largest offset between GPUs, -1 for independent ones.
    """

    trace: str
    seed: str
    spread_ticks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmSpec:
    """A DCGM-exporter: its `url`, how often it collects (ms, as it is told to: too small a number here would count
    readings twice) and what its readings are (average, or instant)."""

    url: str
    collect_interval_ms: int
    sampler_mode: str = "average"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpdmSpec:
    """An SPDM endpoint: the name its evidence carries, `address` as HOST:PORT, framing on TCP, certificate slot."""

    subject: str
    address: str
    framing: str = "dsp0287"
    slot: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """One host and the source of its readings: `trace` (one per enrolled GPU model, in the enrolment's order), `nvml`,
    `dcgm` or `simulated`. `gpu_evidence`: attest its GPUs through NVML; `spdm`: and these endpoints. `first_mile`: the
    grade that its reports claim; a report that claims more than the evidence proves is refused."""

    host_id: str
    source: str = TRACE
    traces: tuple[TraceSpec, ...] = ()
    dcgm: DcgmSpec | None = None
    gpu_evidence: bool = False
    spdm: tuple[SpdmSpec, ...] = ()
    first_mile: str = FIRST_MILE_GRADES[0]
    group_label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpec:
    """Privacy loss per release, millionths of epsilon; all 0: the default for the host's source. `w_event_windows`:
    windows of the w-event statement."""

    transitions_micro: int = 0
    pane_sums_micro: int = 0
    histogram_micro: int = 0
    energy_residual_micro: int = 0
    glitches_micro: int = 0
    w_event_windows: int = 1

    def budget(self, *, energy: bool) -> Budget:
        """The budget to run with; `energy`: the source has energy counters. Raises ConfigError."""
        given = dataclasses.asdict(self)
        windows = given.pop("w_event_windows")
        if not any(given.values()):
            return dataclasses.replace(default_budget(energy=energy), w_event_windows=windows)
        return Budget(**given, w_event_windows=windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceSpec:
    """The configuration file of `enclavescale produce`.

    `policy`: path of a signed policy (a value of the policy topic), `policy_signers`: who may have signed it
    (uncompressed points, hexadecimal). `tee`: `tsm` (Linux configfs; `tee_directory`: its reports, if they are not
    where Linux has them) or `simulated`, which needs `tee_directory` (its key material) and claims to measure
    `tee_image`. `evidence_max_age_s`: age at which evidence is renewed at the latest; `follow_beacons`: also when an
    aggregator asks. `check_aggregator`: look at the domain's outputs, and show whether an attested aggregator made
    them. `listen`: HOST:PORT of /metrics, /livez, /readyz. `speed` 0 means real time; else event time runs `speed`
    times as fast from `start_ms`, which corresponds to the Unix time `origin_ms`. `windows` 0 means until stopped.
    `registry`: a Schema Registry, whose ids the values carry. `gated`: windows wait until they are released on
    stdin (`enclavescale.gate`), and the run ends with stdin. Kafka properties stand in the same file, in a table
    `kafka`.
    """

    policy: str
    hosts: tuple[HostSpec, ...]
    spool: str
    policy_signers: tuple[str, ...] = ()
    tee: str = TSM
    tee_directory: str = ""
    tee_image: str = "enclavescale-host"
    evidence_max_age_s: int = 3_600
    follow_beacons: bool = False
    check_aggregator: bool = False
    evidence_interval: int = 0
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    listen: str = ""
    registry: RegistryOptions | None = None
    spool_max_mib: int = 256
    spool_max_age_s: int = 86_400
    windows: int = 0
    speed: int = 0
    start_ms: int = 0
    origin_ms: int = 0
    topic_prefix: str = "enclavescale"
    gated: bool = False


def load_spec(table: Mapping[str, object]) -> ProduceSpec:
    """Read a `ProduceSpec` from a configuration table, Kafka properties left aside. Raises ConfigError."""
    own = {name: value for name, value in table.items() if name != "kafka" and not name.startswith("kafka.")}
    try:
        spec = from_jsonable(ProduceSpec, own)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"produce configuration: {error}", remedy=REMEDY) from error
    check_spec(spec)
    return spec


def check_spec(spec: ProduceSpec) -> None:
    """Raise `ConfigError` naming the first field that makes no sense, whatever the policy says."""
    if spec.tee not in TEES:
        raise _wrong(f"tee is one of {', '.join(TEES)}", "tee")
    if spec.tee == SIMULATED_TEE and not spec.tee_directory:
        raise _wrong("a simulated TEE needs tee_directory", "tee_directory")
    if spec.evidence_max_age_s < 60 or spec.spool_max_mib < 1 or spec.spool_max_age_s < 1:
        raise _wrong("evidence_max_age_s is 60 at least, the spool's bounds are positive", "evidence_max_age_s")
    for name in ("windows", "speed", "start_ms", "origin_ms", "evidence_interval"):
        if getattr(spec, name) < 0:
            raise _wrong(f"{name} is not negative", name)
    for name in ("policy", "spool", "tee_directory"):
        if "\0" in getattr(spec, name) or (name == "spool" and not spec.spool):
            raise _wrong(f"{name} is a path", name)
    if spec.speed > MAX_SPEED or not 0 < spec.budget.w_event_windows <= MAX_W_EVENT_WINDOWS:
        raise _wrong(f"speed is at most {MAX_SPEED}, w_event_windows 1 to {MAX_W_EVENT_WINDOWS}", "speed")
    if spec.check_aggregator and not spec.policy_signers:
        raise _wrong(
            "check_aggregator needs policy_signers: who else would say which aggregators count", "policy_signers"
        )
    ids = [host.host_id for host in spec.hosts]
    if not ids or len(set(ids)) != len(ids):
        raise _wrong("an agent needs hosts with different ids", "hosts")
    for host in spec.hosts:
        _check_host(spec, host)
    if len(spec.hosts) > 1 and any(host.source == NVML or host.gpu_evidence for host in spec.hosts):
        raise _wrong("an agent that reads this machine's GPUs serves one host", "hosts")
    exporters = [host.dcgm.url for host in spec.hosts if host.dcgm is not None]
    if len(set(exporters)) != len(exporters):
        raise _wrong("two hosts read one exporter: its readings would count in the reports of both", "dcgm")


def _check_host(spec: ProduceSpec, host: HostSpec) -> None:
    if host.source not in SOURCES:
        raise _wrong(f"{host.host_id}: source is one of {', '.join(SOURCES)}", "source")
    if (host.source == TRACE) != bool(host.traces):
        raise _wrong(f"{host.host_id}: traces belong to the source trace, and to it alone", "traces")
    if host.first_mile not in FIRST_MILE_GRADES:
        raise _wrong(f"{host.host_id}: first_mile is one of {', '.join(FIRST_MILE_GRADES)}", "first_mile")
    if (host.source == DCGM) != (host.dcgm is not None):
        raise _wrong(f"{host.host_id}: dcgm belongs to the source dcgm, and to it alone", "dcgm")
    if spec.speed and host.source != TRACE:
        raise _wrong(f"{host.host_id}: only traces can be replayed at another speed", "speed")
    if spec.tee == SIMULATED_TEE and (host.gpu_evidence or host.spdm) and host.source == TRACE:
        raise _wrong(f"{host.host_id}: a trace has no devices to attest", "gpu_evidence")


def _wrong(text: str, name: str) -> ConfigError:
    return ConfigError(text, field=name, remedy=REMEDY)
