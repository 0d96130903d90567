"""`serve` and `top` at their start: brokers that are away, and values that carry a registry's ids."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from confluent_kafka import Producer

from enclavescale.registry.ids import SchemaIds, write_ids
from schemas.codec import encode_output, encode_signed_output
from schemas.pins import NAMES
from schemas.records.output import WorkerIdentity
from schemas.topics import TopicNames
from tests.cli.conftest import process
from tests.web.live import mock_broker
from tests.web.samples import output

AGGREGATOR = WorkerIdentity(host_id="aggregator-0", session_id=bytes(32), evidence_absent_reason="a sample")
NOBODY = "127.0.0.1:1"


def test_a_page_starts_while_brokers_are_away_and_says_so() -> None:
    command = [sys.executable, "-m", "enclavescale", "serve", "--json", "--bootstrap", NOBODY]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as page:
        assert page.stdout is not None
        try:
            url = json.loads(page.stdout.readline())["url"]
            with urllib.request.urlopen(url + "livez", timeout=20) as answer:
                assert answer.status == 200
            with urllib.request.urlopen(url + "api/v1/state", timeout=20) as answer:
                state = json.load(answer)
            assert (state["domains"], state["source"]["caught_up"]) == ([], False)
            with pytest.raises(HTTPError, match="503"):
                urllib.request.urlopen(url + "readyz", timeout=20)
        finally:
            page.terminate()
            _, said = page.communicate(timeout=20)
    assert page.returncode == 0
    assert "CLUSTER_UNREACHABLE" in said
    assert "The page starts" in said


def test_outputs_with_a_registrys_ids_are_read(tmp_path: Path) -> None:
    """An operator who wants one look at a cluster whose values carry ids."""
    ids, topics = SchemaIds(current={name: 40 + at for at, name in enumerate(sorted(NAMES))}), TopicNames()
    write_ids(tmp_path / "ids.json", ids)
    value = encode_signed_output(encode_output(output()), bytes(64), AGGREGATOR, framing=ids.framing())
    assert value[0] == 0
    with mock_broker(topics, 1) as bootstrap:
        producer = Producer({"bootstrap.servers": bootstrap})
        producer.produce(topics.output, value=value, key=b"hall-a", partition=0)
        assert producer.flush(20) == 0
        arguments = ("top", "--once", "--json", "--bootstrap", bootstrap)
        told = json.loads(process(*arguments, "--schema-ids", str(tmp_path / "ids.json")).stdout)
        assert [(one["domain"], one["trust"]) for one in told["domains"]] == [("hall-a", "unchecked")]
        assert json.loads(process(*arguments).stdout)["domains"] == [], "an id that nobody named is none"
