"""Sessions are renewed in time, on demand, at a bounded rate; failures are waited out; nothing blocks a window."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.config import SessionFacts, session_facts
from producers.privacy import Budget, privacy_parameters
from producers.renewal import EARLIEST, LATEST, Place, SessionKeeper, moment_ms
from schemas.codec import encode_binding, session_id_of
from schemas.errors import EnclaveScaleError
from schemas.records import Beacon
from tests.producers.forge import SCHEDULE, START_MS, FakeSession, host

WAIT_S = 20.0
"""Longest a test waits for a thread that does its work at once."""

PROFILE = host()
FACTS: SessionFacts = session_facts(PROFILE, SCHEDULE, privacy_parameters(Budget(), PROFILE.classes, SCHEDULE))
TEMPLATE = FakeSession(FACTS)


class QuoteFailed(EnclaveScaleError):
    """What a TEE says that has no time."""

    code = "TSM_BUSY"


def beacon(issued_at_ms: int, nonce: int = 7) -> Beacon:
    return Beacon(nonce=bytes([nonce]) * 32, issued_at_ms=issued_at_ms, session_id=bytes(32))


def session(named: Beacon | None, created_at_ms: int) -> FakeSession:
    """A session as an agent makes it; the key is one for all, since no test looks at it."""
    made = object.__new__(FakeSession)
    made.__dict__.update(TEMPLATE.__dict__)
    made.binding = replace(
        TEMPLATE.binding,
        created_at_ms=created_at_ms,
        beacon=named,
        beacon_absent_reason=None if named else "no_beacon_received",
    )
    made.session_id = session_id_of(encode_binding(made.binding))
    return made


@dataclass
class Bench:
    """A keeper with clocks that only the test moves; `made` and `attempts` note the elapsed time (s) of each."""

    max_age_s: int = 3_600
    window_s: int = 0
    min_interval_s: int = 60
    spread_s: int = 60
    draw: float = 0.0
    failing: Callable[[], Exception | None] = lambda: None
    elapsed: float = 1000.0
    offset_ms: int = START_MS
    made: list[tuple[float, FakeSession]] = field(default_factory=list)
    attempts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = session(None, self.wall_ms())
        self.keeper = SessionKeeper(
            self.make,
            self.first,
            max_age_ms=self.max_age_s * 1000,
            window_ms=self.window_s * 1000,
            min_interval_ms=self.min_interval_s * 1000,
            spread_ms=self.spread_s * 1000,
            wall_ms=self.wall_ms,
            elapsed_s=lambda: self.elapsed,
            random=lambda: self.draw,
            pause=lambda failures: float(2**failures),
        )

    def wall_ms(self) -> int:
        return self.offset_ms + int(self.elapsed * 1000)

    def make(self, named: Beacon | None, created_at_ms: int) -> FakeSession:
        self.attempts.append(self.elapsed)
        error = self.failing()
        if error is not None:
            raise error
        found = session(named, created_at_ms)
        self.made.append((self.elapsed, found))
        return found

    def turn_at(self, elapsed: float) -> float:
        self.elapsed = elapsed
        return self.keeper.turn()


@pytest.mark.parametrize(("draw", "part"), [(0.0, EARLIEST), (0.999999, LATEST), (0.5, 0.8)])
def test_a_session_is_made_before_the_evidence_is_too_old(draw: float, part: float) -> None:
    bench = Bench(draw=draw)
    wait = bench.keeper.turn()
    assert wait == pytest.approx(part * 3600, abs=0.01)
    bench.turn_at(1000 + wait - 0.1)
    assert bench.made == []
    assert bench.keeper.due(START_MS) is None
    again = bench.turn_at(1000 + wait + 0.01)
    ((_, made),) = bench.made
    assert made.binding.created_at_ms == bench.wall_ms()
    assert made.binding.beacon is None
    assert again == pytest.approx(part * 3600, abs=0.1), "the next is due after as long again"
    assert bench.keeper.due(START_MS) is made
    assert bench.keeper.due(START_MS) is None, "each is handed out once"


def test_evidence_is_young_enough_when_windows_are_long() -> None:
    """A new session waits for a window to begin; the one in use grows older meanwhile."""
    bench = Bench(max_age_s=120, window_s=60, draw=0.999999)
    for second in range(1001, 2000):
        bench.turn_at(second)
        if second % 60 == 0:
            bench.keeper.due(START_MS)
        assert not bench.keeper.state().overdue
    assert bench.keeper.state().renewals >= 8


def test_the_age_counts_from_before_the_quote_was_asked_for() -> None:
    bench = Bench()
    slow = bench.make

    def make(named: Beacon | None, created_at_ms: int) -> FakeSession:
        bench.elapsed += 50
        return slow(named, created_at_ms)

    bench.keeper._make = make
    assert bench.turn_at(1000 + 2700) == 2700 - 50
    bench.keeper.due(START_MS)
    assert bench.keeper.state().age_ms == 50_000


def test_a_newer_beacon_renews_soon_but_not_at_once_everywhere() -> None:
    bench = Bench(draw=0.5)
    bench.elapsed = 1100
    asked = beacon(bench.wall_ms() - 10)
    bench.keeper.demand(asked)
    assert bench.keeper.turn() == 30, "half of the spread"
    bench.turn_at(1129)
    assert bench.made == []
    bench.turn_at(1130)
    assert [made.binding.beacon for _, made in bench.made] == [asked]
    bench.keeper.demand(asked)
    bench.keeper.demand(beacon(asked.issued_at_ms, nonce=8))
    bench.keeper.demand(beacon(asked.issued_at_ms - 1))
    bench.turn_at(1500)
    assert len(bench.made) == 1, "the session has seen these"


def test_beacons_cost_one_session_per_interval() -> None:
    bench = Bench(spread_s=0)
    for second in range(600):
        bench.elapsed = 1000.0 + second
        bench.keeper.demand(beacon(bench.wall_ms() - 1))
        bench.keeper.turn()
    assert [at for at, _ in bench.made] == [1060 + 60 * number for number in range(9)]


def test_one_that_waits_is_replaced_by_a_newer_one() -> None:
    bench = Bench(draw=0.5)
    bench.elapsed = 1100
    bench.keeper.demand(beacon(bench.wall_ms() - 10))
    bench.elapsed = 1120
    newer = beacon(bench.wall_ms() - 5, nonce=8)
    bench.keeper.demand(newer)
    bench.turn_at(1130)
    assert [made.binding.beacon for _, made in bench.made] == [newer]


def test_a_beacon_of_the_next_seconds_waits_for_its_time() -> None:
    """Its moment becomes the session's: one of the future would make the next one, or a restart's, older."""
    bench = Bench(spread_s=0)
    bench.elapsed = 1100
    early = beacon(bench.wall_ms() + 4_000)
    bench.keeper.demand(early)
    assert bench.keeper.turn() == 4
    bench.turn_at(1103.9)
    assert bench.made == []
    bench.turn_at(1104)
    assert [made.binding.beacon for _, made in bench.made] == [early]


def test_beacons_of_the_future_do_not_put_off_what_waits() -> None:
    bench = Bench(spread_s=0)
    for second in range(100, 200):
        bench.elapsed = 1000.0 + second
        bench.keeper.demand(beacon(bench.wall_ms() + 9_000, nonce=second))
        bench.keeper.turn()
    assert [at for at, _ in bench.made] == [1109, 1169]


def test_a_renewal_by_age_names_the_beacon_that_waits_and_then_the_same_again() -> None:
    bench = Bench()
    bench.draw = 0.9
    bench.elapsed = 1000 + 0.75 * 3600 - 10
    waiting = beacon(bench.wall_ms())
    bench.keeper.demand(waiting)
    bench.turn_at(bench.elapsed + 10)
    assert [made.binding.beacon for _, made in bench.made] == [waiting]
    bench.turn_at(bench.elapsed + 3600)
    assert bench.made[1][1].binding.beacon == waiting, "a policy may refuse evidence without one"
    assert Place.of(bench.made[0][1].binding).before(Place.of(bench.made[1][1].binding))


def test_a_clock_set_back_makes_no_older_session() -> None:
    bench = Bench()
    bench.offset_ms -= 86_400_000
    bench.turn_at(1000 + 0.75 * 3600)
    ((_, made),) = bench.made
    assert made.binding.created_at_ms == bench.first.binding.created_at_ms + 1


def test_failures_are_tried_again_with_growing_pauses_while_the_old_session_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = iter([QuoteFailed("busy"), QuoteFailed("busy"), RuntimeError("unforeseen"), None])
    bench = Bench(failing=lambda: next(failures))
    with caplog.at_level(logging.WARNING):
        wait = bench.turn_at(3700.0)
        seen = [wait]
        while not bench.made:
            assert bench.keeper.due(START_MS) is None
            bench.elapsed += wait
            wait = bench.keeper.turn()
            seen.append(wait)
    assert seen == [2.0, 4.0, 8.0, 2700.0]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "TSM_BUSY: busy" in caplog.text
    assert "RENEWAL_FAILED: unforeseen" in caplog.text
    assert (bench.keeper.state().failures, bench.keeper.state().last_error) == (3, None)


def test_a_demand_does_not_shorten_the_pause_after_a_failure() -> None:
    bench = Bench(spread_s=0, failing=lambda: QuoteFailed("busy"))
    bench.turn_at(3700.0)
    bench.elapsed += 1
    bench.keeper.demand(beacon(bench.wall_ms()))
    assert bench.keeper.turn() == 1.0
    assert len(bench.attempts) == 1


def test_the_state_says_how_old_what_is_in_use_is() -> None:
    bench = Bench(failing=lambda: QuoteFailed("busy"))
    bench.turn_at(1000 + 3_601)
    state = bench.keeper.state()
    assert (state.age_ms, state.max_age_ms, state.overdue, state.last_error) == (3_601_000, 3_600_000, True, "TSM_BUSY")
    bench.failing = lambda: None
    bench.turn_at(1000 + 3_700)
    assert bench.keeper.state().overdue, "made, but the reports still go out with the old one"
    bench.elapsed += 5
    assert bench.keeper.due(START_MS) is not None
    state = bench.keeper.state()
    assert (state.age_ms, state.renewals, state.failures, state.overdue) == (5_000, 1, 1, False)


def test_one_that_nobody_took_is_replaced() -> None:
    bench = Bench()
    bench.turn_at(1000 + 2_700)
    bench.turn_at(1000 + 5_400)
    assert bench.keeper.due(START_MS) is bench.made[1][1]
    assert bench.keeper.due(START_MS) is None
    assert bench.keeper.state().renewals == 1


def test_a_session_that_workers_would_not_take_for_newer_is_no_session() -> None:
    bench = Bench()
    bench.keeper._make = lambda _beacon, _created: bench.first
    bench.turn_at(1000 + 2_700)
    assert bench.keeper.due(START_MS) is None
    assert bench.keeper.state().last_error == "RENEWAL_FAILED"


def test_a_keeper_on_hold_hands_out_nothing_newer_than_what_replaces_it() -> None:
    bench = Bench()
    bench.turn_at(1000 + 2_700)
    place, newest = bench.keeper.hold(), bench.made[0][1].binding
    assert place == Place.of(newest)
    assert place.next(None, bench.wall_ms()) == (None, newest.created_at_ms + 1), "made this very millisecond"
    bench.elapsed += 1
    assert place.next(None, bench.wall_ms()) == (None, bench.wall_ms())
    bench.turn_at(1000 + 5_400)
    assert bench.keeper.due(START_MS) is None
    assert bench.keeper.state().renewals == 0
    bench.keeper.resume()
    assert bench.keeper.due(START_MS) is bench.made[1][1]
    bench.offset_ms -= 86_400_000
    after = bench.keeper.hold().next(None, bench.wall_ms())
    assert after == (None, moment_ms(bench.made[1][1].binding) + 1), "also with the clock set back"


def test_a_session_names_the_newest_beacon_that_does_not_make_it_older() -> None:
    old, new = beacon(100), beacon(200, nonce=8)
    bare = Place.of(session(None, 150).binding)
    assert bare.next(None, 150) == (None, 151)
    assert bare.next(old, 300) == (None, 300), "workers would take it for the older one"
    assert bare.next(new, 300) == (new, 300)
    named = Place.of(session(new, 250).binding)
    assert named.next(None, 300) == named.next(old, 300) == named.next(new, 300) == (new, 300)
    assert named.next(new, 100) == (new, 251), "with the clock set back"
    assert named.before(Place.of(session(new, 251).binding))
    assert not named.before(Place.of(session(new, 250).binding))


STEPS = st.lists(
    st.tuples(
        st.floats(0, 400),  # seconds that pass
        st.one_of(st.none(), st.integers(-100_000, 20_000)),  # a beacon of that many ms from now
        st.booleans(),  # whether the TEE answers
        st.booleans(),  # whether a window ends
    ),
    max_size=60,
)


@given(STEPS, st.floats(0, 0.99))
def test_whatever_is_asked_sessions_get_newer_and_not_too_many(
    steps: list[tuple[float, int | None, bool, bool]], draw: float
) -> None:
    bench = Bench(max_age_s=1200, draw=draw)
    places, answers = [Place.of(bench.first.binding)], True
    bench.failing = lambda: None if answers else QuoteFailed("busy")
    for seconds, issued, answering, window_ends in steps:
        answers = answering
        bench.elapsed += seconds
        if issued is not None:
            bench.keeper.demand(beacon(bench.wall_ms() + issued))
        wait = bench.keeper.turn()
        assert 0 < wait <= LATEST * 1200
        if window_ends and (taken := bench.keeper.due(0)) is not None:
            places.append(Place.of(taken.binding))
            assert places[-1].moment_ms <= bench.wall_ms()
        state = bench.keeper.state()
        assert state.age_ms <= (bench.elapsed - 1000) * 1000 + 1
    assert all(older.before(newer) for older, newer in itertools.pairwise(places))
    times = [1000.0, *(at for at, _ in bench.made)]
    assert all(after - before > 59.999 for before, after in itertools.pairwise(times))
    assert len(bench.attempts) == len(bench.made) + bench.keeper.state().failures


def test_the_thread_makes_what_is_demanded_and_windows_never_wait_for_it() -> None:
    asked, answer, answered = threading.Event(), threading.Event(), threading.Event()

    def make(named: Beacon | None, created_at_ms: int) -> FakeSession:
        asked.set()
        assert answer.wait(WAIT_S)
        return session(named, created_at_ms)

    first = session(None, START_MS)
    keeper = SessionKeeper(
        make, first, max_age_ms=3_600_000, min_interval_ms=0, spread_ms=0, wall_ms=lambda: START_MS + 10
    )
    made = keeper._made
    keeper._made = lambda *arguments: (made(*arguments), answered.set())  # type: ignore[method-assign, assignment, func-returns-value]
    keeper.start()
    keeper.demand(beacon(START_MS + 5))
    assert asked.wait(WAIT_S)
    assert keeper.due(START_MS) is None, "asked for, not answered: the window goes on with the old one"
    assert keeper.state().renewals == 0
    answer.set()
    assert answered.wait(WAIT_S)
    found = keeper.due(START_MS)
    assert found is not None
    assert found.binding.beacon == beacon(START_MS + 5)
    keeper.close()
    assert not keeper._thread.is_alive()


def test_closing_does_not_wait_for_a_tee_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.renewal.CLOSE_S", 0.0)
    asked, answer = threading.Event(), threading.Event()

    def make(named: Beacon | None, created_at_ms: int) -> FakeSession:
        asked.set()
        assert answer.wait(WAIT_S)
        return session(named, created_at_ms)

    keeper = SessionKeeper(make, session(None, START_MS), max_age_ms=0).start()
    assert asked.wait(WAIT_S)
    keeper.close()
    assert keeper._thread.is_alive()
    answer.set()
    keeper._thread.join(WAIT_S)
    assert not keeper._thread.is_alive()


def test_a_keeper_that_never_began_can_be_closed() -> None:
    Bench().keeper.close()
