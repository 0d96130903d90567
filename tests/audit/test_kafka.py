"""The same proofs from a real cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.codec import decode_signed_manifest
from tests.audit.site import NAMES, Site
from tests.audit.stories import fresh
from tests.audit.test_cli import SIGNER, run, said
from tests.audit.test_equivocation import lie
from tests.broker.kafka import KafkaBroker
from tests.conftest import MakeTopic


def published(site: Site, kafka: KafkaBroker, make_topics: MakeTopic) -> list[str]:
    """What a worker published, on topics of a cluster; options that name them."""
    options = ["--bootstrap", kafka.bootstrap]
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 5})
    for role in ("output", "manifests", "rejections", "policy"):
        topic = make_topics(f"audit-{role}", 2)
        for record in site.topics.of(getattr(NAMES, role)):
            headers: list[tuple[str, str | bytes | None]] = [*record.headers]
            at = (record.key, record.value, record.partition, record.timestamp_ms)
            producer.produce(topic, key=at[0], value=at[1], partition=at[2], timestamp=at[3], headers=headers)
        options += ["--topic-name", f"{role}={topic}"]
    assert producer.flush(30) == 0
    return options


@pytest.mark.broker
def test_a_cluster_proves_what_memory_does(kafka: KafkaBroker, make_topics: MakeTopic, tmp_path: Path) -> None:
    site = fresh()
    lie(site)
    where = published(site, kafka, make_topics)
    digest = decode_signed_manifest(site.topics.of(NAMES.manifests)[0].value or b"")[0].manifest.accepted_digests[:32]
    letter = next(one for one in site.story.run.rejections if one.code == "CLASS_MISMATCH")
    for wanted, verdict in ((digest, "accepted"), (letter.digest or b"", "refused")):
        proof = tmp_path / f"{verdict}.json"
        made = run("audit", "prove", wanted.hex(), "-o", proof, *where, "--json")
        assert made.exit_code == 0, made.output
        assert said(made)["verdict"] == verdict
        assert json.loads(proof.read_text())["output"]
        assert run("audit", "check", proof, *SIGNER).exit_code == 0
    chain = run("audit", "chain", "--to", "0/4", *SIGNER, *where, "--json")
    assert (chain.exit_code, said(chain)["outputs"]) == (0, 5)
    found = run("audit", "equivocation", *SIGNER, *where, "--json")
    assert (found.exit_code, len(said(found)["found"])) == (1, 1)
