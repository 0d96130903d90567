"""A host's own way from a window to its report: its readings and no others, every release drawn once, as stated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from power_model.grid import Grid
from producers.distil import Distilled, distil
from producers.host import AgentHost, HostAgent, Sealing
from producers.privacy import RELEASES, default_budget
from producers.privatise import Privatiser
from producers.sample.source import Conditions, EnergySpan, Readings
from producers.spool import Spool
from schemas.codec import decode_signed_record
from schemas.records import PrivacyParameters
from tests.producers.forge import SCHEDULE, START_MS, FakeSource, gpu_class, host, session_for

BUDGET = default_budget(energy=True)
WINDOWS = 3


class Unlike(FakeSource):
    """Every window, and its ends, differ from all others; ticks are missing also there."""

    def window(self, start_ms: int, end_ms: int) -> Readings:
        rng = np.random.default_rng(start_ms)
        found = rng.uniform(-50, 450, (self.gpus, SCHEDULE.ticks)).astype(np.float32)
        found[rng.random(found.shape) < 0.05] = np.nan
        found[0, -1], found[1, 0] = np.inf, np.nan
        return found

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        counted = np.array([start_ms % 77_777, 5_000])
        return Conditions(energy=EnergySpan(delta_mj=counted, valid=counted > 0, first_tick=1, last_tick=99))


def exact_of(item: Any, start_ms: int) -> Distilled:
    source, per_pane = item.source, SCHEDULE.ticks_per_pane
    readings, energy = source.window(start_ms, start_ms + 10_000), source.conditions(start_ms, start_ms + 10_000).energy
    return distil(readings, Grid(item.edges_w), item.clip_low_w, item.clip_high_w, per_pane, energy=energy)


def test_a_report_is_of_its_window_alone_and_every_release_is_drawn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empirical proof tries how a window is distilled and drawn; this is what a host does around it."""
    drawn: list[str] = []
    used: list[PrivacyParameters] = []

    def one_more(self: Privatiser, release: str, exact: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        drawn.append(release)
        used.append(self.parameters)
        return exact + 1

    monkeypatch.setattr(Privatiser, "add_noise", one_more)
    profile = host("host-1", "row-1", gpu_class(Unlike()), gpu_class(Unlike(), model="H100", high=700))
    with Spool(tmp_path / "spool") as spool:
        session = session_for(profile, BUDGET)
        agent = HostAgent(AgentHost(profile=profile, session=session), Sealing(schedule=SCHEDULE, budget=BUDGET), spool)
        for start_ms in range(START_MS, START_MS + WINDOWS * SCHEDULE.window_ms, SCHEDULE.window_ms):
            drawn.clear()
            done = agent.produce(start_ms)
            body: Any = decode_signed_record(done.sealed.value).body
            assert Counter(drawn) == dict.fromkeys(RELEASES, len(profile.classes))
            assert all(parameters == body.privacy for parameters in used)
            for item, released, window in zip(profile.classes, body.classes, done.classes, strict=True):
                exact = exact_of(item, start_ms)
                assert exact.energy_residual_mj is not None
                assert released.readings_taken == exact.readings_taken
                assert released.transitions == (exact.transitions + 1).astype("<i4").tobytes()
                assert released.pane_sums == (exact.pane_sums + 1).astype("<i4").tobytes()
                assert released.histogram == (exact.histogram + 1).astype("<i4").tobytes()
                assert released.energy_residual_mj == exact.energy_residual_mj + 1
                assert window.noisy.glitches == exact.glitches + 1


def test_a_source_that_replaces_another_begins_without_its_first_reading(tmp_path: Path) -> None:
    """Both looked at the same sensor: the last reading of one may be the first of the other, in another window."""
    kept, made = FakeSource(), FakeSource(missing=(0, 1))
    profile = host("host-1", "row-1", gpu_class(kept), gpu_class(made, model="H100"))
    one = AgentHost(profile=profile, session=session_for(profile, BUDGET))
    with Spool(tmp_path / "spool") as spool:
        for before, taken in ((None, [200, 196]), ([kept], [200, 194]), ([kept, made], [200, 196])):
            agent = HostAgent(one, Sealing(schedule=SCHEDULE, budget=BUDGET), spool, before)
            for start_ms in (START_MS, START_MS + 10_000):
                seen = [item.readings_taken for item in agent.produce(start_ms).classes]
                assert seen == (taken if start_ms == START_MS else [200, 196])
