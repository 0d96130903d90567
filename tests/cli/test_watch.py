"""What a watched agent shows of its windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enclavescale.agent.watch import HostWatch, Instruments
from producers.agent import Agent
from producers.host import AgentHost, HostWindow
from producers.privacy import default_budget
from tests.producers.forge import START_MS, host, session_for
from tests.producers.test_agent import Broker, config


@pytest.mark.parametrize("spooled", [False, True])
def test_releases_are_shown_once_they_are_on_disk(tmp_path: Path, spooled: bool) -> None:
    """Noise that left with a metric alone would be drawn again after a crash."""
    instruments, budget = Instruments(), default_budget(energy=True)
    anything: Any = None
    watch = HostWatch(instruments, anything, (), tee="simulated", in_force=lambda _: None)
    watch._expect(10.0)
    profile = host()
    one = AgentHost(profile=profile, session=session_for(profile, budget))
    agent = Agent(config(tmp_path, one, budget=budget), lambda _: Broker())
    done: HostWindow = agent.hosts[0].produce(START_MS)
    watch.window(agent, [done], spooled)
    agent.spool.close()
    shown = {
        (sample.name, sample.value)
        for family in instruments.registry.collect()
        for sample in family.samples
        if "noisy" in sample.name and sample.labels
    }
    glitches = done.classes[0].noisy.glitches
    names = {name for name, _ in shown}
    assert (("enclavescale_agent_noisy_glitches", glitches) in shown) == spooled
    assert ("enclavescale_agent_noisy_energy_residual_joules" in names) == spooled
