"""Evidence is renewed under a running agent: every window is reported once, and the core takes every report."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from attester.simulated import simulated_measurement, simulated_platform_id
from attester.tsm_errors import TsmBusy
from enclavescale.agent.sessions import session_maker
from producers.agent import Agent, AgentConfig, NoObserver
from producers.config import ClassProfile, HostProfile, Schedule, session_facts
from producers.host import AgentHost, HostWindow
from producers.pacer import ReplayPacer
from producers.privacy import Budget, privacy_parameters
from producers.publish import PublishConfig
from producers.renewal import SessionKeeper
from schemas.codec import DecodedRecord, decode_signed_record
from schemas.records import Beacon, EvidenceItem, WindowReport
from tests.core.fleet import GPUS, HZ, IMAGE, LIMITS, MODEL, PANE_MS, T0, WINDOW_MS, Provider
from tests.core.story import Story, small_policy
from tests.producers.forge import FakeSource
from tests.producers.test_agent import Broker

HOST, DOMAIN = "h0", "d"
SCHEDULE = Schedule(window_ms=WINDOW_MS, pane_ms=PANE_MS, sample_hz=HZ)
MAX_AGE_MS = 20 * WINDOW_MS
WAIT_S = 20.0
VIEW = small_policy(hosts=1, limits=replace(LIMITS, evidence_interval_windows=8))

PROFILE = HostProfile(
    host_id=HOST,
    domain=DOMAIN,
    classes=(
        ClassProfile(
            model=MODEL.model,
            capacity_w=GPUS * 300,
            edges_w=MODEL.edges_w,
            clip_low_w=MODEL.clip_low_w,
            clip_high_w=MODEL.clip_high_w,
            source=FakeSource(gpus=GPUS),
        ),
    ),
)


def beacon(issued_at_ms: int) -> Beacon:
    return Beacon(nonce=bytes(range(32)), issued_at_ms=issued_at_ms, session_id=bytes(32))


@dataclass
class Tee:
    """The simulated TEE of the host; `busy` while it does not answer, `asked` counts."""

    busy: bool = False
    asked: int = 0
    before: Callable[[], None] = lambda: None
    kind: str = "tdx_quote_v4"
    simulated: bool = True
    quotes: Provider = field(
        default_factory=lambda: Provider(simulated_platform_id(HOST), simulated_measurement(IMAGE))
    )

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        self.asked += 1
        self.before()
        if self.busy:
            raise TsmBusy("the quoting service does not answer")
        return self.quotes.quote(report_data)


class Host(NoObserver):
    """An agent whose time moves from window to window; `then` happens at the end of the window of that number."""

    def __init__(self, tee: Tee, then: dict[int, Callable[[Host, Agent], None]] | None = None) -> None:
        self.now_ms, self.then = T0, then or {}
        facts = session_facts(PROFILE, SCHEDULE, privacy_parameters(Budget(), PROFILE.classes, SCHEDULE))
        self.make = session_maker(tee, facts)
        self.first = self.make(None, self.now_ms)
        self.ages: list[int] = []
        self.keeper = SessionKeeper(
            self.make,
            self.first,
            max_age_ms=MAX_AGE_MS,
            min_interval_ms=WINDOW_MS,
            spread_ms=0,
            wall_ms=lambda: self.now_ms,
            elapsed_s=lambda: self.now_ms / 1000,
            random=lambda: 0.5,
            pause=lambda _failures: WINDOW_MS / 1000,
        )

    def config(self, directory: Path, windows: int, host: AgentHost | None = None) -> AgentConfig:
        return AgentConfig(
            hosts=(host or AgentHost(profile=PROFILE, session=self.first, renewal=self.keeper),),
            pacer=ReplayPacer(WINDOW_MS, start_ms=T0, speed=math.inf),
            publish=PublishConfig(partitions={DOMAIN: 0}, kafka={"bootstrap.servers": "x:1"}),
            spool_path=directory / "spool",
            schedule=SCHEDULE,
            evidence_interval=VIEW.policy.limits.evidence_interval_windows,
            windows=windows,
            flush_s=0.1,
            observer=self,
        )

    def window(self, agent: Agent, done: Sequence[HostWindow], spooled: bool) -> None:
        """The agent made a window; the keeper's thread, which the test is, has its turn in the next one."""
        self.ages.append(self.keeper.state().age_ms)
        self.now_ms = done[0].sealed.window_end_ms + WINDOW_MS // 2
        if agent.summary.windows in self.then:
            self.then[agent.summary.windows](self, agent)
        if not self.keeper._thread.is_alive():
            self.keeper.turn()

    def run(self, directory: Path, windows: int) -> list[DecodedRecord]:
        broker = Broker()
        summary = Agent(self.config(directory, windows), lambda _: broker).run(threading.Event())
        assert (summary.windows, summary.reports, summary.left_in_spool) == (windows, windows, 0)
        assert spans(broker.records) == [T0 + number * WINDOW_MS for number in range(windows)], "no gap"
        chained(broker.records)
        judged(broker.values)
        return broker.records


def bodies(records: Sequence[DecodedRecord]) -> list[WindowReport]:
    return [record.body for record in records if isinstance(record.body, WindowReport)]


def spans(records: Sequence[DecodedRecord]) -> list[int]:
    return [body.window_start_ms for body in bodies(records)]


def chained(records: Sequence[DecodedRecord]) -> None:
    """One chain through all sessions, no sequence number twice, evidence in front of what it proves."""
    found = bodies(records)
    assert len({(body.session_id, body.seq) for body in found}) == len(found)
    for before, after in pairwise(records):
        assert isinstance(before.body, WindowReport)
        assert isinstance(after.body, WindowReport)
        assert after.body.prev_digest == before.digest
        renewed = after.body.session_id != before.body.session_id
        assert after.body.seq == (0 if renewed else before.body.seq + 1)
        assert not renewed or after.evidence is not None


def story_of(values: Sequence[bytes]) -> Story:
    """What a worker makes of the reports, each appended when its window ends."""
    story = Story(VIEW)
    story.control("POLICY_SWITCH", VIEW)
    for value in values:
        body = decode_signed_record(value).body
        assert isinstance(body, WindowReport)
        story.put(DOMAIN, value, body.window_end_ms + 10)
    return story


def judged(values: Sequence[bytes]) -> None:
    """The core admits every report, and finds no gap in any chain."""
    story = story_of(values)
    assert story.run.rejections == []
    outputs = story.outputs
    assert len(outputs) >= len(values) - 2, "all but the windows that are still open"
    assert [output.accepted for output in outputs] == [1] * len(outputs)
    assert all(output.refused == output.flagged == () for output in outputs)


def sessions(records: Sequence[DecodedRecord]) -> list[tuple[int, Beacon | None]]:
    """Number of the window from which each session is in use, and the beacon it names."""
    found: list[tuple[int, Beacon | None]] = []
    known = set()
    for number, record in enumerate(records):
        if isinstance(record.body, WindowReport) and record.body.session_id not in known:
            assert record.evidence is not None
            known.add(record.body.session_id)
            found.append((number, record.evidence.binding.beacon))
    return found


def test_evidence_is_renewed_before_it_is_too_old(tmp_path: Path) -> None:
    host = Host(Tee())
    records = host.run(tmp_path, 50)
    assert sessions(records) == [(0, None), (16, None), (32, None), (48, None)]
    assert max(host.ages) <= MAX_AGE_MS
    assert host.keeper.state().renewals == 3


def test_a_beacon_renews_it_at_once(tmp_path: Path) -> None:
    asked = beacon(T0 + 5 * WINDOW_MS)

    def demand(host: Host, _agent: Agent) -> None:
        host.keeper.demand(asked)

    records = Host(Tee(), {5: demand, 9: demand}).run(tmp_path, 30)
    assert sessions(records) == [(0, None), (5, asked), (21, asked)], "the last by age: no newer beacon was heard"


def test_windows_go_on_while_the_tee_does_not_answer(tmp_path: Path) -> None:
    tee = Tee()

    def busy(host: Host, _agent: Agent) -> None:
        tee.busy = not tee.busy

    host = Host(tee, {14: busy, 18: busy})
    records = host.run(tmp_path, 30)
    assert sessions(records) == [(0, None), (18, None)]
    assert max(host.ages) <= MAX_AGE_MS
    assert (host.keeper.state().failures, host.keeper.state().last_error) == (2, None)


def test_an_outage_of_the_tee_costs_no_window_either(tmp_path: Path) -> None:
    """Longer than evidence may be old: the reports go on, the agent says that it is overdue, workers judge."""
    tee = Tee()

    def fail(host: Host, _agent: Agent) -> None:
        tee.busy = True

    host = Host(tee, {10: fail})
    records = host.run(tmp_path, 30)
    assert sessions(records) == [(0, None)]
    assert host.keeper.state().overdue
    assert host.keeper.state().last_error == "TSM_BUSY"


def test_a_quote_that_takes_long_holds_up_no_window(tmp_path: Path) -> None:
    """On the keeper's own thread: three windows are made while the TEE thinks."""
    thinking, answer = threading.Event(), threading.Event()
    tee = Tee()
    asked = beacon(T0 + 2 * WINDOW_MS)

    def slow() -> None:
        thinking.set()
        assert answer.wait(WAIT_S)

    def begin(host: Host, _agent: Agent) -> None:
        tee.before = slow
        host.keeper.start()
        host.keeper.demand(asked)
        assert thinking.wait(WAIT_S)

    def end(host: Host, _agent: Agent) -> None:
        made = threading.Event()
        note = host.keeper._made

        def noted(*arguments: Any) -> None:
            note(*arguments)
            made.set()

        host.keeper._made = noted  # type: ignore[method-assign, assignment]
        answer.set()
        assert made.wait(WAIT_S)

    records = Host(tee, {2: begin, 5: end}).run(tmp_path, 8)
    assert sessions(records) == [(0, None), (5, asked)]


@pytest.mark.parametrize("on_hold", [True, False])
def test_a_reload_takes_the_newest_session_over_only_if_the_old_keeper_is_on_hold(
    tmp_path: Path, on_hold: bool
) -> None:
    """A new configuration's session is older than its first window: the old keeper must not overtake it meanwhile."""
    fresh = []

    def begin(host: Host, _agent: Agent) -> None:
        named = host.keeper.hold().next(None, host.now_ms) if on_hold else (None, host.now_ms)
        fresh.append(host.make(*named))
        host.now_ms += 1
        host.keeper.demand(beacon(host.now_ms))

    def end(host: Host, agent: Agent) -> None:
        agent.replace(host.config(tmp_path, 8, AgentHost(profile=PROFILE, session=fresh[0], renewal=Nothing())))

    broker = Broker()
    host = Host(Tee(), {3: begin, 4: end})
    Agent(host.config(tmp_path, 8), lambda _: broker).run(threading.Event())
    assert spans(broker.records) == [T0 + number * WINDOW_MS for number in range(8)]
    chained(broker.records)
    assert len(sessions(broker.records)) == (2 if on_hold else 3)
    refused = [one.code for one in story_of(broker.values).run.rejections]
    assert refused == ([] if on_hold else ["SUPERSEDED_SESSION"] * 4)


class Nothing:
    """No renewal."""

    def due(self, start_ms: int) -> None:
        return None

    def close(self) -> None:
        """Nothing to end."""
