"""The core and the slow reference agree on random logs: who counts, integer sums, revisions, counts by code."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from stream_jobs.core.effects import Emission
from tests.core.fleet import LIMITS, T0, WINDOW_MS, report_of, seal, session_of
from tests.core.reference import Expected, Reference
from tests.core.replay import Run, remembered
from tests.core.story import Story, small_policy

W = WINDOW_MS


def random_run(seed: int) -> Run:
    """Honest and misbehaving hosts of one domain, in the order in which their reports arrive."""
    rng = random.Random(seed)
    hosts = rng.randint(1, 5)
    limits = replace(LIMITS, lateness_ms=rng.choice((0, 1, 2, 4)) * W, evidence_interval_windows=rng.choice((1, 2, 3)))
    view = small_policy(hosts, limits=limits, grace_ms=rng.choice((0, 1, 2)) * W)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    arrivals: list[tuple[int, int, bytes]] = []
    chains: dict[tuple[int, int], tuple[int, bytes | None]] = {}
    late, lost, twice = rng.choice((0.0, 0.1, 0.4)), rng.choice((0.0, 0.1)), rng.choice((0.0, 0.1, 0.3))
    orders = [0] * (hosts + 1)
    for window in range(rng.choice((10, 18))):
        for number in range(hosts + 1):  # one host more than is enrolled
            orders[number] += rng.random() < 0.05
            order = max(0, orders[number] - (rng.random() < 0.1))
            session = session_of(f"h{number}", "d", order)
            seq, previous = chains.get((number, order), (0, None))
            body = report_of(session, T0 + window * W, seq, draw=rng.randrange(64), prev_digest=previous)
            sealed = seal(session, body)
            chains[number, order] = seq + 1, sealed.digest
            carries = seq % limits.evidence_interval_windows == 0
            at_ms = body.window_end_ms + rng.randint(-800, 500)
            if rng.random() < late:
                at_ms += rng.randint(0, limits.lateness_ms + 4 * W)
            value = sealed.value(session.evidence if carries else None)
            if rng.random() >= lost:
                arrivals.append((at_ms, len(arrivals), value))
            if rng.random() < twice:
                other = seal(session, replace(body, dropped_reports=1, seq=seq + rng.choice((0, 9))))
                again = rng.choice((value, sealed.value(None), other.value(session.evidence), value[:-3]))
                arrivals.append((at_ms + rng.randint(0, 5 * W), len(arrivals), again))
    for at_ms, _, value in sorted(arrivals):
        story.put("d", value, at_ms)
    return story.run


def flat(made: Emission, position: int) -> Expected:
    output = made.output
    (only,) = output.classes
    return Expected(
        position=position,
        window_start_ms=output.window_start_ms,
        revision=output.revision,
        digests=(),
        transitions=tuple(map(int, np.frombuffer(only.transitions_sum, "<i8"))),
        pane_sums=tuple(map(int, np.frombuffer(only.pane_sums_sum, "<i8"))),
        flagged={one.code: one.count for one in output.flagged},
        refused={one.code: one.count for one in output.refused},
    )


def compare(seed: int) -> int:
    with remembered():
        run = random_run(seed)
    (view,) = {state.active.digest: state.active for state in run.core.domains.values()}.values()
    slow = Reference(view.policy)
    for record in run.log:
        slow.process(record)
    assert [(one.offset, one.code) for one in run.rejections] == slow.refused, f"seed {seed}"
    assert len(run.emissions) == len(slow.outputs), f"seed {seed}"
    for (position, made), expected in zip(run.emissions, slow.outputs, strict=True):
        assert flat(made, position) == replace(expected, digests=()), f"seed {seed}"
        assert made.output.accepted == len(expected.digests), f"seed {seed}"
        for digest in expected.digests:
            assert digest in made.manifests[0], f"seed {seed}"
    return len(run.emissions)


def test_the_core_agrees_with_the_reference() -> None:
    assert sum(compare(seed) for seed in range(40)) > 300


@pytest.mark.accept
@pytest.mark.timeout(3600)
def test_the_core_agrees_with_the_reference_on_many_logs() -> None:
    for seed in range(1_000, 2_500):
        compare(seed)
