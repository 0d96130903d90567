"""`bench attacks --bootstrap`: the same attempts against a running worker through a broker.

Policies and collateral are published, the worker writes its own control records, honest reports and attempts are
appended in one order; in between the worker is killed and another takes over. Then the log is read back: a core that
reads it without the attempts says what the outputs must be, bit for bit, and every attempt must have a dead letter.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer

from attester.signing import public_point
from enclavescale.bench.attacks_classes import CLASSES, RECORD
from enclavescale.bench.attacks_documents import Documents
from enclavescale.bench.attacks_run import ACCEPTED, ClassResult, content_of
from enclavescale.bench.attacks_scene import Attempt, Scene
from enclavescale.bench.attacks_world import WINDOW_MS, AttackWorld, Placed
from enclavescale.bench.attestation_vendor import Machine
from enclavescale.children import Children
from enclavescale.errors import NotDelivered
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE
from enclavescale.topic_admin import create_topics
from schemas.codec import decode_signed_output, decode_signed_record, encode_collateral
from schemas.collateral import item_digest, set_item
from schemas.errors import EnclaveScaleError
from schemas.records import CollateralItem, ControlRecord, FleetPower
from schemas.topics import TopicNames
from stream_jobs.core.effects import Emission
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.log_record import LogRecord
from stream_jobs.reading import open_reader, read_range, watermarks
from stream_jobs.tail import header_map
from verifier.cache import SessionCache

WAIT_S = 60.0
SESSION_TIMEOUT_S = 1.5
NOT_LIVE = ("replay_after_a_month",)
"""Classes of records that need a log longer than a broker's clock allows."""

LIVE = (*(name for name, one in CLASSES.items() if one.kind == RECORD and name not in NOT_LIVE), "forged_output")
"""What is tried through a broker."""

QUIET_S = 15.0
"""When no dead letter came for so long, no more will."""

PHASES = (4, 5)
BOMB_BYTES = (2 << 20, 24 << 20)
BOMBS = 8
"""Records of zeros that a producer compresses to next to nothing: more than the topic takes once they are unpacked."""


@dataclass(slots=True)
class Sent:
    """An attempt on its way; `offset` once it is acknowledged."""

    name: str
    attempt: Attempt
    offset: int = -1


class Live:
    """One broker with topics of its own, one worker at a time, a world and its attackers."""

    def __init__(self, bootstrap: str, directory: Path, seed: int) -> None:
        now_ms = int(time.time() * 1000)
        start_ms = (now_ms // WINDOW_MS - sum(PHASES) - 8) * WINDOW_MS
        self.world = AttackWorld(seed, start_ms=start_ms, phases=PHASES, live_ms=now_ms)
        self.bootstrap, self.directory = bootstrap, directory
        self.prefix = f"attacks-{uuid.uuid4().hex[:8]}"
        self.topics = TopicNames.with_prefix(self.prefix)
        self.kafka = {"bootstrap.servers": bootstrap, "log_level": "0"}
        self.children = Children(directory)
        create_topics(self.kafka, self.topics, partitions=len(self.world.domains), replication=1)
        self.reader: Consumer = open_reader(self.kafka)
        self.producer = Producer({**self.kafka, "enable.idempotence": "true", "linger.ms": "5", "batch.size": "200000"})
        self.sent: list[Sent] = []
        self.errors: list[str] = []
        self._workers = 0

    # -- what is published ----------------------------------------------------------------------------------------

    def policy(self, number: int) -> None:
        """Publish one of the world's policies."""
        self._put(self.topics.policy, f"policy/{number + 1}".encode(), self.world.policy_values[number], 0)

    def collateral(self, number: int) -> None:
        """Publish one of the world's sets, its items first."""
        digest = self.world.sets[number]
        members = self.world.index.members(digest) or ()
        items = [self.world.index.item(one) for one in members]
        for item in [*items, set_item(members, int(time.time() * 1000))]:
            if isinstance(item, CollateralItem):
                key = f"{item.kind}/{item_digest(item).hex()}".encode()
                self._put(self.topics.collateral, key, encode_collateral(item), 0)

    def _put(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        self.producer.produce(topic, value=value, key=key, partition=partition)
        if self.producer.flush(30):
            raise NotDelivered(f"{topic}: not acknowledged")

    def append(self, phase: int, attempts: dict[int, list[Sent]]) -> None:
        """Honest reports of a phase in order, attempts behind them."""
        for number, one in enumerate(self.world.honest):
            if one.phase != phase:
                continue
            if one.start_ms is not None:
                self._report(one, lambda offset: None)
            for sent in attempts.get(number, ()):
                self._report(sent.attempt, lambda offset, sent=sent: setattr(sent, "offset", offset))  # type: ignore[misc]
        if self.producer.flush(60) or self.errors:
            raise NotDelivered(f"the reports topic: not acknowledged {self.errors[:3]}")

    def _report(self, placed: Placed, done: Callable[[int], None]) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                done(message.offset() or 0)
            else:
                self.errors.append(error.str())

        while True:
            try:
                self.producer.produce(
                    self.topics.reports, value=placed.value, key=placed.key, partition=placed.partition,
                    on_delivery=delivered,
                )  # fmt: skip
                break
            except BufferError:
                self.producer.poll(0.1)
        self.producer.poll(0)

    def bombs(self, count: int, rng: random.Random) -> list[str]:
        """Compressed zeros, larger than the topic takes; returns what the broker says of each."""
        said: list[str] = []
        bomber = Producer({**self.kafka, "compression.type": "zstd", "message.max.bytes": "1000000000"})
        for _ in range(count):
            bomber.produce(
                self.topics.reports, value=bytes(rng.randrange(*BOMB_BYTES)), key=b"hall-a", partition=0,
                on_delivery=lambda error, _: said.append("" if error is None else str(error.name())),
            )  # fmt: skip
            bomber.flush(30)
        return said

    # -- workers ----------------------------------------------------------------------------------------------------

    def start_worker(self) -> None:
        """Start a worker."""
        self._workers += 1
        name = f"worker-{self._workers}"
        path = self.directory / f"{name}.json"
        told = {
            "bootstrap": self.bootstrap,
            "prefix": self.prefix,
            "group": f"{self.prefix}-worker",
            "host_id": AGGREGATOR_ID,
            "signers": [public_point(self.world.signing_key.public_key()).hex()],
            "session_timeout_s": SESSION_TIMEOUT_S,
        }
        path.write_text(json.dumps(told))
        process = self.children.start(name, ["enclavescale.bench.attacks_worker", str(path)], output=subprocess.PIPE)
        self._process = process, name
        threading.Thread(target=self._quotes, args=(name, process), daemon=True).start()

    def kill_worker(self) -> None:
        """End the worker by force."""
        self._process[0].kill()
        self._process[0].wait()

    def _quotes(self, name: str, process: subprocess.Popen[bytes]) -> None:
        machine = Machine(self.world.vendor, AGGREGATOR_ID, AGGREGATOR_IMAGE)
        for line in process.stdout or ():
            self.children.tell(name, machine.quote(bytes.fromhex(line.decode().strip()))[0].data.hex())

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait for a condition; raises NotDelivered, also when a worker dies."""
        deadline = time.monotonic() + WAIT_S
        while not done():
            process, name = self._process
            if process.poll() is not None:
                raise NotDelivered(f"the worker ended with {process.poll()}:\n{self.children.last_words(name)}")
            if time.monotonic() > deadline:
                raise NotDelivered(f"waited {WAIT_S:.0f} s for {what}:\n{self.children.last_words(name)}")
            time.sleep(0.1)

    # -- reading back -------------------------------------------------------------------------------------------------

    def read(self, topic: str) -> list[Message]:
        """Everything on a topic now."""
        found: list[Message] = []
        for partition in range(len(self.reader.list_topics(topic, timeout=20).topics[topic].partitions)):
            low, high = watermarks(self.reader, topic, partition, 20)
            found += read_range(self.reader, topic, partition, low, high, 20)
        return found

    def switched(self, policy: int, collateral: int, *, revoked: bool = False) -> bool:
        """Whether the worker put this policy and collateral in force in every partition, and wrote its revocations."""
        wanted = self.world.views[policy].digest, self.world.sets[collateral]
        attempts = {(one.attempt.partition, one.offset) for one in self.sent}
        seen, kinds = set(), set()
        for message in self.read(self.topics.reports):
            if (message.partition(), message.offset()) in attempts:
                continue
            body = decode_signed_record(message.value() or b"").body
            if isinstance(body, ControlRecord) and body.policy_digest == wanted[0]:
                kinds.add(body.kind)
                if body.collateral_digest == wanted[1]:
                    seen.add(message.partition())
        return len(seen) == len(self.world.domains) and (not revoked or "REVOCATION" in kinds)

    def outputs(self) -> dict[tuple[str, int, int], FleetPower]:
        """Outputs that a reader takes, by domain, window and revision."""
        found: dict[tuple[str, int, int], FleetPower] = {}
        documents = Documents(Scene(self.world, random.Random(0)), [], SessionCache())
        for message in self.read(self.topics.output):
            value = message.value() or b""
            if documents.read_output(value) is None:
                output = decode_signed_output(value)[0].output
                found.setdefault((output.domain, output.window_start_ms, output.revision), output)
        return found

    def expected(
        self, log: Sequence[Message], left_out: set[tuple[int, int]]
    ) -> tuple[dict[tuple[str, int, int], bytes], set[tuple[int, int]]]:
        """Contents of the outputs of the log without the attempts, and its records that are refused all the same."""
        cache, cores, found = SessionCache(), {}, {}
        refused: set[tuple[int, int]] = set()
        for message in log:
            partition, offset = message.partition() or 0, message.offset() or 0
            if (partition, offset) in left_out:
                continue
            if partition not in cores:
                config = CoreConfig(
                    self.topics.reports, partition, self.world.policies.get, cache.verify,
                    collateral=self.world.index.lookup,
                )  # fmt: skip
                cores[partition] = PartitionCore(config)
            kind, stamp = message.timestamp()
            record = LogRecord(
                self.topics.reports, partition, offset, stamp, int(kind == 2), message.key(), message.value(), ()
            )
            for effect in cores[partition].process(record):
                if isinstance(effect, Emission):
                    output = effect.output
                    found[output.domain, output.window_start_ms, output.revision] = content_of(output)
                else:
                    refused.add((partition, offset))
        return found, refused

    def close(self) -> None:
        """End the workers."""
        self.children.stop()
        self.reader.close()


def _letters(live: Live) -> dict[tuple[int, int], tuple[str, int]]:
    """Code and time (ms) of the first dead letter by the partition and offset it is about."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for message in live.read(live.topics.rejections):
        headers = {name: value.decode() for name, value in header_map(message).items()}
        at = int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])
        found.setdefault(at, (headers["enclavescale.error.code"], message.timestamp()[1]))
    return found


def _attempts(live: Live, classes: Sequence[str], trials: int, seed: int) -> dict[int, list[Sent]]:
    """Attempts of all classes in a mixed order, by the honest record that they follow."""
    by_place: dict[int, list[Sent]] = defaultdict(list)
    for name in classes:
        make = CLASSES[name].make
        if make is None:
            continue
        scene = Scene(live.world, random.Random(f"{seed}/{name}/live"))
        known: set[bytes] = set()
        while len(known) < trials:
            attempt = make(scene)
            if attempt.digest not in known:
                known.add(attempt.digest)
                by_place[attempt.after].append(Sent(name, attempt))
    rng = random.Random(seed)
    for place in by_place.values():
        rng.shuffle(place)
    live.sent = [one for place in by_place.values() for one in place]
    return by_place


def attack_live(
    bootstrap: str, trials: int, *, classes: Sequence[str] = LIVE, seed: int = 1
) -> tuple[dict[str, ClassResult], dict[str, Any]]:
    """Try each class `trials` times against a running worker; results by class, and what was seen beside them.

    Raises NotDelivered and what the brokers raise.
    """
    with tempfile.TemporaryDirectory(prefix="enclavescale-attacks-") as name:
        live = Live(bootstrap, Path(name), seed)
        try:
            return _run(live, [one for one in classes if one in LIVE], trials, seed)
        finally:
            live.close()


def _run(live: Live, classes: list[str], trials: int, seed: int) -> tuple[dict[str, ClassResult], dict[str, Any]]:
    results = {name: ClassResult() for name in classes}
    attempts = _attempts(live, classes, trials, seed)
    live.collateral(0)
    live.policy(0)
    live.start_worker()
    live.wait(lambda: live.switched(0, 0), "the worker's first control records")
    live.append(0, attempts)
    if "forged_output" in classes:
        forged = _forge_outputs(live, trials, seed, results["forged_output"])
    live.kill_worker()  # another takes over, and reads what was forged
    live.start_worker()
    live.collateral(1)
    live.policy(1)
    live.wait(lambda: live.switched(1, 1, revoked=True), "the control records of the second policy")
    live.append(1, attempts)
    if "decompression_bomb" in classes:
        _bombs(live, results["decompression_bomb"], seed)
    log = live.read(live.topics.reports)
    left_out = {(one.attempt.partition, one.offset) for one in live.sent}
    want, refused_anyway = live.expected(log, left_out)
    live.wait(lambda: live.outputs().keys() >= want.keys(), f"{len(want)} outputs")
    letters, stamps = _settled(live), {(m.partition(), m.offset()): m.timestamp()[1] for m in log}
    wrong = _judge(live, want)
    for sent in live.sent:
        result, at = results[sent.name], (sent.attempt.partition, sent.offset)
        code, when = letters.get(at, (ACCEPTED, stamps[at]))
        result.trials += 1
        result.codes[code] += 1
        result.micros.append(1000.0 * (when - stamps[at]))
        if code == ACCEPTED and not sent.attempt.genuine:
            result.successes += 1
            result.failures.append(f"accepted at {at}")
    if "forged_output" in classes:
        found = live.outputs()
        results["forged_output"].successes += sum(content_of(one) in forged for one in found.values())
    ours = {(one.attempt.partition, one.offset) for one in live.sent}
    return results, {
        "honest_refused": sorted(
            f"{code} at {at}"
            for at, (code, _) in letters.items()
            if at not in ours and at not in refused_anyway and code != "DUPLICATE"  # a copy of it came first
        ),
        "outputs": len(want),
        "outputs_changed": wrong,
        "records": len(log),
        "workers": 2,
        "prefix": live.prefix,
    }


def _settled(live: Live) -> dict[tuple[int, int], tuple[str, int]]:
    """The dead letters once every attempt that must have one has one, or no more come."""
    found, grown = _letters(live), time.monotonic()
    while not found.keys() >= _must(live) and time.monotonic() - grown < QUIET_S:
        time.sleep(0.5)
        now = _letters(live)
        if len(now) > len(found):
            found, grown = now, time.monotonic()
    return found


def _must(live: Live) -> set[tuple[int, int]]:
    """Places of the attempts that must be refused."""
    return {(one.attempt.partition, one.offset) for one in live.sent if not one.attempt.genuine}


def _judge(live: Live, want: dict[tuple[str, int, int], bytes]) -> list[str]:
    """Outputs that are not what the log without the attempts gives."""
    have = {key: content_of(output) for key, output in live.outputs().items()}
    return [str(key) for key in sorted(want.keys() | have.keys()) if want.get(key) != have.get(key)]


def _forge_outputs(live: Live, trials: int, seed: int, result: ClassResult) -> set[bytes]:
    """Forged outputs on the output topic, where a worker that starts reads what is published; their contents."""
    live.wait(lambda: len(live.outputs()) > 0, "an output")
    documents = Documents(
        Scene(live.world, random.Random(f"{seed}/forged")), list(live.outputs().values()), SessionCache()
    )
    genuine = {content_of(one) for one in documents.outputs}
    forged: set[bytes] = set()
    while result.trials < trials:
        value, code = documents.forged_output()
        result.trials += 1
        result.codes[code or ACCEPTED] += 1
        with contextlib.suppress(EnclaveScaleError):
            forged.add(content_of(decode_signed_output(value)[0].output))
        partition = documents.scene.rng.randrange(len(live.world.domains))
        live.producer.produce(live.topics.output, value=value, key=b"forged", partition=partition)
        live.producer.poll(0)
    live.producer.flush(30)
    return forged - genuine


def _bombs(live: Live, result: ClassResult, seed: int) -> None:
    for code in live.bombs(BOMBS, random.Random(seed)):
        result.trials += 1
        result.codes[code or ACCEPTED] += 1
        if not code:
            result.successes += 1
            result.failures.append("the broker took a record larger than the topic's limit")
