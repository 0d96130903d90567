"""`enclavescale doctor`: everything a host agent will need, asked at once, each with what to do about it.

Sections run on threads of their own: a driver, a broker or a quoting service that never answers costs its own section
and says so, and no other. Nothing is changed: no topic, no spool, no session; a trial file beside the spool is removed
again, and trial evidence is thrown away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from attester.tsm_entries import ReportEntries
from enclavescale.agent.file import NVML, TRACE, HostSpec, ProduceSpec
from enclavescale.agent.policy import read_policy
from enclavescale.checkup.clock import DEFAULT_TOLERANCE_MS, ClockState, check_clock, clock_or_error, keeper, uptime_s
from enclavescale.checkup.cluster import check_broker, check_registry
from enclavescale.checkup.config import Loaded, check_config
from enclavescale.checkup.finding import Check, Finding, fail, skip
from enclavescale.checkup.gpus import check_gpus
from enclavescale.checkup.policy import check_policy
from enclavescale.checkup.running import check_running
from enclavescale.checkup.sources import check_dcgm, check_spdm, check_traces
from enclavescale.checkup.spool import check_spool
from enclavescale.checkup.tee import check_tee
from producers.renewal import wall_clock_ms
from producers.sample.nvml import Nvml
from schemas.errors import EnclaveScaleError
from schemas.records import HostEnrolment, Policy
from schemas.topics import TopicNames

log = logging.getLogger(__name__)

EVIDENCE_S = 90.0
"""Time for trial evidence, s: the kernel gives a TEE up to 60 s for one report."""

REQUEST_SHARE = 0.4
"""Part of a section's time that one request may take: two that fail leave time to say so."""

MIB = 1 << 20


@dataclass(slots=True)
class Section:
    """One part of the examination. `least_s`: time it gets whatever the time-out is; `hint`: what to do if even that
    does not do; `host`: the one host there is, which need not be named. `findings` grow while it runs."""

    title: str
    check: Check
    hint: str = "Look why it does not answer, or give it more time with --timeout."
    least_s: float = 0.0
    host: str = ""
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What of the machine a test may replace."""

    nvml: Callable[[], Nvml] = Nvml
    entries: ReportEntries | None = None
    clock: Callable[[], ClockState | OSError] = clock_or_error
    now_ms: Callable[[], int] = wall_clock_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`trial`: ask TEE and devices for evidence; `timeout_s`: for every section; `verbose`: the Kafka client's logs."""

    trial: bool = True
    timeout_s: float = 10.0
    verbose: bool = False

    @property
    def request_s(self) -> float:
        """Time for one request, s."""
        return self.timeout_s * REQUEST_SHARE


def examine(
    config: Path,
    options: Options,
    around: Surroundings | None = None,
    watch: Callable[[Sequence[str]], None] = lambda waiting: None,
) -> list[Section]:
    """Run every section and return them in the order in which a person reads them. Never raises for what it finds.

    `watch` is told the titles of those that are not done yet.
    """
    loaded = Loaded()
    first = Section("Configuration", lambda: check_config(config, loaded))
    _run([first], options.timeout_s, watch)
    rest = _sections(loaded, options, around or Surroundings())
    _run(rest, options.timeout_s, watch)
    return [first, *rest]


def counts(sections: Sequence[Section]) -> dict[str, int]:
    """Findings by state: ok, warn, fail, skip."""
    states = [one.state for section in sections for one in section.findings]
    return {state: states.count(state) for state in ("ok", "warn", "fail", "skip")}


def result_json(sections: Sequence[Section], config: Path) -> dict[str, object]:
    """The whole result: `ok` unless anything failed, numbers by state, and every check in order."""
    found = counts(sections)
    checks = [asdict(one) for section in sections for one in section.findings]
    return {
        "ok": not found["fail"],
        "config": str(config),
        "version": version("enclavescale"),
        "counts": found,
        "checks": checks,
    }


def _sections(loaded: Loaded, options: Options, around: Surroundings) -> list[Section]:
    spec = loaded.spec
    policy = _policy(spec) if spec else None
    tolerance_ms = policy.limits.clock_skew_tolerance_ms if policy else DEFAULT_TOLERANCE_MS
    clock = Section("Clock", lambda: check_clock(around.clock(), keeper(), uptime_s(), tolerance_ms))
    if spec is None:
        return [clock, Section("Everything else", _unread)]
    topic = TopicNames.with_prefix(spec.topic_prefix).reports
    made = [_about(None, spec, "Policy", partial(check_policy, spec, around.now_ms())), clock]
    made += _readings(spec, policy, options, around)
    made += _evidence(spec, policy, options, around)
    spool = partial(check_spool, Path(spec.spool), spec.spool_max_mib * MIB)
    made.append(Section("Spool", spool, "The disk does not answer: see the kernel's log."))
    if loaded.kafka is not None:
        quiet = {} if options.verbose else {"log_level": "0"}
        kafka = {**quiet, **loaded.kafka}
        made.append(Section("Kafka", partial(check_broker, kafka, topic, _partitions(spec, policy), options.request_s)))
    if spec.registry is not None:
        made.append(Section("Schema Registry", partial(check_registry, spec.registry.url, topic, options.request_s)))
    made.append(Section("Agent", partial(check_running, spec.listen, options.request_s)))
    return made


def _readings(spec: ProduceSpec, policy: Policy | None, options: Options, around: Surroundings) -> Iterator[Section]:
    for host in spec.hosts:
        enrolled = _enrolment(policy, host)
        if host.source == TRACE:
            yield _about(host, spec, "Traces", partial(check_traces, host))
        if host.dcgm is not None:
            yield _about(host, spec, "DCGM exporter", partial(check_dcgm, host.dcgm, enrolled, options.request_s))
        if host.source == NVML or host.gpu_evidence:  # such a file has one host
            accepted = policy.accepted_sampler_modes if policy else ()
            check = partial(check_gpus, host, enrolled, accepted, around.nvml(), trial=options.trial)
            section = _about(host, spec, "GPUs", check)
            section.hint = "The driver hangs: see whether `nvidia-smi` does, and `journalctl -k --grep 'NVRM|Xid'`."
            section.least_s = EVIDENCE_S if host.gpu_evidence and options.trial else 0.0
            yield section


def _evidence(spec: ProduceSpec, policy: Policy | None, options: Options, around: Surroundings) -> Iterator[Section]:
    for host in spec.hosts:
        enrolled = _enrolment(policy, host)
        check = partial(check_tee, spec, host.host_id, policy, enrolled, trial=options.trial, entries=around.entries)
        section = _about(host, spec, "TEE", check)
        section.hint = "The quoting service does not answer: see the host's (Intel QGS), and this guest's kernel log."
        section.least_s = EVIDENCE_S if options.trial else 0.0
        yield section
        if host.spdm:
            devices = _about(host, spec, "SPDM devices", partial(_devices, host, enrolled, options.trial))
            devices.least_s = section.least_s
            yield devices


def _devices(host: HostSpec, enrolled: HostEnrolment | None, trial: bool) -> Iterator[Finding]:
    for device in host.spdm:
        yield from check_spdm(device, enrolled, trial=trial)


def _about(host: HostSpec | None, spec: ProduceSpec, title: str, check: Check) -> Section:
    """A section on one host (None: on all), whose name it bears where there are several."""
    if len(spec.hosts) == 1:
        return Section(title, check, host=spec.hosts[0].host_id)
    return Section(f"{title} of {host.host_id}" if host else title, check, host=host.host_id if host else "")


def _unread() -> Iterator[Finding]:
    yield skip("config.rest", "nothing else can be looked at before the file can be read")


def _policy(spec: ProduceSpec) -> Policy | None:
    """The policy where it can be read; its own section says what is wrong with it."""
    try:
        return read_policy(Path(spec.policy))
    except EnclaveScaleError:
        return None


def _enrolment(policy: Policy | None, host: HostSpec) -> HostEnrolment | None:
    enrolled = policy.hosts if policy else ()
    return next((one for one in enrolled if one.host_id == host.host_id), None)


def _partitions(spec: ProduceSpec, policy: Policy | None) -> dict[str, int]:
    """Partition by domain, of the domains that the hosts are enrolled in."""
    if policy is None:
        return {}
    domains = {found.domain for host in spec.hosts if (found := _enrolment(policy, host)) is not None}
    return {rule.domain: rule.partition for rule in policy.domains if rule.domain in domains}


def _run(sections: Sequence[Section], timeout_s: float, watch: Callable[[Sequence[str]], None]) -> None:
    """Run all at once and wait for each until its time is over; what it found by then stays."""
    began = time.monotonic()
    threads = [
        threading.Thread(target=_section, args=(one,), name=f"doctor {one.title}", daemon=True) for one in sections
    ]
    for thread in threads:
        thread.start()
    for index, (section, thread) in enumerate(zip(sections, threads, strict=True)):
        waiting = [one.title for one, its in zip(sections[index:], threads[index:], strict=True) if its.is_alive()]
        watch(waiting)
        limit_s = max(timeout_s, section.least_s)
        thread.join(max(0.0, began + limit_s - time.monotonic()))
        if thread.is_alive():
            # A copy: the thread may yet go on, and what it finds later is nobody's any more.
            section.findings = [*section.findings, fail("doctor.timeout", f"no answer in {limit_s:g} s", section.hint)]


def _section(section: Section) -> None:
    findings = section.findings
    try:
        for one in section.check():
            findings.append(one)  # as it comes: a time-out keeps what was found
    except Exception as error:  # one check that breaks must not hide the others
        log.debug("%s", section.title, exc_info=True)
        remedy = "A defect of this program; `enclavescale -v doctor …` shows where. The other sections hold."
        findings.append(fail("doctor.defect", f"the check broke off: {type(error).__name__}", remedy))
