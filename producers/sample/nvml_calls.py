"""The two calls that run ten times a second, on arrays that are allocated once.

pynvml's wrappers build a ctypes array per call and its structures decode every attribute in Python: for 8 GPUs that is
most of a sampler's work. These use pynvml's library and structures, and unpack an answer in one go.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from producers.sample.nvml_faults import fault_of

POWER_AVERAGE = 185
POWER_INSTANT = 186
TOTAL_ENERGY = 83
"""Field numbers of nvml.h: NVML_FI_DEV_POWER_AVERAGE and _INSTANT (mW), NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION (mJ)."""
SCOPE_GPU = 0
SCOPE_MODULE = 1
"""NVML_POWER_SCOPE_GPU and NVML_POWER_SCOPE_MODULE: on a Grace Hopper module the latter includes the CPU."""

SAMPLES_HELD = 512
"""Entries of the ring buffer fetched at a time; drivers keep about 120."""
_TOTAL_POWER_SAMPLES = 0
_NOT_FOUND = 6
_FIELD = struct.Struct("=IIqqIIQ")  # c_nvmlFieldValue_t: field, scope, timestamp, latency, type, status, value
_SAMPLE = struct.Struct("=QQ")  # c_nvmlSample_t: timestamp, value
_UINT, _ULONG, _ULONGLONG = 1, 2, 3  # nvmlValueType_t
MAX_INT64 = 2**63 - 1
"""Above it: -1 again, in 64 bits."""
_NOT_AVAILABLE = 0xFFFFFFFF  # NVML_VALUE_NOT_AVAILABLE, -1


class FieldValue(NamedTuple):
    """One field of one GPU: `value` in the field's unit, None where `status` (nvmlReturn_t) is not 0 or the type is
    unknown; `timestamp_us` as the driver gave it."""

    value: int | None
    timestamp_us: int
    status: int


class PowerSample(NamedTuple):
    """One entry of the driver's ring buffer: µs, mW."""

    timestamp_us: int
    power_mw: int


def number(value_type: int, raw: int) -> int | None:
    """Return the number in nvmlValue_t, `raw` being its 8 bytes; None for a type no power or energy field has.

    None, too, for NVML's own mark of a value that is not available, -1: as a power it would be 4.3 MW and more, which
    no sensor reads. Every other number is a reading, whatever it is.
    """
    if value_type == _UINT:
        value = raw & 0xFFFFFFFF
        return None if value == _NOT_AVAILABLE else value
    return raw if value_type in (_ULONGLONG, _ULONG) and raw <= MAX_INT64 else None


def _function(pynvml: Any, name: str) -> Any:
    """Return a function of the library. Asked for each time: pynvml keeps it in a dictionary, and it changes when a
    library is loaded. Raises `NvmlFault` if the driver is too old to have it."""
    try:
        return pynvml._nvmlGetFunctionPointer(name)
    except pynvml.NVMLError as error:
        raise fault_of(error.value, name) from None


class FieldCall:
    """Reads several fields of one GPU in one nvmlDeviceGetFieldValues. Holds the array: one thread, one at a time."""

    def __init__(self, pynvml: Any, fields: Sequence[tuple[int, int]]) -> None:
        self._pynvml = pynvml
        self._values = (pynvml.c_nvmlFieldValue_t * len(fields))()
        for value, (field, scope) in zip(self._values, fields, strict=True):
            value.fieldId, value.scopeId = field, scope
        self._count = ctypes.c_int32(len(fields))

    def __call__(self, handle: Any) -> list[FieldValue]:
        """Return the fields' values in order. Raises `NvmlFault` if the call as a whole failed."""
        status = _function(self._pynvml, "nvmlDeviceGetFieldValues")(handle, self._count, ctypes.byref(self._values))
        if status:
            raise fault_of(status, "nvmlDeviceGetFieldValues")
        return [
            FieldValue(None if failed else number(kind, raw), timestamp, failed)
            for _, _, timestamp, _, kind, failed, raw in _FIELD.iter_unpack(self._values)
        ]


class SamplesCall:
    """Reads the driver's ring buffer of one GPU's power with nvmlDeviceGetSamples. One thread, one at a time."""

    def __init__(self, pynvml: Any) -> None:
        self._pynvml = pynvml
        self._buffer = (pynvml.c_nvmlSample_t * SAMPLES_HELD)()
        self._type = pynvml._nvmlValueType_t()
        self._count = ctypes.c_uint(0)

    def __call__(self, handle: Any, after_us: int) -> list[PowerSample]:
        """Return the entries newer than `after_us`, oldest first; none is not a fault. Raises `NvmlFault`."""
        self._count.value = SAMPLES_HELD
        status = _function(self._pynvml, "nvmlDeviceGetSamples")(
            handle,
            ctypes.c_uint(_TOTAL_POWER_SAMPLES),
            ctypes.c_ulonglong(after_us),
            ctypes.byref(self._type),
            ctypes.byref(self._count),
            self._buffer,
        )
        if status == _NOT_FOUND:  # nothing newer
            return []
        if status:
            raise fault_of(status, "nvmlDeviceGetSamples")
        data = ctypes.string_at(self._buffer, min(self._count.value, SAMPLES_HELD) * _SAMPLE.size)
        kind = self._type.value
        pairs = ((stamp, number(kind, raw)) for stamp, raw in _SAMPLE.iter_unpack(data))
        return sorted(PowerSample(stamp, value) for stamp, value in pairs if value is not None)
