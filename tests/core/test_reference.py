"""The core and the slow reference agree on random logs in all but the estimates: who counts and when, sums, shares,
counts, what is withheld, manifests and chains of digests."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from attester.session import Session
from schemas.codec import decode_signed_manifest, encode_signed_manifest
from schemas.records import Limits, WindowManifest, WindowReport
from stream_jobs.core.effects import Emission
from stream_jobs.core.policies import PolicyView
from tests.core import arrivals, fleet
from tests.core.arrivals import FLEET, MODELS, privacy_of, statistics
from tests.core.fleet import LIMITS, T0, WINDOW_MS, new_session, report_of, seal
from tests.core.reference import Reference
from tests.core.replay import Run, remembered
from tests.core.story import Story
from tests.results import write_result

W = WINDOW_MS
STRANGER = "h9"


def like(host: str) -> str:
    """The stranger, whom nobody enrolled, has the GPUs of h3."""
    return "h3" if host == STRANGER else host


@cache
def session_of(host: str, order: int) -> Session:
    models, mode, _ = FLEET[like(host)]
    return new_session(
        host, "d", T0 + order, fleet.IMAGE, sampler_mode=mode, privacy=privacy_of(models, mode), platform=host
    )


@dataclass
class Traffic:
    """What honest and misbehaving hosts send. `arrivals`: time, number, value (None: a worker closes the domain)."""

    rng: random.Random
    arrivals: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    orders: Counter[str] = field(default_factory=Counter)
    chains: dict[tuple[str, int], tuple[int, bytes | None]] = field(default_factory=dict)

    def put(self, at_ms: int, value: bytes | None) -> None:
        self.arrivals.append((at_ms, len(self.arrivals), value))

    def report(self, host: str, window: int, limits: Limits, late: float, lost: float, twice: float) -> None:
        rng = self.rng
        self.orders[host] += rng.random() < 0.05
        order = max(0, self.orders[host] - (rng.random() < 0.1))
        session = session_of(host, order)
        seq, previous = self.chains.get((host, order), (0, None))
        classes = tuple(statistics(like(host), window, model) for model in FLEET[like(host)][0])
        body: WindowReport = report_of(session, T0 + window * W, seq, prev_digest=previous, classes=classes)
        sealed = seal(session, body)
        self.chains[host, order] = seq + 1, sealed.digest
        carries = seq % limits.evidence_interval_windows == 0
        at_ms = body.window_end_ms + rng.randint(-800, 500)
        if rng.random() < late:
            at_ms += rng.randint(0, limits.lateness_ms + 4 * W)
        value = sealed.value(session.evidence if carries else None)
        if rng.random() >= lost:
            self.put(at_ms, value)
        if rng.random() < twice:
            other = seal(session, replace(body, dropped_reports=1, seq=seq + rng.choice((0, 9))))
            again = rng.choice((value, sealed.value(None), other.value(session.evidence), value[:-3]))
            self.put(at_ms + rng.randint(0, 5 * W), again)


def random_policy(rng: random.Random) -> PolicyView:
    limits = replace(
        LIMITS,
        lateness_ms=rng.choice((0, 1, 2, 4)) * W,
        evidence_interval_windows=rng.choice((1, 2, 3)),
        max_epsilon_micro=200_000_000,
    )
    rule = fleet.domain_rule(
        "d",
        grace_ms=rng.choice((0, 1, 2)) * W,
        quorum_ppm=rng.choice((200_000, 600_000, 900_000)),
        k_min_hosts=rng.choice((1, 2)),
        k_min_tenants=rng.choice((1, 2)),
        forecast_horizons_ms=(),
    )
    hosts = [arrivals.enrolment(one) for one in sorted(rng.sample(sorted(FLEET), rng.randint(1, len(FLEET))))]
    modes = ("average", "instant")
    models = tuple(MODELS.values())
    return fleet.policy_of(hosts, [rule], limits=limits, models=models, accepted_sampler_modes=modes)


def random_run(seed: int) -> Run:
    """A log in the order in which its records arrive."""
    rng = random.Random(seed)
    view = random_policy(rng)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    traffic = Traffic(rng)
    late, lost, twice = rng.choice((0.0, 0.1, 0.4)), rng.choice((0.0, 0.1, 0.3)), rng.choice((0.0, 0.1, 0.3))
    closes = rng.choice((0.0, 0.0, 0.2))
    for window in range(rng.choice((10, 18))):
        for host in (*(one.host_id for one in view.policy.hosts), STRANGER):
            traffic.report(host, window, view.policy.limits, late, lost, twice)
        if rng.random() < closes:
            traffic.put(T0 + (window + 2) * W, None)
    for at_ms, _, value in sorted(traffic.arrivals, key=lambda one: one[:2]):
        if value is None:
            story.control("IDLE_CLOSE", view, closed=max(0, (story.now_ms - T0) // W - rng.randint(0, 5)))
        else:
            story.put("d", value, at_ms)
    return story.run


def manifest_of(made: Emission) -> WindowManifest:
    (only,) = made.manifests
    return decode_signed_manifest(encode_signed_manifest(only, bytes(64), bytes(32)))[0].manifest


def counts(of: Any) -> dict[str, int]:
    return {one.code: one.count for one in of}


def stated(made: Emission, position: int) -> dict[str, Any]:
    """What `reference_facts.facts` derives, as the output and its manifest say it."""
    output, manifest = made.output, manifest_of(made)
    covered, diluted, source = output.coverage, output.dilution, output.source
    assert source.close_offset == manifest.close_offset == position
    assert counts(manifest.refused) == counts(output.refused)
    assert output.manifest_root == manifest.accepted_root
    assert all(
        sum(one.hosts for one in output.power_by if one.dimension == "root") in (0, output.accepted) for _ in "1"
    )
    return {
        "window_start_ms": output.window_start_ms,
        "revision": output.revision,
        "source": (source.first_offset, source.close_offset, source.close_reason),
        "accepted": output.accepted,
        "late_accepted": output.late_accepted,
        "duplicates": output.duplicates,
        "late_refused": output.late_refused,
        "refused": counts(output.refused),
        "flagged": {code: count for code, count in counts(output.flagged).items() if code.startswith("CHAIN_")},
        "coverage": (
            covered.enrolled_hosts,
            covered.reporting_hosts,
            covered.enrolled_gpus,
            covered.reporting_gpus,
            covered.enrolled_capacity_w,
            covered.reporting_capacity_w,
            covered.quorum_met,
        ),
        "dilution": (
            diluted.hosts,
            diluted.tenants,
            diluted.largest_host_share_ppm,
            diluted.largest_tenant_share_ppm,
            diluted.met,
        ),
        "epsilon_micro": output.privacy.epsilon_max_micro,
        "withheld": (output.mean is None, output.margin.margin is None),
        "classes": [
            (
                one.model,
                one.sampler_mode,
                one.hosts,
                one.gpus,
                one.capacity_w,
                one.enrolled_capacity_w,
                one.readings_taken,
                tuple(np.frombuffer(one.transitions_sum, "<i8").tolist()),
                tuple(np.frombuffer(one.pane_sums_sum, "<i8").tolist()),
            )
            for one in output.classes
        ],
        "digests": manifest.accepted_digests,
        "roots": (manifest.accepted_root, manifest.refused_root),
    }


def compare(seed: int, seen: Counter[str]) -> None:
    with remembered():
        run = random_run(seed)
    (view,) = {state.active.digest: state.active for state in run.core.domains.values()}.values()
    slow = Reference(view.policy)
    for record in run.log:
        slow.process(record)
    assert [(one.offset, one.code) for one in run.rejections] == [one[:2] for one in slow.refused], f"seed {seed}"
    assert len(run.emissions) == len(slow.outputs), f"seed {seed}"
    previous: dict[int, bytes] = {}
    for (position, made), expected in zip(run.emissions, slow.outputs, strict=True):
        found = stated(made, position)
        differing = {name: (found[name], expected[name]) for name in expected if found[name] != expected[name]}
        assert not differing, (seed, position, differing)
        assert made.output.prev_revision_digest == previous.get(made.output.window_start_ms)
        previous[made.output.window_start_ms] = made.digest
        note(seen, expected)
    seen.update(code for _, code, _ in slow.refused)
    seen["logs"] += 1
    seen["records"] += len(run.log)


def note(seen: Counter[str], expected: dict[str, Any]) -> None:
    no_figures, no_margin = expected["withheld"]
    seen["outputs"] += 1
    seen["revisions"] += expected["revision"] > 0
    seen["withheld"] += no_figures
    seen["below quorum"] += no_margin and not no_figures
    seen["idle closes"] += expected["source"][2] == "idle_close"
    seen["classes"] += len(expected["classes"]) > 1
    seen.update(expected["flagged"])


HELD = (
    "LATE DUPLICATE EQUIVOCATION CLOCK_SKEW HOST_NOT_ENROLLED SESSION_UNKNOWN EVIDENCE_STALE SUPERSEDED_SESSION "
    "MALFORMED CHAIN_GAP CHAIN_UNLINKED"
)
"""Codes that the logs must hold; a generator that has stopped to make trouble would prove nothing."""


def test_the_core_agrees_with_the_reference() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        compare(seed, seen)
    for kind in ("revisions", "withheld", "below quorum", "idle closes", "classes"):
        assert seen[kind] >= 10, kind
    assert seen["outputs"] > 300
    assert set(HELD.split()) <= set(seen)


@pytest.mark.accept
@pytest.mark.timeout(3600)
def test_the_core_agrees_with_the_reference_on_many_logs() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1_000, 2_500):
        compare(seed, seen)
    write_result(
        "core-reference", {**dict(sorted(seen.items())), "differences": 0}, seeds={"first": 1_000, "last": 2_499}
    )
