"""A real agent that kills itself at a named step: forked, once per line on stdin, from a process that imported all.

A line is a JSON object: `directory` (spool, TEE and the side file of draws), `kafka`, `topic`, `windows`, `step` (one
of STEPS, ANY_TIME or "") and `count` (die when the step is reached for the `count`-th time, or after so many ms),
`forgets` (a broken agent, which the test must catch). The answer is a line with the exit status: -9 if it died.
Everything that the agent does is the shipped code; what is here stands around it and counts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attester.session import Session
from attester.simulated import SimulatedTee
from producers.agent import AgentConfig, run
from producers.config import HostProfile, host_binding, session_facts
from producers.host import AgentHost, HostAgent
from producers.pacer import ReplayPacer
from producers.privacy import Budget, privacy_parameters
from producers.privatise import Noisy, Privatiser
from producers.publish import PublishConfig, make_kafka_producer
from producers.sample.trace import TraceSource, load_bundled
from producers.seal import Sealer
from producers.spool import Spool
from tests.producers.forge import SCHEDULE, START_MS, gpu_class, host

HOSTS = ("host-1", "host-2")
DOMAIN = "row-1"
DRAWS = "draws"
STEPS = (
    "before noise",
    "after noise",
    "after seal",
    "before append",
    "inside append",
    "before commit",
    "after commit",
    "inside heads",
    "after append",
    "before send",
    "after send",
    "before acknowledgement",
    "after acknowledgement",
    "before trim",
    "inside trim",
    "after trim",
)
ANY_TIME = "any time"


@dataclass
class Fate:
    """Dies when `step` is reached for the `count`-th time."""

    step: str
    count: int

    def reached(self, step: str) -> None:
        """Say that a step is reached."""
        if step == self.step:
            self.count -= 1
            if self.count == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: type, name: str, before: str = "", after: str = "") -> None:
        """Put steps before and after a method."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(*args: Any, **more: Any) -> Any:
            self.reached(before)
            result = original(*args, **more)
            self.reached(after)
            return result

        setattr(owner, name, call)


class Doomed:
    """A real producer with steps around `produce` and the delivery reports."""

    def __init__(self, fate: Fate, properties: dict[str, str]) -> None:
        self._fate = fate
        self._producer = make_kafka_producer(properties)

    def produce(self, topic: str, *, on_delivery: Callable[[Any, Any], None], **more: Any) -> None:
        def arrived(error: Any, message: Any) -> None:
            self._fate.reached("before acknowledgement")
            on_delivery(error, message)
            self._fate.reached("after acknowledgement")

        self._fate.reached("before send")
        self._producer.produce(topic, on_delivery=arrived, **more)
        self._fate.reached("after send")

    def poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)


def noise_digest(transitions: bytes, pane_sums: bytes) -> str:
    """Names one draw."""
    return hashlib.sha256(transitions + b"|" + pane_sums).hexdigest()


def note_draws(directory: Path, fate: Fate) -> None:
    """Write every draw down, on disk before anybody else sees it, and put steps around it."""
    side = os.open(directory / DRAWS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    where: list[Any] = []
    produce, privatise = HostAgent.produce, Privatiser.privatise

    def producing(self: HostAgent, start_ms: int) -> Any:
        where[:] = [self.profile.host_id, start_ms]
        return produce(self, start_ms)

    def privatising(self: Privatiser, exact: Any) -> Noisy:
        fate.reached("before noise")
        noisy = privatise(self, exact)
        line = json.dumps([*where, noise_digest(noisy.transitions.tobytes(), noisy.pane_sums.tobytes())])
        os.write(side, line.encode() + b"\n")
        os.fsync(side)
        fate.reached("after noise")
        return noisy

    HostAgent.produce = producing  # type: ignore[method-assign]
    Privatiser.privatise = privatising  # type: ignore[method-assign]


def put_steps(fate: Fate) -> None:
    """Put the other steps into place."""
    fate.around(Sealer, "seal", after="after seal")
    fate.around(Spool, "append", before="before append", after="after append")
    fate.around(Spool, "_insert", after="inside append")
    fate.around(Spool, "_enforce_bounds", after="before commit")
    fate.around(Spool, "_cover", before="after commit")
    fate.around(Spool, "acknowledge", before="before trim", after="after trim")
    fate.around(Spool, "_delete", after="inside trim")
    replace = Path.replace

    def replacing(self: Path, target: Any) -> Any:
        if self.name.endswith(".heads.new"):
            fate.reached("inside heads")
        return replace(self, target)

    Path.replace = replacing  # type: ignore[assignment,method-assign]


def attested(profile: HostProfile, tee: SimulatedTee) -> AgentHost:
    """A host with a real session of the simulated TEE, new with every start."""
    facts = session_facts(profile, SCHEDULE, privacy_parameters(Budget(), profile.classes, SCHEDULE))
    created_ms = time.time_ns() // 1_000_000
    session = Session(tee, lambda point: host_binding(facts, point, created_at_ms=created_ms))
    return AgentHost(profile=profile, session=session)


def settings(job: dict[str, Any], directory: Path) -> AgentConfig:
    """The agent's configuration: a replay from START_MS on, whatever was sealed before."""
    tee = SimulatedTee.create(directory / "tee")
    trace = load_bundled("a100_square")
    profiles = [host(name, DOMAIN, gpu_class(TraceSource(trace, gpus=2, seed=name))) for name in HOSTS]  # type: ignore[arg-type]
    return AgentConfig(
        hosts=tuple(attested(profile, tee) for profile in profiles),
        pacer=ReplayPacer(SCHEDULE.window_ms, start_ms=START_MS, speed=math.inf),
        publish=PublishConfig(partitions={DOMAIN: 0}, kafka=job["kafka"], topic=job["topic"]),
        spool_path=directory / "spool",
        schedule=SCHEDULE,
        evidence_interval=5,
        windows=job["windows"],
    )


def live(job: dict[str, Any]) -> None:
    """Run the agent to its end, whichever that is."""
    directory = Path(job["directory"])
    fate = Fate(job["step"], job["count"])
    note_draws(directory, fate)
    put_steps(fate)
    if job["forgets"]:
        Spool.sealed_ms = lambda _self, _host_id: 0  # type: ignore[method-assign]
    summary = run(settings(job, directory), threading.Event(), lambda properties: Doomed(fate, properties))
    if summary.left_in_spool:
        raise AssertionError(f"not flushed: {summary}")


@contextmanager
def forked(job: dict[str, Any]) -> Iterator[int]:
    """A child that lives by `job`; its process id."""
    child = os.fork()
    if child == 0:
        try:
            live(job)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    yield child


def main() -> None:
    """Serve lines until stdin ends."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for line in sys.stdin:
        job = json.loads(line)
        with forked(job) as child:
            if job["step"] == ANY_TIME:
                time.sleep(job["count"] / 1000)
                os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    main()
