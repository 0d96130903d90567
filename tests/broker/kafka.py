"""Fetch, check, format, start and stop one Apache Kafka broker on the loopback interface.

1. The jars come from Maven (`pom.xml`) into a cache outside the tree and every one must match `jars.sha256`:
   a changed, missing or extra jar refuses the start.
2. Each broker has its own temporary directory, free ports and no topic of its own making.
3. The broker dies with the process that started it, even by SIGKILL (PR_SET_PDEATHSIG; where that is not
   available, only a clean end stops it).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

HERE = Path(__file__).parent
KAFKA_VERSION = "4.1.1"
MIN_JAVA = 17  # what Kafka 4.x servers need
FETCH_TIMEOUT_S = 600.0  # a cold Maven repository on a slow line
READY_TIMEOUT_S = 60.0  # a JVM under TieredStopAtLevel=1 is ready in about 4 s; a loaded machine takes longer
STOP_TIMEOUT_S = 10.0  # a clean stop takes 1-2 s; then SIGKILL
# The plugin is named in full: Maven's own default differs from one distribution to the next.
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
# Debian's names for what `missing_tools` found missing.
PACKAGES = {"java": "openjdk-17-jre-headless", "mvn": "maven"}


class BrokerError(RuntimeError):
    """The broker could not be fetched, checked or started; the message says why and where its log is."""


def java_major() -> int | None:
    """The major version of the `java` on the path, None where there is none."""
    if shutil.which("java") is None:
        return None
    out = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', out)
    return int(found.group(1)) if found else None


def missing_tools() -> list[str]:
    """Which of "java" (>= 17) and "mvn" are missing here; empty when a broker can be started."""
    major = java_major()
    missing = [] if major is not None and major >= MIN_JAVA else ["java"]
    return missing if shutil.which("mvn") else [*missing, "mvn"]


def install_line(missing: list[str]) -> str:
    """The command that installs what `missing_tools` named, on Debian and its kin."""
    return "sudo apt-get install --no-install-recommends " + " ".join(PACKAGES[name] for name in missing)


def cache_dir() -> Path:
    """Where the checked jars are kept: $ENCLAVESCALE_TEST_KAFKA_CACHE, or below the user's cache directory."""
    named = os.environ.get("ENCLAVESCALE_TEST_KAFKA_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "enclavescale" / f"kafka-{KAFKA_VERSION}"


def expected_jars() -> dict[str, str]:
    """Jar file name -> SHA-256, as pinned in `jars.sha256`."""
    lines = (HERE / "jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines if line.strip())}


def check_jars(directory: Path) -> None:
    """Raise `BrokerError` unless `directory` holds exactly the pinned jars, byte for byte."""
    expected = expected_jars()
    found = {path.name: path for path in directory.glob("*.jar")}
    wrong = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    wrong += [f"not pinned {name}" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if hashlib.sha256(found[name].read_bytes()).hexdigest() != expected[name]:
            wrong.append(f"wrong digest {name}")
    if wrong:
        raise BrokerError(f"{directory} does not hold the pinned jars: " + ", ".join(wrong))


def fetch_jars() -> Path:
    """Return the directory of checked jars, fetching them with Maven where the cache is empty."""
    target = cache_dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "fetch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two Mavens at once would write into the same repository
        _fetch_into(target)
    check_jars(target)
    return target


def _fetch_into(target: Path) -> None:
    """With Maven, where the cache is empty."""
    if not target.is_dir():
        # Fetched beside the target and renamed into place: a run that was killed leaves either a whole cache or none.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as scratch:
            command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), COPY_GOAL]
            command += ["-DincludeScope=runtime", f"-DoutputDirectory={scratch}/jars"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
            if done.returncode != 0:
                raise BrokerError(f"mvn failed ({done.returncode}): {(done.stdout + done.stderr)[-2000:]}")
            fetched = Path(scratch) / "jars"
            check_jars(fetched)
            fetched.rename(target)


def free_ports(count: int) -> list[int]:
    """`count` TCP ports nobody listens on now, on the loopback interface."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def _die_with_parent() -> None:
    """Runs in the child before exec: SIGKILL me when my parent's thread ends (Linux's PR_SET_PDEATHSIG = 1)."""
    _LIBC.prctl(1, signal.SIGKILL)


# Loaded before the fork: dlopen between fork and exec could deadlock in a threaded parent.
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


class KafkaBroker:
    """One running broker; a context manager. `bootstrap` is what a client's `bootstrap.servers` wants."""

    def __init__(self, directory: Path, overrides: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self._overrides = dict(overrides or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self._controller_port = free_ports(2)

    @classmethod
    def start(cls, directory: Path | None = None, overrides: Mapping[str, str] | None = None) -> Self:
        """Fetch, format and start a broker and wait until it answers.

        `directory` (default: a new temporary one, removed by `stop`) holds log, data and configuration;
        `overrides` are entries of server.properties. Raises `BrokerError` with the end of the broker's log.
        """
        made = None if directory is not None else Path(tempfile.mkdtemp(prefix="enclavescale-kafka-"))
        broker = cls(directory or made or Path(), overrides)
        broker._made = made
        try:
            broker._format()
            broker.launch()
        except BaseException:
            broker.kill()
            broker._remove()
            raise
        return broker

    _made: Path | None = None

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:<port>`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The JVM's process id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def log_path(self) -> Path:
        """What the JVM wrote to stdout and stderr."""
        return self.directory / "broker.log"

    def properties(self) -> dict[str, str]:
        """The broker's server.properties."""
        ports = f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller_port}"
        base = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": ports,
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            # What CLOCK_SKEW rests on; a test that wants the other kind says so in its topic's config.
            "log.message.timestamp.type": "LogAppendTime",
            # Consumers below join, die and come back within seconds.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.segment.delete.delay.ms": "0",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
        }
        return {**base, **self._overrides}

    def _java(self, *arguments: str) -> list[str]:
        jars = fetch_jars()
        memory = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # start quickly, stay small
        log = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
        return ["java", *memory, log, "-cp", f"{jars}/*", *arguments]

    def _format(self) -> None:
        text = "".join(f"{key}={value}\n" for key, value in self.properties().items())
        self._config.write_text(text)
        cluster = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config))
        command += self.format_arguments()
        done = subprocess.run(command, capture_output=True, text=True, timeout=READY_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise BrokerError(f"formatting failed: {(done.stdout + done.stderr)[-2000:]}")

    def tool(self, name: str, *arguments: str) -> str:
        """What one of Kafka's own tools, a class with `main`, says. Raises `BrokerError` where it fails."""
        command = self._java(name, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=READY_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise BrokerError(f"{name} failed: {(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def format_arguments(self) -> list[str]:
        """What else the storage tool is told; users of a broker that has them."""
        return []

    @property
    def _config(self) -> Path:
        return self.directory / "server.properties"

    def launch(self) -> None:
        """Start the JVM on the formatted directory and wait until it answers (also after a `kill`)."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for pytest; the broker is stopped after it
                # One prctl between fork and exec, on a library loaded before: no lock is taken there.
                preexec_fn=_die_with_parent if _LIBC is not None else None,  # noqa: PLW1509
            )
        self._wait_ready()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        # log_level 0: a refused connection while the JVM starts is expected, not news.
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise BrokerError(f"the broker ended while starting:\n{self.log_tail()}")
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1.0).brokers:
                    return
        raise BrokerError(f"the broker did not answer within {READY_TIMEOUT_S:.0f} s:\n{self.log_tail()}")

    def log_tail(self, characters: int = 3000) -> str:
        """The end of the broker's log, for messages."""
        return self.log_path.read_text(errors="replace")[-characters:] if self.log_path.exists() else "(no log)"

    def kill(self) -> None:
        """SIGKILL, as a power cut would; `launch` starts it again on the same data and port."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s; removes the directory where `start` made it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
                self._process = None
            except subprocess.TimeoutExpired:
                self.kill()
        self._remove()

    def _remove(self) -> None:
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
