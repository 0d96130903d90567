"""The consumer of examples/ against a real broker: what a worker published is printed, what was altered is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.codec import decode_signed_output
from tests.audit.site import signed_policy, signer_point, site_of
from tests.audit.stories import tell
from tests.broker import KafkaBroker
from tests.conftest import MakeTopic
from tests.house.source import ROOT

pytestmark = pytest.mark.broker
SCRIPT = ROOT / "examples" / "verify_output.py"


def test_only_what_is_verified_is_printed(kafka: KafkaBroker, make_topics: MakeTopic, tmp_path: Path) -> None:
    story = tell(3)
    values = [one.value or b"" for one in site_of(story).outputs()][:3]
    topic = make_topics("fleet-power", 2)
    forged = bytearray(values[0])
    forged[60] ^= 1
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for at, value in enumerate([*values, bytes(forged), b"noise"]):
        producer.produce(topic, value, partition=at % 2)
    assert producer.flush(20) == 0
    (tmp_path / "policy").write_bytes(signed_policy(story.policies[0]))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kafka.bootstrap, topic, str(tmp_path / "policy"), signer_point().hex()],
        env={**os.environ, "ENDS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    outputs = [decode_signed_output(value)[0].output for value in values]
    assert sorted((row["window_start_ms"], row["revision"], row["mean_w"]) for row in rows) == sorted(
        (one.window_start_ms, one.revision, one.mean.value_w) for one in outputs
    )
    assert len(done.stderr.splitlines()) == 2


def test_it_is_as_short_as_it_is_said_to_be() -> None:
    text = SCRIPT.read_text().split('"""', 2)[2]
    assert len([line for line in text.splitlines() if line.strip()]) <= 35
