"""What the probe decides: mode, field, scope, update period and clock; which GPUs take which place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producers.config import Schedule
from producers.sample.clock import Clock
from producers.sample.nvml import Nvml
from producers.sample.nvml_calls import POWER_AVERAGE, POWER_INSTANT, SCOPE_GPU, SCOPE_MODULE, PowerSample
from producers.sample.nvml_faults import NvmlFault
from producers.sample.nvml_sampler import NvmlSampler, open_sampler
from producers.sample.period import MIN_CHANGES, Observation, Timing, Watch, combined, infer, shared
from producers.sample.plan import ASSUMED_UPPER_NS, SamplerMode, SensorPlan
from producers.sample.probe import LOOK_S, PROBE_S, Plans, probe
from schemas.errors import ConfigError
from tests.producers import fake_gpu
from tests.producers.fake_gpu import (
    AVERAGE,
    ENERGY,
    GPU_IS_LOST,
    GPU_SCOPE,
    H100,
    INSTANT,
    MODULE_SCOPE,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeGpu,
)
from tests.producers.fake_nvml import FakeNvml, gpus_of
from tests.producers.test_sampler_freshness import A100

SCHEDULE = Schedule(window_ms=10_000)
NO_INSTANT = {INSTANT: NOT_SUPPORTED}
NO_FIELDS = {INSTANT: NOT_SUPPORTED, AVERAGE: NOT_SUPPORTED, ENERGY: NOT_SUPPORTED}


GOOD = Timing(clock="sensor", period_ms=100.0, upper_ns=102_000_000, least_ns=99_000_000, assumed=False, changes=20)
SLOW = replace(GOOD, period_ms=104.0, upper_ns=107_000_000)
OTHER = replace(GOOD, clock="schedule")


def probed(gpus: list[FakeGpu], *modes: SamplerMode, slow_s: float = 0.1) -> Plans:
    """How GPUs are read; `slow_s`: time for the calls beside the polls."""
    fake = FakeNvml(gpus)
    with fake.installed(), Nvml() as nvml:
        began = fake.clock.now_ns
        found = probe(nvml, nvml.gpus(), fake.clock, modes or ("instant",))
        assert fake.clock.now_ns - began < (LOOK_S + PROBE_S + slow_s) * 1e9
        return found


def plan_of(gpu: FakeGpu, *modes: SamplerMode) -> SensorPlan:
    return next(iter(probed([gpu], *modes).by_uuid.values()))


def opened(fake: FakeNvml, models: dict[str, int], clock: Clock | None = None) -> NvmlSampler:
    with fake.installed():
        sampler = open_sampler(models, SCHEDULE, clock=clock or fake.clock)
        sampler.close()
        return sampler


def test_instant_power_of_the_gpu_comes_first() -> None:
    plan = plan_of(FakeGpu(), "instant", "average", "legacy")
    assert (plan.mode, plan.method, plan.field_id, plan.scope) == ("instant", "field", POWER_INSTANT, SCOPE_GPU)


@pytest.mark.parametrize(
    ("statuses", "modes", "wanted"),
    [
        ({(INSTANT, GPU_SCOPE): NOT_SUPPORTED}, ("instant",), ("instant", "field", POWER_INSTANT, SCOPE_MODULE)),
        (NO_INSTANT, ("instant", "average"), ("average", "field", POWER_AVERAGE, SCOPE_GPU)),
        (NO_FIELDS, ("instant", "average", "legacy"), ("legacy", "legacy", POWER_INSTANT, SCOPE_GPU)),
        ({}, ("legacy",), ("legacy", "legacy", POWER_INSTANT, SCOPE_GPU)),
        ({(INSTANT, MODULE_SCOPE): UNKNOWN}, ("instant",), ("instant", "field", POWER_INSTANT, SCOPE_GPU)),
    ],
)
def test_the_next_best_sensor(
    statuses: dict[int | tuple[int, int], int], modes: tuple[SamplerMode, ...], wanted: tuple[str, str, int, int]
) -> None:
    plan = plan_of(FakeGpu(field_status=statuses), *modes)
    assert (plan.mode, plan.method, plan.field_id, plan.scope) == wanted


@pytest.mark.parametrize("modes", [("instant",), ("instant", "average")])
def test_a_mode_that_is_not_allowed_is_not_taken(modes: tuple[SamplerMode, ...]) -> None:
    with pytest.raises(NvmlFault) as refused:
        probed([FakeGpu(field_status=NO_FIELDS)], *modes)
    assert (refused.value.code, refused.value.kind) == ("SENSOR_MODE_UNSUPPORTED", "unsupported")
    assert "they support legacy" in str(refused.value)


def test_all_gpus_of_a_host_have_one_mode() -> None:
    gpus = gpus_of(2)
    gpus[1].field_status = NO_INSTANT
    assert {plan.mode for plan in probed(gpus, "instant", "average").by_uuid.values()} == {"average"}


def test_a_driver_without_fields_has_its_old_calls() -> None:
    fake = FakeNvml([FakeGpu()])
    fake.hidden = {"nvmlDeviceGetFieldValues", "nvmlDeviceGetSamples"}
    with fake.installed(), Nvml() as nvml:
        (plan,) = probe(nvml, nvml.gpus(), fake.clock, ("instant", "legacy")).by_uuid.values()
    assert (plan.mode, plan.method, plan.energy) == ("legacy", "legacy", "call")


@pytest.mark.parametrize(
    ("statuses", "call_status", "wanted"),
    [
        ({}, 0, "field"),
        ({ENERGY: NOT_SUPPORTED}, 0, "call"),
        ({ENERGY: NOT_SUPPORTED}, NOT_SUPPORTED, "none"),
        ({ENERGY: NO_PERMISSION}, NO_PERMISSION, "none"),
    ],
)
def test_the_energy_counter(statuses: dict[int | tuple[int, int], int], call_status: int, wanted: str) -> None:
    assert plan_of(FakeGpu(field_status=statuses, energy_call_status=call_status)).energy == wanted


@pytest.mark.parametrize(("update_ms", "period"), [((100.0,), 100.0), ((20.0,), 20.0), (A100, 102.5)])
def test_the_period_is_inferred_and_its_bound_holds(update_ms: tuple[float, ...], period: float) -> None:
    plan = plan_of(FakeGpu(update_ms=update_ms))
    assert not plan.assumed
    assert plan.period_ms == pytest.approx(period, rel=0.02)
    assert max(update_ms) * 1e6 <= plan.upper_ns <= max(update_ms) * 1e6 + 5e6


def test_an_idle_gpu_is_read_as_its_sisters_are_and_as_assumed_without_any() -> None:
    idle = {"signal": lambda _: 70.0, "field_time": "sensor"}
    gpus = gpus_of(2, field_time="sensor")
    gpus[0].signal = lambda _: 70.0
    found = probed(gpus).by_uuid
    assert {(plan.clock, plan.assumed) for plan in found.values()} == {("sensor", False)}
    alone = plan_of(FakeGpu(**idle))
    assert (alone.clock, alone.assumed, alone.upper_ns) == ("schedule", True, ASSUMED_UPPER_NS)


def test_a_ring_buffer_counts_only_where_all_of_a_model_have_one() -> None:
    gpus = gpus_of(2, ring="sensor")
    assert {(plan.clock, plan.method) for plan in probed(gpus).by_uuid.values()} == {("samples", "samples")}
    gpus[1].ring = "unsupported"
    gpus[1].signal = lambda _: 70.0
    assert {(plan.clock, plan.method) for plan in probed(gpus).by_uuid.values()} == {("schedule", "field")}


def test_a_timestamp_that_moves_only_with_the_value_is_no_clock() -> None:
    """It would tie what is missing to what is read."""
    stamps, polls = 0, []
    values = [100 + n // 2 for n in range(60)]  # every reading comes twice
    for n, value in enumerate(values):
        stamps += n % 2 == 0
        for part in range(50):
            began = (n * 100 + 2 * part) * 1_000_000
            polls.append(Observation(began, began + 100_000, value, 100_000 * stamps + (n if n in (17, 18) else 0)))
    assert infer(Watch(polls=polls)).clock == "schedule"


def watch(values: list[int], samples: list[PowerSample], *, stamps: bool = False) -> Watch:
    polls = [
        Observation(began := (n * 100 + 2 * part) * 1_000_000, began + 100_000, value, (n if stamps else part) * 100)
        for n, value in enumerate(values)
        for part in range(50)
    ]
    return Watch(polls=polls, samples=samples)


def test_a_ring_buffer_that_leaves_updates_out_is_no_clock() -> None:
    values = [500 + n % 7 * 10 + n for n in range(30)]
    whole = [PowerSample(100_000 * n, value) for n, value in enumerate(values)]
    assert infer(watch(values, whole)).clock == "samples"
    assert infer(watch(values, whole[:10] + whole[13:])).clock == "schedule"
    assert infer(watch(values, [PowerSample(s.timestamp_us, s.power_mw + 1) for s in whole])).clock == "schedule"
    assert infer(watch(values, whole, stamps=True)).clock == "sensor"


def test_too_few_changes_say_nothing() -> None:
    values = [*range(MIN_CHANGES), *[MIN_CHANGES - 1] * 20]
    assert infer(watch(values, [], stamps=True)) == Timing(changes=MIN_CHANGES - 1)
    assert infer(Watch()) == Timing()


def test_the_worst_of_a_model_holds_for_all() -> None:
    assert shared([GOOD, Timing(), SLOW]) == SLOW
    assert shared([GOOD, OTHER]).clock == "schedule"
    assert shared([Timing()]) == shared([]) == Timing()


def test_a_close_look_decides_and_the_others_can_but_raise_its_bound() -> None:
    assert combined(GOOD, []) == GOOD
    assert combined(GOOD, [Timing(changes=MIN_CHANGES - 1), GOOD, SLOW]) == GOOD  # slow, but for all that was seen not
    late = replace(SLOW, least_ns=103_000_000)
    assert combined(GOOD, [GOOD, late]) == replace(GOOD, upper_ns=104_000_000)
    assert combined(GOOD, [OTHER]) == replace(GOOD, clock="schedule")
    assert combined(OTHER, [GOOD]).clock == "schedule"
    assert combined(Timing(), [GOOD, SLOW]) == SLOW
    assert combined(Timing(), [Timing()]) == Timing()


def test_the_bound_of_a_period_is_wider_than_what_was_surely_seen() -> None:
    """Updates every 100 ms, and one after 104; polls every 2 ms, 0.1 ms long."""
    polls = []
    starts = [100.0 * n + (4.0 if n > 10 else 0.0) for n in range(25)]
    for n in range(1250):
        began = round(2e6 * n)
        value = sum(start <= 2.0 * n for start in starts)
        polls.append(Observation(began, began + 100_000, 1000 * value, 0))
    found = infer(Watch(polls=polls))
    assert (found.upper_ns, found.least_ns, found.changes) == (107_100_000, 101_900_000, 24)


@pytest.mark.parametrize("call_us", [200, 1_000])
def test_the_bound_is_as_tight_for_eight_gpus_as_for_one(call_us: int) -> None:
    """Though they are polled in turn: an update is known to the time between two polls of one GPU."""
    bounds = [
        next(iter(probed(gpus_of(count, call_ns=call_us * 1000, ring="unsupported")).by_uuid.values())).upper_ns
        for count in (1, 8)
    ]
    assert 100_000_000 < bounds[0] <= bounds[1] <= bounds[0] + 200_000


def test_the_gpu_that_is_looked_at_closely_is_one_that_moves_and_the_slowest_of_them() -> None:
    gpus = gpus_of(8, call_ns=500_000)
    for gpu in gpus:
        gpu.signal = lambda _: 70.0
    gpus[5].signal = fake_gpu.busy
    (plan,) = set(probed(gpus).by_uuid.values())
    assert not plan.assumed
    assert plan.upper_ns <= 104_000_000
    gpus = gpus_of(4, call_ns=1_000_000)
    gpus[2] = replace(gpus[2], update_ms=(112.0,))
    assert {plan.upper_ns >= 112_000_000 for plan in probed(gpus).by_uuid.values()} == {True}
    gpus = gpus_of(3, update_ms=(210.0,))  # too slow for the look at all, of which one moves
    gpus[0].signal = gpus[1].signal = lambda _: 70.0
    (plan,) = set(probed(gpus).by_uuid.values())
    assert (plan.assumed, plan.period_ms) == (False, pytest.approx(210, abs=1))


def test_the_clock_is_found_with_slow_calls_and_many_gpus() -> None:
    for ring, field_time, wanted in (("sensor", "query", "samples"), ("empty", "sensor", "sensor")):
        gpus = gpus_of(8, call_ns=1_000_000, ring=ring, field_time=field_time)
        assert {plan.clock for plan in probed(gpus, slow_s=0.2).by_uuid.values()} == {wanted}


def test_models_are_probed_side_by_side() -> None:
    gpus = gpus_of(4)
    gpus[2:] = [replace(gpu, name="NVIDIA A100-SXM4-80GB", update_ms=A100) for gpu in gpus[2:]]
    found = probed(gpus).by_model
    assert {name: (plan.assumed, plan.period_ms) for name, plan in found.items()} == {
        H100: (False, pytest.approx(100, abs=1)),
        "NVIDIA A100-SXM4-80GB": (False, pytest.approx(102.5, abs=1)),
    }


def test_the_probe_ends_in_time_where_calls_begin_to_hang() -> None:
    """After its time at most the call that it is in."""
    gpus = gpus_of(8, ring="unsupported")
    fake = FakeNvml(gpus)
    start_ns = fake.clock.now_ns

    def hang() -> None:
        fake.clock.now_ns += 1_000_000_000 if fake.clock.now_ns > start_ns + 1_200_000_000 else 0

    for gpu in gpus:
        gpu.on_call = hang
    with fake.installed(), Nvml() as nvml:
        probe(nvml, nvml.gpus(), fake.clock)
    assert fake.clock.now_ns - start_ns < (LOOK_S + PROBE_S + 2.1) * 1e9


def test_a_gpu_that_fails_in_the_probe_does_not_decide_for_the_others() -> None:
    gpus = gpus_of(3)
    gpus[1].field_status = {INSTANT: UNKNOWN, AVERAGE: UNKNOWN, ENERGY: UNKNOWN}
    calls = 0

    def fall_off() -> None:
        nonlocal calls
        calls += 1
        gpus[2].status = GPU_IS_LOST if calls > 300 else 0

    gpus[2].on_call = fall_off
    found = probed(gpus)
    assert found.mode == "instant"
    assert {plan.assumed for plan in found.by_uuid.values()} == {False}


def test_more_gpus_than_are_enrolled_are_refused() -> None:
    fake = FakeNvml(gpus_of(2))
    with pytest.raises(ConfigError) as refused:
        opened(fake, {H100: 1})
    assert refused.value.code == "GPU_NOT_ENROLLED"
    with pytest.raises(ConfigError) as refused:
        opened(fake, {"NVIDIA L4": 2})
    assert refused.value.code == "GPU_NOT_ENROLLED"


def test_no_gpu_at_all_is_refused_and_says_why() -> None:
    with pytest.raises(ConfigError) as refused:
        opened(FakeNvml([]), {H100: 1})
    assert refused.value.code == "NO_GPU_FOUND"
    with pytest.raises(NvmlFault) as failed:
        opened(FakeNvml(gpus_of(2, status=fake_gpu.NO_PERMISSION)), {H100: 2})
    assert failed.value.code == "NVML_PERMISSION"


@pytest.mark.parametrize(
    ("models", "modes"), [({}, ("instant",)), ({H100: 0}, ("instant",)), ({H100: 1}, ()), ({H100: 1}, ("x",))]
)
def test_nonsense_is_refused_before_anything_is_opened(models: dict[str, int], modes: tuple[SamplerMode, ...]) -> None:
    with pytest.raises(ConfigError):
        open_sampler(models, SCHEDULE, modes=modes)


def test_places_go_by_model_and_bus_and_vacant_ones_are_last() -> None:
    gpus = gpus_of(3)
    gpus[0].bus, gpus[2].bus = gpus[2].bus, gpus[0].bus
    gpus[1].name = "NVIDIA A100-SXM4-80GB"
    sampler = opened(FakeNvml(gpus), {H100: 3, "NVIDIA A100-SXM4-80GB": 1})
    assert sampler.reader.models == ("NVIDIA A100-SXM4-80GB", H100, H100, H100)
    assert sampler.source(H100).gpus == 3
    with pytest.raises(ConfigError):
        sampler.source("NVIDIA L4")
