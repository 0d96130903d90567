"""How long a revocation takes: from its control record's append to the first output without the revoked host."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from enclavescale.bench.attacks_run import offset_of, run
from enclavescale.bench.attacks_world import AttackWorld, Honest, Placed
from enclavescale.fleet import AGGREGATOR_ID, sign_policy
from schemas.records import RevokedSubject
from stream_jobs.policy_store import open_policy
from verifier.cache import SessionCache

ROUNDS = 12
BOUND_WINDOWS = 1


def revocation_latency(world: AttackWorld, seed: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Revoke a host at any place in the log's first windows, `rounds` times.

    `outputs_with_the_host`: outputs published behind the revocation that still count a report of the host; `windows`:
    the most of them in one trial; `first_output_ms_max`: until the next output, which the windows' schedule decides.
    """
    rng, cache = random.Random(seed), SessionCache()
    latest_ms, counted, revised, windows = 0, 0, 0, 0
    for _ in range(rounds):
        host = rng.choice(list(world.plans))
        records, at_ms, domain = _with_revocation(world, rng, host)
        seen = run(world, records, cache)
        at = next(offset for offset, one in records if isinstance(one, Honest) and one.author == "revocation")
        reported = {one.start_ms for _, one in records if isinstance(one, Honest) and one.author == host}
        stamps = {offset: one.at_ms for offset, one in records}
        first: int | None = None
        before = counted
        for output in seen.outputs:
            if output.domain != domain or output.source.close_offset < at:
                continue
            others = {
                one.author
                for offset, one in records
                if isinstance(one, Honest)
                and one.start_ms == output.window_start_ms
                and one.key.decode() == domain
                and one.author != host
                and offset <= output.source.close_offset
                and offset not in seen.codes
            }
            counted += output.accepted > len(others)
            revised += output.revision > 0 and output.window_start_ms in reported
            if first is None and output.window_start_ms in reported:
                first = stamps[output.source.close_offset] - at_ms
        latest_ms, windows = max(latest_ms, first or 0), max(windows, counted - before)
    return {
        "trials": rounds,
        "outputs_with_the_host": counted,
        "windows": windows,
        "bound_windows": BOUND_WINDOWS,
        "first_output_ms_max": latest_ms,
        "outputs_revised": revised,
        "met": windows <= BOUND_WINDOWS,
    }


def _with_revocation(world: AttackWorld, rng: random.Random, host: str) -> tuple[list[tuple[int, Placed]], int, str]:
    """The first phase's log with a policy that revokes `host`, and the revocation, put in at some place."""
    domain = world.plans[host].profile.domain
    old = world.views[0].policy
    policy = replace(old, counter=3, revoked=(RevokedSubject(kind="host", id=host, reason="bench"),))
    view = open_policy(sign_policy(policy, world.signing_key), world.trust)
    world.policies[view.digest] = view
    log = [one for one in world.honest if one.phase == 0]
    place = rng.randrange(len(log) // 4, len(log) - len(log) // 4)
    at_ms = log[place].at_ms
    worker = next(one.session for one in log if one.author == AGGREGATOR_ID and one.session is not None)
    for kind, author in (("REVOCATION", "revocation"), ("POLICY_SWITCH", AGGREGATOR_ID)):
        value = world.control(worker, kind, domain, view, world.sets[0], at_ms)
        log.insert(place + 1, Honest(world.domains[domain], at_ms, domain.encode(), value, author, None, worker, 0))
    return [(offset_of(number), one) for number, one in enumerate(log)], at_ms, domain
