"""What one core does: reports per second through the pure core, and the close of a large domain.

`python benchmarks/core.py [--hosts N] [--windows N]`: decode, verify, admit and close, beside the ceiling of the same
run, P-256 verifications alone. `python benchmarks/core.py --close-hosts 10000`: how long the close of a window takes,
from the record whose arrival closes it to the output, and the most memory its process ever held.

Prints one JSON object. Times of throughput and ceiling are of the processor, taken in turns, window by window: on a
machine with other work both slow down alike. The first windows, in which every session's evidence is verified, are
left out: later reports carry evidence once in ten windows, and it is the same. A close costs something that does not
hang on the hosts, and little more for each: how many share it is part of the figure, and printed with it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import sign_raw
from schemas.codec import decode_signed_record
from schemas.topics import TopicNames
from stream_jobs.collector import tune_collector
from stream_jobs.core.effects import Emission
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.log_jobs import AHEAD
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyTrust, open_policy
from verifier.cache import SessionCache
from verifier.signature import verify_record_signature

WARM_UP_WINDOWS = 3
"""First windows that do not count: evidence, first reports without a predecessor, first outputs."""

SAMPLE = 100
"""Verifications of the ceiling per window."""


def write_log(path: Path, hosts: int, windows: int, window_ms: int, restart_at: int | None = None) -> None:
    """Have a log written by a process of its own: what it takes is not measured."""
    maker = Path(__file__).with_name("core_log.py")
    options = ("--hosts", hosts, "--windows", windows, "--window-ms", window_ms)
    restart = () if restart_at is None else ("--restart-at", restart_at)
    subprocess.run([sys.executable, maker, path, *map(str, (*options, *restart))], check=True)


def read_log(path: Path) -> tuple[PartitionCore, Iterator[LogRecord]]:
    """A core that trusts the log's policy, and the log, record by record."""
    stream = path.open("rb")
    policy_value, signer, append_ms = (pickle.load(stream) for _ in range(3))
    view = open_policy(policy_value, PolicyTrust((signer,)))
    topic = TopicNames().reports
    lookup = {view.digest: view}
    core = PartitionCore(CoreConfig(topic, 0, lookup.get, SessionCache().verify))
    domain = view.policy.domains[0].domain.encode()

    def records() -> Iterator[LogRecord]:
        offset = 0
        while True:
            try:
                value = pickle.load(stream)
            except EOFError:
                stream.close()
                return
            yield LogRecord(topic, 0, offset, append_ms, 1, domain, value, ())
            offset += 1

    return core, records()


class Ceiling:
    """P-256 verifications, keys at hand, over the pre-images of the log's records."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._public = self._key.public_key()
        self.count = 0
        self.seconds = 0.0

    def measure(self, records: list[LogRecord]) -> None:
        preimages = [decode_signed_record(record.value or b"").preimage for record in records]
        signed = [(preimage, sign_raw(self._key, preimage)) for preimage in preimages]
        begin = time.process_time()
        for preimage, signature in signed:
            verify_record_signature(self._public, preimage, signature)
        self.seconds += time.process_time() - begin
        self.count += len(signed)


def throughput(path: Path, hosts: int) -> dict[str, Any]:
    """Read the log at `path` and say how fast."""
    tune_collector()
    core, records = read_log(path)
    ceiling, log = Ceiling(), list(records)
    first = 1 + WARM_UP_WINDOWS * hosts
    for record in log[:first]:
        core.process(record)
    emitted, seconds = 0, 0.0
    for start in range(first, len(log), hosts):
        part = log[start : start + hosts]
        begin = time.process_time()
        for at, record in enumerate(part):
            if at % AHEAD == 0:  # as a worker does
                core.look_ahead(part[at : at + AHEAD])
            emitted += sum(isinstance(effect, Emission) for effect in core.process(record))
        seconds += time.process_time() - begin
        ceiling.measure(part[:SAMPLE])
    rate, top = (len(log) - first) / seconds, ceiling.count / ceiling.seconds
    return {
        "hosts": hosts,
        "reports": len(log) - first,
        "outputs": emitted,
        "bytes_per_report": round(sum(len(record.value or b"") for record in log) / len(log)),
        "reports_per_s": round(rate),
        "p256_verifications_per_s": round(top),
        "beside_the_signature_us": round(1e6 / rate - 1e6 / top, 1),
        "ratio": round(rate / top, 3),
    }


def closes(path: Path) -> dict[str, Any]:
    """Stream the log at `path` and say what the closes of its windows took. For a process of its own."""
    tune_collector()
    core, records = read_log(path)
    wall_s, processor_s, hosts, total, kept = [], [], 0, 0, 0
    for record in records:
        begin = time.perf_counter(), time.process_time()
        made = [effect for effect in core.process(record) if isinstance(effect, Emission)]
        end = time.perf_counter(), time.process_time()
        total += 1
        if made:
            wall_s.append(end[0] - begin[0])
            processor_s.append(end[1] - begin[1])
            hosts = min(one.output.accepted for one in made)
            kept = max(len(state.windows) for state in core.domains.values())
    return {
        "reports": total - 1,
        "hosts": hosts,
        "closes": len(wall_s),
        "windows_kept": kept,  # those that late reports may still revise
        "close_s": round(max(wall_s), 3),
        "close_processor_s": round(max(processor_s), 3),
        "close_median_s": round(sorted(wall_s)[len(wall_s) // 2], 3),
        # Of the whole life of the process, in KiB on Linux.
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=4_000, help="a partition is made for thousands")
    parser.add_argument("--windows", type=int, default=33, help="beyond the histories' length a close costs the same")
    parser.add_argument("--window-ms", type=int, default=60_000)
    parser.add_argument("--close-hosts", type=int, help="measure the close of a domain with so many hosts")
    parser.add_argument("--close-windows", type=int, default=13, help="beyond lateness / window, memory stays")
    parser.add_argument("--closes-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.closes_of:
        print(json.dumps(closes(options.closes_of)))
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        if options.close_hosts:
            write_log(path, options.close_hosts, options.close_windows, options.window_ms)
            subprocess.run([sys.executable, __file__, "--closes-of", path], check=True)
            return
        write_log(path, options.hosts, options.windows, options.window_ms)
        print(json.dumps(throughput(path, options.hosts)))


if __name__ == "__main__":
    main()
