"""Doctor over a played NVML: each fault of driver and GPUs is named, and their keys are compared with the enrolment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from enclavescale.agent.file import HostSpec
from enclavescale.checkup.finding import Finding
from enclavescale.checkup.gpus import check_gpus
from producers.sample.nvml import Nvml
from schemas.records import HostEnrolment
from tests.attester.host import Gpus
from tests.cli.test_doctor_rooms import HOST, enrolment, text, wrong
from tests.forge.composite import world as composite
from tests.producers import fake_gpu
from tests.producers.fake_gpu import FakeGpu
from tests.producers.fake_nvml import FakeNvml, gpus_of

Play = Callable[[FakeNvml], object]


def ask(fake: FakeNvml, host: HostSpec = HOST, enrolled: HostEnrolment | None = None, **given: Any) -> list[Finding]:
    accepted = given.pop("accepted", ("instant",))
    with fake.installed():
        return list(check_gpus(host, enrolled or enrolment(), accepted, Nvml(), trial=given.pop("trial", True)))


def every(fake: FakeNvml, **changes: Any) -> None:
    for gpu in fake.gpus:
        for name, value in changes.items():
            setattr(gpu, name, value)


NVML: dict[str, tuple[Play, list[tuple[str, str, str | None]]]] = {
    "no driver": (lambda fake: setattr(fake, "loaded", False), [("nvml.driver", "fail", "NVML_UNAVAILABLE")]),
    "no permission": (
        lambda fake: setattr(fake, "init_status", fake_gpu.NO_PERMISSION),
        [("nvml.driver", "fail", "NVML_PERMISSION")],
    ),
    "one lost": (
        lambda fake: setattr(fake.gpus[1], "status", fake_gpu.GPU_IS_LOST),
        [("nvml.gpus", "warn", "GPU_LOST")],
    ),
    "all lost": (
        lambda fake: every(fake, status=fake_gpu.GPU_IS_LOST),
        [("nvml.gpus", "fail", "GPU_LOST")],
    ),
    "another model": (
        lambda fake: setattr(fake.gpus[1], "name", "Tesla V100"),
        [("nvml.gpus", "fail", "GPU_NOT_ENROLLED"), ("nvml.gpus", "warn", "GPU_LOST")],
    ),
    "one too many": (
        lambda fake: fake.gpus.append(FakeGpu(uuid="GPU-3", bus=0x40)),
        [("nvml.gpus", "fail", "GPU_NOT_ENROLLED")],
    ),
    "none": (lambda fake: fake.gpus.clear(), [("nvml.gpus", "fail", "NO_GPU_FOUND"), ("nvml.limit", "warn", None)]),
    "no instant power": (
        lambda fake: every(fake, field_status={fake_gpu.INSTANT: fake_gpu.NOT_SUPPORTED}),
        [("nvml.power", "fail", "SENSOR_MODE_UNSUPPORTED")],
    ),
    "no energy": (
        lambda fake: every(
            fake, field_status={fake_gpu.ENERGY: fake_gpu.NOT_SUPPORTED}, energy_call_status=fake_gpu.NOT_SUPPORTED
        ),
        [("nvml.energy", "warn", None)],
    ),
    "no limit": (lambda fake: every(fake, limit_status=fake_gpu.NOT_SUPPORTED), [("nvml.limit", "warn", None)]),
    "split": (lambda fake: every(fake, mig=True), [("nvml.mig", "warn", None)]),
}


@pytest.mark.parametrize("name", NVML)
def test_faults_of_nvml(name: str) -> None:
    play, expected = NVML[name]
    fake = FakeNvml(gpus_of(2))
    play(fake)
    assert wrong(ask(fake)) == expected


def test_gpus_that_are_well() -> None:
    fake = FakeNvml(gpus_of(2))
    fake.gpus[1].limit_mw = 500_000
    found = ask(fake)
    assert wrong(found) == []
    assert text(found, "nvml.gpus") == f"2 × {fake_gpu.H100}, as enrolled"
    assert text(found, "nvml.power") == "instant power on all 2"
    limits = "500 W on 1 of 2, 700 W on 1 of 2; below the enrolled capacity on 1: the limit counts"
    assert text(found, "nvml.limit") == limits
    assert not any(one.check == "nvml.evidence" for one in found), "nobody asked for it"


def test_another_mode_where_the_policy_takes_it() -> None:
    fake = FakeNvml(gpus_of(2))
    every(fake, field_status={fake_gpu.INSTANT: fake_gpu.NOT_SUPPORTED})
    found = ask(fake, accepted=("average", "instant"))
    assert wrong(found) == []
    assert text(found, "nvml.power") == "average power on all 2"


class Attesting(FakeGpu):
    """A GPU that signs what it is asked, or, with `stale`, always over the same nonce."""

    stale = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.chain = self._sign(bytes(32))[1]

    def _sign(self, nonce: bytes) -> tuple[bytes, bytes]:
        return Gpus(worlds={self.uuid: composite.GPU_0}).gpu_evidence(self.uuid, nonce)

    def __getattribute__(self, name: str) -> Any:
        if name == "report" and self.nonces:
            return self._sign(bytes(32) if self.stale else self.nonces[-1])[0]
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"cc_status": 0, "ready_status": 0, "cc": (2, 1, 0)}, []),
        ({"cc_status": 0, "ready_status": 0, "cc": (2, 1, 0), "ready": 0}, [("nvml.confidential", "warn", None)]),
        ({"cc_status": 0, "cc": (2, 0, 0)}, [("nvml.confidential", "fail", None)]),
        ({"cc_status": 0, "cc": (2, 1, 1)}, [("nvml.confidential", "fail", "DEVICE_DEBUG")]),
        ({}, [("nvml.confidential", "fail", None)]),
    ],
    ids=["on", "not ready", "off", "developer tools", "not stated"],
)
def test_confidential_computing(state: dict[str, Any], expected: list[tuple[str, str, str | None]]) -> None:
    fake = FakeNvml(gpus_of(2))
    for name, value in state.items():
        setattr(fake, name, value)
    assert wrong(ask(fake, replace(HOST, gpu_evidence=True), trial=False)) == expected


def test_a_gpus_key_against_the_enrolment() -> None:
    gpu = Attesting()
    host, fake = replace(HOST, gpu_evidence=True), FakeNvml([gpu])
    fake.cc_status, fake.cc, fake.ready_status = 0, (2, 1, 0), 0
    key = composite.gpu_digest(composite.GPU_0).hex()
    found = ask(fake, host, enrolment(1, gpu_key_digests=(key,)))
    assert wrong(found) == []
    assert key[:16] in text(found, "nvml.evidence")
    (stranger,) = wrong(ask(fake, host, enrolment(1)))
    assert stranger == ("nvml.evidence", "fail", "PLATFORM_NOT_ENROLLED")
    gpu.stale = True
    assert wrong(ask(fake, host, enrolment(1, gpu_key_digests=(key,)))) == [
        ("nvml.evidence", "fail", "GPU_EVIDENCE_INVALID")
    ]
