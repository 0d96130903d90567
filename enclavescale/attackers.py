"""The demo's three liars, in a process of their own.

- a tampering host: takes a genuine record on the way and changes a power sum;
- a replaying host: sends genuine records again, byte for byte;
- a host with an unknown measurement: a modified agent on a genuine machine, with a genuine quote that says so.

`python -m enclavescale.attackers FILE`; the file is the JSON form of `AttackSpec`. Each sends `records` records and
the process ends well when all of them are acknowledged: the demo holds event time back until then, so that none of
them is refused for being late instead.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from enclavescale.agent.file import ProduceSpec
from enclavescale.agent.producing import produce
from enclavescale.errors import NotDelivered
from enclavescale.gate import Gate
from schemas.codec import decode_signed_record, encode_body, encode_signed_record
from schemas.errors import SchemaError
from schemas.mapping import from_jsonable
from schemas.records import WindowReport
from schemas.topics import TopicNames


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttackSpec:
    """Whom the liars pose as; `rogue` is the modified agent's configuration, in the place of an enrolled host."""

    bootstrap: str
    partition: int
    records: int
    tampered_host: str
    replayed_host: str
    rogue: ProduceSpec


def tampered(value: bytes) -> bytes:
    """A record with its first pane sum raised by 100 W, signature and evidence as they were."""
    decoded = decode_signed_record(value)
    body = decoded.body
    if not isinstance(body, WindowReport):
        raise SchemaError("not a report")
    first = body.classes[0]
    raised = int.from_bytes(first.pane_sums[:4], "little", signed=True) + 10_000
    sums = raised.to_bytes(4, "little", signed=True) + first.pane_sums[4:]
    changed = dataclasses.replace(body, classes=(dataclasses.replace(first, pane_sums=sums), *body.classes[1:]))
    return encode_signed_record(encode_body(changed), decoded.signature, decoded.evidence)


def interfere(spec: AttackSpec, topic: str, stop: threading.Event) -> int:
    """Tamper with and replay what passes by, `records` times each; returns how many were not acknowledged."""
    reading = {"group.id": "attackers", "enable.auto.commit": "false", "fetch.wait.max.ms": "20"}
    consumer = Consumer({"bootstrap.servers": spec.bootstrap, **reading})
    producer = Producer({"bootstrap.servers": spec.bootstrap, "acks": "all", "enable.idempotence": "true"})
    consumer.assign([TopicPartition(topic, spec.partition, 0)])
    sent = {spec.tampered_host: 0, spec.replayed_host: 0}
    seen: set[bytes] = set()
    while not stop.is_set() and min(sent.values()) < spec.records:
        message = consumer.poll(0.2)
        value = message.value() if message is not None and message.error() is None else None
        if message is None or value is None:
            continue
        body = decode_signed_record(value).body
        # What the modified agent sends in another's place is left alone: each liar works by himself.
        if not isinstance(body, WindowReport) or body.host_id not in sent or value in seen:
            continue
        forged = value if body.host_id == spec.replayed_host else tampered(value)
        seen |= {value, forged}
        if sent[body.host_id] < spec.records:
            producer.produce(topic, value=forged, key=message.key(), partition=spec.partition)
            sent[body.host_id] += 1
            producer.poll(0)
    left: int = producer.flush(10)
    consumer.close()
    return left + sum(spec.records - count for count in sent.values())


def main(path: str) -> None:
    """Run all three until done or until stdin closes. Raises NotDelivered if not all could be sent."""
    spec = from_jsonable(AttackSpec, json.loads(Path(path).read_bytes()))
    stop, gate = threading.Event(), Gate()
    threading.Thread(target=gate.listen, args=(sys.stdin, stop), daemon=True).start()
    topic = TopicNames.with_prefix(spec.rogue.topic_prefix).reports
    left: list[int] = []
    thread = threading.Thread(target=lambda: left.append(interfere(spec, topic, stop)))
    thread.start()
    summary = produce(spec.rogue, {"bootstrap.servers": spec.bootstrap}, stop, gate)
    thread.join()
    if left != [0] or summary.acknowledged != spec.records:
        raise NotDelivered(
            f"not sent: {left or 'unknown'}, of the modified agent {spec.records - summary.acknowledged}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
