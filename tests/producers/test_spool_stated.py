"""What reports say was lost: over those that reach the topic, never less than what was dropped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from producers.errors import SpoolError
from producers.host import AgentHost, HostAgent
from producers.seal import SealedReport, Session
from producers.spool import Spool
from schemas.codec import decode_signed_record
from tests.producers.forge import START_MS, host, session_for
from tests.producers.spool_damage import memory_directory
from tests.producers.test_agent import config

AGE_MS = 60_000
MAX_BYTES = 16_000
"""Three reports with evidence, twice as many without."""
HOST = "host-1"


class Renewals:
    """The next session, when a test puts one here."""

    session: Session | None = None

    def due(self, start_ms: int) -> Session | None:
        found, self.session = self.session, None
        return found

    def close(self) -> None:
        return None


class Life:
    """A host and a topic; whatever goes wrong is asked for. `lost`: what a simple model says was dropped so far."""

    def __init__(self, directory: Path) -> None:
        self.settings, self.profile, self.renewals = config(directory), host(), Renewals()
        self.seconds = 0
        self.refused = 0
        self.appended: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.lost_at: dict[bytes, int] = {}
        self.stated: dict[bytes, tuple[int, int]] = {}
        self.known = 0
        self.start()

    def start(self) -> None:
        """A process, with a session of its own."""
        self.spool = Spool(self.settings.spool_path, max_age_ms=AGE_MS, now=lambda: float(self.seconds))
        self.spool._max_bytes = MAX_BYTES  # smaller than anybody may configure
        first = AgentHost(profile=self.profile, session=session_for(self.profile), renewal=self.renewals)
        self.agent = HostAgent(first, self.settings.sealing, self.spool)

    def restart(self) -> None:
        """Another process."""
        self.spool.close()
        self.start()

    def renew(self) -> None:
        """Another session from the next window on."""
        self.renewals.session = session_for(self.profile)

    @property
    def lost(self) -> int:
        waiting = {entry.digest for entry in self.spool.pending()}
        return len(self.appended - self.acknowledged - waiting) + self.refused

    def window(self, *, disk_full: bool = False) -> int:
        """Seal one and append it; return what it states."""
        self.seconds += 10
        lost = self.lost
        sealed: SealedReport = self.agent.produce(START_MS + self.seconds * 1000).sealed
        self.lost_at[sealed.digest] = lost
        try:
            if disk_full:
                self.spool._insert = full  # type: ignore[method-assign]
            self.spool.append([sealed], self.seconds * 1000)
            self.appended.add(sealed.digest)
        except SpoolError:
            self.refused += 1
        finally:
            self.spool.__dict__.pop("_insert", None)
        body: Any = decode_signed_record(sealed.value).body
        return int(body.dropped_reports)

    def deliver(self, count: int, *, acknowledge: bool = True) -> None:
        """The oldest reports reach the topic, and perhaps the agent hears of it; then the sum must be enough."""
        entries = self.spool.pending(limit=count)
        for entry in entries:
            body: Any = decode_signed_record(entry.value).body
            newest = (body.seq, body.dropped_reports)
            self.stated[body.session_id] = max(self.stated.get(body.session_id, newest), newest)
            self.known = max(self.known, self.lost_at[entry.digest])
        if acknowledge:
            self.spool.acknowledge([entry.id for entry in entries])
            self.acknowledged |= {entry.digest for entry in entries}
        assert self.sum() >= self.known, "reports were lost that no delivered report states"

    def sum(self) -> int:
        """What the topic says was lost."""
        return sum(dropped for _, dropped in self.stated.values())


def full(*_: object) -> None:
    raise OSError("disk full")


def calm(life: Life) -> None:
    """Brokers answer again: all of it is stated, and nothing of it again."""
    for _ in range(2):
        life.window()
        life.deliver(100)
    assert life.sum() >= life.lost == life.spool.dropped(HOST) == life.spool.heard(HOST)
    life.restart()
    assert life.window() == 0
    life.renew()
    assert life.window() == 0


class Storm(RuleBasedStateMachine):
    """Any order of outages, drops, restarts, renewals and acknowledgements, and then calm."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.life = Life(self.stack.enter_context(memory_directory()))

    @rule(count=st.integers(1, 9), slept_s=st.sampled_from((0, 0, 0, 20, 70)))
    def outage(self, count: int, slept_s: int) -> None:
        self.life.seconds += slept_s
        for _ in range(count):
            self.life.window()

    @rule()
    def the_disk_is_full(self) -> None:
        self.life.window(disk_full=True)

    @precondition(lambda self: self.life.spool.depth()[0])
    @rule(count=st.integers(1, 9), acknowledge=st.booleans())
    def some_arrive(self, count: int, acknowledge: bool) -> None:
        self.life.deliver(count, acknowledge=acknowledge)

    @precondition(lambda self: self.life.spool.depth()[0])
    @rule(pick=st.integers(0, 99))
    def no_broker_takes_one(self, pick: int) -> None:
        entries = self.life.spool.pending()
        self.life.spool.discard([entries[pick % len(entries)].id])

    @rule()
    def restart(self) -> None:
        self.life.restart()

    @rule()
    def renew(self) -> None:
        self.life.renew()

    def teardown(self) -> None:
        with self.stack:
            calm(self.life)
            self.life.spool.close()


@pytest.mark.parametrize("examples", [50, pytest.param(1_500, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
def test_whatever_happens_the_topic_states_no_less_than_was_lost(examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Storm, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None)
    )


def test_restarts_in_an_outage_hide_nothing(tmp_path: Path) -> None:
    """Every session states its losses in reports that are dropped themselves."""
    life = Life(tmp_path)
    for _ in range(3):
        for _ in range(20):
            life.window()
        life.restart()
    life.deliver(100)
    assert life.sum() == life.known > 50


def test_what_was_dropped_after_the_last_acknowledged_report_was_sealed_is_for_the_next_session(tmp_path: Path) -> None:
    life = Life(tmp_path)
    for _ in range(9):
        life.window()
    life.deliver(1)
    assert life.spool.heard(HOST) < life.lost
    life.restart()
    life.window()
    life.deliver(100)
    assert life.sum() >= life.known > 0


@pytest.mark.parametrize("begin", [Life.restart, Life.renew])
def test_a_new_session_states_what_no_delivered_report_did(tmp_path: Path, begin: Callable[[Life], None]) -> None:
    life = Life(tmp_path)
    for _ in range(20):
        life.window()
    life.deliver(100)
    before = life.lost
    assert life.window() == before > 10
    life.deliver(100)
    begin(life)
    assert life.window() == 0
    life.deliver(100)
    life.window(disk_full=True)
    assert life.window() == 1
    begin(life)
    assert life.window() == 1, "what states it may be dropped yet"
    life.deliver(100)
    begin(life)
    assert life.window() == 0
    assert life.sum() == before + 2, "stated twice"
