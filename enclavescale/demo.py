"""The demo: broker, hosts, liars and worker as separate processes; watches the output topic like any consumer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console

from attester.signing import public_point
from attester.simulated import SimulatedTee
from enclavescale import figures
from enclavescale.agent.file import SIMULATED_TEE, HostSpec, ProduceSpec
from enclavescale.attackers import AttackSpec
from enclavescale.children import Children
from enclavescale.errors import DemoFailed
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE, HOST_IMAGE, ROGUE_IMAGE, Fleet, demo_fleet, sign_policy
from enclavescale.gate import GRACE_WINDOWS, Release
from enclavescale.live import Picture
from enclavescale.progress import Show, open_show
from enclavescale.tallies import Tallies
from enclavescale.topic_admin import PARTITIONED, create_topics
from schemas.mapping import to_jsonable
from schemas.topics import TOPICS, TopicNames

LEAD_S = 2.0
"""Time from the start of the host processes to their common clock, s. One that takes longer holds up the others."""

QUIET_S = 60.0
"""The demo fails when nothing new arrives for so long, s, above what two windows take at its speed."""

SETTLE_S = 1.0
"""After everything expected is there, the demo looks for what is not expected for so long, s."""

MIN_ATTACK_HOSTS = 6
"""Below it hall-a has fewer than three hosts, and a liar in each place would leave nobody honest."""

ATTACK_RECORDS = 20
"""Records that each of the three liars sends."""

ATTACK_WINDOWS = 2 * ATTACK_RECORDS
"""Event time stays within so many windows of the start until the liars are done."""

LATENESS_WINDOWS = 60
"""Lateness limit of the demo's policy, windows: above `ATTACK_WINDOWS`, so that no lie is merely late."""

MAX_IDLE_MS = 24 * 3_600_000
"""A replay lies in the past: closing idle domains by the wall clock would close windows that are still to come."""

BEACON_AGE_MS = 2 * 3_600_000
"""Greatest age of a beacon in evidence beyond the event time that the run replays, ms: two of a worker's intervals."""


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

    @property
    def attacked(self) -> bool:
        """Whether the three liars take part."""
        return self.attack and self.hosts >= MIN_ATTACK_HOSTS


class Demo:
    """One run of the demo."""

    def __init__(self, options: DemoOptions, directory: Path):
        self.options, self.directory = options, directory
        self.children = Children(directory)
        self.embedded = options.bootstrap is None
        self.bootstrap = options.bootstrap or ""
        self.prefix = "enclavescale" if self.embedded else f"enclavescale-demo-{secrets.token_hex(3)}"
        self.topics = TopicNames.with_prefix(self.prefix)
        self.tee_directory = directory / "simulated-tee"
        self.key = ec.generate_private_key(ec.SECP256R1())
        now_ms, width = int(time.time() * 1000), options.window_ms
        # Event time is replayed faster than real time and reaches the present only at the end.
        self.start_ms = now_ms // width * width - (options.windows + GRACE_WINDOWS + 2) * width
        self.end_ms = self.start_ms + options.windows * width
        self.fleet: Fleet = demo_fleet(
            SimulatedTee.create(self.tee_directory),
            hosts=options.hosts,
            gpus=options.gpus,
            window_ms=width,
            now_ms=now_ms,
            create_time=self.embedded,
            grace_windows=GRACE_WINDOWS,
            lateness_ms=LATENESS_WINDOWS * width,
            max_idle_ms=MAX_IDLE_MS,
            max_beacon_age_ms=BEACON_AGE_MS + (self.options.windows + GRACE_WINDOWS) * width,
        )
        self.records = min(ATTACK_RECORDS, options.windows) if options.attacked else 0
        self.liars = [host for host in self.fleet.hosts if self.fleet.domain_of(host.host_id) == "hall-a"][:3]
        hosts, domains = (
            (host.host_id for host in self.fleet.hosts),
            (rule.domain for rule in self.fleet.policy.domains),
        )
        self.tallies = Tallies(
            self.topics,
            Release(self.start_ms, width, hosts, domains),
            start_ms=self.start_ms,
            window_ms=width,
            impostor=self.liars[2].host_id if self.records else None,
            impostor_windows=self.records,
        )
        self.quiet_s = QUIET_S + 2 * width / 1000 / options.speed
        self.phase = "starting"
        self._gated: list[str] = []
        self._released_ms = -1
        self._last_new_s = time.monotonic()
        self._first_report_s = 0.0

    def run(self, show: Show) -> dict[str, Any]:
        """Run to the end; returns the summary. Raises our errors."""
        self._step("starting the broker" if self.embedded else "creating topics", show)
        self._start_broker()
        policy_path = self._publish_policy()
        self._step("starting the worker", show)
        self._start_worker()
        consumer = self._consumer()
        with contextlib.closing(consumer):
            self._watch(consumer, show, self._ready, "the worker to put the policy in force")
            self._step("starting the hosts", show)
            self._start_hosts(policy_path)
            self._watch(consumer, show, self._finished, "outputs")
            elapsed_s = time.monotonic() - self._first_report_s
            self._step("summing up", show)
            self._drain(consumer)
        return self._summary(elapsed_s)

    def _step(self, phase: str, show: Show) -> None:
        self.phase = phase
        show(self.picture, at_once=True)

    def picture(self) -> Picture:
        """What is to be seen now."""
        return Picture(
            hosts=self.options.hosts,
            gpus=self.options.gpus,
            speed=self.options.speed,
            phase=self.phase,
            done=self.tallies.firsts(self.end_ms),
            total=self.options.windows * len(self.fleet.policy.domains),
            domains=tuple(rule.domain for rule in self.fleet.policy.domains),
            views=self.tallies.views,
            refused=dict(self.tallies.refused),
            embedded=self.embedded,
        )

    # -- starting ----------------------------------------------------------------------------------------------

    def _start_broker(self) -> None:
        if not self.embedded:
            kafka = {"bootstrap.servers": self.bootstrap, "log_level": "0"}
            create_topics(kafka, self.topics, partitions=2, replication=1)
            return
        counts = {getattr(self.topics, spec.role): 2 if spec.role in PARTITIONED else 1 for spec in TOPICS}
        arguments = ["enclavescale.embedded", *(f"{name}={count}" for name, count in counts.items())]
        process = self.children.start("broker", arguments, output=subprocess.PIPE)
        line = process.stdout.readline().decode().strip() if process.stdout else ""
        if not line:
            raise DemoFailed(f"the embedded broker did not start:\n{self.children.last_words('broker')}")
        self.bootstrap = line

    def _publish_policy(self) -> Path:
        value = sign_policy(self.fleet.policy, self.key)
        path = self.directory / "policy.avro"
        path.write_bytes(value)
        producer = Producer({"bootstrap.servers": self.bootstrap, "message.max.bytes": "8388608"})
        producer.produce(self.topics.policy, value=value, key=f"policy/{self.fleet.policy.counter}", partition=0)
        if producer.flush(20):
            raise DemoFailed("the policy was not acknowledged within 20 s")
        return path

    def _start_worker(self) -> None:
        arguments = ["enclavescale", "worker", "--bootstrap", self.bootstrap, "--group", f"{self.prefix}-worker"]
        arguments += ["--host-id", AGGREGATOR_ID, "--topic-prefix", self.prefix]
        arguments += ["--policy-signer", public_point(self.key.public_key()).hex()]
        arguments += ["--simulated-tee", str(self.tee_directory), "--tee-image", AGGREGATOR_IMAGE]
        if self.embedded:
            arguments.append("--unsafe-allow-create-time")
        self.children.start("worker", arguments)

    def _spec(self, name: str, hosts: tuple[HostSpec, ...], policy: Path, origin_ms: int) -> ProduceSpec:
        return ProduceSpec(
            policy=str(policy),
            hosts=hosts,
            spool=str(self.directory / f"{name}.spool"),
            tee=SIMULATED_TEE,
            tee_directory=str(self.tee_directory),
            tee_image=HOST_IMAGE,
            windows=self.options.windows + GRACE_WINDOWS,
            speed=self.options.speed,
            start_ms=self.start_ms,
            origin_ms=origin_ms,
            topic_prefix=self.prefix,
            follow_beacons=True,
            gated=True,
        )

    def _start_hosts(self, policy: Path) -> None:
        origin_ms = int((time.time() + LEAD_S) * 1000)
        count = max(1, min(self.options.processes, len(self.fleet.hosts)))
        for index in range(count):
            name = f"hosts-{index}"
            spec = self._spec(name, self.fleet.hosts[index::count], policy, origin_ms)
            path = self.directory / f"{name}.json"
            path.write_text(json.dumps({**to_jsonable(spec), "kafka": {"bootstrap.servers": self.bootstrap}}))
            self.children.start(name, ["enclavescale", "produce", "--config", str(path)])
            self._gated.append(name)
        if self.records:
            self._start_attackers(policy, origin_ms)

    def _start_attackers(self, policy: Path, origin_ms: int) -> None:
        rogue = self._spec("rogue", (self.liars[2],), policy, origin_ms)
        spec = AttackSpec(
            bootstrap=self.bootstrap,
            partition=next(rule.partition for rule in self.fleet.policy.domains if rule.domain == "hall-a"),
            records=self.records,
            tampered_host=self.liars[0].host_id,
            replayed_host=self.liars[1].host_id,
            rogue=dataclasses.replace(
                rogue, tee_image=ROGUE_IMAGE, evidence_interval=1, follow_beacons=False, windows=self.records
            ),
        )
        path = self.directory / "attackers.json"
        path.write_text(json.dumps(to_jsonable(spec)))
        self.children.start("attackers", ["enclavescale.attackers", str(path)])
        self._gated.append("attackers")

    # -- watching ----------------------------------------------------------------------------------------------

    def _consumer(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.prefix}-demo",
                "enable.auto.commit": "false",
                "fetch.wait.max.ms": "20",  # the mock broker answers an empty fetch only after this time
            }
        )
        watched = (self.topics.output, self.topics.rejections, self.topics.reports)
        consumer.assign([TopicPartition(topic, partition, 0) for topic in watched for partition in (0, 1)])
        return consumer

    def _watch(self, consumer: Consumer, show: Show, done: Callable[[], bool], what: str) -> None:
        self._last_new_s = time.monotonic()
        while not done():
            self._take(consumer, 0.1)
            self._release()
            if self.tallies.outputs:
                self.phase = "running"
            show(self.picture)
            failure = self.children.failed()
            if failure:
                raise DemoFailed(failure)
            if time.monotonic() - self._last_new_s > self.quiet_s:
                raise DemoFailed(
                    f"waited {self.quiet_s:.0f} s for {what}; the worker's last words:\n"
                    + self.children.last_words("worker")
                )

    def _take(self, consumer: Consumer, wait_s: float) -> None:
        first = consumer.poll(wait_s)
        if first is None:
            return
        for message in [first, *consumer.consume(500, 0)]:
            if message.error() is None:
                self._last_new_s = time.monotonic()
                self.tallies.take(message)
        if self.tallies.reports and not self._first_report_s:
            self._first_report_s = time.monotonic()

    def _release(self) -> None:
        """Let event time go on as far as the log allows; the liars first get their lies in."""
        through_ms = self.tallies.release.through_ms()
        if self.records and not self.children_done("attackers"):
            through_ms = min(through_ms, self.start_ms + ATTACK_WINDOWS * self.options.window_ms)
        if self._gated and through_ms > self._released_ms:
            self._released_ms = through_ms
            for name in self._gated:
                self.children.tell(name, str(through_ms))

    def children_done(self, name: str) -> bool:
        """True if a child was started and has ended well."""
        return name in self._gated and self.children.done(name)

    def _ready(self) -> bool:
        """Every domain has a policy in force, and a beacon that its hosts may name."""
        return len(self.tallies.beacons) == len(self.fleet.policy.domains)

    def _finished(self) -> bool:
        """Every window has its output and every lie its refusal."""
        if self.tallies.firsts(self.end_ms) < self.options.windows * len(self.fleet.policy.domains):
            return False
        if not self.records:
            return True
        return self.children_done("attackers") and self.tallies.refused.total() >= 3 * self.records

    def _drain(self, consumer: Consumer) -> None:
        """Take what nobody expects: a refusal of an honest report must show in the summary."""
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            self._take(consumer, 0.1)

    def _summary(self, elapsed_s: float) -> dict[str, Any]:
        newest = self.tallies.newest(self.end_ms)
        rows = figures.window_rows(self.fleet, newest, self.options.window_ms)
        if self.options.windows_out is not None:
            self.options.windows_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
        names = ("SIGNATURE_INVALID", "DUPLICATE", "MEASUREMENT_UNKNOWN")
        liars = {code: host.host_id for code, host in zip(names, self.liars, strict=False)} if self.records else {}
        return {
            **figures.summary(self.fleet, newest, rows, self.tallies.refused, elapsed_s),
            "dishonest": liars,
            "injected": 3 * self.records,
            "simulated_tee": True,
            "embedded_broker": self.embedded,
            "topic_prefix": self.prefix,
        }


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run the demo and show it on `console`; returns the summary. Raises our errors."""
    with tempfile.TemporaryDirectory(prefix="enclavescale-demo-", ignore_cleanup_errors=True) as name:
        demo = Demo(options, Path(name))
        try:
            with open_show(console) as show:
                return demo.run(show)
        finally:
            demo.children.stop()


__all__ = ["Demo", "DemoOptions", "run_demo"]
