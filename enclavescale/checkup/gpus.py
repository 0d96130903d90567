"""NVML: does the driver answer, are the enrolled GPUs here, can they be read as the policy wants, can they attest?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from attester.gpu import NvidiaGpu
from enclavescale.agent.file import NVML, HostSpec
from enclavescale.checkup.finding import Finding, fail, failed, ok, warn
from producers.sample.nvml import GpuInfo, Nvml, NvmlFault
from producers.sample.nvml_calls import SCOPE_MODULE
from producers.sample.plan import SamplerMode, accepted_modes
from producers.sample.probe import Support, choose_mode, supports
from schemas.errors import EnclaveScaleError
from schemas.records import HostEnrolment

_XID = "See `nvidia-smi` and `journalctl -k --grep Xid`; a GPU that is lost comes back with a reset or a reboot."


def check_gpus(
    host: HostSpec, enrolment: HostEnrolment | None, accepted: Sequence[str], nvml: Nvml, *, trial: bool
) -> Iterator[Finding]:
    """`accepted`: sampler modes of the policy. `trial`: GPUs that are to attest are asked for a report each."""
    try:
        nvml.open()
    except NvmlFault as fault:
        yield failed("nvml.driver", fault)
        return
    try:
        yield from _look(host, enrolment, accepted, nvml, trial)
    except NvmlFault as fault:
        yield failed("nvml.driver", fault)
    finally:
        nvml.close()


def _look(
    host: HostSpec, enrolment: HostEnrolment | None, accepted: Sequence[str], nvml: Nvml, trial: bool
) -> Iterator[Finding]:
    yield ok("nvml.driver", f"driver {nvml.driver_version()}")
    count = nvml.count()
    try:
        gpus = nvml.gpus()
    except NvmlFault as fault:
        if fault.kind == "driver":
            raise
        yield fail("nvml.gpus", f"none of {count} answers: {fault}", _XID, code=fault.code)
        return
    lost = count - len(gpus)
    if lost:
        found = f"{lost} of {count} do not answer: their readings are missing, and flagged"
        yield warn("nvml.gpus", found, _XID, code="GPU_LOST")
    yield from _enrolled(gpus, lost, enrolment)
    if host.source == NVML:
        yield from _sensors(nvml, gpus, accepted_modes(accepted) or ("instant",))
        yield from _limits(nvml, gpus, enrolment)
        yield from _instances(nvml, gpus)
    yield from _confidential(nvml, host)
    if host.gpu_evidence and trial:
        for gpu in gpus:
            yield _evidence(nvml, gpu, enrolment)


def _enrolled(gpus: Sequence[GpuInfo], lost: int, enrolment: HostEnrolment | None) -> Iterator[Finding]:
    here = Counter(gpu.name for gpu in gpus)
    text = ", ".join(f"{number} × {name}" for name, number in sorted(here.items())) or "none"
    if enrolment is None:
        yield ok("nvml.gpus", f"{text}; without an enrolment there is nothing to compare with")
        return
    wanted = Counter({one.model: one.gpus for one in enrolment.classes})
    if here == wanted:
        yield ok("nvml.gpus", f"{text}, as enrolled")
        return
    for name, number in sorted((here - wanted).items()):
        remedy = "Enrol the host with all of its GPUs, under NVML's names, or hide the others from the agent."
        found = f"{number} × {name} more than enrolled: the agent does not start"
        yield fail("nvml.gpus", found, remedy, code="GPU_NOT_ENROLLED")
    missing = wanted - here
    if missing.total() <= lost:  # those are said to be lost already, and have no names
        return
    for name, number in sorted(missing.items()):
        found = f"{number} × {name} enrolled and not here"
        if any(here[one] for one in wanted):
            yield warn("nvml.gpus", f"{found}: reported as lost", _XID, code="GPU_LOST")
        else:
            remedy = "In a container: give it the GPUs (NVIDIA_VISIBLE_DEVICES=all). Else see `nvidia-smi -L`."
            yield fail("nvml.gpus", found, remedy, code="NO_GPU_FOUND")


def _sensors(nvml: Nvml, gpus: Sequence[GpuInfo], modes: Sequence[SamplerMode]) -> Iterator[Finding]:
    found: dict[str, Support] = {}
    for gpu, answer in supports(nvml, gpus):
        if isinstance(answer, NvmlFault):
            yield failed("nvml.power", answer, f"GPU {gpu.index}")
        else:
            found[gpu.uuid] = answer
    if not found:
        return
    try:
        mode = choose_mode(found, modes)
    except NvmlFault as fault:
        yield failed("nvml.power", fault)
        return
    of_module = sum(support.scopes.get(mode) == SCOPE_MODULE for support in found.values())
    module = f"; of {of_module} only the module's power, which includes more than the GPU" if of_module else ""
    yield ok("nvml.power", f"{mode} power on {_all(len(found), len(gpus))}{module}")
    without = sum(support.energy == "none" for support in found.values())
    if without:
        remedy = "Nothing to do on boards that have none: their windows are not checked against energy."
        yield warn("nvml.energy", f"no energy counter on {_all(without, len(gpus))}", remedy)
    else:
        yield ok("nvml.energy", f"energy counter on {_all(len(found), len(gpus))}")


def _limits(nvml: Nvml, gpus: Sequence[GpuInfo], enrolment: HostEnrolment | None) -> Iterator[Finding]:
    enrolled = {one.model: one.capacity_w / one.gpus for one in enrolment.classes if one.gpus} if enrolment else {}
    limits: Counter[float] = Counter()
    lowered = 0
    for gpu in gpus:
        try:
            limit_w = nvml.enforced_limit_mw(nvml.handle(gpu.uuid)) / 1000
        except NvmlFault as fault:
            if fault.kind == "driver":
                raise
            continue
        limits[limit_w] += 1
        lowered += limit_w < enrolled.get(gpu.name, 0.0)
    if not limits:
        remedy = "The enrolled capacity counts; nothing to do."
        yield warn("nvml.limit", "no GPU states the limit that is enforced", remedy)
        return
    text = ", ".join(f"{limit:g} W on {_all(number, len(gpus))}" for limit, number in sorted(limits.items()))
    note = f"; below the enrolled capacity on {lowered}: the limit counts" if lowered else ""
    yield ok("nvml.limit", f"{text}{note}")


def _instances(nvml: Nvml, gpus: Sequence[GpuInfo]) -> Iterator[Finding]:
    split = 0
    for gpu in gpus:
        try:
            split += nvml.mig_enabled(nvml.handle(gpu.uuid))
        except NvmlFault as fault:
            if fault.kind == "driver":
                raise
    if split:
        remedy = "Reports are flagged `mig`: the power is the whole board's. Nothing to do if that is meant."
        yield warn("nvml.mig", f"MIG is enabled on {_all(split, len(gpus))}", remedy)


def _confidential(nvml: Nvml, host: HostSpec) -> Iterator[Finding]:
    state = nvml.confidential_compute()
    mode, check = state.gpu_cc_mode, "nvml.confidential"
    if not host.gpu_evidence:
        yield ok(check, f"mode {mode}" if mode else f"not stated ({state.gpu_cc_mode_absent_reason}), and not needed")
    elif mode is None or mode == "off":
        found = "off" if mode else f"not stated by the driver ({state.gpu_cc_mode_absent_reason})"
        remedy = "gpu_evidence needs it: switch it on in the GPUs' firmware, or unset gpu_evidence."
        yield fail(check, f"confidential computing is {found}", remedy)
    elif mode == "devtools":
        remedy = "Switch developer tools off (a GPU reset): verifiers refuse such GPUs."
        yield fail(check, "confidential computing with developer tools", remedy, code="DEVICE_DEBUG")
    elif state.gpu_ready is False:
        remedy = "`nvidia-smi conf-compute -srs 1`, after the GPUs have been verified."
        yield warn(check, "on, and not set ready: no workload can use the GPUs", remedy)
    else:
        yield ok(check, "on" if state.gpu_ready else "on; readiness not stated")


def _evidence(nvml: Nvml, gpu: GpuInfo, enrolment: HostEnrolment | None) -> Finding:
    check, about = "nvml.evidence", f"GPU {gpu.index}"
    try:
        key = NvidiaGpu(nvml, gpu.uuid).identity().hex()
    except EnclaveScaleError as error:
        return failed(check, error, about)
    return known_key(check, key, enrolment, about)


def known_key(check: str, key: str, enrolment: HostEnrolment | None, about: str) -> Finding:
    """Whether a device's leaf key (hexadecimal digest) is among those enrolled for the host."""
    if enrolment is not None and key not in {one.lower() for one in enrolment.gpu_key_digests}:
        remedy = f"Have it added to the host's gpu_key_digests, if it is the device you know: {key}"
        return fail(check, "it attests with a key that is not enrolled", remedy, about, code="PLATFORM_NOT_ENROLLED")
    return ok(check, f"attests with the key {key[:16]}…", about)


def _all(number: int, of: int) -> str:
    return f"all {of}" if number == of else f"{number} of {of}"
