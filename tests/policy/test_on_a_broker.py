"""The largest policy on a real Apache Kafka: signed, published, read back by a worker's store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enclavescale.policy.held import hold_value
from enclavescale.policy.issue import canonical, sign
from enclavescale.policy.lint import lint
from enclavescale.policy.topic import check_successor, publish, read_topic
from schemas.topics import TOPICS
from stream_jobs.policy_store import PolicyStore, PolicyTrust
from tests.broker import KafkaBroker
from tests.conftest import MakeTopic
from tests.policy.samples import NOW_MS, point_of, strict

HOSTS, GPUS = 10_000, 8


@pytest.mark.broker
def test_ten_thousand_hosts(kafka: KafkaBroker, make_topics: MakeTopic) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (first, *_) = strict().hosts
    hosts = tuple(
        replace(
            first,
            host_id=f"hall-a-host{number:05d}",
            tenant=f"t{number % 7}",
            platform_ids=(f"{number:032x}",),
            gpu_key_digests=tuple(f"{number * GPUS + one:064x}" for one in range(GPUS)),
        )
        for number in range(HOSTS)
    )
    policy = canonical(replace(strict(), hosts=hosts, domains=(replace(strict().domains[0], limit_w=50_000_000),)))
    assert lint(policy, now_ms=NOW_MS, partitions=1) == ()
    signed = sign(policy, key)
    assert len(signed.value or b"") > 6_000_000

    config = next(dict(one.config) for one in TOPICS if one.role == "policy")
    topic = make_topics("policy", 1, config)
    properties = {"bootstrap.servers": kafka.bootstrap}
    trusted = (point_of(key),)
    for offset in range(2):
        assert publish(properties, topic, signed) == (0, offset)
    found = read_topic(properties, topic, trusted)
    assert [(one.offset, one.held.value) for one in found.standing] == [(0, signed.value)]
    check_successor(found, hold_value(signed.value or b"", "again", trusted))

    store = PolicyStore(properties, topic, PolicyTrust(trusted))
    try:
        view = store.lookup(signed.digest or b"")
        assert view is not None
        assert len(view.members["hall-a"]) == HOSTS
    finally:
        store.close()
