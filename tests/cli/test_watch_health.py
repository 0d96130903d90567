"""What the agent's health says of sampler, sessions and brokers; a reload goes on with the same sources."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enclavescale.agent.policy import enrolment_of, schedule_of
from enclavescale.agent.sources import HostSources, SourcePool
from enclavescale.agent.watch import HostWatch, Instruments, WatchedHost
from enclavescale.health import Health, Need
from producers.publish import PublisherStats
from producers.renewal import RenewalState
from producers.sample.sampler import SamplerStats
from producers.spool import SpoolStats
from tests.cli.site import HOST, make_site

WINDOW_S = 60


def state(health: Health) -> tuple[str, str | None]:
    (found,) = (one for one in health.ready().checks if one.name == "sampler")
    return found.state, found.code


@pytest.mark.parametrize(
    ("spacing_s", "scraped", "states"),
    [
        (2.3, [26, 52, 52], ["ok", "ok", "failing"]),
        (69.0, [1, 2, 2, 3], ["ok", "ok", "ok", "ok"]),
        (69.0, [0, 1, 1, 1, 1], ["ok", "ok", "ok", "ok", "failing"]),
        (69.0, [0, 0, 0], ["ok", "ok", "failing"]),
    ],
)
def test_silence_of_an_exporter(tmp_path: Path, spacing_s: float, scraped: list[int], states: list[str]) -> None:
    clock, scrapes = [0.0], [0]
    scraper: Any = SimpleNamespace(
        config=SimpleNamespace(spacing_ms=spacing_s * 1000), stats=lambda: SimpleNamespace(scrapes=scrapes[0])
    )
    host = WatchedHost(HOST, HostSources((), scraper=scraper), cast(Any, None))
    instruments, policy = Instruments(), make_site(tmp_path, "dcgm").policy
    watch = HostWatch(instruments, policy, [host], tee="tsm", in_force=lambda done: None, now=lambda: clock[0])
    instruments.health.expect("sampler", Need.READY, within_s=2.5 * WINDOW_S, grace_s=3 * WINDOW_S)
    one = SimpleNamespace(conditions=SimpleNamespace(flags=()), profile=SimpleNamespace(source=SimpleNamespace(gpus=1)))
    window: Any = SimpleNamespace(
        sealed=SimpleNamespace(window_start_ms=0, window_end_ms=WINDOW_S * 1000), classes=(one,)
    )
    found = []
    for scrapes[0] in scraped:
        clock[0] += WINDOW_S
        watch._look_at_samplers([window])
        found.append(state(instruments.health))
    assert [word for word, _ in found] == states
    assert all(code == ("NOT_SAMPLING" if word == "failing" else None) for word, code in found)


def watching(tmp_path: Path, **checks: Need) -> tuple[HostWatch, Health, list[RenewalState]]:
    """A watch of one host whose newest renewal state is the last of the list."""
    states = [RenewalState(age_ms=0, max_age_ms=1000, renewals=0, failures=0, last_error=None)]
    keeper: Any = SimpleNamespace(state=lambda: states[-1])
    sampler: Any = SimpleNamespace(
        stats=lambda: SamplerStats(**{one.name: 1 for one in dataclasses.fields(SamplerStats)}),
        jitter=lambda: SimpleNamespace(p50_ms=0.0, p99_ms=0.0, max_ms=0.0),
    )
    host = WatchedHost(HOST, HostSources((), sampler=sampler), keeper)
    instruments, policy = Instruments(), make_site(tmp_path, "simulated").policy
    instruments.health.forget("start")
    for name, need in checks.items():
        instruments.health.expect(name, need, within_s=100)
    return HostWatch(instruments, policy, [host], tee="tsm", in_force=lambda done: None), instruments.health, states


@pytest.mark.parametrize(("lost", "code"), [(0, None), (1, None), (2, "GPU_LOST")])
def test_only_all_gpus_lost_is_not_ready(tmp_path: Path, lost: int, code: str | None) -> None:
    watch, health, _ = watching(tmp_path, sampler=Need.READY)
    one = SimpleNamespace(
        conditions=SimpleNamespace(flags=(("gpu_lost", lost),)),
        profile=SimpleNamespace(source=SimpleNamespace(gpus=2)),
    )
    window: Any = SimpleNamespace(sealed=SimpleNamespace(window_start_ms=0, window_end_ms=1000), classes=(one,))
    watch._look_at_samplers([window])
    assert state(health) == ("failing" if code else "ok", code)


def test_old_evidence_is_not_ready_and_says_why(tmp_path: Path) -> None:
    watch, health, states = watching(tmp_path, session=Need.READY)
    agent: Any = SimpleNamespace(hosts=[SimpleNamespace(profile=SimpleNamespace(host_id=HOST), renewals=0)])
    found = []
    for age_ms, error in ((1000, None), (1001, None), (1001, "TSM_BUSY"), (10, None)):
        states.append(dataclasses.replace(states[0], age_ms=age_ms, last_error=error))
        watch._look_at_sessions(agent)
        found += [(one.state, one.code) for one in health.ready().checks]
    assert found == [("ok", None), ("failing", "EVIDENCE_OLD"), ("failing", "TSM_BUSY"), ("ok", None)]


@pytest.mark.parametrize(
    ("waits", "failing", "ack_age_s", "said"),
    [(0, True, None, "ok"), (3, True, 1.0, "failing"), (3, False, 1.0, "ok"), (3, False, 500.0, "waiting")],
)
def test_brokers_are_away_where_reports_wait(
    tmp_path: Path, waits: int, failing: bool, ack_age_s: float | None, said: str
) -> None:
    watch, health, _ = watching(tmp_path, broker=Need.SHOWN)
    stats = PublisherStats(
        acknowledged=0, failed=0, resent=0, refused=0, stranded=0, in_flight=0, failing=failing, recovering=False,
        last_ack_age_s=ack_age_s,
    )  # fmt: skip
    agent: Any = SimpleNamespace(
        publisher=SimpleNamespace(stats=lambda: stats), spool=SimpleNamespace(depth=lambda: (waits, 0))
    )
    watch._look_at_publisher(agent)
    answer = health.ready()
    assert [one.state for one in answer.checks] == [said]
    assert answer.good


def test_what_stays_the_same_stays_open(tmp_path: Path) -> None:
    site = make_site(tmp_path, "simulated")
    enrolment = enrolment_of(site.policy, HOST)
    schedule = schedule_of(site.policy, enrolment.domain)
    host, pool = site.spec().hosts[0], SourcePool()
    before = set(threading.enumerate())
    first = pool.get(host, site.policy, enrolment, schedule)
    assert pool.get(host, dataclasses.replace(site.policy, counter=2), enrolment, schedule) is first
    other = pool.get(dataclasses.replace(host, group_label="job"), site.policy, enrolment, schedule)
    assert other is not first
    pool.retain([other])
    assert len(set(threading.enumerate()) - before) == 1
    pool.close()
    assert set(threading.enumerate()) <= before


def test_a_loop_that_does_not_turn_is_dead_after_two_windows_or_two_minutes(tmp_path: Path) -> None:
    clock = [0.0]
    instruments = Instruments(health=Health(lambda: clock[0]))
    policy = make_site(tmp_path, "simulated").policy
    for window_s, dead_s in ((10.0, 120.0), (90.0, 180.0)):
        HostWatch(instruments, policy, [], tee="tsm", in_force=lambda done: None)._expect(window_s)
        instruments.health.ok("loop")
        began = clock[0]
        for clock[0], good in ((began + dead_s - 1, True), (began + dead_s + 1, False)):
            assert instruments.health.live().good == good


@pytest.mark.parametrize("writable", [True, False])
def test_a_spool_that_takes_no_writes_is_not_ready(tmp_path: Path, writable: bool) -> None:
    watch, health, _ = watching(tmp_path, spool=Need.READY)
    stats = SpoolStats(
        entries=0, bytes=0, oldest_age_ms=None, dropped=0, failures=0, quarantined=0, writable=writable
    )  # fmt: skip
    agent: Any = SimpleNamespace(
        spool=SimpleNamespace(stats=lambda now_ms: stats), config=SimpleNamespace(spool_max_bytes=1)
    )
    watch._look_at_spool(agent)
    found = [(one.state, one.code) for one in health.ready().checks]
    assert found == [("ok", None) if writable else ("failing", "SPOOL_FAILED")]


@pytest.mark.parametrize("spooled", [True, False])
def test_a_window_that_is_not_on_disk_is_no_success(
    tmp_path: Path, spooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that it would have released is shown: its noise never left."""
    watch, health, _ = watching(tmp_path, windows=Need.READY)
    for name in ("_look", "_look_at_samplers"):
        monkeypatch.setattr(watch, name, lambda _: None)
    noisy = SimpleNamespace(glitches=3, energy_residual_mj=5_000)
    one = SimpleNamespace(
        conditions=SimpleNamespace(flags=()), profile=SimpleNamespace(model="m", source=None), noisy=noisy
    )
    window: Any = SimpleNamespace(sealed=SimpleNamespace(host_id=HOST, window_end_ms=60_000), classes=(one,))
    agent: Any = SimpleNamespace(
        spool=SimpleNamespace(depth=lambda: (0, 0)), summary=SimpleNamespace(windows=1)
    )  # fmt: skip
    watch.window(agent, [window], spooled)
    (found,) = health.ready().checks
    assert found.state == ("ok" if spooled else "waiting")
    shown = watch._instruments.registry.get_sample_value(
        "enclavescale_agent_noisy_glitches", {"host": HOST, "model": "m"}
    )
    assert shown == (3 if spooled else None)
