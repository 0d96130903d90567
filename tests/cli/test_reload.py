"""Reloads that meet each other: one that is refused while another waits for its window, and many at once."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, cast

import pytest
from confluent_kafka import Producer
from cryptography.hazmat.primitives.asymmetric import ec

from enclavescale.agent import producing
from enclavescale.agent.producing import Production
from enclavescale.cli.run import Load, reload_when_asked
from enclavescale.embedded import MockCluster
from enclavescale.gate import Gate
from producers.publish import PublishConfig, Publisher
from producers.renewal import Place, SessionKeeper
from producers.spool import Spool
from schemas.codec import decode_signed_record, encode_beacon, encode_signed_beacon
from schemas.errors import ConfigError
from schemas.records import Beacon
from schemas.topics import TopicNames
from tests.cli.site import HOST, WINDOW_MS, judge, make_site, published
from tests.producers.forge import report

DEADLINE_S = 20.0
TRACE = {"host_id": HOST, "source": "trace", "traces": [{"trace": "bundled:a100_square", "seed": "s"}]}


def until(what: Callable[[], object]) -> None:
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not what() and time.monotonic() < end:
        pause.wait(0.01)


def broken() -> Any:
    raise ConfigError("a file that does not hold", field="policy")


@pytest.mark.parametrize("late", [False, True])
def test_the_newest_configuration_renews_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """After a reload that waits for its window and one that is refused: or the old configuration would renew once more,
    and every report of its successor would be superseded. After one that fails late, in its window: the old one."""
    keepers: list[SessionKeeper] = []

    class Keeper(SessionKeeper):
        """Renews when it is told to."""

        def start(self) -> Self:
            keepers.append(self)
            return self

    monkeypatch.setattr(
        producing, "SessionKeeper", lambda *args, **kw: Keeper(*args, **kw, min_interval_ms=0, spread_ms=0)
    )
    site, names, gate, stop = make_site(tmp_path, "trace"), TopicNames(), Gate(), threading.Event()
    bootstrap = MockCluster({names.reports: 2}).bootstrap
    kafka = {"bootstrap.servers": bootstrap}
    start_ms = int(time.time()) * 1000 - 60 * WINDOW_MS
    spec = site.spec(hosts=[TRACE], speed=1_000, start_ms=start_ms)

    def windows(number: int) -> None:
        gate.through_ms = start_ms + number * WINDOW_MS
        until(lambda: (sample("enclavescale_agent_windows_total") or 0) >= number)

    def meanwhile() -> None:
        with contextlib.ExitStack() as at_end:
            at_end.callback(stop.set)
            windows(1)
            if late:
                assert production.reload(lambda: (spec, kafka | {"no.such": "1"}))
                windows(2)
            else:
                assert production.reload(lambda: (spec, kafka))
                assert not production.reload(broken)
            now_ms = int(time.time() * 1000)
            keepers[0].demand(Beacon(nonce=b"n" * 32, issued_at_ms=now_ms, session_id=b"s" * 32))
            keepers[0].turn()
            windows(4)

    with Production(spec, kafka, gate) as production:
        sample = production.instruments.registry.get_sample_value
        thread = threading.Thread(target=meanwhile)
        thread.start()
        summary = production.run(stop)
        thread.join()
    values = published(bootstrap, names.reports)
    assert summary.windows == len(values) == 4
    assert sample("enclavescale_agent_reloads_total", {"result": "refused"}) == 1
    assert len({decode_signed_record(value).body.session_id for value in values}) == 2
    assert judge(site, site.sign(), values) == []


def test_a_reload_before_the_first_window_that_fails_late(tmp_path: Path) -> None:
    """The first configuration then goes on, and still renews."""
    site, gate, stop = make_site(tmp_path, "trace"), Gate(), threading.Event()
    kafka = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": "1"}
    start_ms = int(time.time()) * 1000 - 60 * WINDOW_MS
    spec = site.spec(hosts=[TRACE], speed=1_000, start_ms=start_ms, windows=2)
    gate.through_ms = start_ms + 2 * WINDOW_MS
    with Production(spec, kafka, gate) as production:
        threads = {one for one in threading.enumerate() if one.name == "evidence"}
        assert production.reload(lambda: (spec, kafka | {"no.such": "1"}))
        production.instruments.metrics.window = lambda **_: threads.intersection_update(threading.enumerate())  # type: ignore[method-assign]
        assert production.run(stop).windows == 2
        assert len(threads) == 1


def test_however_often_it_is_asked_for_once_more_will_do() -> None:
    asked: SimpleQueue[None] = SimpleQueue()
    begun, go, done = threading.Semaphore(0), threading.Semaphore(0), []

    class Slow:
        def reload(self, load: Load) -> bool:
            begun.release()
            go.acquire()
            done.append(load)
            return True

    asked.put(None)
    threading.Thread(target=reload_when_asked, args=(asked, cast(Production, Slow()), broken), daemon=True).start()
    assert begun.acquire(timeout=DEADLINE_S)
    for _ in range(1_000):
        asked.put(None)
    go.release(3)
    until(lambda: len(done) >= 2)
    assert begun.acquire(timeout=DEADLINE_S)
    assert not begun.acquire(timeout=0.2)
    assert done == [broken, broken]


def test_a_closed_publisher_leaves_no_thread_that_sends(tmp_path: Path) -> None:
    def tasks() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    config = PublishConfig(partitions={"row-1": 0}, kafka={"bootstrap.servers": "127.0.0.1:1", "log_level": "0"})
    with Spool(tmp_path / "spool") as spool:
        spool.append([report(0)], 0)
        before = tasks()
        for _ in range(3):
            sender = Publisher(config, spool)
            sender.pump(0.05)
            assert sender.stats().in_flight == 1
            sender.close()
            assert sender.stats().in_flight == 0
            del sender
            gc.collect()
        assert tasks() <= before
        assert spool.depth()[0] == 1


def test_a_clock_set_back_before_a_reload_makes_no_older_session(tmp_path: Path) -> None:
    """Workers take the newest session of a host for the valid one."""
    site, clock = make_site(tmp_path, "trace"), [int(time.time() * 1000)]
    kafka = {"bootstrap.servers": "127.0.0.1:1"}
    spec = site.spec(hosts=[TRACE])
    with Production(spec, kafka, wall_ms=lambda: clock[0]) as production:
        clock[0] -= 3_600_000
        assert production.reload(lambda: (spec, kafka))
        first, second = (one.config.hosts[0].session.binding for one in production._assemblies())
    assert second.created_at_ms > first.created_at_ms


def test_a_reload_leaves_no_follower_of_beacons_behind(tmp_path: Path) -> None:
    site, gate, stop = make_site(tmp_path, "trace"), Gate(), threading.Event()
    kafka = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": "1"}
    start_ms = int(time.time()) * 1000 - 60 * WINDOW_MS
    spec = site.spec(hosts=[TRACE], speed=1_000, start_ms=start_ms, windows=2, follow_beacons=True)
    gate.through_ms = start_ms + 2 * WINDOW_MS
    with Production(spec, kafka, gate) as production:
        old = production._assemblies()[0].beacons
        assert old is not None
        assert production.reload(lambda: (spec, kafka))
        assert production.run(stop).windows == 2
        until(lambda: not old._thread.is_alive())
        assert not old._thread.is_alive()
        assert [one.beacons is not old for one in production._assemblies()] == [True, True]


def test_a_policy_with_a_lower_counter_is_refused(tmp_path: Path) -> None:
    """Whoever can write the file could else take back what a successor has changed."""
    site = make_site(tmp_path, "trace")
    kafka, spec = {"bootstrap.servers": "127.0.0.1:1"}, site.spec(hosts=[TRACE])
    counter = site.policy.counter
    site.sign(counter=counter + 2)
    with Production(spec, kafka) as production:
        refused = production.instruments.registry.get_sample_value
        site.sign(counter=counter + 1)
        assert not production.reload(lambda: (spec, kafka))
        assert refused("enclavescale_agent_reloads_total", {"result": "refused"}) == 1
        site.sign(counter=counter + 3)
        assert production.reload(lambda: (spec, kafka))
        site.sign(counter=counter + 2)
        assert not production.reload(lambda: (spec, kafka)), "also lower than one that waits for its window"
        assert refused("enclavescale_agent_reloads_total", {"result": "refused"}) == 2


def test_counters_of_a_signer_who_is_trusted_no_longer_do_not_count(tmp_path: Path) -> None:
    """The way out of a stolen key: its policies may have any counter."""
    site = make_site(tmp_path, "trace")
    kafka = {"bootstrap.servers": "127.0.0.1:1"}
    before = site.spec(hosts=[TRACE])
    site.sign(counter=1 << 40)
    with Production(before, kafka) as production:
        site.key = ec.generate_private_key(ec.SECP256R1())
        site.sign(counter=1)
        both = dataclasses.replace(before, policy_signers=(*before.policy_signers, site.signer.hex()))
        assert not production.reload(lambda: (both, kafka))
        assert production.reload(lambda: (site.spec(hosts=[TRACE]), kafka))


def test_the_first_session_names_the_newest_beacon(tmp_path: Path) -> None:
    """So that a host that starts between two beacons is not refused until the next."""
    site, names = make_site(tmp_path, "trace"), TopicNames()
    bootstrap = MockCluster({names.beacons: 1}).bootstrap
    kafka, now_ms = {"bootstrap.servers": bootstrap}, int(time.time() * 1000)
    newest = Beacon(nonce=b"n" * 32, issued_at_ms=now_ms - 60_000, session_id=b"s" * 32)
    producer = Producer(kafka)
    producer.produce(names.beacons, encode_signed_beacon(encode_beacon(newest), bytes(64)))
    assert producer.flush(DEADLINE_S) == 0
    spec = site.spec(hosts=[TRACE], follow_beacons=True)
    with Production(spec, kafka) as production:
        assert production.reload(lambda: (spec, kafka))
        first, second = (one.config.hosts[0].session.binding for one in production._assemblies())
    assert first.beacon == second.beacon == newest
    assert Place.of(first).before(Place.of(second))


def test_a_host_waits_for_the_beacon_that_its_policy_demands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(producing, "DEMANDED_BEACON_S", 0.1)
    site = make_site(tmp_path, "trace")
    limits = dataclasses.replace(site.policy.limits, max_beacon_age_ms=3_600_000, max_beacon_age_ms_absent_reason=None)
    site.sign(limits=limits)
    spec = site.spec(hosts=[TRACE], follow_beacons=True)
    with Production(spec, {"bootstrap.servers": "127.0.0.1:1"}) as production:
        assert production._assemblies()[0].config.hosts[0].session.binding.beacon is None
    assert "no beacon was heard" in caplog.text
