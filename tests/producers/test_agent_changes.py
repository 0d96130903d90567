"""What changes while the agent runs: sessions are renewed and configurations replaced, without a gap in the chain."""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from producers.agent import Agent, AgentConfig, NoObserver
from producers.host import AgentHost, HostWindow
from producers.pacer import RealTimePacer
from producers.spool import Spool
from schemas.errors import ConfigError
from schemas.records import ConfidentialCompute
from tests.producers.forge import SCHEDULE, START_MS, FakeSource, gpu_class, host, session_for
from tests.producers.test_agent import Broker, agent_host, config


class Renewals:
    """Gives the sessions that are due at the windows named, once each."""

    def __init__(self, sessions: dict[int, Any]) -> None:
        self.sessions, self.closed = sessions, 0

    def due(self, start_ms: int) -> Any:
        return self.sessions.pop(start_ms, None)

    def close(self) -> None:
        self.closed += 1


class Watcher(NoObserver):
    """Notes what it was shown; `then` is called after the window of that number."""

    def __init__(self, then: dict[int, Any] | None = None) -> None:
        self.windows: list[tuple[int, bool]] = []
        self.reloads = 0
        self.stopped = False
        self.then = then or {}

    def window(self, agent: Agent, done: Sequence[HostWindow], spooled: bool) -> None:
        self.windows.append((done[0].sealed.window_start_ms, spooled))
        action = self.then.get(len(self.windows))
        if action:
            action(agent)

    def reloaded(self, agent: Agent) -> None:
        self.reloads += 1

    def stopping(self, agent: Agent) -> None:
        self.stopped = True


def go(settings: AgentConfig, broker: Broker) -> Any:
    return Agent(settings, lambda _properties: broker).run(threading.Event())


def bodies(broker: Broker) -> list[Any]:
    return [record.body for record in broker.records]


def test_a_renewed_session_goes_on_with_the_chain_and_misses_no_window(tmp_path: Path) -> None:
    profile = host()
    second = session_for(profile)
    renewal = Renewals({START_MS + 20_000: second})
    broker = Broker()
    go(config(tmp_path, AgentHost(profile=profile, session=session_for(profile), renewal=renewal)), broker)
    found = bodies(broker)
    assert [body.window_start_ms for body in found] == [START_MS + n * 10_000 for n in range(5)]
    assert [body.seq for body in found] == [0, 1, 0, 1, 2]
    assert [body.session_id == second.session_id for body in found] == [False, False, True, True, True]
    for before, after in zip(broker.records, broker.records[1:], strict=False):
        assert after.body.prev_digest == before.digest
    assert [record.evidence is not None for record in broker.records] == [True, False, True, False, False]
    assert renewal.closed == 1


def test_a_renewed_session_bound_to_something_else_is_refused(tmp_path: Path) -> None:
    profile = host()
    other = host("host-1", "row-1", gpu_class(high=500))
    renewal = Renewals({START_MS + 10_000: session_for(other)})
    broker = Broker()
    with pytest.raises(ConfigError):
        go(config(tmp_path, AgentHost(profile=profile, session=session_for(profile), renewal=renewal)), broker)


def test_a_new_configuration_takes_over_between_two_windows(tmp_path: Path) -> None:
    watcher = Watcher()
    first = config(tmp_path, observer=watcher)
    more = config(tmp_path, agent_host(), agent_host(host("host-2", "row-2")), observer=watcher)
    watcher.then = {2: lambda agent: agent.replace(more)}
    broker = Broker()
    summary = go(first, broker)
    assert (summary.windows, summary.reports, summary.acknowledged) == (5, 8, 8)
    mine = [record for record in broker.records if record.body.host_id == "host-1"]
    assert [record.body.seq for record in mine] == [0, 1, 0, 1, 2]  # type: ignore[union-attr]
    # Another source, which may begin with the last one's reading: the first of both GPUs is left out.
    assert [record.body.classes[0].readings_taken for record in mine] == [200, 200, 198, 200, 200]  # type: ignore[union-attr]
    for before, after in itertools.pairwise(mine):
        assert after.body.prev_digest == before.digest
    assert watcher.reloads == 1
    assert watcher.stopped


def test_what_takes_a_restart_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    watcher = Watcher()
    settings = config(tmp_path, observer=watcher)
    refused = []

    def attempt(agent: Agent) -> None:
        for wrong in (
            replace(settings, spool_path=tmp_path / "elsewhere"),
            replace(settings, schedule=replace(settings.schedule, window_ms=20_000)),
            replace(settings, hosts=()),
        ):
            with pytest.raises(ConfigError) as caught:
                agent.replace(wrong)
            refused.append(caught.value.field)

    watcher.then = {1: attempt}
    broker = Broker()
    assert go(settings, broker).acknowledged == 5
    assert refused == ["spool", "schedule", "hosts"]
    assert watcher.reloads == 0
    assert [body.seq for body in bodies(broker)] == [0, 1, 2, 3, 4]


def test_a_replaced_configuration_closes_the_renewals_it_drops(tmp_path: Path) -> None:
    profile = host()
    old = Renewals({})
    kept = AgentHost(profile=profile, session=session_for(profile), renewal=old)
    watcher = Watcher()
    settings = config(tmp_path, kept, observer=watcher)
    watcher.then = {1: lambda agent: agent.replace(replace(settings, hosts=(agent_host(),)))}
    go(settings, Broker())
    assert old.closed == 1


def test_a_new_destination_gets_what_the_old_one_never_acknowledged(tmp_path: Path) -> None:
    down, up = Broker(), Broker()
    down.down = True
    watcher = Watcher()
    settings = config(tmp_path, observer=watcher)
    elsewhere = replace(settings, publish=replace(settings.publish, topic="elsewhere"))
    watcher.then = {3: lambda agent: agent.replace(elsewhere)}
    brokers = iter((down, up))
    summary = Agent(settings, lambda _properties: next(brokers)).run(threading.Event())
    assert (summary.acknowledged, summary.left_in_spool) == (5, 0)
    assert [body.window_start_ms for body in bodies(up)] == [START_MS + n * 10_000 for n in range(5)]


def test_a_watcher_learns_of_windows_the_spool_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Spool._insert

    def insert(self: Spool, report: Any, *more: Any) -> Any:
        if report.window_start_ms == START_MS + 10_000:
            raise OSError("disk full")
        return original(self, report, *more)

    monkeypatch.setattr(Spool, "_insert", insert)
    watcher = Watcher()
    go(config(tmp_path, observer=watcher), Broker())
    assert [spooled for _, spooled in watcher.windows] == [True, False, True, True, True]


def test_the_state_of_the_gpus_is_read_once_a_window(tmp_path: Path) -> None:
    states = iter([ConfidentialCompute(gpu_cc_mode="on", gpu_dev_tools=False, gpu_ready=n != 1) for n in range(5)])
    profile = host("host-1", "row-1", gpu_class(FakeSource()))
    broker = Broker()
    go(
        config(
            tmp_path,
            AgentHost(profile=profile, session=session_for(profile), confidential_compute=lambda: next(states)),
        ),
        broker,
    )
    assert [body.confidential_compute.gpu_ready for body in bodies(broker)] == [True, False, True, True, True]


def test_a_clock_that_is_set_back_is_said_once_and_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class SetBack:
        """A pacer whose clock falls back by an hour after the second window, then runs fast."""

        def __init__(self) -> None:
            self.asked = 0

        def first_start_ms(self) -> int:
            return START_MS

        def next_start_ms(self, end_ms: int) -> int:
            return end_ms

        def seconds_until(self, end_ms: int) -> float:
            if end_ms != START_MS + 30_000:
                return 0.0
            self.asked += 1
            return 3_600.0 if self.asked < 3 else 0.0

    broker = Broker()
    stop = threading.Event()
    stop.wait = lambda _timeout=None: False  # type: ignore[method-assign]
    Agent(config(tmp_path, pacer=SetBack()), lambda _properties: broker).run(stop)
    assert [body.window_start_ms for body in bodies(broker)] == [START_MS + n * 10_000 for n in range(5)]
    assert sum("was the clock set back" in record.message for record in caplog.records) == 1


def test_an_observer_that_fails_stops_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(NoObserver):
        def turned(self, agent: Agent) -> None:
            raise RuntimeError("a metric")

        def window(self, agent: Agent, done: Sequence[HostWindow], spooled: bool) -> None:
            raise RuntimeError("another")

    broker = Broker()
    summary = go(config(tmp_path, observer=Broken()), broker)
    assert (summary.windows, summary.acknowledged) == (5, 5)
    assert sum("an observer failed" in record.message for record in caplog.records) == 1


def test_a_configuration_that_was_replaced_before_its_window_is_closed(tmp_path: Path) -> None:
    profile = host()
    forgotten = Renewals({})
    watcher = Watcher()
    settings = config(tmp_path, observer=watcher)
    waiting = AgentHost(profile=profile, session=session_for(profile), renewal=forgotten)

    def twice(agent: Agent) -> None:
        agent.replace(replace(settings, hosts=(waiting,)))
        agent.replace(replace(settings, hosts=(agent_host(),)))

    watcher.then = {2: twice}
    go(settings, Broker())
    assert forgotten.closed == 1
    assert watcher.reloads == 1


def test_a_configuration_that_only_fails_at_its_window_leaves_the_old_one(tmp_path: Path) -> None:
    class Refused(Watcher):
        errors: list[Exception]

        def reload_refused(self, agent: Agent, error: Exception) -> None:
            self.errors.append(error)

    watcher = Refused()
    watcher.errors = []
    settings = config(tmp_path, observer=watcher)
    other = AgentHost(profile=host(), session=session_for(host("host-1", "row-1", gpu_class(high=500))))
    watcher.then = {2: lambda agent: agent.replace(replace(settings, hosts=(other,)))}
    broker = Broker()
    summary = go(settings, broker)
    assert (summary.windows, summary.acknowledged) == (5, 5)
    assert [type(error) for error in watcher.errors] == [ConfigError]
    assert len({body.session_id for body in bodies(broker)}) == 1


def test_a_host_that_is_ahead_is_not_added_and_the_others_lose_nothing(tmp_path: Path) -> None:
    """The spool would refuse the windows of all for the one that has them sealed already."""
    other = host("host-2", "row-2")
    go(config(tmp_path, agent_host(other), windows=9), Broker())
    errors: list[Exception] = []

    class Refused(Watcher):
        def reload_refused(self, agent: Agent, error: Exception) -> None:
            errors.append(error)

    watcher = Refused()
    settings = config(tmp_path, observer=watcher)
    watcher.then = {1: lambda agent: agent.replace(replace(settings, hosts=(agent_host(), agent_host(other))))}
    broker = Broker()
    summary = go(settings, broker)
    assert (summary.lost, summary.acknowledged) == (0, 5)
    assert [str(error).split(":")[0] for error in errors] == ["host-2"]


def test_one_wrong_reading_of_the_clock_does_not_leave_the_agent_a_day_ahead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A day ahead as the second window ends, right again a moment later."""
    clock = [START_MS / 1000 - 1.0]
    readings = iter([24 * 3_600.0])

    class Pacer(RealTimePacer):
        def next_start_ms(self, end_ms: int) -> int:
            clock[0] += (ahead := next(readings, 0.0) if end_ms == START_MS + 20_000 else 0.0)
            found = super().next_start_ms(end_ms)
            clock[0] -= ahead
            return found

    def wait(seconds: float | None = None) -> bool:
        clock[0] += seconds or 0.0
        return False

    stop, broker = threading.Event(), Broker()
    stop.wait = wait  # type: ignore[method-assign]
    pacer = Pacer(SCHEDULE.window_ms, now=lambda: clock[0])
    Agent(config(tmp_path, pacer=pacer), lambda _properties: broker).run(stop)
    assert [body.window_start_ms for body in bodies(broker)] == [START_MS + n * 10_000 for n in range(5)]
    assert sum("the clock was wrong" in record.message for record in caplog.records) == 1
