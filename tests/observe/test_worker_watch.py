"""A worker's probes, by an injected clock and over a real socket; which TEE its options name."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point
from attester.tsm import TsmQuotes
from attester.tsm_errors import TsmUnavailable
from enclavescale.cli.worker import LINGER_S, READY_LAG_S, quotes
from enclavescale.worker_watch import LINGER_S as LINGER_OF_WATCH
from enclavescale.worker_watch import LOOP_S, WorkerWatch
from enclavescale.worker_watch import READY_LAG_S as LAG_OF_WATCH
from schemas.errors import ConfigError
from stream_jobs.log_record import InputLost
from stream_jobs.log_slots import TopicPartition, Turn
from stream_jobs.worker import WorkerFacts
from tests.attester.fake_tsm import FakeTsm
from tests.cli.conftest import call
from tests.log.bench import TP, Bench, run, until

POINT = public_point(ec.generate_private_key(ec.SECP256R1()).public_key()).hex()


class Scene:
    """A watch with a clock and facts of its own."""

    def __init__(self) -> None:
        self.now_s, self.waited = 1_000.0, list[float]()
        self.policy_ms: int | None = 2_000_000
        self.collateral_ms: int | None = None
        self.watch = WorkerWatch(
            now=lambda: self.now_s, wall_ms=lambda: round(self.now_s * 1000), wait=self.waited.append
        )
        facts: Any = SimpleNamespace(policy_end_ms=lambda: self.policy_ms, collateral_end_ms=lambda: self.collateral_ms)
        self.facts: WorkerFacts = facts

    def turn(self, *states: str, assigned: bool = True, lag_s: float = 0.0) -> None:
        stats: Any = {
            TopicPartition("t", number): SimpleNamespace(state=state, processing_lag_s=lag_s)
            for number, state in enumerate(states)
        }
        self.watch.turned(Turn(assigned, stats))

    def wrong(self) -> dict[str, str | None]:
        answer = self.watch.ready()
        found = {one.name: one.code or one.state for one in answer.checks if one.state != "ok"}
        assert answer.good == (not found)
        return found


def test_a_worker_is_ready_once_it_works_and_not_before() -> None:
    scene = Scene()
    assert scene.wrong() == {"start": "waiting"}
    assert scene.watch.live().good
    scene.watch.started(scene.facts)
    assert set(scene.wrong()) == {"loop", "partitions", "lag"}
    scene.turn(assigned=False)
    assert scene.wrong() == {"partitions": "REBALANCING"}
    scene.turn("ready", "starting")
    assert scene.wrong() == {"partitions": "PARTITIONS_STARTING"}
    scene.turn("ready", "ready")
    assert scene.wrong() == {}
    scene.turn()
    assert scene.wrong() == {}, "more workers than partitions: a spare one is ready"


def test_what_makes_it_unready_and_what_dead() -> None:
    scene = Scene()
    scene.watch.started(scene.facts)
    scene.turn("ready", lag_s=READY_LAG_S + 1)
    assert scene.wrong() == {"lag": "PROCESSING_LAG"}
    scene.turn("ready", lag_s=READY_LAG_S)
    assert scene.wrong() == {}
    scene.policy_ms = round(scene.now_s * 1000) - 1
    scene.collateral_ms = round(scene.now_s * 1000) - 1
    assert scene.wrong() == {"policy": "POLICY_EXPIRED", "collateral": "COLLATERAL_EXPIRED"}
    scene.policy_ms = scene.collateral_ms = 10**12
    assert scene.wrong() == {}
    assert scene.watch.live().good
    scene.now_s += LOOP_S + 1
    assert not scene.watch.live().good
    assert scene.wrong() == {"loop": "NO_SUCCESS"}


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_failed_worker_says_why_for_as_long_as_a_scraper_needs() -> None:
    scene, heard = Scene(), []
    with scene.watch as watch:
        watch.listen("127.0.0.1:0")
        assert watch.endpoint is not None
        port = watch.endpoint.port
        watch.started(scene.facts)
        scene.turn("ready")
        assert get(port, "/readyz")[0] == get(port, "/livez")[0] == 200
        watch.wait = lambda seconds: heard.append((seconds, get(port, "/livez")))
        watch.ended(InputLost("gone"))
        ((seconds, (status, body)),) = heard
        assert (seconds, status) == (LINGER_S, 503)
        assert [one["code"] for one in json.loads(body)["checks"]] == ["INPUT_LOST"]
        assert "process_resident_memory_bytes" in get(port, "/metrics")[1]
        watch.ended(None)
        assert len(heard) == 1


def test_nobody_waits_where_nobody_may_ask() -> None:
    scene = Scene()
    scene.watch.ended(InputLost("gone"))
    assert scene.waited == []


def test_the_command_shows_the_watch_s_defaults() -> None:
    assert (READY_LAG_S, LINGER_S) == (LAG_OF_WATCH, LINGER_OF_WATCH)


def test_the_adapter_tells_every_turn_what_it_has() -> None:
    turns: list[Turn] = []

    async def test(bench: Bench) -> None:
        bench.adapter._on_turn = turns.append
        await bench.adapter.maintain()
        job = await bench.assign()
        await bench.offer(10)
        await until(lambda: job.next == 11)
        await bench.adapter.maintain()
        await bench.adapter.revoked([TP])
        await bench.adapter.maintain()

    bench = run(test)
    assert [(turn.assigned, len(turn.partitions)) for turn in turns] == [(False, 0), (True, 1), (False, 0)]
    assert turns[1].partitions[TP].processing_lag_s == pytest.approx(4.999)  # appended at 1 ms, now it is 5 s
    assert bench.registry.get_sample_value("enclavescale_log_partitions", {"state": "ready"}) == 0


def test_no_tee_is_simulated_by_omission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = FakeTsm(lambda _data, _level: (b"", b""))
    monkeypatch.setitem(quotes.__globals__, "ConfigfsEntries", lambda _: guest)
    assert isinstance(quotes(None, None, "a", "image"), TsmQuotes)
    assert isinstance(quotes("tsm", None, "a", "image"), TsmQuotes)
    assert quotes(None, tmp_path, "a", "image").simulated
    assert quotes("simulated", tmp_path, "a", "image").simulated
    guest.provider = None
    with pytest.raises(TsmUnavailable):
        quotes(None, None, "a", "image")
    for tee, directory in (("simulated", None), ("tsm", tmp_path)):
        with pytest.raises(ConfigError):
            quotes(tee, directory, "a", "image")


def test_contradictions_and_addresses_are_usage_errors(tmp_path: Path) -> None:
    base = ("worker", "--bootstrap", "127.0.0.1:1", "--group", "g", "--host-id", "a", "--policy-signer", POINT)
    for options, field in (
        (("--tee", "simulated"), "simulated_tee"),
        (("--tee", "tsm", "--simulated-tee", str(tmp_path)), "tee"),
        (("--simulated-tee", str(tmp_path), "--listen", "9464"), "listen"),
        (("--simulated-tee", str(tmp_path), "--policy-signer", "04" + "11" * 64), "policy_signer"),
    ):
        done = call(*base, *options, "--json")
        assert done.exit_code == 2, done.output
        assert json.loads(done.stdout)["field"] == field
