"""What an operator sees of a running worker: its metrics and its health, at the address that somebody chose.

Alive: its loop turns. Ready: the group has given it its share of partitions and every one of them is worked on, policy
and collateral have not ended, and what is processed next is not too old. Everything said is public: codes and counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from enclavescale.endpoint import Endpoint, endpoint_app
from enclavescale.health import Answer, Health, Need
from schemas.errors import EnclaveScaleError
from stream_jobs.log_slots import HELD, Turn
from stream_jobs.worker import WorkerFacts

LOOP_S = 120.0
"""The loop must turn so often, or a restart would help, s: longer than its own watchdog, which exits with a code."""

READY_LAG_S = 60.0
"""Default bound of what a ready worker is behind by, s: six windows of 10 s."""

LINGER_S = 30.0
"""A worker that failed answers so much longer, s: two scrapes at the usual 15 s see why it ends."""


@dataclass(slots=True)
class WorkerWatch:
    """A worker's registry, health and endpoint; its `WorkerObserver`. A context manager.

    `ready_lag_s`: bound of the processing lag, s. `linger_s`: how long `ended` waits after a failure where somebody
    may ask. `now`: a monotonic clock, s; `wall_ms`: Unix time, ms; `wait`: lets s go by.
    """

    ready_lag_s: float = READY_LAG_S
    linger_s: float = LINGER_S
    now: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = lambda: int(time.time() * 1000)
    wait: Callable[[float], None] = time.sleep
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(init=False)
    endpoint: Endpoint | None = field(default=None, init=False)
    _facts: WorkerFacts | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asks for
        ProcessCollector(registry=self.registry)
        self.health = Health(self.now)
        self.health.expect("start", Need.READY, within_s=math.inf)  # it waits for a policy first

    def listen(self, address: str) -> None:
        """Serve metrics and health at HOST:PORT. Raises ConfigError."""
        self.endpoint = Endpoint(address, endpoint_app(self.registry, self))

    def __enter__(self) -> WorkerWatch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.endpoint is not None:
            self.endpoint.close()

    # -- probes ------------------------------------------------------------------------------------------------------

    def live(self) -> Answer:
        """Would a restart help?"""
        return self.health.live()

    def ready(self) -> Answer:
        """Does it do its work? Looks at policy and collateral now; may wait for one that is being read."""
        self._look_at_trust()
        return self.health.ready()

    # -- WorkerObserver ----------------------------------------------------------------------------------------------

    def started(self, facts: WorkerFacts) -> None:
        """Expect the loop to turn and everything behind readiness."""
        self._facts = facts
        self.health.expect("loop", Need.LIVE, within_s=LOOP_S)
        for name in ("partitions", "lag", "policy", "collateral"):
            self.health.expect(name, Need.READY, within_s=math.inf)
        self.health.ok("start")

    def turned(self, turn: Turn) -> None:
        """A sign of life, and what of the log is this worker's."""
        self.health.ok("loop")
        working = [one for one in turn.partitions.values() if one.state == "ready"]
        detail = f"{len(working)} of {len(turn.partitions)} partitions"
        if not turn.assigned:
            self.health.fail("partitions", "REBALANCING", detail)
        elif any(one.state == HELD for one in turn.partitions.values()):
            self.health.fail("partitions", "PARTITION_HELD", detail)
        elif len(working) < len(turn.partitions):
            self.health.fail("partitions", "PARTITIONS_STARTING", detail)
        else:
            self.health.ok("partitions", detail)
        behind_s = max((one.processing_lag_s for one in working), default=0.0)
        if behind_s > self.ready_lag_s:
            self.health.fail("lag", "PROCESSING_LAG", f"{behind_s:.0f} s behind")
        else:
            self.health.ok("lag")

    def ended(self, failure: EnclaveScaleError | None) -> None:
        """Say why it ended, for as long as a scraper needs to hear it."""
        if failure is None or self.endpoint is None:
            return
        self.health.fail("loop", failure.code)
        self.wait(self.linger_s)

    def _look_at_trust(self) -> None:
        facts, now_ms = self._facts, self.wall_ms()
        if facts is None:
            return
        policy_ms, collateral_ms = facts.policy_end_ms(), facts.collateral_end_ms()
        if policy_ms is None or policy_ms < now_ms:
            self.health.fail("policy", "POLICY_EXPIRED")
        else:
            self.health.ok("policy")
        if collateral_ms is not None and collateral_ms < now_ms:
            self.health.fail("collateral", "COLLATERAL_EXPIRED")
        else:
            self.health.ok("collateral")
