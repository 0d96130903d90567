"""Opens NVML, probes the host's GPUs, matches them to the enrolled ones, and returns a sampler that reads them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from producers.config import Schedule
from producers.sample.clock import Clock, SystemClock
from producers.sample.nvml import GpuInfo, Nvml, NvmlFault
from producers.sample.nvml_reader import NvmlReader
from producers.sample.plan import MODES, SamplerMode
from producers.sample.probe import Plans, probe
from producers.sample.sampler import Sampler
from schemas.errors import ConfigError

log = logging.getLogger(__name__)


class NvmlSampler(Sampler):
    """A sampler over NVML. `nvml` also answers for confidential computing and evidence; `plans` by UUID."""

    def __init__(self, nvml: Nvml, plans: Plans, reader: NvmlReader, schedule: Schedule, clock: Clock | None) -> None:
        super().__init__(reader, schedule, clock)
        self.nvml = nvml
        self.plans = dict(plans.by_uuid)

    def _let_go(self) -> None:
        super()._let_go()
        self.nvml.close()


def open_sampler(
    models: Mapping[str, int],
    schedule: Schedule,
    *,
    modes: Sequence[SamplerMode] = ("instant",),
    nvml: Nvml | None = None,
    clock: Clock | None = None,
) -> NvmlSampler:
    """Return a sampler, not yet started, of the GPUs enrolled: `models` = number of GPUs by NVML's product name.

    Probes the GPUs' sensors, which takes a few seconds. `modes`: sampler modes that may be used, best first. A GPU that
    is enrolled and missing stays in the reports as lost; its place is taken when it appears. Raises `NvmlFault` if NVML
    cannot be used or no mode fits, `ConfigError` for a GPU that is not enrolled or if not one enrolled GPU is there.
    """
    if not models or any(count < 1 for count in models.values()):
        raise ConfigError("enrolment names no GPU", field="models")
    if not modes or not set(modes) <= set(MODES):
        raise ConfigError(f"sampler modes are {', '.join(MODES)}", field="modes")
    own = nvml or Nvml()
    own.open()
    try:
        gpus = own.gpus()
        slots = _places(models, gpus)
        plans = probe(own, gpus, clock or SystemClock(), modes)
    except (NvmlFault, ConfigError):
        own.close()
        raise
    reader = NvmlReader(own, slots, plans, clock or SystemClock())
    for gpu in gpus:
        plan = plans.of(gpu.name, gpu.uuid)
        log.info("GPU %d (%s): %s power, energy counter: %s", gpu.index, gpu.name, plan.mode, plan.energy)
    return NvmlSampler(own, plans, reader, schedule, clock)


def _places(models: Mapping[str, int], gpus: Sequence[GpuInfo]) -> list[tuple[str, str | None]]:
    """One place per enrolled GPU, by model and then by PCI address, vacant ones last."""
    found = Counter(gpu.name for gpu in gpus)
    for name, count in found.items():
        if count > models.get(name, 0):
            text = f"{count} GPUs of model {name!r} are here, {models.get(name, 0)} are enrolled"
            raise ConfigError(
                text,
                code="GPU_NOT_ENROLLED",
                field="models",
                remedy="Enrol the host with all of its GPUs, under NVML's names, or hide the others from the agent.",
            )
    if not found:
        raise ConfigError(
            "no enrolled GPU is here",
            code="NO_GPU_FOUND",
            field="models",
            remedy="Check nvidia-smi, and that the container is given the GPUs (NVIDIA_VISIBLE_DEVICES=all).",
        )
    places: list[tuple[str, str | None]] = []
    for name in sorted(models):
        here: list[str | None] = [one.uuid for one in sorted(gpus, key=lambda one: one.pci_bus_id) if one.name == name]
        places += [(name, uuid) for uuid in here + [None] * (models[name] - len(here))]
    return places
