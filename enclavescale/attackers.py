"""The demo's three liars, in a process of their own.

- a tampering host: takes a genuine record on the way and changes a power sum;
- a replaying host: sends genuine records again, byte for byte;
- a host with an unknown measurement: a modified agent on a genuine machine, with a genuine quote that says so.

`python -m enclavescale.attackers FILE`; the file is the JSON form of `AttackSpec`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from enclavescale.producing import ProduceSpec, produce
from schemas.codec import decode_signed_record, encode_body, encode_signed_record
from schemas.errors import SchemaError
from schemas.mapping import from_jsonable
from schemas.records import WindowReport
from schemas.topics import TopicNames

RECORDS = 20
"""Records that each of the first two sends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttackSpec:
    """Whom the liars pose as; `rogue` is the modified agent's configuration, in the place of an enrolled host."""

    bootstrap: str
    partition: int
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


def interfere(spec: AttackSpec, topic: str, stop: threading.Event) -> None:
    """Tamper with and replay what passes by, `RECORDS` times each."""
    consumer = Consumer({"bootstrap.servers": spec.bootstrap, "group.id": "attackers", "enable.auto.commit": "false"})
    producer = Producer({"bootstrap.servers": spec.bootstrap})
    consumer.assign([TopicPartition(topic, spec.partition, 0)])
    sent = {spec.tampered_host: 0, spec.replayed_host: 0}
    seen: set[bytes] = set()
    while not stop.is_set() and min(sent.values()) < RECORDS:
        message = consumer.poll(0.2)
        value = message.value() if message is not None and message.error() is None else None
        if message is None or value is None:
            continue
        body = decode_signed_record(value).body
        if not isinstance(body, WindowReport) or body.host_id not in sent or value in seen:
            continue
        forged = value if body.host_id == spec.replayed_host else tampered(value)
        seen |= {value, forged}
        if sent[body.host_id] < RECORDS:
            producer.produce(topic, value=forged, key=message.key(), partition=spec.partition)
            sent[body.host_id] += 1
            producer.poll(0)
    producer.flush(10)
    consumer.close()


def _until_stdin_closes(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def main(path: str) -> None:
    """Run all three until done or until stdin closes."""
    spec = from_jsonable(AttackSpec, json.loads(Path(path).read_bytes()))
    stop = threading.Event()
    threading.Thread(target=_until_stdin_closes, args=(stop,), daemon=True).start()
    topic = TopicNames.with_prefix(spec.rogue.topic_prefix).reports
    thread = threading.Thread(target=interfere, args=(spec, topic, stop))
    thread.start()
    produce(spec.rogue, {"bootstrap.servers": spec.bootstrap}, stop)
    thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
