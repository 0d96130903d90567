"""Where readings come from beside NVML (traces, a DCGM exporter), and the SPDM devices that are asked for evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attester.devices import SpdmDevice, SpdmEndpoint
from enclavescale.agent_file import BUNDLED, DcgmSpec, HostSpec, SpdmSpec
from enclavescale.checkup.finding import Finding, fail, failed, ok, skip, some, warn
from enclavescale.checkup.gpus import known_key
from producers.config import Schedule
from producers.sample.dcgm import DcgmConfig, DcgmScraper
from producers.sample.trace import load_bundled, read_nvidia_smi
from schemas.errors import EnclaveScaleError
from schemas.records import HostEnrolment


def check_traces(host: HostSpec) -> Iterator[Finding]:
    """Every trace of a host is there and can be read."""
    for spec in host.traces:
        check, path = "source.trace", Path(spec.trace)
        try:
            if spec.trace.startswith(BUNDLED):
                gpus = len(load_bundled(spec.trace.removeprefix(BUNDLED)).power_w)
                yield ok(check, f"{spec.trace}, {some(gpus, 'GPU')}", host.host_id)
            elif path.is_dir():
                logs = sum(1 for one in path.iterdir() if one.is_file())
                if logs:
                    yield ok(check, f"{path}, a directory of {some(logs, 'file')}", host.host_id)
                else:
                    yield fail(check, f"{path} is empty", "Put nvidia-smi's CSV logs there.", host.host_id)
            else:
                gpus = len(read_nvidia_smi(path)[0].power_w)
                yield ok(check, f"{path}, {some(gpus, 'GPU')}", host.host_id)
        except EnclaveScaleError as error:
            yield failed(check, error, host.host_id)


def check_dcgm(spec: DcgmSpec, enrolment: HostEnrolment | None, timeout_s: float) -> Iterator[Finding]:
    """Scrape the exporter once."""
    enrolled = {one.model: one.gpus for one in enrolment.classes} if enrolment else {}
    try:
        config = DcgmConfig(
            url=spec.url,
            collect_interval_ms=spec.collect_interval_ms,
            timeout_s=min(timeout_s, 60.0),
            sampler_mode=spec.sampler_mode,
        )
        gpus = DcgmScraper(config, enrolled or {"any": 1}, Schedule()).probe()
    except EnclaveScaleError as error:
        yield failed("dcgm.reach", error)
        return
    here = Counter(gpu.model for gpu in gpus)
    text = ", ".join(f"{number} × {model}" for model, number in sorted(here.items())) or "no GPU"
    yield ok("dcgm.reach", f"the exporter answers: {text}")
    missing = Counter(enrolled) - here
    if missing:
        found = ", ".join(f"{number} × {model}" for model, number in sorted(missing.items()))
        remedy = "Enrol the models under the exporter's modelName, and see to GPUs that it does not list."
        yield fail("dcgm.gpus", f"enrolled and not listed: {found}", remedy, code="GPU_LOST")
    else:
        yield ok("dcgm.gpus", "all enrolled GPUs are listed")
    silent = sum(gpu.power_w is None for gpu in gpus)
    if silent:
        remedy = "See to the host engine (`dcgmi health -c`): ticks of these GPUs will be missing."
        yield warn("dcgm.power", f"{silent} of {len(gpus)} GPUs without a value", remedy)
    spacing_s = config.spacing_ms / 1000
    note = "enough for power, not for swings" if spacing_s > 1 else "as configured"
    yield ok("dcgm.rate", f"one reading every {spacing_s:.1f} s: {note}")


def check_spdm(spec: SpdmSpec, enrolment: HostEnrolment | None, *, trial: bool) -> Iterator[Finding]:
    """Ask an SPDM device who it is, which takes a signed exchange."""
    check = "spdm.device"
    if not trial:
        yield skip(check, "was not asked", spec.subject)
        return
    try:
        endpoint = SpdmEndpoint.at(spec.subject, spec.address, framing=spec.framing, slot=spec.slot)
        key = SpdmDevice(endpoint).identity().hex()
    except EnclaveScaleError as error:
        yield failed(check, error, spec.subject)
        return
    yield known_key(check, key, enrolment, spec.subject)
