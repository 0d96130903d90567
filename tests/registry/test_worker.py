"""A worker with a registry on a real broker: writes its ids, waits at an unknown one while the registry is away, and
refuses it when the registry says so; a replay with the worker's file finds the same."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from enclavescale.cli import main
from enclavescale.registry.ids import read_ids
from schemas.codec import decode_signed_output, registry_id
from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, WorkerProcess, header, wait_until
from tests.pipeline.world import WINDOW_MS, Item, World
from tests.registry.server import RegistryServer

NOBODY = 4_242_424
WINDOWS = 6


class Gateway:
    """Passes connections on to the registry, or shuts them at once: the registry is away."""

    def __init__(self, port: int) -> None:
        self.away = False
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.away:
                return
            with socket.create_connection(self._target) as server:
                back = threading.Thread(target=self._pipe, args=(server, client), daemon=True)
                back.start()
                self._pipe(client, server)
                back.join()

    def _pipe(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and not self.away:
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def gateway(server: RegistryServer) -> Iterator[Gateway]:
    """The way to the registry, which can be shut."""
    made = Gateway(server.port)
    yield made
    made.close()


def starts(side: Side, partition: int, ids: Path) -> set[int]:
    """Windows published from one partition; every value must carry the registry's id."""
    framing, found = read_ids(ids).framing(), set()
    for message in side.read(side.topics.output):
        if message.partition() == partition:
            value = message.value() or b""
            assert registry_id(value) == framing.registry_ids["SignedFleetPower"]
            found.add(decode_signed_output(value, framing)[0].output.window_start_ms)
    return found


@pytest.mark.broker
@pytest.mark.soak
def test_an_unknown_id_waits_in_its_partition_only_and_decides_the_same_in_replay(
    kafka: KafkaBroker,
    server: RegistryServer,
    gateway: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, ids = World(tmp_path, {"hall-a": 0, "hall-b": 1}, 3, 7), tmp_path / "ids.json"
    side = Side(kafka.bootstrap, world, 2)
    url = f"http://127.0.0.1:{gateway.port}/apis/ccompat/v7"
    made = CliRunner().invoke(main, ["schemas", "register", "--registry", url, "--topic-prefix", side.prefix])
    assert made.exit_code == 0, made.output
    monkeypatch.setenv("ENCLAVESCALE_REGISTRY_URL", url)
    monkeypatch.setenv("ENCLAVESCALE_REGISTRY_IDS_FILE", str(ids))
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - 20 * WINDOW_MS
    try:
        wait_until(lambda: all(end >= 1 for end in side.ends(side.topics.reports)), "the first control records")
        windows = [world.clean(start_ms + at * WINDOW_MS) for at in range(WINDOWS)]
        side.append([item for window in windows[:3] for item in window])
        wait_until(lambda: all(len(starts(side, at, ids)) >= 1 for at in (0, 1)), "outputs of both partitions")
        before = starts(side, 0, ids)
        gateway.away = True
        strange = next(item for item in windows[3] if item.partition == 0)
        side.append([Item(0, strange.key, b"\x00" + NOBODY.to_bytes(4, "big") + strange.value[10:])])
        place = side.ends(side.topics.reports)[0] - 1
        side.append([item for window in windows[3:] for item in window])
        wait_until(lambda: len(starts(side, 1, ids)) >= WINDOWS - 1, "the other partition's outputs")
        wait_until(lambda: "SCHEMA_ID_WAITS" in worker.log.read_text(), "the word that it waits")
        assert starts(side, 0, ids) == before
        assert side.ends(side.topics.rejections)[0] == 0
        gateway.away = False
        wait_until(lambda: len(starts(side, 0, ids)) >= WINDOWS - 1, "outputs of the partition that waited", 90)
        names = ("__connect.errors.offset", "enclavescale.error.code")
        letters = [tuple(header(one, name) for name in names) for one in side.read(side.topics.rejections)]
        assert letters == [(str(place), "SCHEMA_UNKNOWN")]
        assert worker.alive()
    finally:
        if worker.alive():
            assert worker.stop() == 0
        side.close()
    monkeypatch.delenv("ENCLAVESCALE_REGISTRY_URL")
    monkeypatch.delenv("ENCLAVESCALE_REGISTRY_IDS_FILE")
    where = ["--bootstrap", kafka.bootstrap, "--topic-prefix", side.prefix, "--policy-signer", world.signer]
    span = ["--from", str(start_ms), "--to", str(start_ms + (WINDOWS - 1) * WINDOW_MS), "--jobs", "1", "--json"]
    done = CliRunner().invoke(main, ["replay", *where, *span, "--schema-ids", str(ids)])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["proven"] is True
    assert (said["windows"], said["findings"]) == ([], [])
    assert said["result"]["verdicts"]["identical"] >= 2 * (WINDOWS - 2), said["result"]
