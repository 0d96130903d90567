"""NVML's error numbers as errors of this program: what happened, to whom, and what an operator can do."""

from __future__ import annotations

from typing import Literal

from schemas.errors import EnclaveScaleError

FaultKind = Literal["driver", "lost", "permission", "unsupported", "transient"]
"""What the sampler does about a fault: `driver` = initialise NVML again; `lost` = look the GPU up again; `permission`,
`unsupported` and `transient` = go on and try again later."""

CODES = {
    "NVML_UNAVAILABLE": "Install the NVIDIA driver, and give the container libnvidia-ml.so.1 and /dev/nvidia* "
    "(NVIDIA_DRIVER_CAPABILITIES=utility).",
    "NVML_DRIVER_RELOADED": "Nothing if the driver was reloaded on purpose: the sampler initialises NVML again.",
    "NVML_PERMISSION": "Let the agent's user read /dev/nvidiactl and /dev/nvidia*; in a container pass the devices.",
    "NVML_UNSUPPORTED": "Use a driver and a GPU that support this query (instant power: driver 530 or newer); "
    "`enclavescale doctor` lists what each GPU supports.",
    "SENSOR_MODE_UNSUPPORTED": "Update the driver, or allow another sampler mode in the policy "
    "(accepted_sampler_modes) and in the agent's configuration; average and legacy cost more privacy.",
    "NVML_FAULT": "See the kernel's log for NVRM messages; a GPU that fails for long needs a reset.",
    "GPU_LOST": "See the kernel's log for the XID; reset the GPU or restart the host.",
    "GPU_RESET_REQUIRED": "Drain the GPU and reset it (nvidia-smi --gpu-reset).",
}
"""Stable codes of `NvmlFault` and what to do."""

_KNOWN: dict[int, tuple[FaultKind, str, str]] = {
    1: ("driver", "NVML_DRIVER_RELOADED", "NVML is not initialised"),
    # The arguments of this program do not change: what became invalid is the handle, after a reload or a removal.
    2: ("lost", "GPU_LOST", "the GPU's handle is not valid any more"),
    3: ("unsupported", "NVML_UNSUPPORTED", "not supported"),
    4: ("permission", "NVML_PERMISSION", "no permission"),
    6: ("lost", "GPU_LOST", "GPU not found"),
    9: ("driver", "NVML_UNAVAILABLE", "the NVIDIA driver is not loaded"),
    10: ("transient", "NVML_FAULT", "timeout"),
    12: ("driver", "NVML_UNAVAILABLE", "NVML's library was not found"),
    13: ("unsupported", "NVML_UNSUPPORTED", "this driver does not have the function"),
    15: ("lost", "GPU_LOST", "GPU is lost"),
    16: ("lost", "GPU_RESET_REQUIRED", "GPU requires a reset"),
    17: ("permission", "NVML_PERMISSION", "the operating system has blocked the request"),
    18: ("driver", "NVML_UNAVAILABLE", "library and driver have different versions"),
    21: ("unsupported", "NVML_UNSUPPORTED", "no data"),
    25: ("unsupported", "NVML_UNSUPPORTED", "this driver has another version of the structure"),
    28: ("lost", "GPU_LOST", "GPU not found"),
}
"""By nvmlReturn_t of nvml.h; any other number is transient."""


class NvmlFault(EnclaveScaleError):
    """A call of NVML that failed: `kind` says what to do about it, `status` is NVML's number (0: it was not NVML)."""

    code = "NVML_FAULT"
    remedy = CODES["NVML_FAULT"]

    def __init__(self, kind: FaultKind, code: str, message: str, *, status: int = 0) -> None:
        super().__init__(message, code=code, remedy=CODES[code])
        self.kind = kind
        self.status = status


def fault_of(status: int, what: str) -> NvmlFault:
    """Return the fault for a number that is not NVML_SUCCESS; `what` names the call."""
    kind, code, text = _KNOWN.get(status, ("transient", "NVML_FAULT", f"error {status}"))
    return NvmlFault(kind, code, f"{what}: {text}", status=status)
