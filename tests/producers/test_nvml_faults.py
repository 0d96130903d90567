"""Every fault of the fake NVML ends in a flagged, valid report, and what is missing never depends on the power."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from producers.sample.source import EnergySpan
from tests.producers.fake_gpu import (
    AVERAGE,
    ENERGY,
    GPU_IS_LOST,
    INSTANT,
    NO_PERMISSION,
    NOT_SUPPORTED,
    RESET_REQUIRED,
    TIMEOUT,
    UNKNOWN,
    Signal,
    busy,
)
from tests.producers.fake_host import Host, flags_of, open_host
from tests.producers.fake_nvml import gpus_of

WHOLE = 200
"""Readings of two GPUs in a window of ten seconds."""


@dataclass(frozen=True)
class Fault:
    """`play`: called 2 s into window 1 and again at 5 s, which must end it; `flags` of windows 1 and 2 but for
    "gap"; `missing`: bounds of the readings missing in window 1; `energy`: reason why it has no energy residual."""

    name: str
    play: Callable[[Host, bool], None]
    flags: dict[str, int]
    missing: tuple[int, int]
    energy: str | None = None

    def __str__(self) -> str:
        return self.name


def status(number: int) -> Callable[[Host, bool], None]:
    def play(host: Host, begins: bool) -> None:
        host.gpus[1].status = number if begins else 0

    return play


def field_status(number: int, *fields: int) -> Callable[[Host, bool], None]:
    def play(host: Host, begins: bool) -> None:
        host.gpus[1].field_status = dict.fromkeys(fields, number) if begins else {}

    return play


def driver_gone(host: Host, begins: bool) -> None:
    host.fake.loaded = not begins
    if not begins:
        host.fake.reload()


def driver_restarted(host: Host, begins: bool) -> None:
    if begins:
        host.fake.reload()


def handles_invalid(host: Host, begins: bool) -> None:
    """The library is up, every handle from before is not."""
    if begins:
        host.fake.generation += 1


def all_lost(host: Host, begins: bool) -> None:
    for gpu in host.gpus:
        gpu.status = GPU_IS_LOST if begins else 0


def all_unknown(host: Host, begins: bool) -> None:
    """A driver that answers nonsense until it is initialised again."""
    for gpu in host.gpus:
        gpu.status = UNKNOWN if begins else 0


def mig(host: Host, begins: bool) -> None:
    host.gpus[1].mig = True


def mig_without_power(host: Host, begins: bool) -> None:
    host.gpus[1].mig = True
    host.gpus[1].field_status = {INSTANT: NOT_SUPPORTED} if begins else {}


def xid(host: Host, begins: bool) -> None:
    if begins:
        host.gpus[1].xids.append(79)


def slow(milliseconds: int) -> Callable[[Host, bool], None]:
    def play(host: Host, begins: bool) -> None:
        host.gpus[1].call_ns = milliseconds * 1_000_000 if begins else 30_000

    return play


def hang_once(host: Host, begins: bool) -> None:
    def wake() -> None:
        host.clock.now_ns += 3_000_000_000
        host.gpus[1].on_call = lambda: None

    if begins:
        host.gpus[1].on_call = wake


def lost_after_a_timeout(host: Host, begins: bool) -> None:
    status(TIMEOUT)(host, begins)
    slow(1000)(host, begins)


def counter_begins_again(host: Host, begins: bool) -> None:
    host.gpus[1].energy_back_mj = 10**6


def not_available(host: Host, begins: bool) -> None:
    host.gpus[1].not_available = begins


def absurd(host: Host, begins: bool) -> None:
    if begins:
        host.gpus[1].signal = lambda _: 1e6


def no_limits(host: Host, begins: bool) -> None:
    host.gpus[1].limit_status = host.gpus[1].mig_status = UNKNOWN


def no_events(host: Host, begins: bool) -> None:
    host.gpus[1].event_status = NOT_SUPPORTED
    handles_invalid(host, begins)


def clock_forward(host: Host, begins: bool) -> None:
    if begins:
        host.clock.offset_ns += 350_000_000


FAULTS = (
    Fault("gpu lost", status(GPU_IS_LOST), {"gpu_lost": 1}, (30, 35)),
    Fault("reset required", status(RESET_REQUIRED), {"gpu_lost": 1}, (30, 35)),
    Fault("all lost", all_lost, {"gpu_lost": 2, "driver_reload": 2}, (60, 70)),
    Fault("no permission", status(NO_PERMISSION), {"permission": 1}, (30, 50)),
    Fault("no permission for power", field_status(NO_PERMISSION, INSTANT), {"permission": 1}, (30, 50)),
    Fault("not supported any more", field_status(NOT_SUPPORTED, INSTANT), {}, (30, 50)),
    Fault("unknown error", status(UNKNOWN), {"gpu_lost": 1}, (30, 50)),
    Fault("unknown error of all", all_unknown, {"gpu_lost": 2, "driver_reload": 2}, (60, 100)),
    Fault("unknown error in a value", field_status(UNKNOWN, INSTANT), {"gpu_lost": 1}, (30, 50)),
    Fault("timeout", status(TIMEOUT), {"gpu_lost": 1}, (30, 50)),
    Fault("timeout after a second", lost_after_a_timeout, {"gpu_lost": 1, "stall": 2}, (40, 70)),
    Fault("driver gone", driver_gone, {"driver_reload": 2}, (60, 90), "no_counter"),
    Fault("driver restarted", driver_restarted, {"driver_reload": 2}, (2, 4), "no_counter"),
    Fault("handles invalid", handles_invalid, {"gpu_lost": 2, "driver_reload": 2}, (2, 30), "no_counter"),
    Fault("MIG", mig, {"mig": 1}, (0, 0)),
    Fault("MIG without power", mig_without_power, {"mig": 1}, (30, 50)),
    Fault("XID", xid, {"xid": 1}, (0, 0)),
    Fault("slow calls", slow(60), {"stall": 1}, (30, 50)),
    Fault("very slow calls", slow(400), {"stall": 1}, (30, 80)),
    Fault("one call hangs", hang_once, {"stall": 2}, (55, 65)),
    Fault("counter not supported", field_status(NOT_SUPPORTED, ENERGY), {}, (0, 0)),
    Fault("counter begins again", counter_begins_again, {}, (0, 0)),
    Fault("value not available", not_available, {}, (28, 50)),
    Fault("an absurd reading is a reading", absurd, {}, (0, 0)),
    Fault("limits unreadable", no_limits, {}, (0, 0)),
    Fault("events unsupported", no_events, {"gpu_lost": 2, "driver_reload": 2}, (2, 30), "no_counter"),
    Fault("another field fails", field_status(UNKNOWN, AVERAGE), {}, (0, 0)),
    Fault("clock set forward", clock_forward, {"clock_step": 2, "stale": 2}, (4, 8)),
)


def mostly_idle(time_s: float) -> float:
    """The same power for six seconds of seven, far above the clip range in the seventh."""
    return 75.0 if math.fmod(time_s, 7.0) < 6.0 else 900.0


@dataclass(frozen=True)
class Outcome:
    missing: np.ndarray
    flags: dict[str, int]
    span: EnergySpan | None
    stats: object


def play(fault: Fault, tmp_path: Path, signal: Signal) -> Outcome:
    tmp_path.mkdir()
    with open_host(gpus_of(2, field_time="sensor"), tmp_path) as host:
        for gpu in host.gpus:
            gpu.signal = signal
        host.run(1.2)
        fault.play(host, True)
        host.run(1.5)
        fault.play(host, False)
        report = host.report(1)
        missing = np.isnan(host.power_w(1))
        span = host.source().conditions(host.start_ms(1), host.start_ms(2)).energy
        item = report.classes[0]
        assert item.readings_taken == WHOLE - missing.sum()
        assert (report.source, item.sampler_mode, item.gpus) == ("nvml", "instant", 2)
        assert item.enforced_limit_w == 1400
        if fault.energy:
            assert (item.energy_residual_mj, item.energy_residual_mj_absent_reason) == (None, fault.energy)
        flags = flags_of(host.report(2)) | flags_of(report)  # what is looked at every ten seconds, or comes late
        final = host.report(3)
        assert final.classes[0].readings_taken == WHOLE  # it was survived
        assert set(flags_of(final)) <= {"mig"}
        return Outcome(missing, flags, span, host.sampler.stats())


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_it_is_flagged_and_survived_whatever_the_power(fault: Fault, tmp_path: Path) -> None:
    """The same fault under a load that moves and under one that stands still: the same ticks, flags and counters."""
    one, other = (play(fault, tmp_path / name, signal) for name, signal in (("moves", busy), ("stands", mostly_idle)))
    assert fault.missing[0] <= one.missing.sum() <= fault.missing[1]
    assert {name: gpus for name, gpus in one.flags.items() if name != "gap"} == fault.flags
    assert np.array_equal(one.missing, other.missing)
    assert (one.flags, one.stats) == (other.flags, other.stats)
    assert (one.span is None) == (other.span is None)
    if one.span is not None and other.span is not None:
        assert (one.span.first_tick, one.span.last_tick) == (other.span.first_tick, other.span.last_tick)
        assert one.span.valid.tolist() == other.span.valid.tolist()
