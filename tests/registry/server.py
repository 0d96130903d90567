"""Fetch, check, start and stop one Apicurio Registry on the loopback interface; what it knows is in memory.

The archive comes from Maven into a cache outside the tree and must match `ARCHIVE_SHA256`; so must what is unpacked,
because it is unpacked anew into each server's own directory. It dies with the process that started it, as the broker
(`tests.broker.kafka`) does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.broker.kafka import _LIBC, FETCH_TIMEOUT_S, STOP_TIMEOUT_S, _die_with_parent, free_ports

VERSION = "3.0.9"
ARCHIVE = f"apicurio-registry-app-{VERSION}-all.tar.gz"
ARCHIVE_SHA256 = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
READY_TIMEOUT_S = 120.0  # seven seconds alone; a loaded machine takes longer
# This old version of the plugin takes one file without its parents: that of this one is on no public repository.
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:2.10:copy"


class ServerError(RuntimeError):
    """The registry could not be fetched, checked or started; the message says why."""


def cache_dir() -> Path:
    """Where the checked archive is kept: $ENCLAVESCALE_REGISTRY_CACHE, or below the user's cache directory."""
    named = os.environ.get("ENCLAVESCALE_REGISTRY_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "enclavescale" / f"registry-{VERSION}"


def check_archive(path: Path) -> None:
    """Raise `ServerError` unless `path` is the pinned archive, byte for byte."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != ARCHIVE_SHA256:
        raise ServerError(f"{path} is not the pinned archive: {digest}")


def fetch_archive() -> Path:
    """Return the checked archive, fetching it with Maven where the cache is empty."""
    target = cache_dir()
    target.mkdir(parents=True, exist_ok=True)
    with open(target / "fetch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / ARCHIVE).exists():
            _fetch_into(target)
    check_archive(target / ARCHIVE)
    return target / ARCHIVE


def _fetch_into(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target, prefix="fetch-") as scratch:
        artifact = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
        command = ["mvn", "-q", "-B", COPY_GOAL, f"-Dartifact={artifact}", f"-DoutputDirectory={scratch}"]
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise ServerError(f"mvn failed ({done.returncode}): {(done.stdout + done.stderr)[-2000:]}")
        check_archive(Path(scratch) / ARCHIVE)
        (Path(scratch) / ARCHIVE).rename(target / ARCHIVE)


class RegistryServer:
    """One running registry; `url` is that of its Confluent-compatible API. A stop may be followed by a `launch`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        with tarfile.open(fetch_archive()) as archive:
            archive.extractall(directory / "app", filter="data")

    @property
    def url(self) -> str:
        """What `--registry` wants."""
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def launch(self) -> RegistryServer:
        """Start the JVM and wait until it answers; what it knew before is gone."""
        memory = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        address = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self.port}"]
        jar = self.directory / "app" / f"apicurio-registry-app-{VERSION}-runner.jar"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                ["java", *memory, *address, "-jar", str(jar)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
                # As the broker: one prctl between fork and exec.
                preexec_fn=_die_with_parent if _LIBC is not None else None,  # noqa: PLW1509
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/subjects", timeout=2):
                    return self
            except OSError:
                time.sleep(0.1)  # between two looks, with the deadline above
        text = self.log_path.read_text(errors="replace")[-3000:]
        self.stop()
        raise ServerError(f"the registry did not start:\n{text}")

    @property
    def log_path(self) -> Path:
        """What the JVM wrote."""
        return self.directory / "registry.log"

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)

    def remove(self) -> None:
        """Take what was unpacked away."""
        shutil.rmtree(self.directory / "app", ignore_errors=True)
