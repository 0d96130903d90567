"""NVML through pynvml: the GPUs of this host, their sensors, limits, events, confidential-compute state and evidence.

The driver library is loaded when an `Nvml` is opened, not when this module is imported: a host without a GPU imports
everything. Every failure is an `NvmlFault`, whose message names the call and never a value.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from producers.sample.nvml_calls import MAX_INT64, FieldCall, SamplesCall
from producers.sample.nvml_faults import CODES, FaultKind, NvmlFault, fault_of
from schemas.records import ConfidentialCompute

__all__ = ["CODES", "FaultKind", "GpuInfo", "Handle", "Nvml", "NvmlFault", "XidEvents", "handle_key"]

Handle = Any
"""pynvml's handle of a GPU: opaque, valid until NVML is initialised again."""

NONCE_BYTES = 32
_TIMEOUT = 10  # NVML_ERROR_TIMEOUT
_ABSENT = {
    "driver": "nvml_unavailable",
    "lost": "gpu_lost",
    "permission": "no_permission",
    "unsupported": "not_supported",
    "transient": "query_failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInfo:
    """A GPU as NVML names it; `serial` is None on boards without one. The index may change with every boot."""

    index: int
    uuid: str
    name: str
    pci_bus_id: str
    serial: str | None


class Nvml:
    """An initialised NVML; use as a context manager, or `open` and `close`. One per process where one samples:
    pynvml counts openings, and only the last one closed makes NVML begin anew.

    Reading calls may run in several threads. `reopen` and `gpu_evidence` exclude each other: a report that is being
    signed does not lose the library.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lib: Any = None

    # -- life --------------------------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Load the library and initialise it. Raises `NvmlFault` (NVML_UNAVAILABLE, NVML_PERMISSION)."""
        if self._lib is None:
            try:
                import pynvml  # noqa: PLC0415 -- the only module of the project that needs it, and only on GPU hosts
            except ImportError as error:
                raise NvmlFault("driver", "NVML_UNAVAILABLE", "nvidia-ml-py is not installed") from error
            self._lib = pynvml
            try:
                self._call("nvmlInit")
            except NvmlFault:
                self._lib = None
                raise
        return self

    def close(self) -> None:
        """Shut NVML down; whatever it says to that."""
        if self._lib is not None:
            try:
                self._call("nvmlShutdown")
            except NvmlFault:
                pass  # the driver is gone already
            finally:
                self._lib = None

    def reopen(self) -> None:
        """Initialise again, after the driver was reloaded: every handle becomes invalid. Raises `NvmlFault`."""
        with self._lock:
            self.close()
            self.open()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, name: str, *arguments: Any) -> Any:
        lib = self._lib
        if lib is None:
            raise NvmlFault("driver", "NVML_UNAVAILABLE", f"{name}: NVML is not open")
        try:
            return getattr(lib, name)(*arguments)
        except lib.NVMLError as error:
            raise fault_of(error.value, name) from None
        except UnicodeDecodeError:
            raise NvmlFault("transient", "NVML_FAULT", f"{name}: not a text") from None

    # -- GPUs --------------------------------------------------------------------------------------------------------

    def driver_version(self) -> str:
        """Return the driver's version, like "570.86.15". Raises `NvmlFault`."""
        return str(self._call("nvmlSystemGetDriverVersion"))

    def count(self) -> int:
        """Return how many GPUs the driver knows, those that have fallen off the bus included. Raises `NvmlFault`."""
        return int(self._call("nvmlDeviceGetCount"))

    def gpus(self) -> tuple[GpuInfo, ...]:
        """Return the GPUs that answer, by index; `count` may be larger.

        Raises `NvmlFault` if the driver is gone or none of several answers.
        """
        found = []
        failed: NvmlFault | None = None
        for index in range(self.count()):
            try:
                found.append(self._info(index))
            except NvmlFault as fault:
                if fault.kind == "driver":
                    raise
                failed = fault
        if failed is not None and not found:
            raise failed
        return tuple(found)

    def _info(self, index: int) -> GpuInfo:
        handle = self._call("nvmlDeviceGetHandleByIndex", index)
        try:
            serial = str(self._call("nvmlDeviceGetSerial", handle))
        except NvmlFault as fault:
            if fault.kind in ("driver", "lost"):
                raise
            serial = None  # a board without one, or a container that may not read it
        return GpuInfo(
            index=index,
            uuid=str(self._call("nvmlDeviceGetUUID", handle)),
            name=str(self._call("nvmlDeviceGetName", handle)),
            pci_bus_id=str(self._call("nvmlDeviceGetPciInfo", handle).busId),
            serial=serial,
        )

    def handle(self, uuid: str) -> Handle:
        """Return the handle of a GPU. Raises `NvmlFault`."""
        return self._call("nvmlDeviceGetHandleByUUID", uuid)

    # -- sensors -----------------------------------------------------------------------------------------------------

    def field_call(self, fields: Sequence[tuple[int, int]]) -> FieldCall:
        """Return a call that reads these (field, scope) pairs of a GPU at once."""
        return FieldCall(self._library(), fields)

    def samples_call(self) -> SamplesCall:
        """Return a call that reads the driver's ring buffer of power samples."""
        return SamplesCall(self._library())

    def _library(self) -> Any:
        if self._lib is None:
            raise NvmlFault("driver", "NVML_UNAVAILABLE", "NVML is not open")
        return self._lib

    def legacy_power_mw(self, handle: Handle) -> int:
        """Return nvmlDeviceGetPowerUsage: an average or not, depending on GPU and driver. Raises `NvmlFault`."""
        return int(self._call("nvmlDeviceGetPowerUsage", handle))

    def energy_mj(self, handle: Handle) -> int:
        """Return the energy counter since the driver was loaded. Raises `NvmlFault`."""
        millijoules = int(self._call("nvmlDeviceGetTotalEnergyConsumption", handle))
        if millijoules > MAX_INT64:
            raise NvmlFault("unsupported", "NVML_UNSUPPORTED", "energy counter: not available")
        return millijoules

    def enforced_limit_mw(self, handle: Handle) -> int:
        """Return the power limit that holds, the lowest of all that are set. Raises `NvmlFault`."""
        return int(self._call("nvmlDeviceGetEnforcedPowerLimit", handle))

    def mig_enabled(self, handle: Handle) -> bool:
        """Say whether the GPU is split into instances; a GPU without MIG is not. Raises `NvmlFault`."""
        try:
            return bool(self._call("nvmlDeviceGetMigMode", handle)[0])
        except NvmlFault as fault:
            if fault.kind == "unsupported":
                return False
            raise

    # -- events ------------------------------------------------------------------------------------------------------

    def xid_events(self, handles: Sequence[Handle]) -> XidEvents:
        """Watch GPUs for critical errors; those that do not support events are left out. Raises `NvmlFault`."""
        return XidEvents(self, handles)

    # -- confidential computing --------------------------------------------------------------------------------------

    def confidential_compute(self) -> ConfidentialCompute:
        """Return mode, developer tools and readiness as the driver states them; null with a reason where it does not.

        Mode: "on", "devtools" (on, but debuggable) or "off", also where only the PCIe links are protected.
        """
        mode: str | None = None
        tools: bool | None = None
        no_state = no_ready = None
        ready: bool | None = None
        try:
            state = self._call("nvmlSystemGetConfComputeState")
            tools = bool(state.devToolsMode)
            mode = ("devtools" if tools else "on") if state.ccFeature else "off"
        except NvmlFault as fault:
            no_state = _ABSENT[fault.kind]
        try:
            ready = bool(self._call("nvmlSystemGetConfComputeGpusReadyState"))
        except NvmlFault as fault:
            no_ready = _ABSENT[fault.kind]
        return ConfidentialCompute(
            gpu_cc_mode=mode,
            gpu_cc_mode_absent_reason=no_state,
            gpu_dev_tools=tools,
            gpu_dev_tools_absent_reason=no_state,
            gpu_ready=ready,
            gpu_ready_absent_reason=no_ready,
        )

    def devices(self) -> tuple[str, ...]:
        """Return the UUIDs of the GPUs that answer. Raises `NvmlFault`."""
        return tuple(gpu.uuid for gpu in self.gpus())

    def gpu_evidence(self, uuid: str, nonce: bytes) -> tuple[bytes, bytes]:
        """Return a GPU's attestation report over `nonce` (32 bytes) and the certificate chain of its key, as the
        driver gives them. Raises `NvmlFault`, also for sizes the driver states beyond its own buffers."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce has 32 bytes")
        with self._lock:
            handle = self.handle(uuid)
            report = self._call("nvmlDeviceGetConfComputeGpuAttestationReport", handle, nonce)
            chain = self._call("nvmlDeviceGetConfComputeGpuCertificate", handle)
        return (
            _sized(report.attestationReport, report.attestationReportSize, "attestation report"),
            _sized(chain.attestationCertChain, chain.attestationCertChainSize, "certificate chain"),
        )


def handle_key(handle: Handle) -> int:
    """Return a number that is the same for two handles of one GPU."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _sized(buffer: Any, size: int, what: str) -> bytes:
    if not 0 < size <= len(buffer):
        raise NvmlFault("transient", "NVML_FAULT", f"{what}: the driver states a size of {size} bytes")
    return bytes(buffer[:size])


class XidEvents:
    """Critical errors (XID) of some GPUs as they happen."""

    def __init__(self, nvml: Nvml, handles: Sequence[Handle]) -> None:
        self._nvml = nvml
        lib = nvml._library()
        self._set = nvml._call("nvmlEventSetCreate")
        self._xid = lib.nvmlEventTypeXidCriticalError
        self.watched = sum(self._register(handle) for handle in handles)

    def _register(self, handle: Handle) -> bool:
        try:
            self._nvml._call("nvmlDeviceRegisterEvents", handle, self._xid, self._set)
        except NvmlFault as fault:
            if fault.kind == "driver":
                raise
            return False
        return True

    def poll(self) -> Handle | None:
        """Return the handle of a GPU that had an error since the last call, None if there was none; does not wait."""
        try:
            return self._nvml._call("nvmlEventSetWait", self._set, 0).device
        except NvmlFault as fault:
            if fault.status == _TIMEOUT:
                return None
            raise

    def close(self) -> None:
        """Free the set; whatever NVML says to that."""
        with contextlib.suppress(NvmlFault):
            self._nvml._call("nvmlEventSetFree", self._set)
