"""The worker that `bench attacks` attacks through a broker: `python -m enclavescale.bench.attacks_worker FILE`.

It is `run_worker` with a TEE that lives in the process that started it: report data goes out on stdout in hexadecimal,
the quote comes back on stdin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from enclavescale.bench.attestation_vendor import KIND
from schemas.records import EvidenceItem
from schemas.topics import TopicNames
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.settings import LogSettings
from stream_jobs.worker import WorkerConfig, run_worker


class AskedQuotes:
    """A `QuoteProvider` that asks the process which started this one."""

    kind, simulated = KIND, False

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """Evidence over `report_data` (64 bytes)."""
        sys.stdout.write(report_data.hex() + "\n")
        sys.stdout.flush()
        data = bytes.fromhex(sys.stdin.readline().strip())
        return [EvidenceItem(kind=KIND, data=data, subject_absent_reason="cpu")]


def main(path: str) -> int:
    """Run the worker that FILE describes."""
    told: dict[str, Any] = json.loads(Path(path).read_bytes())
    config = WorkerConfig(
        kafka={"bootstrap.servers": told["bootstrap"], "log_level": "0"},
        host_id=told["host_id"],
        group=told["group"],
        provider=AskedQuotes(),
        trust=PolicyTrust(tuple(bytes.fromhex(one) for one in told["signers"])),
        topics=TopicNames.with_prefix(told["prefix"]),
        settings=LogSettings(
            session_timeout_s=told["session_timeout_s"], heartbeat_interval_s=told["session_timeout_s"] / 3
        ),
    )
    return run_worker(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
