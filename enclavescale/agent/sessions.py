"""How a host proves what it is: its sessions, from the TEE and the devices that its configuration names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attester.devices import SpdmDevice, SpdmEndpoint
from attester.gpu import nvidia_gpus
from attester.host_evidence import DeviceAttester, HostEvidence
from attester.quote import QuoteProvider
from attester.session import Session
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from attester.tsm import TsmQuotes
from attester.tsm_entries import REPORT_DIRECTORY, ConfigfsEntries
from enclavescale.agent.file import SIMULATED_TEE, HostSpec, ProduceSpec, SpdmSpec
from producers.config import SessionFacts, host_binding
from producers.sample.nvml import Nvml
from schemas.errors import ConfigError
from schemas.records import Beacon

MakeSession = Callable[[Beacon | None, int], Session]
"""A session that names a beacon (or none), created at a Unix time in ms."""


def cpu_quotes(spec: ProduceSpec, host_id: str) -> QuoteProvider:
    """The TEE that `spec` names; a simulated one has the platform id of `host_id`. Raises TsmUnavailable and others."""
    if spec.tee != SIMULATED_TEE:
        return TsmQuotes(ConfigfsEntries(Path(spec.tee_directory or REPORT_DIRECTORY)))
    try:
        return SimulatedTee.create(
            Path(spec.tee_directory),
            platform_id=simulated_platform_id(host_id),
            mrtd=simulated_measurement(spec.tee_image),
        )
    except OSError as error:
        raise ConfigError(f"{spec.tee_directory}: {error.strerror}", field="tee_directory") from error


def spdm_device(spec: SpdmSpec) -> SpdmDevice:
    """The device at an endpoint. Raises ConfigError for one that makes no sense."""
    return SpdmDevice(SpdmEndpoint.at(spec.subject, spec.address, framing=spec.framing, slot=spec.slot))


def host_devices(host: HostSpec, nvml: Nvml | None) -> Callable[[], Sequence[DeviceAttester]]:
    """Asks which devices of a host there are now: its GPUs, if they are to be attested, and its SPDM endpoints.

    Raises ConfigError for an endpoint that makes no sense.
    """
    endpoints = [spdm_device(one) for one in host.spdm]

    def devices() -> Sequence[DeviceAttester]:
        gpus = nvidia_gpus(nvml) if nvml is not None and host.gpu_evidence else ()
        return (*gpus, *endpoints)

    return devices


def session_maker(
    quotes: QuoteProvider, facts: SessionFacts, devices: Callable[[], Sequence[DeviceAttester]] = tuple
) -> MakeSession:
    """Makes sessions of a host that are bound to `facts`, with the evidence of its CPU and its devices."""
    evidence = HostEvidence(quotes, devices)

    def make(beacon: Beacon | None, created_at_ms: int) -> Session:
        return Session(
            evidence,
            lambda point: host_binding(
                facts,
                point,
                created_at_ms=created_at_ms,
                beacon=beacon,
                gpu_identities_digest=evidence.identities_digest(),
            ),
        )

    return make
