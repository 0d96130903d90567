"""Kafka Connect, as it comes from Apache, reads the rows of examples/ into a file; the JDBC sink converts alike."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.broker import KafkaBroker
from tests.broker.kafka import _LIBC, COPY_GOAL, FETCH_TIMEOUT_S, STOP_TIMEOUT_S, _die_with_parent, free_ports
from tests.conftest import MakeTopic
from tests.house.source import ROOT

EXAMPLES = ROOT / "examples"
HERE = Path(__file__).parent / "connect"
READY_S = 120.0

ROWS = [
    {
        "domain": "row-1",
        "window_start_ms": 10_000 * at,
        "revision": 0,
        "mean_w": 1000 + at,
        "margin_w": None,
        "limit_w": 5,
    }
    for at in range(3)
]


def pinned() -> dict[str, str]:
    lines = (HERE / "jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def fetched() -> Path:
    """The checked jars, fetched with Maven where the cache is empty."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "enclavescale"
    base.mkdir(parents=True, exist_ok=True)
    target = base / "connect-4.1.1"
    with open(base / "connect.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=base, prefix="fetch-") as scratch:
                command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), COPY_GOAL, "-DincludeScope=runtime"]
                subprocess.run(
                    [*command, f"-DoutputDirectory={scratch}/jars"],
                    check=True,
                    capture_output=True,
                    timeout=FETCH_TIMEOUT_S,
                )
                (Path(scratch) / "jars").rename(target)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in target.glob("*.jar")}
    assert found == pinned(), f"{target} does not hold the pinned jars"
    return target


@pytest.mark.broker
@pytest.mark.soak
def test_connect_writes_the_rows_into_a_file(kafka: KafkaBroker, make_topics: MakeTopic, tmp_path: Path) -> None:
    topic = make_topics("rows")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "rows_to_topic.py"), kafka.bootstrap, topic],
        input="".join(json.dumps(row) + "\n" for row in ROWS),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (port,) = free_ports(1)
    worker = (EXAMPLES / "connect" / "worker.properties").read_text()
    worker = worker.replace("127.0.0.1:9092", kafka.bootstrap).replace("/tmp/connect.offsets", f"{tmp_path}/offsets")
    (tmp_path / "worker.properties").write_text(f"{worker}listeners=http://127.0.0.1:{port}\n")
    sink = json.loads((EXAMPLES / "connect" / "file-sink.json").read_text())
    rows = tmp_path / "rows"
    (tmp_path / "sink.json").write_text(json.dumps({**sink, "topics": topic, "file": str(rows)}))
    memory = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    main = ["-cp", f"{fetched()}/*", "org.apache.kafka.connect.cli.ConnectStandalone"]
    with (tmp_path / "connect.log").open("wb") as log:
        process = subprocess.Popen(
            ["java", *memory, *main, str(tmp_path / "worker.properties"), str(tmp_path / "sink.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if _LIBC is not None else None,  # noqa: PLW1509 - as the broker
        )
    try:
        deadline = time.monotonic() + READY_S
        while not rows.exists() or len(rows.read_text().splitlines()) < len(ROWS):
            assert process.poll() is None, (tmp_path / "connect.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (tmp_path / "connect.log").read_text()[-3000:]
            time.sleep(0.1)  # between two looks, with the deadline above
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
    lines = rows.read_text().splitlines()
    assert [f"window_start_ms={row['window_start_ms']}" in line for row, line in zip(ROWS, lines, strict=True)] == [
        True
    ] * 3
    assert all("domain=row-1" in line and "mean_w=100" in line for line in lines)


def test_the_jdbc_sink_has_the_converters_that_are_tested_and_keys_that_the_rows_have() -> None:
    config = json.loads((EXAMPLES / "connect" / "jdbc-sink.json").read_text())["config"]
    worker = dict(
        line.split("=", 1)
        for line in (EXAMPLES / "connect" / "worker.properties").read_text().splitlines()
        if line and not line.startswith("#")
    )
    for name in ("key.converter", "value.converter", "value.converter.schemas.enable"):
        assert config[name] == worker[name]
    assert set(config["pk.fields"].split(",")) <= set(ROWS[0])
    assert config["topics"] == json.loads((EXAMPLES / "connect" / "file-sink.json").read_text())["topics"]
    assert config["connection.password"].startswith("${file:"), "no secret stands in a configuration"
