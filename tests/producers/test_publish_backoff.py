"""How publishers come back: pauses at random, and a fleet that does not flood its brokers."""

from collections import deque

from producers.backoff import CATCH_UP, FIRST_S, LONGEST_S, Recovery, full_jitter
from tests.producers.test_publish import Clock


def test_a_fleet_that_finds_its_brokers_again_is_no_flood() -> None:
    """300 hosts, an hour of reports each: ten times the steady load, from the first second to the last."""
    hosts, window_ms = 300, 60_000
    clock = Clock()
    fleet = [Recovery(1000, clock, active=True) for _ in range(hosts)]
    left = [deque(range(0, 60 * window_ms, window_ms)) for _ in range(hosts)]
    for _ in range(6):  # the outage: everybody has failed often enough to wait for up to the longest pause
        clock.s += LONGEST_S
        for one in fleet:
            one.failed()
    per_second = []
    while any(left):
        clock.s += 1
        per_second.append(0)
        for one, backlog in zip(fleet, left, strict=True):
            while backlog and not one.waits() and one.may_send(backlog[0]):
                backlog.popleft()
                one.acknowledged()
                per_second[-1] += 1
    steady = hosts / 60
    assert max(per_second) < 1.6 * CATCH_UP * steady
    assert max(per_second[:10]) < CATCH_UP * steady  # nor at the first moment
    assert len(per_second) < 3600 / CATCH_UP + 2 * LONGEST_S


def test_pauses_are_random_and_bounded() -> None:
    for attempt in range(1, 12):
        longest = min(2 ** (attempt - 1) * FIRST_S, LONGEST_S)
        pauses = [full_jitter(attempt) for _ in range(200)]
        assert 0 <= min(pauses) < longest / 4
        assert longest * 3 / 4 < max(pauses) <= longest
