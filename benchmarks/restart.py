"""All hosts of a domain restart at once: how long until a worker is in step with them again, and is anybody refused?

`python -m benchmarks.restart [--hosts N] [--window-ms MS] [--spread-s S]`: every host begins a new session between two
windows, as after a power failure or an upgrade of all agents, so that all evidence of the next window is new. The core
takes the log with what each batch costs of the processor; reports of a window arrive evenly over `--spread-s` after
its end, on one worker, and from both follows how far it falls behind and when nothing waits any more.

Prints one JSON object. The ceiling is the same evidence verified alone, in the same run. Evidence is that of the
simulated TEE: TDX v4 with its whole path, one CPU and no devices; a session with eight GPUs costs several times that.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.core import read_log, write_log
from schemas.codec import decode_signed_record
from stream_jobs.collector import tune_collector
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.sessions import verify_evidence
from stream_jobs.log_jobs import AHEAD
from stream_jobs.log_record import LogRecord
from verifier.cache import SessionCache

BEFORE, AFTER = 4, 4
"""Windows before the restart, and from it on: the last one of each is taken as steady."""

SAMPLE = 200
"""Sessions of the ceiling."""


@dataclass
class Taken:
    """What the core did with one window's reports. `batches_s`: processor time of each batch; hosts refused by code."""

    batches_s: list[float]
    refused: dict[str, int]
    accepted: int


def take(core: Any, records: list[LogRecord]) -> Taken:
    """Give a window's reports to the core, batch by batch as a worker does."""
    taken = Taken([], {}, 0)
    for at in range(0, len(records), AHEAD):
        batch = records[at : at + AHEAD]
        begin = time.process_time()
        core.look_ahead(batch)
        effects = [effect for record in batch for effect in core.process(record)]
        taken.batches_s.append(time.process_time() - begin)
        for effect in effects:
            if isinstance(effect, Rejection):
                taken.refused[effect.code] = taken.refused.get(effect.code, 0) + 1
            elif isinstance(effect, Emission):
                taken.accepted = effect.output.accepted
    return taken


def queue(windows: list[Taken], window_s: float, spread_s: float) -> tuple[float, float]:
    """One worker, arrivals as they come: seconds from the end of the first window until all of it was worked on and
    nothing waits, and the longest that any batch waited and was worked on, s."""
    free_at, longest, in_step = 0.0, 0.0, None
    for number, window in enumerate(windows):
        for index, cost_s in enumerate(window.batches_s):
            arrival = number * window_s + spread_s * (index + 1) / len(window.batches_s)
            if number and in_step is None and free_at <= arrival:
                in_step = free_at
            free_at = max(arrival, free_at) + cost_s
            longest = max(longest, free_at - arrival)
    return free_at if in_step is None else in_step, longest


def ceiling_ms(records: list[LogRecord], core: Any) -> float:
    """What the evidence of a session costs alone, ms of the processor."""
    (state,) = core.domains.values()
    decoded = [decode_signed_record(record.value or b"") for record in records[:SAMPLE]]
    verify, begin = SessionCache().verify, time.process_time()
    for one in decoded:
        assert one.evidence is not None
        assert one.binding_bytes is not None
        verify_evidence(
            verify,
            one.evidence,
            one.binding_bytes,
            session_id=one.body.session_id,
            view=state.active,
            role="host",
            now_ms=one.body.window_end_ms,
        )
    return (time.process_time() - begin) * 1e3 / len(decoded)


def measure(path: Path, hosts: int, window_s: float, spread_s: float) -> dict[str, Any]:
    """Take the log at `path` window by window and say what the restart was."""
    tune_collector()
    core, stream = read_log(path)
    records = list(stream)
    core.process(records[0])
    windows = [take(core, records[1 + number * hosts : 1 + (number + 1) * hosts]) for number in range(BEFORE + AFTER)]
    costs = [sum(one.batches_s) for one in windows]
    alone_ms = ceiling_ms(records[1 + BEFORE * hosts : 1 + (BEFORE + 1) * hosts], core)
    caught_up_s, longest_s = queue(windows[BEFORE:], window_s, spread_s)
    new_ms = (costs[BEFORE] - costs[-1]) * 1e3 / hosts
    refused: dict[str, int] = {}
    for one in windows:
        for code, count in one.refused.items():
            refused[code] = refused.get(code, 0) + count
    return {
        "hosts": hosts,
        "window_s": window_s,
        "spread_s": spread_s,
        "refused": refused,
        "accepted_after": windows[-1].accepted,
        "restart_window_processor_s": round(costs[BEFORE], 2),
        "steady_window_processor_s": [round(costs[BEFORE - 1], 2), round(costs[-1], 2)],
        "new_session_ms": round(new_ms, 3),
        "evidence_alone_ms": round(alone_ms, 3),
        "ratio": round(alone_ms / new_ms, 3),
        "in_step_after_s": round(caught_up_s, 1),
        "longest_wait_s": round(longest_s, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--window-ms", type=int, default=60_000)
    parser.add_argument("--spread-s", type=float, default=5.0, help="over which reports of a window arrive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        write_log(path, options.hosts, BEFORE + AFTER, options.window_ms, BEFORE)
        print(json.dumps(measure(path, options.hosts, options.window_ms / 1000, options.spread_s)))


if __name__ == "__main__":
    main()
