"""Where readings come from beside NVML (traces, a DCGM exporter), and the SPDM devices that are asked for evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from enclavescale.agent.file import DcgmSpec, HostSpec, SpdmSpec
from enclavescale.agent.sessions import spdm_device
from enclavescale.agent.sources import dcgm_config, trace_source
from enclavescale.checkup.finding import Finding, fail, failed, ok, skip, some, warn
from enclavescale.checkup.gpus import known_key
from producers.config import Schedule
from producers.sample.dcgm import DcgmScraper
from schemas.errors import EnclaveScaleError
from schemas.records import HostEnrolment


def check_traces(host: HostSpec) -> Iterator[Finding]:
    """Every trace of a host is there and can be read."""
    for spec in host.traces:
        try:
            found = trace_source(spec, 1).trace
        except EnclaveScaleError as error:
            yield failed("source.trace", error, host.host_id)
            continue
        gpus, ticks = found.power_w.shape
        seconds = f"{ticks / found.sample_hz:,.0f} s of {some(gpus, 'GPU')}"
        yield ok("source.trace", f"{spec.trace}: {seconds}", host.host_id)


def check_dcgm(spec: DcgmSpec, enrolment: HostEnrolment | None, timeout_s: float) -> Iterator[Finding]:
    """Scrape the exporter once."""
    enrolled = {one.model: one.gpus for one in enrolment.classes} if enrolment else {}
    try:
        config = dcgm_config(spec, min(timeout_s, 60.0))
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
        key = spdm_device(spec).identity().hex()
    except EnclaveScaleError as error:
        yield failed(check, error, spec.subject)
        return
    yield known_key(check, key, enrolment, spec.subject)
