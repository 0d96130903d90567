"""Attacks by who carries the log: reports dropped, put in another order, chains cut, restarts, renewals withheld.

Each run changes much of a larger fleet's log at once. What a broker drops cannot be had back; what counts is that
nobody can mistake the rest for the whole: every window that lost a report says so in its coverage, and a window that
lost none is bit for bit what it is without the attack, unless a window before it lost some.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from enclavescale.bench.attacks_records import replay_after_a_month, replay_other_domain, replay_same_session
from enclavescale.bench.attacks_run import ClassResult, Core, Seen, content_of, newly_refused, offset_of, run, woven
from enclavescale.bench.attacks_scene import Scene
from enclavescale.bench.attacks_world import STRIDE, WINDOW_MS, AttackWorld, Honest, Placed, log_record
from enclavescale.fleet import sign_policy
from schemas.records import FleetPower
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.policy_store import open_policy
from verifier.cache import SessionCache

NOTHING = "UNNOTICED"
COVERAGE = "COVERAGE"
"""What stands for the code of a lost report: its window's coverage lacks it."""

Window = tuple[str, int]
"""Domain and begin of a window, ms."""

Stream = list[tuple[int, Placed]]
DROP_SHARE, CHAIN_SHARE, DELAY_SHARE = 0.12, 0.1, 0.2


@dataclass(slots=True)
class Changed:
    """A log as it was delivered, and the numbers of the honest records that were touched, each a trial."""

    log: Stream
    touched: list[int]


def broker_drop(world: AttackWorld, rng: random.Random) -> Changed:
    """Reports dropped one by one."""
    lost = {number for number in _reports(world) if rng.random() < DROP_SHARE * rng.random()}
    return Changed([(offset_of(at), one) for at, one in enumerate(world.honest) if at not in lost], sorted(lost))


def chain_truncation(world: AttackWorld, rng: random.Random) -> Changed:
    """The beginning, the end or the middle of a session's chain is cut out: runs of reports of one session."""
    chains: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number in _reports(world):
        chains[world.honest[number].author, world.honest[number].phase].append(number)
    lost: set[int] = set()
    for members in chains.values():
        if rng.random() < CHAIN_SHARE:
            count = rng.randint(1, len(members))
            begin = rng.choice((0, len(members) - count, rng.randint(0, len(members) - count)))
            lost |= set(members[begin : begin + count])
    return Changed([(offset_of(at), one) for at, one in enumerate(world.honest) if at not in lost], sorted(lost))


def broker_reorder(world: AttackWorld, rng: random.Random) -> Changed:
    """Reports held back and let through later, behind others: within their window's grace, or beyond it."""
    waiting: list[tuple[int, int, int]] = []
    moved, longest_ms = [], rng.choice((WINDOW_MS // 2, WINDOW_MS // 2, 3 * WINDOW_MS))
    for number, one in enumerate(world.honest):
        delay_ms = 0
        if one.start_ms is not None and rng.random() < DELAY_SHARE:
            delay_ms = rng.randint(1, longest_ms)
            moved.append(number)
        waiting.append((one.at_ms + delay_ms, rng.randrange(1 << 30) if delay_ms else number, number))
    log: Stream = []
    for place, (at_ms, _, number) in enumerate(sorted(waiting)):
        log.append((offset_of(place), replace(world.honest[number], at_ms=at_ms)))
    return Changed(log, moved)


STREAMS: dict[str, Callable[[AttackWorld, random.Random], Changed]] = {
    "broker_drop": broker_drop,
    "broker_reorder": broker_reorder,
    "chain_truncation": chain_truncation,
}


def _reports(world: AttackWorld) -> list[int]:
    return [number for number, one in enumerate(world.honest) if one.start_ms is not None]


def attack_stream(world: AttackWorld, honest: Seen, changed: Changed, cache: SessionCache, result: ClassResult) -> None:
    """Judge one delivered log: what was lost shows, and nothing is published that the accepted reports do not give."""
    if not result.fresh(trial_digest(world.seed, [(offset, one.at_ms) for offset, one in changed.log])):
        return
    seen = run(world, changed.log, cache)
    at_offset = {offset: placed for offset, placed in changed.log if isinstance(placed, Honest)}
    accepted = [(offset, one) for offset, one in at_offset.items() if offset not in seen.codes or one.start_ms is None]
    last, whole = finals(seen.outputs), finals(honest.outputs)
    counted = Counter((_domain(one), one.start_ms) for _, one in accepted if one.start_ms is not None)
    wrong: set[Window] = set()
    for window, output in last.items():
        revoked = output.accepted < counted[window] and world.revoked_host in _authors(accepted, window)
        if output.accepted + revoked != counted[window] or output.coverage.reporting_hosts != output.accepted:
            wrong.add(window)
        same = output.accepted == whole[window].accepted and not _earlier_loss(window, last, whole)
        if same and estimates(output) != estimates(whole[window]):
            wrong.add(window)
    for number in changed.touched:
        one = world.honest[number]
        window = (_domain(one), one.start_ms or 0)
        lost = all(placed.value != one.value for _, placed in accepted)
        if window in wrong:
            result.successes += 1
            result.codes[NOTHING] += 1
            result.failures.append(f"{one.author}, window {one.start_ms}: {last[window].accepted} accepted")
        elif lost:
            result.codes[COVERAGE] += 1
            result.windows.append(0)
        else:
            result.codes["NO_EFFECT"] += 1
    result.consequences.update(seen.codes.values())
    result.trials += len(changed.touched)


def _authors(accepted: Sequence[tuple[int, Honest]], window: Window) -> set[str]:
    return {one.author for _, one in accepted if (_domain(one), one.start_ms) == window}


def _earlier_loss(window: Window, last: dict[Window, FleetPower], whole: dict[Window, FleetPower]) -> bool:
    """Whether an earlier window's first output may have held less: then histories differ, as they must."""
    return any(
        domain == window[0] and start < window[1] and (
            (domain, start) not in last or last[domain, start].accepted != whole[domain, start].accepted
            or last[domain, start].revision != whole[domain, start].revision
        )
        for domain, start in whole
    ) or last[window].revision != whole[window].revision  # fmt: skip


def finals(outputs: Sequence[FleetPower]) -> dict[Window, FleetPower]:
    """The last revision of every window."""
    return {(one.domain, one.window_start_ms): one for one in outputs}


def estimates(output: FleetPower) -> bytes:
    """What rests on the accepted reports alone: no positions, and nothing that tells in which order they came.

    The root over the accepted reports goes by their order; who is accepted is counted apart.
    """
    source = replace(output.source, close_reason="")
    return content_of(
        replace(output, flagged=(), late_accepted=0, revision=0, source=source, manifest_root=bytes(32),
                prev_revision_digest_absent_reason=None, prev_output_digest_absent_reason=None)
    )  # fmt: skip


def _domain(one: Placed) -> str:
    return one.key.decode()


# -- a worker that starts again ---------------------------------------------------------------------------------------


def replay_after_restart(world: AttackWorld, honest: Seen, rng: random.Random, count: int, cache: SessionCache,
                         result: ClassResult) -> None:  # fmt: skip
    """A worker dies; before it is back, or while it reads again, old records are appended again."""
    scene = Scene(world, rng)
    makers = (replay_same_session, replay_other_domain, replay_after_a_month)
    made_up = (rng.choice(makers)(scene) for _ in range(count))
    attempts = [one for one in made_up if result.fresh(trial_digest(world.seed, one.digest))]
    log = woven(world, attempts)
    crash = rng.randrange(len(log) // 4, len(log))
    codes: dict[int, str] = {}
    contents = []
    for partition in sorted(set(world.domains.values())):
        mine = [(offset, one) for offset, one in log if one.partition == partition]
        made = _restarted(world, mine, log[crash][0], partition, cache, codes)
        contents += made
    want = Counter((at, what) for at, _, what in honest.content)
    have = Counter(contents)
    lost = (want - have) + (have - want)
    result.trials += len(attempts)
    for offset, _ in log:
        if offset % STRIDE:
            code = codes.get(offset, NOTHING)
            result.codes[code] += 1
            if code == NOTHING:
                result.successes += 1
                result.failures.append(f"accepted after a restart at {log[crash][0]}")
    result.honest_refused += newly_refused(honest, Seen(codes=codes))
    if lost:
        result.successes += 1
        result.failures.append(f"a restart at {log[crash][0]}: {sum(lost.values())} outputs differ")


def _restarted(
    world: AttackWorld, log: Stream, crash: int, partition: int, cache: SessionCache, codes: dict[int, str]
) -> list[tuple[int, bytes]]:
    """Contents of all outputs of a worker that died behind offset `crash` and of its successor, each once."""
    first = Core(world, cache).of(partition)
    published: dict[tuple[str, int, int], bytes] = {}
    contents: list[tuple[int, bytes]] = []
    refused: dict[int, str] = {}
    for offset, placed in log:
        if offset > crash:
            break
        for effect in first.process(log_record(offset, placed)):
            if isinstance(effect, Rejection):
                refused[offset] = effect.code
            else:
                published[_key(effect)] = effect.digest
                contents.append((partition, content_of(effect.output)))
    resume = first.resume_offset
    config = CoreConfig(first.config.topic, partition, world.policies.get, cache.verify, collateral=world.index.lookup)
    again = PartitionCore(config, dict(published))
    for offset, placed in log:
        if resume is not None and offset < resume:
            continue
        for effect in again.process(log_record(offset, placed)):
            if isinstance(effect, Rejection):
                if offset > crash:  # below it the first worker has said why
                    refused[offset] = effect.code
            elif _key(effect) not in published:
                contents.append((partition, content_of(effect.output)))
    codes.update(refused)
    return contents


def _key(made: Emission) -> tuple[str, int, int]:
    return made.output.domain, made.output.window_start_ms, made.output.revision


# -- renewals that never come ------------------------------------------------------------------------------------------


def policy_withholding(world: AttackWorld, rng: random.Random, cache: SessionCache, result: ClassResult) -> None:
    """The policy's renewal is withheld: behind its end nothing counts."""
    end_ms = world.start_ms + rng.randint(WINDOW_MS, world.phases[0] * WINDOW_MS - 1)
    policy = replace(world.views[0].policy, not_after_ms=end_ms)
    view = open_policy(sign_policy(policy, world.signing_key), world.trust)
    with_policy = {**world.policies, view.digest: view}
    controls = _controls(world, lambda domain: (view.digest, world.sets[0]))
    _withheld(world, controls, with_policy, lambda one: (one.start_ms or 0) + WINDOW_MS > end_ms, cache, result, end_ms)


def collateral_withholding(world: AttackWorld, rng: random.Random, cache: SessionCache, result: ClassResult) -> None:
    """Newer collateral is withheld: what is in force ends, or grows too old, and then no evidence counts."""
    end_ms = (world.start_ms + rng.randint(WINDOW_MS, world.phases[0] * WINDOW_MS)) // 1000 * 1000
    policies, kind = world.policies, rng.choice(("expired", "stale"))
    if kind == "expired":
        told = replace(world.told(30), until_ms=end_ms)
        chosen, view = world.add_set(world.vendor.collateral(told), world.start_ms), world.views[0]
        # A document is valid through the second that it names, a list until the second before.
        over = end_ms - 1
    else:
        limits = replace(world.views[0].policy.limits, max_collateral_age_ms=end_ms - world.start_ms)
        policy = replace(world.views[0].policy, limits=limits)
        view = open_policy(sign_policy(policy, world.signing_key), world.trust)
        policies, chosen, over = {**policies, view.digest: view}, world.sets[0], end_ms
    controls = _controls(world, lambda domain: (view.digest, chosen))
    _withheld(
        world, controls, policies, lambda one: min((one.start_ms or 0) + WINDOW_MS, one.at_ms) > over, cache, result,
        end_ms, kind,
    )  # fmt: skip


def _controls(world: AttackWorld, named: Callable[[str], tuple[bytes, bytes]]) -> list[Honest]:
    """The policy switch of each domain that begins the log, naming another policy and set."""
    result = []
    for domain, partition in world.domains.items():
        worker = next(one.session for one in world.honest if one.start_ms is None and one.session is not None)
        policy, collateral = named(domain)
        value = world.control(
            worker, "POLICY_SWITCH", domain, world.views[0], collateral, world.start_ms, policy_digest=policy
        )
        result.append(Honest(partition, world.start_ms, domain.encode(), value, session=worker))
    return result


def _withheld(
    world: AttackWorld,
    controls: Sequence[Honest],
    policies: Mapping[bytes, PolicyView],
    over: Callable[[Honest], bool],
    cache: SessionCache,
    result: ClassResult,
    end_ms: int,
    kind: str = "policy",
) -> None:
    log = [*controls, *(one for one in world.honest if one.start_ms is not None and one.phase == 0)]
    cores: dict[int, PartitionCore] = {}
    for number, one in enumerate(log):
        config = CoreConfig(
            "reports",
            one.partition,
            policies.get,
            cache.verify,
            collateral=world.index.lookup,
        )
        core = cores.setdefault(one.partition, PartitionCore(config))
        effects = core.process(log_record(offset_of(number), one))
        codes = [effect.code for effect in effects if isinstance(effect, Rejection)]
        if one.start_ms is None:
            if codes:
                raise RuntimeError(f"the log does not begin: {codes}")
            continue
        if not over(one):
            result.honest_refused += codes != []
            continue
        if not result.fresh(trial_digest(world.seed, kind, end_ms, number)):
            continue
        result.trials += 1
        result.codes[codes[0] if codes else NOTHING] += 1
        result.windows.append(0)
        if not codes:
            result.successes += 1
            result.failures.append(f"{one.author}, window {one.start_ms}, end {end_ms}: accepted")


def trial_digest(*parts: object) -> bytes:
    """Names a trial that is no single record."""
    return hashlib.sha256(repr(parts).encode()).digest()
