"""A host looks whom it reports to: outputs of its domain on a broker, judged under the policies of the topic."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from enclavescale.agent import aggregators
from enclavescale.agent.aggregators import NO_OUTPUT, AggregatorCheck, AggregatorState
from enclavescale.agent.producing import Production
from enclavescale.embedded import MockCluster
from enclavescale.gate import Gate
from enclavescale.health import Need
from schemas.errors import ConfigError
from schemas.topics import TOPICS, TopicNames
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyTrust
from tests.audit.site import NAMES, signer_point
from tests.audit.stories import told
from tests.cli.site import HOST, WINDOW_MS, make_site

WAIT_S = 20.0
PREFIXES = [f"t{number}" for number in range(6)]


@pytest.fixture(scope="module")
def cluster() -> MockCluster:
    """librdkafka's own broker, in this process."""
    names = [TopicNames.with_prefix(prefix) for prefix in PREFIXES]
    return MockCluster({getattr(one, spec.role): 1 for one in names for spec in TOPICS})


@pytest.fixture
def names() -> TopicNames:
    return TopicNames.with_prefix(PREFIXES.pop())


def write(cluster: MockCluster, topic: str, *records: tuple[bytes | None, bytes | None]) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for key, value in records:
        producer.produce(topic, key=key, value=value)
    assert producer.flush(WAIT_S) == 0


def pairs(records: list[LogRecord]) -> list[tuple[bytes | None, bytes | None]]:
    return [(one.key, one.value) for one in records]


def check(cluster: MockCluster, names: TopicNames, *domains: str, signer: int = 0) -> AggregatorCheck:
    trust = PolicyTrust((signer_point(signer),))
    return AggregatorCheck({"bootstrap.servers": cluster.bootstrap}, names, trust, dict.fromkeys(domains or ("d",), 0))


def looked(one: AggregatorCheck) -> AggregatorState:
    one.turn()
    state = one.state()
    assert state is not None
    one.close()
    return state


def forged(record: LogRecord) -> tuple[bytes | None, bytes | None]:
    """The same output with a signature that is nobody's."""
    found = told().audit.as_output(record)
    assert found is not None
    value = bytearray(found.value)
    value[value.index(found.signed.signature) + 7] ^= 1
    return record.key, bytes(value)


def test_the_newest_output_is_an_attested_aggregators(cluster: MockCluster, names: TopicNames) -> None:
    site = told()
    write(cluster, names.policy, *pairs(site.topics.of(NAMES.policy)))
    write(cluster, names.output, *pairs(site.outputs()))
    assert looked(check(cluster, names)) == AggregatorState(code=None, detail="", passed=0, looks=1)
    write(cluster, names.output, *[forged(site.outputs()[-1])] * 3, (b"d/0", b"noise"), (b"e/0", b"another domain"))
    assert looked(check(cluster, names)) == AggregatorState(code=None, detail="", passed=4, looks=1)
    assert looked(check(cluster, names, "d", "nowhere")).code == NO_OUTPUT


def test_nobody_attested_is_said_with_the_newest_reason(
    cluster: MockCluster, names: TopicNames, caplog: pytest.LogCaptureFixture
) -> None:
    site = told()
    write(cluster, names.policy, *pairs(site.topics.of(NAMES.policy)))
    write(cluster, names.output, (b"d/0", b"noise"), forged(site.outputs()[-1]))
    one = check(cluster, names)
    one.turn()
    assert looked(one) == AggregatorState(code="SIGNATURE_INVALID", detail="d: SIGNATURE_INVALID", passed=0, looks=2)
    assert len([line for line in caplog.messages if "not proven" in line]) == 1, "said when it begins"


def test_a_policy_by_nobody_we_trust_proves_nothing(cluster: MockCluster, names: TopicNames) -> None:
    site = told()
    write(cluster, names.policy, *pairs(site.topics.of(NAMES.policy)))
    write(cluster, names.output, *pairs(site.outputs()))
    assert looked(check(cluster, names, signer=1)).code == "POLICY_UNTRUSTED"


def test_a_flood_of_records_bounds_the_look(
    cluster: MockCluster, names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregators, "MAX_LOOKED_AT", 40)
    site = told()
    write(cluster, names.policy, *pairs(site.topics.of(NAMES.policy)))
    write(cluster, names.output, *pairs(site.outputs()), *[(b"d/0", b"noise")] * 41)
    assert looked(check(cluster, names)).code == "MALFORMED"


def test_without_brokers_it_says_so_and_ends(names: TopicNames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregators, "TIMEOUT_S", 0.2)
    trust = PolicyTrust((signer_point(0),))
    one = AggregatorCheck({"bootstrap.servers": "127.0.0.1:1"}, names, trust, {"d": 0})
    assert looked(one).code == "READ_FAILED"


def test_its_thread_looks_and_ends(cluster: MockCluster, names: TopicNames) -> None:
    one = check(cluster, names).start()
    until(lambda: one.state() is not None)
    one.close()
    until(lambda: not one._thread.is_alive())
    assert one.state() is not None


def test_it_is_shown_and_keeps_nobody_from_reporting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregators, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(aggregators, "CHECK_S", 0.05)
    site, gate, stop = make_site(tmp_path, "trace"), Gate(), threading.Event()
    kafka = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": "1"}
    start_ms = int(time.time()) * 1000 - 60 * WINDOW_MS
    trace = {"host_id": HOST, "source": "trace", "traces": [{"trace": "bundled:a100_square", "seed": "s"}]}
    spec = site.spec(hosts=[trace], speed=1_000, start_ms=start_ms, windows=2, check_aggregator=True)
    with Production(spec, kafka, gate) as production:
        old = production._assemblies()[0].aggregators
        assert old is not None
        until(lambda: old.state() is not None)
        gate.through_ms = start_ms + 2 * WINDOW_MS
        assert production.run(stop).windows == 2
        shown = {one.name: one for one in production.instruments.health.ready().checks}["aggregator"]
        assert (shown.need, shown.state, shown.code) == (Need.SHOWN, "failing", old.state().code)  # type: ignore[union-attr]
        assert production.instruments.registry.get_sample_value("enclavescale_agent_aggregator_attested") == 0
    until(lambda: not old._thread.is_alive())
    with pytest.raises(ConfigError, match="policy_signers"):
        site.spec(hosts=[trace], check_aggregator=True, policy_signers=[])


def until(what: Callable[[], Any]) -> None:
    end_s, pause = time.monotonic() + WAIT_S, threading.Event()
    while not what() and time.monotonic() < end_s:
        pause.wait(0.01)
    assert what()
