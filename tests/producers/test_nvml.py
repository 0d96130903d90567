"""NVML through pynvml's own wrappers: GPUs, faults by name, confidential computing, evidence, events."""

from __future__ import annotations

import ctypes
import struct
import sys

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.sample.nvml import CODES, Nvml, NvmlFault, handle_key
from producers.sample.nvml_calls import POWER_INSTANT, SCOPE_GPU, TOTAL_ENERGY, number
from producers.sample.nvml_faults import fault_of
from schemas.errors import EnclaveScaleError
from tests.producers.fake_gpu import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GPU_IS_LOST,
    H100,
    NO_PERMISSION,
    NOT_FOUND,
    NOT_SUPPORTED,
    RESET_REQUIRED,
    TIMEOUT,
    UNINITIALIZED,
    UNKNOWN,
    VERSION_MISMATCH,
    FakeGpu,
)
from tests.producers.fake_nvml import FakeNvml, gpus_of

LIBRARY_NOT_FOUND = 12
NONCE = bytes(range(32))


def test_gpus_are_named_as_nvml_names_them() -> None:
    gpus = gpus_of(2)
    gpus[1].serial = None
    with FakeNvml(gpus).installed(), Nvml() as nvml:
        found = nvml.gpus()
        assert [(one.index, one.uuid, one.name) for one in found] == [(0, gpus[0].uuid, H100), (1, gpus[1].uuid, H100)]
        assert [one.pci_bus_id for one in found] == ["00000000:18:00.0", "00000000:19:00.0"]
        assert [one.serial for one in found] == ["1320000000001", None]
        assert nvml.driver_version() == "570.86.15"
        assert (nvml.count(), nvml.devices()) == (2, (gpus[0].uuid, gpus[1].uuid))


def test_a_gpu_that_does_not_answer_is_left_out_and_counted() -> None:
    gpus = gpus_of(3)
    gpus[1].status = GPU_IS_LOST
    with FakeNvml(gpus).installed(), Nvml() as nvml:
        assert [one.index for one in nvml.gpus()] == [0, 2]
        assert nvml.count() == 3
        with pytest.raises(NvmlFault) as failed:
            nvml.handle(gpus[1].uuid)
        assert (failed.value.kind, failed.value.code) == ("lost", "GPU_LOST")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (LIBRARY_NOT_FOUND, "NVML_UNAVAILABLE"),
        (DRIVER_NOT_LOADED, "NVML_UNAVAILABLE"),
        (VERSION_MISMATCH, "NVML_UNAVAILABLE"),
        (NO_PERMISSION, "NVML_PERMISSION"),
        (UNKNOWN, "NVML_FAULT"),
    ],
)
def test_a_driver_that_does_not_start_says_why(status: int, code: str) -> None:
    fake = FakeNvml([FakeGpu()])
    fake.init_status = status
    with fake.installed():
        nvml = Nvml()
        with pytest.raises(NvmlFault) as failed:
            nvml.open()
        assert failed.value.code == code
        assert failed.value.remedy == CODES[code]
        nvml.close()  # nothing to do
        with pytest.raises(NvmlFault) as closed:
            nvml.gpus()
        assert (closed.value.kind, closed.value.code) == ("driver", "NVML_UNAVAILABLE")
        fake.init_status = 0
        assert nvml.open().count() == 1


def test_a_host_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NvmlFault) as failed:
        Nvml().open()
    assert failed.value.code == "NVML_UNAVAILABLE"


def test_every_return_of_nvml_is_a_fault_with_a_code_and_a_remedy() -> None:
    statuses = [value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_") and value]
    assert len(statuses) > 20
    for status in [*statuses, 12345]:
        fault = fault_of(status, "call")
        assert isinstance(fault, EnclaveScaleError)
        assert (fault.code in CODES, bool(fault.remedy), fault.status) == (True, True, status)
        assert str(fault).startswith("call: ")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (UNINITIALIZED, "driver"),
        (NOT_SUPPORTED, "unsupported"),
        (FUNCTION_NOT_FOUND, "unsupported"),
        (NO_PERMISSION, "permission"),
        (NOT_FOUND, "lost"),
        (RESET_REQUIRED, "lost"),
        (TIMEOUT, "transient"),
        (UNKNOWN, "transient"),
    ],
)
def test_what_the_sampler_does_about_it_goes_by_the_kind(status: int, kind: str) -> None:
    assert fault_of(status, "call").kind == kind


def test_fields_are_read_in_one_call_and_each_may_fail_alone() -> None:
    gpu = FakeGpu(field_status={TOTAL_ENERGY: NO_PERMISSION})
    fake = FakeNvml([gpu])
    with fake.installed(), Nvml() as nvml:
        call = nvml.field_call([(POWER_INSTANT, SCOPE_GPU), (TOTAL_ENERGY, SCOPE_GPU)])
        handle = nvml.handle(gpu.uuid)
        power, energy = call(handle)
        assert fake.calls["nvmlDeviceGetFieldValues"] == 1
        assert (power.value, power.status) == (gpu.power_mw(fake.clock.now_ns), 0)
        assert (energy.value, energy.status) == (None, NO_PERMISSION)
        assert power.timestamp_us == fake.clock.now_ns // 1000
        gpu.status = TIMEOUT
        with pytest.raises(NvmlFault) as failed:
            call(handle)
        assert (failed.value.kind, failed.value.status) == ("transient", TIMEOUT)


def test_the_two_fast_calls_agree_with_pynvmls_wrappers() -> None:
    gpu = FakeGpu(ring="sensor")
    fake = FakeNvml([gpu])
    gpu.call_ns = 0
    with fake.installed(), Nvml() as nvml:
        handle = nvml.handle(gpu.uuid)
        theirs = pynvml.nvmlDeviceGetFieldValues(handle, [POWER_INSTANT, TOTAL_ENERGY])
        ours = nvml.field_call([(POWER_INSTANT, 0), (TOTAL_ENERGY, 0)])(handle)
        assert [one.value for one in ours] == [theirs[0].value.uiVal, theirs[1].value.ullVal]
        assert [one.timestamp_us for one in ours] == [one.timestamp for one in theirs]
        kind, samples = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
        assert kind == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
        found = nvml.samples_call()(handle, 0)
        assert [tuple(one) for one in found] == [(one.timeStamp, one.sampleValue.uiVal) for one in samples]
        assert nvml.samples_call()(handle, found[-2].timestamp_us) == found[-1:]
        assert nvml.samples_call()(handle, found[-1].timestamp_us) == []


@given(st.integers(0, 2**64 - 1))
def test_every_number_but_nvmls_mark_is_a_reading(raw: int) -> None:
    low = raw & 0xFFFFFFFF
    assert number(1, raw) == (None if low == 0xFFFFFFFF else low)
    assert number(3, raw) == number(2, raw) == (raw if raw < 2**63 else None)
    assert number(0, raw) is None  # a double could be NaN: missing, for what it reads
    assert number(99, raw) is None


def test_the_layout_of_nvmls_structures() -> None:
    assert ctypes.sizeof(pynvml.c_nvmlFieldValue_t) == struct.calcsize("=IIqqIIQ")
    assert ctypes.sizeof(pynvml.c_nvmlSample_t) == struct.calcsize("=QQ")
    value = pynvml.c_nvmlFieldValue_t(fieldId=1, scopeId=2, timestamp=-3, latencyUsec=4, valueType=5, nvmlReturn=6)
    value.value.ullVal = 7
    assert struct.unpack("=IIqqIIQ", bytes(value)) == (1, 2, -3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("state", "mode", "tools"),
    [((2, 0, 0), "off", False), ((2, 1, 0), "on", False), ((2, 1, 1), "devtools", True), ((1, 0, 1), "off", True)],
)
@pytest.mark.parametrize("ready", [0, 1])
def test_confidential_computing(state: tuple[int, int, int], mode: str, tools: bool, ready: int) -> None:
    fake = FakeNvml([FakeGpu()])
    fake.cc, fake.cc_status, fake.ready, fake.ready_status = state, 0, ready, 0
    with fake.installed(), Nvml() as nvml:
        found = nvml.confidential_compute()
    assert (found.gpu_cc_mode, found.gpu_dev_tools, found.gpu_ready) == (mode, tools, bool(ready))
    assert found.gpu_cc_mode_absent_reason is found.gpu_dev_tools_absent_reason is found.gpu_ready_absent_reason is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (NOT_SUPPORTED, "not_supported"),
        (NO_PERMISSION, "no_permission"),
        (UNKNOWN, "query_failed"),
        (UNINITIALIZED, "nvml_unavailable"),
    ],
)
def test_a_state_that_is_not_stated_is_null_with_a_reason(status: int, reason: str) -> None:
    fake = FakeNvml([FakeGpu()])
    fake.cc_status = fake.ready_status = status
    with fake.installed(), Nvml() as nvml:
        found = nvml.confidential_compute()
    assert (found.gpu_cc_mode, found.gpu_dev_tools, found.gpu_ready) == (None, None, None)
    assert (found.gpu_cc_mode_absent_reason, found.gpu_ready_absent_reason) == (reason, reason)
    assert found.gpu_dev_tools_absent_reason == reason


def test_evidence_is_asked_with_the_nonce_and_cut_to_its_size() -> None:
    gpus = gpus_of(2)
    gpus[1].report, gpus[1].chain = b"\x01" * 4000 + b"\0\0", b"-----BEGIN" + b"x" * 5000
    with FakeNvml(gpus).installed(), Nvml() as nvml:
        assert nvml.gpu_evidence(gpus[1].uuid, NONCE) == (gpus[1].report, gpus[1].chain)
    assert (gpus[0].nonces, gpus[1].nonces) == ([], [NONCE])


@pytest.mark.parametrize("size", [0, 8193, 2**32 - 1])
def test_sizes_beyond_the_drivers_own_buffer_are_refused(size: int) -> None:
    gpu = FakeGpu(report_size=size)
    with FakeNvml([gpu]).installed(), Nvml() as nvml:
        with pytest.raises(NvmlFault) as failed:
            nvml.gpu_evidence(gpu.uuid, NONCE)
        assert failed.value.code == "NVML_FAULT"
        with pytest.raises(ValueError, match="32"):
            nvml.gpu_evidence(gpu.uuid, NONCE[:31])


def test_evidence_of_a_gpu_that_cannot_give_it() -> None:
    gpu = FakeGpu()
    fake = FakeNvml([gpu])
    fake.hidden = {"nvmlDeviceGetConfComputeGpuAttestationReport"}
    with fake.installed(), Nvml() as nvml:
        with pytest.raises(NvmlFault) as failed:
            nvml.gpu_evidence(gpu.uuid, NONCE)
        assert failed.value.code == "NVML_UNSUPPORTED"
        with pytest.raises(NvmlFault) as failed:
            nvml.gpu_evidence("GPU-of-another-host", NONCE)
        assert failed.value.code == "GPU_LOST"


def test_an_error_is_told_of_the_gpu_that_had_it() -> None:
    gpus = gpus_of(3)
    gpus[2].event_status = NOT_SUPPORTED
    with FakeNvml(gpus).installed(), Nvml() as nvml:
        handles = [nvml.handle(gpu.uuid) for gpu in gpus]
        events = nvml.xid_events(handles)
        assert events.watched == 2
        assert events.poll() is None
        gpus[1].xids += [79, 48]
        assert [handle_key(events.poll()), handle_key(events.poll())] == [handle_key(handles[1])] * 2
        assert events.poll() is None
        events.close()


def test_after_a_reload_everything_works_again_once_nvml_is_reopened() -> None:
    fake = FakeNvml([FakeGpu()])
    with fake.installed(), Nvml() as nvml:
        old = nvml.handle(fake.gpus[0].uuid)
        fake.reload()
        with pytest.raises(NvmlFault) as failed:
            nvml.energy_mj(old)
        assert (failed.value.kind, failed.value.code) == ("driver", "NVML_DRIVER_RELOADED")
        nvml.reopen()
        with pytest.raises(NvmlFault) as failed:
            nvml.energy_mj(old)
        assert failed.value.kind == "lost"
        new = nvml.handle(fake.gpus[0].uuid)
        assert handle_key(new) != handle_key(old)
        assert nvml.enforced_limit_mw(new) == 700_000
        assert not nvml.mig_enabled(new)
        fake.gpus[0].mig_status = NOT_SUPPORTED
        assert not nvml.mig_enabled(new)
        fake.gpus[0].mig, fake.gpus[0].mig_status = True, 0
        assert nvml.mig_enabled(new)
