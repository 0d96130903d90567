"""What the host side costs: samples per second of one core from readings to final bytes, and the agent as a process.

The first part runs the agent's own code (`HostAgent.produce`) on prepared readings: distil, privatise with OpenDP,
seal with a P-256 session of the simulated TEE, encode. Time is CPU time of the thread, so that a busy machine slows
nothing down; wall time is given beside it. Bare OpenDP draws are timed in between, in the same minute on the same
core: they are the ceiling. The second part is a real agent in a process of its own (`enclavescale.bench.host_agent`).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_laplace
from opendp.metrics import l1_distance

from attester.simulated import SimulatedTee
from enclavescale.agent.sessions import session_maker
from enclavescale.children import Children
from power_model.grid import Grid
from producers.config import ClassProfile, HostProfile, Schedule, session_facts
from producers.distil import distil, gaps
from producers.host import AgentHost, HostAgent, Sealing
from producers.privacy import MICRO, Budget, default_budget, privacy_parameters
from producers.privatise import Privatiser
from producers.renewal import wall_clock_ms
from producers.sample.nvml import Nvml, NvmlFault
from producers.sample.simulated import SimulatedJob, SimulatedSource
from producers.sample.source import Conditions, Readings, ReadingSource
from producers.seal import ClassWindow, Sealer
from producers.spool import Spool
from schemas.codec import decode_signed_record, encode_body, record_preimage
from schemas.errors import EnclaveScaleError
from schemas.topics import TopicNames

MODEL, LIMIT_W = "NVIDIA H100 80GB HBM3", 700
EDGES = 9
"""The grid as shipped: nine edges, a tenth of the nominal limit apart (`enclavescale.fleet`)."""
HOST_ID, DOMAIN = "bench-host", "bench"
PAPER_SAMPLES_PER_S = 131_406
"""What the paper's enclave reached: distil, privatise and seal."""
ROUND_WINDOWS = 20
"""Windows between two timings of bare draws: about 50 ms."""
BARE_DRAWS = 2_000
"""Draws per call of the bare mechanism: the call itself is then below one part in a hundred."""
PREPARED_WINDOWS = 16
WARM_UP_WINDOWS = 20
START_MS = 1_767_225_600_000
SIMULATED, NVML = READERS = ("simulated", "nvml")
AGENT_WINDOWS_MS = (60_000, 10_000, 1_000)
AGENT_START_S = 60.0
"""Longest an agent may take beside what it is measured for: start, sessions, the last flush."""


class BenchFailed(EnclaveScaleError):
    """A process of the benchmark did not end well."""

    code = "BENCH_FAILED"
    remedy = "The last log lines of the process are above; --agent-seconds 0 leaves the agent out."


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """From readings to final bytes on one core.

    `samples_per_s` by CPU time, `samples_per_wall_s` by the wall; a sample is one scheduled reading of one GPU.
    `stages_us`: CPU time per report, medians; `seal` contains `encode` and `sign`. `opendp_ns_per_draw`: the bare
    mechanism in the same run; `opendp_ceiling`: samples per second if nothing but its draws took time.
    """

    samples_per_s: int
    samples_per_wall_s: int
    paper_samples_per_s: int
    reports: int
    samples_per_report: int
    draws_per_report: int
    report_bytes: int
    report_us: float
    stages_us: dict[str, float]
    opendp_ns_per_draw: int
    opendp_ceiling_samples_per_s: int


class Prepared:
    """Windows in memory, one after the other for ever: what reading sensors costs is the agent's part."""

    kind = "simulated"
    sampler_mode = "instant"

    def __init__(self, source: ReadingSource, schedule: Schedule) -> None:
        starts = [START_MS + i * schedule.window_ms for i in range(PREPARED_WINDOWS)]
        self.gpus = source.gpus
        self._window_ms = schedule.window_ms
        self._windows = [source.window(start, start + schedule.window_ms) for start in starts]
        self._conditions = [source.conditions(start, start + schedule.window_ms) for start in starts]

    def window(self, start_ms: int, end_ms: int) -> Readings:
        """Return one of the prepared windows."""
        return self._windows[start_ms // self._window_ms % PREPARED_WINDOWS]

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        """Return what belongs to it."""
        return self._conditions[start_ms // self._window_ms % PREPARED_WINDOWS]


def bench_edges(limit_w: int) -> tuple[int, ...]:
    """The shipped grid for a GPU of that limit, W."""
    return tuple(limit_w * i // (EDGES + 1) for i in range(1, EDGES + 1))


def bench_profile(source: ReadingSource) -> HostProfile:
    """A host with one class of GPUs on the shipped grid, clipped at half the limit above it."""
    return HostProfile(
        host_id=HOST_ID,
        domain=DOMAIN,
        classes=(
            ClassProfile(
                model=MODEL,
                capacity_w=LIMIT_W * source.gpus,
                edges_w=bench_edges(LIMIT_W),
                clip_low_w=0,
                clip_high_w=LIMIT_W * 3 // 2,
                source=source,
            ),
        ),
    )


def bench_job(gpus: int, schedule: Schedule) -> SimulatedJob:
    """The job that the simulated GPUs run."""
    return SimulatedJob(gpus=gpus, limit_w=LIMIT_W, seed="bench", tick_ms=schedule.tick_ms)


def bench_host(profile: HostProfile, schedule: Schedule, budget: Budget) -> AgentHost:
    """The host with a session of its own, quoted by a simulated TEE that is made here."""
    facts = session_facts(profile, schedule, privacy_parameters(budget, profile.classes, schedule))
    return AgentHost(profile=profile, session=session_maker(SimulatedTee.create(), facts)(None, wall_clock_ms()))


@dataclass(slots=True)
class _Timer:
    """CPU time of this thread by stage, ns."""

    spent: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.thread_time_ns()
        result = work()
        self.spent.setdefault(stage, []).append(time.thread_time_ns() - began)
        return result

    def us(self, stage: str) -> float:
        return round(median(self.spent[stage]) / 1000, 1)


class PipelineBench:
    """Rounds of whole reports, of one report stage by stage and of bare draws, until told to stop."""

    def __init__(self, directory: Path, gpus: int, schedule: Schedule | None = None) -> None:
        self.schedule = schedule or Schedule()
        budget = default_budget(energy=True)
        source = Prepared(SimulatedSource(bench_job(gpus, self.schedule)), self.schedule)
        self._profile = bench_profile(source)
        self._host = bench_host(self._profile, self.schedule, budget)
        self._privacy = privacy_parameters(budget, self._profile.classes, self.schedule)
        self._spool = Spool(directory / "bench-spool.db", max_bytes=1 << 20, max_age_ms=1000)
        self._agent = HostAgent(self._host, Sealing(schedule=self.schedule, budget=budget), self._spool)
        self._privatiser = Privatiser(self._privacy)
        self._sealer = Sealer(self._host.session, self._profile, self.schedule, self._privacy, last_digest=None)
        self._grid = Grid(self._profile.classes[0].edges_w)
        scale = next(one.scale_micro for one in self._privacy.releases if one.release == "transitions") / MICRO
        self._bare = make_laplace(vector_domain(atom_domain(T="i32")), l1_distance(T="i32"), scale=scale)
        self._draws = 0
        self._start_ms = START_MS

    def run(self, *, windows: int, seconds: float) -> Pipeline:
        """Measure `windows` reports (0: for `seconds`), after a warm-up."""
        self._reports(WARM_UP_WINDOWS)
        for _ in range(3):
            self._by_stage(_Timer())
        timer, done, wall_s, sizes = _Timer(), 0, 0.0, 0
        until = time.monotonic() + seconds
        while done < windows if windows else not done or time.monotonic() < until:
            count = min(ROUND_WINDOWS, windows - done) if windows else ROUND_WINDOWS
            began = time.perf_counter()
            sizes += timer("round", partial(self._reports, count))
            wall_s += time.perf_counter() - began
            done += count
            self._by_stage(timer)
            timer("bare", lambda: self._bare(np.zeros(BARE_DRAWS, np.int32)))
        return self._result(timer, done, wall_s, sizes)

    def close(self) -> None:
        """Close the spool."""
        self._spool.close()

    def _reports(self, count: int) -> int:
        size = 0
        for _ in range(count):
            size += len(self._agent.produce(self._start_ms).sealed.value)
            self._start_ms += self.schedule.window_ms
        return size

    def _by_stage(self, timer: _Timer) -> None:
        item, schedule, start_ms = self._profile.classes[0], self.schedule, self._start_ms
        readings = item.source.window(start_ms, start_ms + schedule.window_ms)
        found = item.source.conditions(start_ms, start_ms + schedule.window_ms)
        bounds = item.clip_low_w, item.clip_high_w, schedule.ticks_per_pane
        exact = timer(
            "distil",
            lambda: distil(readings, self._grid, *bounds, tick_ms=schedule.tick_ms, energy=found.energy),
        )
        seen = timer("gaps", lambda: gaps([readings]))
        noisy = timer("privatise", lambda: self._privatiser.privatise(exact))
        classes = (ClassWindow(item, exact.readings_taken, noisy, found),)
        sealed = timer("seal", lambda: self._sealer.seal(start_ms, classes, seen, 0))
        report = decode_signed_record(sealed.value).body
        preimage = record_preimage(timer("encode", lambda: encode_body(report)))
        timer("sign", lambda: self._host.session.sign(preimage))
        arrays = (exact.transitions, exact.pane_sums, exact.histogram)
        self._draws = sum(one.size for one in arrays) + len(self._privacy.releases) - len(arrays)
        self._start_ms = sealed.window_end_ms

    def _result(self, timer: _Timer, reports: int, wall_s: float, sizes: int) -> Pipeline:
        samples = self.schedule.ticks * self._profile.classes[0].source.gpus
        cpu_s = sum(timer.spent["round"]) / 1e9
        draw_ns = median(timer.spent["bare"]) / BARE_DRAWS
        stages = ("distil", "gaps", "privatise", "seal", "encode", "sign")
        return Pipeline(
            samples_per_s=round(samples * reports / cpu_s),
            samples_per_wall_s=round(samples * reports / wall_s),
            paper_samples_per_s=PAPER_SAMPLES_PER_S,
            reports=reports,
            samples_per_report=samples,
            draws_per_report=self._draws,
            report_bytes=round(sizes / reports),
            report_us=round(cpu_s / reports * 1e6, 1),
            stages_us={stage: timer.us(stage) for stage in stages},
            opendp_ns_per_draw=round(draw_ns),
            opendp_ceiling_samples_per_s=round(samples / (self._draws * draw_ns / 1e9)),
        )


def readers_here() -> tuple[str, ...]:
    """The readers that this machine has: real GPUs only where NVML shows one."""
    try:
        with Nvml() as nvml:
            return READERS if nvml.count() else (SIMULATED,)
    except NvmlFault:
        return (SIMULATED,)


def agent_window_ms(seconds: float) -> int:
    """The longest of `AGENT_WINDOWS_MS` of which at least one is complete in `seconds`, whenever they begin."""
    return next((ms for ms in AGENT_WINDOWS_MS if seconds * 1000 >= 2.5 * ms), AGENT_WINDOWS_MS[-1])


def agent_cost(seconds: float, gpus: int, reader: str) -> dict[str, Any]:
    """Run an agent for `seconds` against an embedded broker, both processes of their own; `reader`: simulated or nvml.

    Returns what `enclavescale.bench.host_agent` measured of itself. Raises `BenchFailed`.
    """
    topics = TopicNames()
    with tempfile.TemporaryDirectory(prefix="enclavescale-bench-") as name:
        children = Children(Path(name))
        try:
            broker = children.start(
                "broker",
                ["enclavescale.embedded", f"{topics.reports}=1", f"{topics.beacons}=1"],
                output=subprocess.PIPE,
            )
            spec = {
                "seconds": seconds,
                "gpus": gpus,
                "reader": reader,
                "window_ms": agent_window_ms(seconds),
                "bootstrap": _line(broker),
                "directory": name,
            }
            agent = children.start("agent", ["enclavescale.bench.host_agent", json.dumps(spec)], output=subprocess.PIPE)
            try:
                output, _ = agent.communicate(timeout=seconds + agent_window_ms(seconds) / 1000 + AGENT_START_S)
            except subprocess.TimeoutExpired as error:
                raise BenchFailed("the agent did not end in time") from error
            if agent.returncode:
                raise BenchFailed(f"the agent ended with {agent.returncode}:\n{children.last_words('agent')}")
            measured: dict[str, Any] = json.loads(output)
            return measured
        finally:
            children.stop()


def _line(process: subprocess.Popen[bytes]) -> str:
    line = process.stdout.readline().decode().strip() if process.stdout else ""
    if not line:
        raise BenchFailed("the embedded broker did not start")
    return line


def bench(*, windows: int, seconds: float, gpus: int, agent_seconds: float, readers: tuple[str, ...]) -> dict[str, Any]:
    """Both parts, as one JSON-ready document; `agent` maps each reader to what the agent cost with it."""
    schedule = Schedule()
    with tempfile.TemporaryDirectory(prefix="enclavescale-bench-") as name:
        pipeline = PipelineBench(Path(name), gpus, schedule)
        try:
            measured = pipeline.run(windows=windows, seconds=seconds)
        finally:
            pipeline.close()
    shape = {"gpus": gpus, "window_ms": schedule.window_ms, "pane_ms": schedule.pane_ms, "edges": EDGES}
    agents = {reader: agent_cost(agent_seconds, gpus, reader) for reader in readers} if agent_seconds else {}
    return {**asdict(measured), **shape, "sample_hz": schedule.sample_hz, "agent": agents}
