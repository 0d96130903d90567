"""The real broker itself: what the other tests rest on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.broker import BrokerError, KafkaBroker
from tests.broker import kafka as broker_module
from tests.conftest import MakeTopic

pytestmark = pytest.mark.broker


def test_log_records_carry_log_append_time(kafka: KafkaBroker, make_topics: MakeTopic) -> None:
    topic = make_topics("append-time")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, b"v", key=b"k", timestamp=1)
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "none"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(10)
    consumer.close()
    assert message is not None
    assert message.error() is None
    kind, stamp = message.timestamp()
    assert kind == 2  # librdkafka's TIMESTAMP_LOG_APPEND_TIME
    assert abs(stamp - time.time() * 1000) < 60_000


@pytest.mark.parametrize("change", ["missing", "extra", "altered"])
def test_log_jars_that_are_not_the_pinned_ones_are_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.jar", "b.jar"]
    digests = dict.fromkeys(names, "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")
    for name in names:
        (tmp_path / name).write_bytes(b"foo")
    monkeypatch.setattr(broker_module, "expected_jars", lambda: digests)
    broker_module.check_jars(tmp_path)
    if change == "missing":
        (tmp_path / "a.jar").unlink()
    elif change == "extra":
        (tmp_path / "c.jar").write_bytes(b"foo")
    else:
        (tmp_path / "b.jar").write_bytes(b"bar")
    with pytest.raises(BrokerError):
        broker_module.check_jars(tmp_path)


def test_log_broker_survives_a_kill_and_dies_with_its_parent(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from tests.broker import KafkaBroker
        broker = KafkaBroker.start(Path(sys.argv[1]))
        broker.kill()
        broker.launch()
        print(broker.pid, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    parent.stdin.close()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    """Running, not merely waiting to be reaped by whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
