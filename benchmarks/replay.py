"""What an audit costs: reports per second through a replay from an archive, its memory, and what a second core brings.

`python -m benchmarks.replay [--hosts N] [--windows N]`: everything a replay does (reading and checking the archive,
evidence, recomputing, comparing every output, manifest and dead letter), beside the ceiling of the same process, P-256
verifications alone. Then the same with three times the windows, for its memory; then two partitions, an archive each,
in two processes at once beside one alone.

Prints one JSON object. Rate and ceiling are of the processor; the gain of a second process is of the clock. The first
half of the log does not count for the rate: there every session's evidence is new.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.core import Ceiling
from schemas.topics import TopicNames
from stream_jobs.archive import open_archive
from stream_jobs.collector import tune_collector
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.partitions import replay_source
from stream_jobs.replay.verdicts import Finding, WindowVerdict

NAMES = TopicNames()

CEILING_REPORTS = 2_000
"""Verifications of the ceiling, before and after."""

FOREVER_MS = 1 << 50


def write_archive(directory: Path, options: argparse.Namespace, windows: int) -> str:
    """Have an archive written by a process of its own; the policy's signer."""
    command = [sys.executable, "-m", "benchmarks.replay_log", directory]
    command += ["--hosts", options.hosts, "--windows", windows, "--window-ms", options.window_ms]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def measure(directory: Path, signer: str) -> dict[str, Any]:
    """Replay an archive and say how fast. For a process of its own."""
    tune_collector()
    source = open_archive(directory)
    end = source.extents(NAMES.reports)[0].end
    sample = list(islice(source.read(NAMES.reports, 0, end // 2, end), CEILING_REPORTS))
    ceiling = Ceiling()
    ceiling.measure(sample)
    request = ReplayRequest(topics=NAMES, trust=PolicyTrust((bytes.fromhex(signer),)), from_ms=0, to_ms=FOREVER_MS)
    verdicts: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    marks: list[tuple[int, float]] = []

    def verdict(one: WindowVerdict) -> None:
        verdicts[one.verdict.value] += 1

    def finding(one: Finding) -> None:
        findings[one.code] += 1

    begin = time.process_time(), time.perf_counter()
    replay_source(
        source,
        request,
        on_verdict=verdict,
        on_finding=finding,
        progress=lambda _partition, done, _total: marks.append((done, time.process_time())),
    )
    whole_s, wall_s = time.process_time() - begin[0], time.perf_counter() - begin[1]
    ceiling.measure(sample)
    half = next(mark for mark in marks if mark[0] >= marks[-1][0] // 2)
    rate = (marks[-1][0] - half[0]) / (marks[-1][1] - half[1])
    top = ceiling.count / ceiling.seconds
    return {
        "reports": end,
        "verdicts": dict(verdicts),
        "findings": dict(findings),
        "reports_per_s": round(rate),
        "reports_per_s_from_the_start": round(end / whole_s),
        "p256_verifications_per_s": round(top),
        "ratio": round(rate / top, 3),
        "wall_s": round(wall_s, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def at_once(archives: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    """Measure archives in processes that run at the same time."""
    command = [sys.executable, "-m", "benchmarks.replay", "--measure"]
    running = [
        subprocess.Popen([*command, str(path), "--signer", signer], stdout=subprocess.PIPE, text=True)
        for path, signer in archives
    ]
    found = [one.communicate()[0] for one in running]
    if any(one.returncode for one in running):
        raise SystemExit("a replay failed")
    return [json.loads(text) for text in found]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--window-ms", type=int, default=60_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--signer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.signer)))
        return
    with tempfile.TemporaryDirectory() as name:
        places = [Path(name, kind) for kind in ("one", "other", "long")]
        lengths = (options.windows, options.windows, 3 * options.windows)
        one, other, long = (
            (place, write_archive(place, options, windows)) for place, windows in zip(places, lengths, strict=True)
        )
        (alone,) = at_once([one])
        (longer,) = at_once([long])
        both = at_once([one, other])
        gain = 2 * alone["wall_s"] / max(half["wall_s"] for half in both)
    found = {
        "hosts": options.hosts,
        "one": alone,
        "three_times_as_long": longer,
        "two_processes": {"gain": round(gain, 2), "wall_s": [half["wall_s"] for half in both]},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
