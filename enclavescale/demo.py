"""The demo: broker, hosts, liars and worker as separate processes; watches the output topic like any consumer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from confluent_kafka import Consumer, Producer, TopicPartition
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from rich.live import Live

from attester.signing import public_point
from attester.simulated import SIMULATED_BANNER, SimulatedTee
from enclavescale.attackers import AttackSpec
from enclavescale.fleet import (
    AGGREGATOR_ID,
    AGGREGATOR_IMAGE,
    HOST_IMAGE,
    ROGUE_IMAGE,
    SAMPLE_HZ,
    Fleet,
    demo_fleet,
    sign_policy,
)
from enclavescale.live import DomainView, mw, quantile_of, table
from enclavescale.producing import HostSpec, ProduceSpec
from enclavescale.topic_admin import create_topics
from schemas.codec import decode_signed_output, decode_signed_record
from schemas.errors import ConfigError, EnclaveScaleError, SchemaError
from schemas.mapping import to_jsonable
from schemas.records import ControlRecord, FleetPower
from schemas.topics import TopicNames

GRACE_WINDOWS = 1
LEAD_S = 3.0
"""Time from the start of the host processes to their common clock, s: all of them are up by then."""

QUIET_S = 45.0
"""The demo fails when nothing new arrives for so long, s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line sets."""

    hosts: int = 32
    gpus: int = 8
    windows: int = 250
    window_ms: int = 10_000
    speed: int = 60
    bootstrap: str | None = None
    processes: int = 4
    attack: bool = True
    windows_out: Path | None = None


@dataclass(slots=True)
class Tallies:
    """What was seen so far on the topics."""

    outputs: dict[tuple[str, int, int], FleetPower] = field(default_factory=dict)
    views: dict[str, DomainView] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    controls: set[str] = field(default_factory=set)
    last_new_s: float = 0.0


class Processes:
    """Child processes, each ended with the demo, however it ends. Their logs are kept in `directory`."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[IO[bytes]] = []

    def start(self, name: str, arguments: list[str], *, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start `python -m arguments…`; its stdin closes when this process ends."""
        log = (self._directory / f"{name}.log").open("wb")
        self._files.append(log)
        process = subprocess.Popen(  # noqa: S603  our own modules
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=log if output is None else output,
            stderr=log,
        )
        self._running[name] = process
        return process

    def failed(self) -> str | None:
        """Name, exit code and last log lines of a process that ended with an error."""
        for name, process in self._running.items():
            if process.poll() not in (None, 0):
                lines = (self._directory / f"{name}.log").read_text(errors="replace").splitlines()
                return f"{name} ended with {process.returncode}:\n" + "\n".join(lines[-12:])
        return None

    def stop(self) -> None:
        """End everything: politely, then by force."""
        for process in reversed(list(self._running.values())):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                if process.stdin is not None:
                    process.stdin.close()
        for process in self._running.values():
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self._files:
            log.close()


class Demo:
    """One run of the demo."""

    def __init__(self, options: DemoOptions, directory: Path, console: Console):
        self.options, self.directory, self.console = options, directory, console
        self.processes = Processes(directory)
        self.embedded = options.bootstrap is None
        prefix = "enclavescale" if self.embedded else f"enclavescale-demo-{secrets.token_hex(3)}"
        self.topics = TopicNames.with_prefix(prefix)
        self.prefix = prefix
        self.tee_directory = directory / "simulated-tee"
        self.key = ec.generate_private_key(ec.SECP256R1())
        now_ms = int(time.time() * 1000)
        width = options.window_ms
        # Event time is replayed faster than real time and reaches the present only at the end.
        self.start_ms = now_ms // width * width - (options.windows + GRACE_WINDOWS + 2) * width
        self.fleet: Fleet = demo_fleet(
            SimulatedTee.create(self.tee_directory),
            hosts=options.hosts,
            gpus=options.gpus,
            window_ms=width,
            now_ms=now_ms,
            create_time=self.embedded,
            grace_windows=GRACE_WINDOWS,
        )
        self.tallies = Tallies()
        self.bootstrap = options.bootstrap or ""
        self.started_s = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be seen on screen."""
        notes = [SIMULATED_BANNER]
        if self.embedded:
            notes.append(
                "EMBEDDED MOCK BROKER: nothing is durable; producers' timestamps stand in for append times (unsafe)"
            )
        return tuple(notes)

    def run(self, live: Callable[[], None]) -> dict[str, Any]:
        """Run to the end; returns the summary. Raises our errors."""
        self._start_broker()
        policy_path = self._publish_policy()
        self._start_worker()
        consumer = self._consumer()
        with contextlib.closing(consumer):
            self._watch(consumer, live, self._ready, "the worker to put the policy in force")
            self._start_hosts(policy_path)
            self.started_s = time.monotonic() + LEAD_S
            self._watch(consumer, live, self._finished, "outputs")
            elapsed_s = time.monotonic() - self.started_s
            self._drain(consumer)
        return self._summary(elapsed_s)

    # -- starting ----------------------------------------------------------------------------------------------

    def _start_broker(self) -> None:
        if not self.embedded:
            create_topics({"bootstrap.servers": self.bootstrap}, self.topics, partitions=2, replication=1)
            return
        counts = {
            getattr(self.topics, role): 2 if role in ("reports", "output", "manifests", "rejections") else 1
            for role in ("reports", "output", "manifests", "rejections", "policy", "collateral", "beacons")
        }
        process = self.processes.start(
            "broker",
            ["enclavescale.embedded", *(f"{name}={count}" for name, count in counts.items())],
            output=subprocess.PIPE,
        )
        line = process.stdout.readline().decode().strip() if process.stdout else ""
        if not line:
            raise ConfigError("the embedded broker did not start", code="DEMO_FAILED")
        self.bootstrap = line

    def _publish_policy(self) -> Path:
        value = sign_policy(self.fleet.policy, self.key)
        path = self.directory / "policy.avro"
        path.write_bytes(value)
        producer = Producer({"bootstrap.servers": self.bootstrap, "message.max.bytes": "8388608"})
        producer.produce(self.topics.policy, value=value, key=f"policy/{self.fleet.policy.counter}", partition=0)
        if producer.flush(20):
            raise ConfigError("the policy was not acknowledged", code="DEMO_FAILED")
        return path

    def _start_worker(self) -> None:
        arguments = ["enclavescale", "worker", "--bootstrap", self.bootstrap, "--group", f"{self.prefix}-worker"]
        arguments += ["--host-id", AGGREGATOR_ID, "--topic-prefix", self.prefix]
        arguments += ["--policy-signer", public_point(self.key.public_key()).hex()]
        arguments += ["--simulated-tee", str(self.tee_directory), "--tee-image", AGGREGATOR_IMAGE]
        if self.embedded:
            arguments.append("--unsafe-allow-create-time")
        self.processes.start("worker", arguments)

    def _spec(self, name: str, hosts: tuple[HostSpec, ...], policy: Path, origin_ms: int) -> ProduceSpec:
        return ProduceSpec(
            policy=str(policy),
            hosts=hosts,
            spool=str(self.directory / f"{name}.spool"),
            tee_directory=str(self.tee_directory),
            tee_image=HOST_IMAGE,
            windows=self.options.windows + GRACE_WINDOWS + 1,
            speed=self.options.speed,
            start_ms=self.start_ms,
            origin_ms=origin_ms,
            kafka=(f"bootstrap.servers={self.bootstrap}",),
            topic_prefix=self.prefix,
        )

    def _start_hosts(self, policy: Path) -> None:
        origin_ms = int((time.time() + LEAD_S) * 1000)
        count = max(1, min(self.options.processes, len(self.fleet.hosts)))
        for index in range(count):
            name = f"hosts-{index}"
            spec = self._spec(name, self.fleet.hosts[index::count], policy, origin_ms)
            path = self.directory / f"{name}.json"
            path.write_text(json.dumps(to_jsonable(spec)))
            self.processes.start(name, ["enclavescale", "produce", "--config", str(path)])
        if self.options.attack and len(self.fleet.hosts) >= 6:
            self._start_attackers(policy, origin_ms)

    def _start_attackers(self, policy: Path, origin_ms: int) -> None:
        victims = [host for host in self.fleet.hosts if self.fleet.domain_of(host.host_id) == "hall-a"]
        rogue = self._spec("rogue", (victims[2],), policy, origin_ms)
        spec = AttackSpec(
            bootstrap=self.bootstrap,
            partition=0,
            tampered_host=victims[0].host_id,
            replayed_host=victims[1].host_id,
            rogue=dataclasses.replace(rogue, tee_image=ROGUE_IMAGE, evidence_interval=1),
        )
        path = self.directory / "attackers.json"
        path.write_text(json.dumps(to_jsonable(spec)))
        self.processes.start("attackers", ["enclavescale.attackers", str(path)])

    # -- watching ----------------------------------------------------------------------------------------------

    def _consumer(self) -> Consumer:
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": f"{self.prefix}-demo", "enable.auto.commit": "false"}
        )
        watched = (self.topics.output, self.topics.rejections, self.topics.reports)
        consumer.assign([TopicPartition(topic, partition, 0) for topic in watched for partition in (0, 1)])
        return consumer

    def _watch(self, consumer: Consumer, live: Callable[[], None], done: Callable[[], bool], what: str) -> None:
        self.tallies.last_new_s = time.monotonic()
        while not done():
            self._take(consumer, 0.2)
            live()
            failure = self.processes.failed()
            if failure:
                raise ConfigError(failure, code="DEMO_FAILED", remedy="The process's last words are above.")
            if time.monotonic() - self.tallies.last_new_s > QUIET_S:
                raise ConfigError(f"waited {QUIET_S:.0f} s for {what}", code="DEMO_FAILED")

    def _take(self, consumer: Consumer, wait_s: float) -> int:
        taken = 0
        for message in consumer.consume(500, wait_s):
            value = message.value()
            if message.error() is not None or value is None:
                continue
            taken += 1
            self.tallies.last_new_s = time.monotonic()
            if message.topic() == self.topics.rejections:
                headers: Any = message.headers() or []
                codes = [code for name, code in headers if name == "enclavescale.error.code"]
                self.tallies.refused[codes[0].decode() if codes and isinstance(codes[0], bytes) else "?"] += 1
            elif message.topic() == self.topics.output:
                output = decode_signed_output(value)[0].output
                self.tallies.outputs[output.domain, output.window_start_ms, output.revision] = output
                self.tallies.views.setdefault(output.domain, DomainView()).take(output)
            elif len(self.tallies.controls) < len(self.fleet.policy.domains):
                with contextlib.suppress(SchemaError):
                    body = decode_signed_record(value).body
                    if isinstance(body, ControlRecord):
                        self.tallies.controls.add(body.domain)
        return taken

    def _ready(self) -> bool:
        return len(self.tallies.controls) == len(self.fleet.policy.domains)

    def wanted(self) -> Iterator[tuple[str, int]]:
        """Domain and start of every window the demo waits for."""
        for rule in self.fleet.policy.domains:
            for index in range(self.options.windows):
                yield rule.domain, self.start_ms + index * self.options.window_ms

    def _finished(self) -> bool:
        firsts = sum(1 for _, start, revision in self.tallies.outputs if revision == 0 and start < self._end_ms)
        return firsts >= self.options.windows * len(self.fleet.policy.domains)

    @property
    def _end_ms(self) -> int:
        return self.start_ms + self.options.windows * self.options.window_ms

    def _drain(self, consumer: Consumer) -> None:
        """Take what is still on its way: rejections follow at the worker's next tick."""
        quiet = 0
        while quiet < 8:
            quiet = 0 if self._take(consumer, 0.25) else quiet + 1

    # -- summing up --------------------------------------------------------------------------------------------

    def _summary(self, elapsed_s: float) -> dict[str, Any]:
        newest: dict[tuple[str, int], FleetPower] = {}
        for (domain, start, _), output in sorted(self.tallies.outputs.items()):
            if start < self._end_ms:
                newest[domain, start] = output
        covered = 0
        rows = []
        for (domain, start), output in newest.items():
            truth_w = self.fleet.truth_w(domain, start, start + self.options.window_ms)
            inside = output.mean is not None and output.mean.low_w <= truth_w <= output.mean.high_w
            covered += inside
            rows.append(
                {
                    "domain": domain,
                    "window_start_ms": start,
                    "truth_mw": round(mw(truth_w), 6),
                    "mean_mw": mw(output.mean.value_w) if output.mean else None,
                    "mean_ci_mw": [mw(output.mean.low_w), mw(output.mean.high_w)] if output.mean else None,
                    "covered": bool(inside),
                }
            )
        if self.options.windows_out is not None:
            self.options.windows_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
        accepted = sum(output.accepted for output in newest.values())
        ticks = SAMPLE_HZ * self.options.window_ms // 1000
        samples = sum(output.coverage.reporting_gpus for output in newest.values()) * ticks
        return {
            "windows": len(newest),
            "reports": accepted + sum(self.tallies.refused.values()),
            "samples": samples,
            "hosts": len(self.fleet.hosts),
            "accepted": accepted,
            "refused": dict(sorted(self.tallies.refused.items())),
            "domains": {rule.domain: self._domain(rule.domain, newest, rows) for rule in self.fleet.policy.domains},
            "samples_per_s": round(samples / elapsed_s, 1),
            "elapsed_s": round(elapsed_s, 2),
            "interval_95": {"windows": len(rows), "covered": covered},
            "simulated_tee": True,
            "embedded_broker": self.embedded,
        }

    def _domain(
        self, domain: str, newest: dict[tuple[str, int], FleetPower], rows: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Figures of a domain's last window; `truth_mw` is what the raw readings say of it."""
        output = newest[max(key for key in newest if key[0] == domain)]
        p99 = quantile_of(output, 990_000)
        margin = output.margin.margin
        mine = [row for row in rows if row["domain"] == domain]
        return {
            "mean_mw": mw(output.mean.value_w) if output.mean else None,
            "mean_ci_mw": [mw(output.mean.low_w), mw(output.mean.high_w)] if output.mean else None,
            "truth_mw": mine[-1]["truth_mw"],
            "p99_mw": mw(p99.value_w) if p99 else None,
            "margin_mw": mw(margin.value_w) if margin else None,
            "margin_ci_mw": [mw(margin.low_w), mw(margin.high_w)] if margin else None,
            "limit_mw": mw(output.margin.limit_w),
            "windows": len(mine),
            "covered": sum(row["covered"] for row in mine),
        }


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run the demo with a live table on `console`; returns the summary. Raises our errors."""
    with tempfile.TemporaryDirectory(prefix="enclavescale-demo-") as name:
        demo = Demo(options, Path(name), console)
        try:
            with Live(console=console, refresh_per_second=4, transient=False) as view:

                def show() -> None:
                    total = options.windows * len(demo.fleet.policy.domains)
                    done = sum(1 for _, _, revision in demo.tallies.outputs if revision == 0)
                    progress = f"{min(done, total)}/{total} windows, {options.hosts} hosts × {options.gpus} GPUs"
                    view.update(table(demo.tallies.views, demo.tallies.refused, notes=demo.notes, progress=progress))

                return demo.run(show)
        finally:
            demo.processes.stop()


__all__ = ["Demo", "DemoOptions", "EnclaveScaleError", "run_demo"]
