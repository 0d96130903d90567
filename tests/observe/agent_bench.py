"""An agent's real parts without a broker: hosts, spool, publisher, metrics; a window goes by when told."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import generate_latest

from enclavescale.agent.sources import HostSources
from enclavescale.agent.watch import HostWatch, Instruments, WatchedHost
from producers.agent import Agent
from producers.errors import SpoolError
from producers.host import AgentHost
from producers.privacy import default_budget
from producers.renewal import RenewalState
from tests.cli.site import make_site
from tests.observe.promtool import Recording
from tests.producers.forge import START_MS, FakeSource, gpu_class, host, session_for
from tests.producers.test_agent import Broker, config


class AgentBench:
    """One host's agent with windows of 10 s, from 2026 on; `broker.down` keeps acknowledgements away."""

    def __init__(self, directory: Path, *, tee: str = "tsm", **more: Any) -> None:
        self.now_ms, self.source, self.broker = START_MS, FakeSource(), Broker()
        budget = default_budget(energy=True)
        profile = host("host-1", "row-1", gpu_class(self.source))
        (directory / "site").mkdir(parents=True)
        policy = make_site(directory / "site", "simulated").policy
        self.renewal = RenewalState(age_ms=0, max_age_ms=3_600_000, renewals=0, failures=0, last_error=None)
        keeper: Any = SimpleNamespace(state=lambda: self.renewal)
        self.instruments = Instruments()
        one = AgentHost(profile=profile, session=session_for(profile, budget))
        self.agent = Agent(
            config(directory, one, budget=budget, **more), lambda _: self.broker, now=lambda: self.now_ms / 1000
        )
        self.agent.publisher._now = lambda: self.now_ms / 1000
        self.watch = HostWatch(
            self.instruments,
            policy,
            [WatchedHost("host-1", HostSources(()), keeper)],
            tee=tee,
            in_force=lambda _: None,
            now=lambda: self.now_ms / 1000,
            wall_ms=lambda: self.now_ms,
        )
        self.watch.started(self.agent)
        self.numbers = itertools.count()
        self.stopped = False

    def window(self) -> None:
        """Ten seconds: a window is produced, spooled, published, shown."""
        start, self.now_ms = self.now_ms, self.now_ms + 10_000
        if self.stopped:
            return
        done, spooled = [one.produce(start) for one in self.agent.hosts], True
        try:
            self.agent.spool.append([one.sealed for one in done], self.now_ms)
        except SpoolError:
            spooled = False
        self.agent.publisher.pump()
        self.agent.publisher.pump()
        self.watch.window(self.agent, done, spooled)

    def run(self, recording: Recording, scrapes: int, **others: str | None) -> None:
        """So many scrapes with the windows between them; `others` are scraped beside it."""
        if not recording.scrapes:
            recording.epoch_s = self.now_ms / 1000
        for _ in range(scrapes):
            while self.now_ms / 1000 < recording.now_s:
                self.window()
            self.watch.turned(self.agent)
            recording.scrape(agent=self.text(), **others)

    def text(self) -> str:
        """What /metrics serves."""
        return generate_latest(self.instruments.registry).decode()

    def close(self) -> None:
        """End the spool."""
        self.agent.spool.close()
