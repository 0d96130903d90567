"""NVML as a Python object at the C boundary: pynvml's own wrappers and structures run on it, faults included.

pynvml looks every function up with `getattr` on its module global `nvmlLib`. `FakeNvml.installed()` puts an object
there whose functions take the ctypes arguments of the C interface (`byref(x)` has `x` as `._obj`) and answer numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pynvml
import pytest

from tests.producers import fake_gpu
from tests.producers.fake_gpu import (
    DRIVER_NOT_LOADED,
    GPU_SCOPE,
    INVALID_ARGUMENT,
    NOT_FOUND,
    NOT_SUPPORTED,
    SUCCESS,
    TIMEOUT,
    UNINITIALIZED,
    FakeGpu,
)

__all__ = ["START_NS", "FakeGpu", "FakeNvml", "StepClock", "gpus_of"]

START_NS = 1_790_000_040_000_000_000
"""UTC of a `StepClock` at its start, a whole minute."""


class StepClock:
    """A clock that stands still until someone waits: `late_ns` is added to a wait as a scheduler would."""

    def __init__(self, utc_ns: int = START_NS) -> None:
        self.now_ns = 5_000_000_000
        self.offset_ns = utc_ns - self.now_ns
        self.late_ns: Callable[[], int] = lambda: 0
        self.stopped = False

    def monotonic_ns(self) -> int:
        return self.now_ns

    def utc_ns(self) -> int:
        return self.now_ns + self.offset_ns

    def wait(self, seconds: float) -> bool:
        self.now_ns += round(seconds * 1e9) + self.late_ns()
        return self.stopped


def gpus_of(count: int, **same: Any) -> list[FakeGpu]:
    """So many GPUs that differ in UUID, place and phase."""
    return [
        FakeGpu(**{"uuid": f"GPU-{i:08x}-1111-2222-3333-444444444444", "bus": 0x18 + i, "phase_ms": 7.0 * i} | same)
        for i in range(count)
    ]


class FakeNvml:
    """The library. `cc`: (environment, ccFeature, devToolsMode); a status in place of an answer where one is set.

    `hidden`: names of functions this driver does not have. `loaded` False: the driver is gone. `reload()` is what a
    restarted driver does: nothing works until NVML is initialised again, and old handles never do.
    """

    def __init__(self, gpus: Sequence[FakeGpu], clock: StepClock | None = None) -> None:
        self.gpus = list(gpus)
        self.clock = clock or StepClock()
        self.loaded = True
        self.init_status = SUCCESS
        self.generation = 1
        self.hidden: set[str] = set()
        self.calls: dict[str, int] = {}
        self.cc = (2, 0, 0)
        self.cc_status = NOT_SUPPORTED
        self.ready = 1
        self.ready_status = NOT_SUPPORTED
        self._initialised = False
        self._watched: dict[int, list[int]] = {}

    def reload(self) -> None:
        """The driver was restarted: counters begin again."""
        self.generation += 1
        self._initialised = False
        for gpu in self.gpus:
            gpu.energy_from_s = self.clock.now_ns / 1e9

    @contextlib.contextmanager
    def installed(self) -> Iterator[FakeNvml]:
        """Be pynvml's library for a while."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pynvml, "nvmlLib", _Library(self))
            patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", _Uncached())
            yield self

    # -- the C boundary ----------------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any) -> int:
        """Run a function of the library: state of the driver first, then the GPU's, then the function itself."""
        self.calls[name] = self.calls.get(name, 0) + 1
        function, of_a_gpu = _FUNCTIONS[name]
        if name == "nvmlInitWithFlags":
            return function(self)
        if not self.loaded or not self._initialised:
            return UNINITIALIZED
        if not of_a_gpu:
            return function(self, *arguments)
        gpu = self._gpu(arguments[0])
        if gpu is None:
            return INVALID_ARGUMENT
        self.clock.now_ns += gpu.call_ns
        gpu.on_call()
        return gpu.status or function(gpu, self, *arguments[1:])

    def address(self, index: int) -> int:
        """The handle of a GPU, as a number."""
        return self.generation << 20 | (index + 1) << 8

    def _gpu(self, handle: Any) -> FakeGpu | None:
        value = ctypes.cast(handle, ctypes.c_void_p).value or 0
        index = (value >> 8 & 0xFFF) - 1
        if value >> 20 != self.generation or not 0 <= index < len(self.gpus):
            return None
        return self.gpus[index]


class _Uncached(dict[str, Any]):
    """pynvml's cache of function pointers, forgetful: functions may come and go."""

    def __setitem__(self, key: str, value: Any) -> None:
        pass

    def __getitem__(self, key: str) -> Any:
        return getattr(pynvml.nvmlLib, key)


class _Library:
    """What stands in for the shared object."""

    def __init__(self, fake: FakeNvml) -> None:
        self._fake = fake

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in _FUNCTIONS or name in self._fake.hidden:
            raise AttributeError(name)
        return lambda *arguments: self._fake.call(name, *arguments)


_FUNCTIONS: dict[str, tuple[Callable[..., int], bool]] = {}


def c_function(function: Callable[..., int]) -> Callable[..., int]:
    """A function of nvml.h. The first parameter `gpu`: it is about one GPU, whose handle came first."""
    _FUNCTIONS[function.__name__] = function, next(iter(inspect.signature(function).parameters)) == "gpu"
    return function


def _point(target: Any, address: int) -> None:
    """Write a handle where a `byref` points."""
    ctypes.cast(ctypes.pointer(target._obj), ctypes.POINTER(ctypes.c_void_p))[0] = address


@c_function
def nvmlInitWithFlags(fake: FakeNvml) -> int:
    if not fake.loaded or fake.init_status:
        return fake.init_status or DRIVER_NOT_LOADED
    fake._initialised = True
    return SUCCESS


@c_function
def nvmlShutdown(fake: FakeNvml) -> int:
    fake._initialised = False
    return SUCCESS


@c_function
def nvmlSystemGetDriverVersion(fake: FakeNvml, buffer: Any, size: Any) -> int:
    buffer.value = b"570.86.15"
    return SUCCESS


@c_function
def nvmlDeviceGetCount_v2(fake: FakeNvml, count: Any) -> int:
    count._obj.value = len(fake.gpus)
    return SUCCESS


@c_function
def nvmlDeviceGetHandleByIndex_v2(fake: FakeNvml, index: Any, handle: Any) -> int:
    if index.value >= len(fake.gpus):
        return INVALID_ARGUMENT
    if fake.gpus[index.value].status:
        return fake.gpus[index.value].status
    _point(handle, fake.address(index.value))
    return SUCCESS


@c_function
def nvmlDeviceGetHandleByUUID(fake: FakeNvml, uuid: Any, handle: Any) -> int:
    for index, gpu in enumerate(fake.gpus):
        if gpu.uuid.encode() == uuid.value:
            return nvmlDeviceGetHandleByIndex_v2(fake, ctypes.c_uint(index), handle)
    return NOT_FOUND


@c_function
def nvmlDeviceGetName(gpu: FakeGpu, fake: FakeNvml, buffer: Any, size: Any) -> int:
    buffer.value = gpu.name.encode()
    return SUCCESS


@c_function
def nvmlDeviceGetUUID(gpu: FakeGpu, fake: FakeNvml, buffer: Any, size: Any) -> int:
    buffer.value = gpu.uuid.encode()
    return SUCCESS


@c_function
def nvmlDeviceGetSerial(gpu: FakeGpu, fake: FakeNvml, buffer: Any, size: Any) -> int:
    if gpu.serial is None:
        return NOT_SUPPORTED
    buffer.value = gpu.serial.encode()
    return SUCCESS


@c_function
def nvmlDeviceGetPciInfo_v3(gpu: FakeGpu, fake: FakeNvml, info: Any) -> int:
    info._obj.busId = f"00000000:{gpu.bus:02X}:00.0".encode()
    return SUCCESS


@c_function
def nvmlDeviceGetFieldValues(gpu: FakeGpu, fake: FakeNvml, count: Any, values: Any) -> int:
    now = fake.clock.now_ns
    for one in values._obj[: count.value]:
        one.timestamp, one.latencyUsec = now // 1000, 3
        one.nvmlReturn = gpu.field_status.get((one.fieldId, one.scopeId), gpu.field_status.get(one.fieldId, SUCCESS))
        if one.nvmlReturn:
            continue
        if one.fieldId in (fake_gpu.INSTANT, fake_gpu.AVERAGE):
            one.valueType, one.value.uiVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, gpu.power_mw(now, one.fieldId)
            if gpu.field_time == "sensor":
                one.timestamp = gpu.update_ns(gpu.update_index(now)) // 1000
        elif one.fieldId == fake_gpu.ENERGY and one.scopeId == GPU_SCOPE:
            one.valueType, one.value.ullVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, gpu.energy_mj(now)
        else:
            one.nvmlReturn = NOT_SUPPORTED
    return SUCCESS


@c_function
def nvmlDeviceGetPowerUsage(gpu: FakeGpu, fake: FakeNvml, milliwatts: Any) -> int:
    milliwatts._obj.value = gpu.power_mw(fake.clock.now_ns, fake_gpu.AVERAGE)
    return gpu.legacy_status


@c_function
def nvmlDeviceGetTotalEnergyConsumption(gpu: FakeGpu, fake: FakeNvml, millijoules: Any) -> int:
    millijoules._obj.value = gpu.energy_mj(fake.clock.now_ns)
    return gpu.energy_call_status


@c_function
def nvmlDeviceGetSamples(
    gpu: FakeGpu, fake: FakeNvml, kind: Any, after: Any, value_type: Any, count: Any, samples: Any
) -> int:
    if gpu.ring == "unsupported":
        return NOT_SUPPORTED
    entries = gpu.ring_entries(after.value, fake.clock.now_ns)
    if not entries:
        return NOT_FOUND
    value_type._obj.value = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    if samples is not None:
        if count._obj.value < len(entries):
            return fake_gpu.INSUFFICIENT_SIZE
        for slot, (stamp, milliwatts) in zip(samples, entries, strict=False):
            slot.timeStamp, slot.sampleValue.uiVal = stamp, milliwatts
    count._obj.value = len(entries)
    return SUCCESS


@c_function
def nvmlDeviceGetEnforcedPowerLimit(gpu: FakeGpu, fake: FakeNvml, limit: Any) -> int:
    limit._obj.value = gpu.limit_mw
    return gpu.limit_status


@c_function
def nvmlDeviceGetMigMode(gpu: FakeGpu, fake: FakeNvml, current: Any, pending: Any) -> int:
    current._obj.value = pending._obj.value = int(gpu.mig)
    return gpu.mig_status


@c_function
def nvmlEventSetCreate(fake: FakeNvml, event_set: Any) -> int:
    number = len(fake._watched) + 1
    fake._watched[number] = []
    _point(event_set, number)
    return SUCCESS


@c_function
def nvmlDeviceRegisterEvents(gpu: FakeGpu, fake: FakeNvml, types: Any, event_set: Any) -> int:
    if not gpu.event_status:
        fake._watched[ctypes.cast(event_set, ctypes.c_void_p).value or 0].append(fake.gpus.index(gpu))
    return gpu.event_status


@c_function
def nvmlEventSetWait_v2(fake: FakeNvml, event_set: Any, data: Any, timeout_ms: Any) -> int:
    for index in fake._watched[ctypes.cast(event_set, ctypes.c_void_p).value or 0]:
        if fake.gpus[index].xids:
            data._obj.eventData = fake.gpus[index].xids.pop(0)
            data._obj.eventType = pynvml.nvmlEventTypeXidCriticalError
            data._obj.device = ctypes.cast(fake.address(index), pynvml.c_nvmlDevice_t)
            return SUCCESS
    fake.clock.now_ns += timeout_ms.value * 1_000_000
    return TIMEOUT


@c_function
def nvmlEventSetFree(fake: FakeNvml, event_set: Any) -> int:
    fake._watched.pop(ctypes.cast(event_set, ctypes.c_void_p).value or 0)
    return SUCCESS


@c_function
def nvmlSystemGetConfComputeState(fake: FakeNvml, state: Any) -> int:
    state._obj.environment, state._obj.ccFeature, state._obj.devToolsMode = fake.cc
    return fake.cc_status


@c_function
def nvmlSystemGetConfComputeGpusReadyState(fake: FakeNvml, state: Any) -> int:
    state._obj.value = fake.ready
    return fake.ready_status


@c_function
def nvmlDeviceGetConfComputeGpuAttestationReport(gpu: FakeGpu, fake: FakeNvml, report: Any) -> int:
    gpu.nonces.append(bytes(report._obj.nonce))
    report._obj.attestationReport[: len(gpu.report)] = gpu.report
    report._obj.attestationReportSize = len(gpu.report) if gpu.report_size is None else gpu.report_size
    return SUCCESS


@c_function
def nvmlDeviceGetConfComputeGpuCertificate(gpu: FakeGpu, fake: FakeNvml, chain: Any) -> int:
    chain._obj.attestationCertChain[: len(gpu.chain)] = gpu.chain
    chain._obj.attestationCertChainSize = len(gpu.chain)
    chain._obj.certChain[:3] = b"no\n"
    chain._obj.certChainSize = 3
    return SUCCESS
