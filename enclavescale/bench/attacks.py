"""`bench attacks`: every class of attack as code, many trials in one run of the real pipeline.

A trial succeeds if it changes anything of an output's signed content but what says how much was refused, if a record of
the attacker's counts, or if an honest report is lost without a trace; for made-up readings, if an output moves by more
than the influence bound it states. With no success in N trials the chance of one is at most 3/N (95 %).
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

from enclavescale.bench.attacks_broker import LIVE, attack_live
from enclavescale.bench.attacks_classes import CLASSES, DOCUMENT, READINGS, RECORD, RESTART, STREAM, AttackClass
from enclavescale.bench.attacks_documents import DOCUMENTS, Documents
from enclavescale.bench.attacks_revocation import revocation_latency
from enclavescale.bench.attacks_run import Baseline, ClassResult
from enclavescale.bench.attacks_scene import Scene
from enclavescale.bench.attacks_streams import (
    STREAMS,
    attack_stream,
    collateral_withholding,
    policy_withholding,
    replay_after_restart,
    trial_digest,
)
from enclavescale.bench.attacks_world import AttackWorld
from enclavescale.bench.byzantine import bench_byzantine
from enclavescale.bench.byzantine_strategies import STRATEGIES
from enclavescale.bench.byzantine_trial import ByzantineSpec

BATCH = 500
"""Attempts in one run at most: each of them may meet what the others left behind."""

PER_WORLD = 2_500
"""Trials of a class in one fleet; then another, with other keys, readings and hosts."""

HOSTS, WIDE_HOSTS = 8, 24
"""Hosts per domain: where records are added, and where many are taken away at once."""

MANY = 200
"""From so many trials on it pays to make a wide fleet."""

BYZANTINE = {"hosts": 12, "gpus": 1, "window_s": 5, "history": 6}
BYZANTINE_WINDOWS = 20
BYZANTINE_FRACTION = 0.15
MAX_FAILURES = 20
"""Successful attempts of a class that are named."""

MAX_IDLE_RUNS = 50
"""Runs in a row that bring no new trial; then a class has no more to try."""

Progress = Callable[[int, int], None]


@lru_cache(maxsize=4)
def _baseline(seed: int, hosts: int) -> Baseline:
    return Baseline(AttackWorld(seed, hosts=hosts))


def _worlds(seed: int, trials: int, hosts: int) -> Iterator[tuple[Baseline, int]]:
    """Fleets, and the trials of a class in each."""
    for number in range(-(-trials // PER_WORLD)):
        yield _baseline(seed * 1000 + number, hosts), min(PER_WORLD, trials - number * PER_WORLD)


def run_class(name: str, trials: int, seed: int, hosts: int = HOSTS) -> ClassResult:
    """Try one class `trials` times; fewer only if it has no more that are different. `hosts`: per domain."""
    one, result = CLASSES[name], ClassResult()
    rng = random.Random(f"{seed}/{name}")
    if one.kind == READINGS:
        _byzantine(result, trials, seed)
        return result
    narrow = one.kind in (RECORD, RESTART, DOCUMENT) or trials < MANY
    for baseline, share in _worlds(seed, trials, hosts if narrow else max(hosts, WIDE_HOSTS)):
        wanted, idle = result.trials + share, 0
        while result.trials < wanted and idle < MAX_IDLE_RUNS:
            before = result.trials
            _once(name, one, baseline, rng, min(BATCH, wanted - before), result)
            idle = idle + 1 if result.trials == before else 0
    return result


def _once(name: str, one: AttackClass, baseline: Baseline, rng: random.Random, count: int, result: ClassResult) -> None:
    """One run of a class in one fleet."""
    world = baseline.world
    if one.kind == RECORD and one.make is not None:
        scene = Scene(world, rng)
        made = (one.make(scene) for _ in range(count))
        attempts = [each for each in made if result.fresh(trial_digest(world.seed, each.digest))]
        if attempts:
            baseline.attack(attempts, result)
    elif one.kind == STREAM:
        attack_stream(world, baseline.honest, STREAMS[name](world, rng), baseline.cache, result)
    elif one.kind == RESTART:
        replay_after_restart(world, baseline.honest, rng, count, baseline.cache, result)
    elif one.kind == DOCUMENT:
        _documents(name, baseline, rng, count, result)
    elif name == "policy_withholding":
        policy_withholding(world, rng, baseline.cache, result)
    else:
        collateral_withholding(world, rng, baseline.cache, result)


def _documents(name: str, baseline: Baseline, rng: random.Random, count: int, result: ClassResult) -> None:
    documents = Documents(Scene(baseline.world, rng), baseline.honest.outputs, baseline.cache)
    refused = documents.genuine()
    result.honest_refused += refused is not None
    for _ in range(count):
        value, code = DOCUMENTS[name](documents)
        if not result.fresh(trial_digest(baseline.world.seed, value)):
            continue
        result.trials += 1
        result.micros.append(documents.micros)
        result.codes[code or "UNNOTICED"] += 1
        if code is None:
            result.successes += 1
            result.failures.append(f"{name}: {trial_digest(value).hex()[:16]} counts")


def _byzantine(result: ClassResult, trials: int, seed: int) -> None:
    """Trials are windows under attack: fleets × strategies × windows."""
    windows = min(BYZANTINE_WINDOWS, -(-trials // len(STRATEGIES)))
    spec = ByzantineSpec(epsilon=1.0, seed=seed, windows=windows, **BYZANTINE)  # type: ignore[arg-type]
    fleets = math.ceil(trials / (len(STRATEGIES) * spec.windows))
    found = bench_byzantine(None, spec, fractions=(BYZANTINE_FRACTION,), trials=fleets, presence=False, workers=1)
    for name, figures in found["strategies"].items():
        result.trials += fleets * spec.windows
        result.successes += figures["exceeded"]
        result.codes.update(figures["refused"])
        result.codes.update({"WITHIN_BOUND": fleets * spec.windows - figures["exceeded"]})
        if figures["exceeded"]:
            result.failures.append(f"{name}: {figures['exceeded']} figures above their bound")


# -- the whole run ---------------------------------------------------------------------------------------------------


def class_document(name: str, result: ClassResult, seconds: float, *, live: bool = False) -> dict[str, Any]:
    """Figures of one class for the JSON document; `live`: through a broker."""
    one = CLASSES[name]
    micros = sorted(result.micros)
    detection: dict[str, Any] = {"at": "its own record"}
    if micros:
        detection |= {
            "us_p50": round(statistics.median(micros), 1),
            "us_p99": round(micros[min(len(micros) - 1, len(micros) * 99 // 100)], 1),
        }
    if live and micros:
        detection = {
            "at": "its dead letter on the topic",
            "ms_p50": round(statistics.median(micros) / 1000),
            "ms_p99": round(micros[min(len(micros) - 1, len(micros) * 99 // 100)] / 1000),
        }
    elif one.kind == STREAM:
        detection = {"at": "the output of its own window", "windows": max(result.windows, default=0)}
    elif one.kind == READINGS:
        detection = {"at": "no single record: the output states how far they may reach"}
    return {
        "title": one.title,
        "kind": one.kind,
        "threats": list(one.threats),
        "trials": result.trials,
        "repeated": result.repeated,
        "successes": result.successes,
        "upper_bound_95": upper_bound(result),
        "codes": dict(sorted(result.codes.items(), key=lambda item: (-item[1], item[0]))),
        "consequences": dict(sorted(result.consequences.items())),
        "detection": detection,
        "honest_refused": result.honest_refused,
        "failures": result.failures[:MAX_FAILURES],
        "seconds": round(seconds, 1),
    }


def upper_bound(result: ClassResult) -> float | None:
    """Upper end of the one-sided 95 % interval of the chance of success, None without a trial.

    Without a success 3/N (the rule of three); with successes Wilson's bound.
    """
    trials, hits = result.trials, result.successes
    if not trials:
        return None
    if not hits:
        return min(1.0, 3 / trials)
    z, share = 1.6449, hits / trials
    centre = share + z * z / (2 * trials)
    return (centre + z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))) / (1 + z * z / trials)


def _task(name: str, trials: int, seed: int, hosts: int) -> tuple[str, dict[str, Any]]:
    begin = time.perf_counter()
    result = run_class(name, trials, seed, hosts)
    return name, class_document(name, result, time.perf_counter() - begin)


def bench_attacks(
    trials: int,
    *,
    classes: Sequence[str] = tuple(CLASSES),
    seed: int = 1,
    workers: int = 0,
    hosts: int = HOSTS,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Try every class at least `trials` times in the pipeline's own process; a JSON-ready document.

    `workers` 0: one process per core; `hosts`: per domain. Each class's figures depend on `seed` and nothing else, but
    for times and keys.
    """
    begin = time.perf_counter()
    names, found = [name for name in CLASSES if name in classes], {}
    workers = min(workers or os.cpu_count() or 1, len(names))
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in [pool.submit(_task, name, trials, seed, hosts) for name in names]:
                name, figures = future.result()
                found[name] = figures
                progress(len(found), len(names))
    else:
        for name in names:
            found[name] = _task(name, trials, seed, hosts)[1]
            progress(len(found), len(names))
    return {
        "classes": found,
        "met": all(one["successes"] == 0 == one["honest_refused"] for one in found.values()),
        "trials": sum(one["trials"] for one in found.values()),
        "successes": sum(one["successes"] for one in found.values()),
        "honest_refused": sum(one["honest_refused"] for one in found.values()),
        "revocation": revocation_latency(_baseline(seed * 1000, hosts).world, seed),
        "where": "fast harness: the core in process",
        "seed": seed,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def bench_attacks_live(bootstrap: str, trials: int, *, classes: Sequence[str] = LIVE, seed: int = 1) -> dict[str, Any]:
    """Try the classes that put something on a topic against a running worker; a document like `bench_attacks`'s.

    `outputs_changed`: outputs that differ from those of the same log without the attempts, which no class is blamed
    for. Raises NotDelivered and what the brokers raise.
    """
    begin = time.perf_counter()
    results, seen = attack_live(bootstrap, trials, classes=classes, seed=seed)
    seconds = time.perf_counter() - begin
    found = {name: class_document(name, one, seconds, live=True) for name, one in results.items()}
    successes = sum(one["successes"] for one in found.values()) + len(seen["outputs_changed"])
    return {
        "classes": found,
        "met": successes == 0,
        "trials": sum(one["trials"] for one in found.values()),
        "successes": successes,
        "honest_refused": len(seen["honest_refused"]),
        "live": seen,
        "where": "a running worker, through a broker",
        "seed": seed,
        "seconds": round(seconds, 1),
    }
