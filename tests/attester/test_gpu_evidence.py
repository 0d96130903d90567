"""Evidence of GPUs: what their attester gives verifies in a session, and nothing else goes out under their name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from attester.gpu import GpuEvidenceInvalid, NvidiaGpu, nvidia_gpus
from attester.host_evidence import DeviceFailed
from producers.sample.nvml import Nvml
from schemas.errors import EnclaveScaleError
from tests.attester.host import UUIDS, Gpus, evidence, policy, session, verify
from tests.forge.composite.world import FOREIGN_GPU, GPU_0, GPU_1, gpu_digest
from tests.forge.nvidia import world as nvidia
from tests.producers.fake_gpu import GPU_IS_LOST, NOT_SUPPORTED
from tests.producers.fake_nvml import FakeGpu, FakeNvml
from verifier.abi.pem import join_chain
from verifier.errors import VerificationError
from verifier.nonces import device_nonce

DATA = bytes(range(64))


@pytest.mark.parametrize("tee", ["tdx", "snp"])
def test_gpus_verify_in_a_session(tee: str) -> None:
    gpus = Gpus()
    made = session(evidence(tee, lambda: nvidia_gpus(gpus)))
    found = verify(made, policy(tee, ()))
    assert found.first_mile == "GPU_ATTESTED"
    assert [one.subject for one in found.claims.devices] == list(UUIDS)
    assert not found.simulated


def test_items_go_by_the_uuid_and_nonces_derive_from_the_report_data() -> None:
    gpus = Gpus()
    report, certificates = nvidia_gpus(gpus)[1].evidence(DATA)
    assert (report.kind, report.subject) == ("nvidia_gpu_report", UUIDS[1])
    assert (certificates.kind, certificates.subject) == ("nvidia_gpu_certificates", UUIDS[1])
    assert gpus.asked == [(UUIDS[1], device_nonce(DATA, "nvidia", UUIDS[1]))]
    assert report.data[4:36] == gpus.asked[0][1]


def test_the_identity_is_the_leaf_keys_and_costs_a_nonce_of_its_own() -> None:
    gpus = Gpus()
    found = [one.identity() for one in nvidia_gpus(gpus)]
    assert found == [gpu_digest(world) for world in gpus.worlds.values()]
    assert len({nonce for _, nonce in gpus.asked}) == 2, "random: nobody could have asked for it before"


@pytest.mark.parametrize("behind", [b"", b"\x00" * 700, b"\r\n\x00", b" \n"])
def test_what_stands_behind_a_chain_in_its_buffer_is_left_out(behind: bytes) -> None:
    gpus = Gpus(chain=lambda chain: chain + behind)
    _, certificates = NvidiaGpu(gpus, UUIDS[0]).evidence(DATA)
    assert certificates.data.endswith(b"-----END CERTIFICATE-----\n")
    assert certificates.data == NvidiaGpu(Gpus(), UUIDS[0]).evidence(DATA)[1].data


def other_nonce(report: bytes) -> bytes:
    return report[:4] + bytes(32) + report[36:]


WRONG: dict[str, tuple[dict[str, Callable[[bytes], bytes]], type[EnclaveScaleError]]] = {
    "over another nonce": ({"report": other_nonce}, GpuEvidenceInvalid),
    "no report": ({"report": lambda report: b""}, VerificationError),
    "a report cut short": ({"report": lambda report: report[:-1]}, VerificationError),
    "a whole buffer of NVML": ({"report": lambda report: report.ljust(8192, b"\x00")}, VerificationError),
    "no chain": ({"chain": lambda chain: b""}, VerificationError),
    "a chain that is no PEM": ({"chain": lambda chain: b"\x30\x82" * 9}, VerificationError),
    "a chain with something behind it": ({"chain": lambda chain: chain + b"x"}, VerificationError),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_verifier_takes_is_refused_here(name: str) -> None:
    changes, error = WRONG[name]
    gpu = NvidiaGpu(Gpus(**changes), UUIDS[0])
    for ask in (gpu.identity, lambda: gpu.evidence(DATA)):
        with pytest.raises(error):
            ask()


def test_a_leaf_that_cannot_be_read_is_no_identity() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    with pytest.raises(GpuEvidenceInvalid, match="leaf"):
        NvidiaGpu(Gpus(chain=lambda chain: pem), UUIDS[0]).identity()


class Lost(EnclaveScaleError):
    """What a driver says of a GPU that fell off the bus."""

    code = "GPU_LOST"
    remedy = "Reset it."


def test_an_error_says_which_gpu_it_was() -> None:
    class Failing(Gpus):
        def gpu_evidence(self, uuid: str, nonce: bytes) -> tuple[bytes, bytes]:
            if uuid == UUIDS[1]:
                raise Lost("the GPU is lost")
            return super().gpu_evidence(uuid, nonce)

    gpus = Failing()
    provider = evidence("tdx", lambda: nvidia_gpus(gpus))
    for ask in (provider.identities_digest, lambda: provider.quote(DATA)):
        with pytest.raises(DeviceFailed, match=f"{UUIDS[1]}: the GPU is lost") as failed:
            ask()
        assert (failed.value.code, failed.value.remedy, failed.value.field) == ("GPU_LOST", "Reset it.", UUIDS[1])


def test_another_hosts_gpu_is_the_verifiers_to_refuse() -> None:
    gpus: Any = Gpus({UUIDS[0]: FOREIGN_GPU})
    made = session(evidence("tdx", lambda: nvidia_gpus(gpus)))
    with pytest.raises(VerificationError) as refused:
        verify(made, policy("tdx", ()))
    assert refused.value.code == "PLATFORM_NOT_ENROLLED"


class Signing(list[bytes]):
    """The nonces a GPU of the fake library was asked with; its report is over the newest."""

    def __init__(self, gpu: FakeGpu, world: nvidia.World) -> None:
        super().__init__()
        self.gpu, self.world = gpu, world

    def append(self, nonce: bytes) -> None:
        super().append(nonce)
        self.gpu.report = self.world.but(nonce=nonce).mint().report


def library() -> FakeNvml:
    """NVML with the forge's two GPUs; chains end as the driver's do, in zeros."""
    gpus = []
    for uuid, world in zip(UUIDS, (GPU_0, GPU_1), strict=True):
        gpu = FakeGpu(uuid=uuid, chain=join_chain(world.mint().chain))
        gpu.nonces = Signing(gpu, world)
        gpus.append(gpu)
    return FakeNvml(gpus)


def test_what_nvml_gives_verifies() -> None:
    """pynvml's own wrappers and structures, from the library's buffers to the verdict."""
    fake = library()
    with fake.installed(), Nvml() as nvml:
        made = session(evidence("tdx", lambda: nvidia_gpus(nvml)))
    found = verify(made, policy("tdx", ()))
    assert (found.first_mile, [one.subject for one in found.claims.devices]) == ("GPU_ATTESTED", list(UUIDS))
    assert [len(set(gpu.nonces)) for gpu in fake.gpus] == [2, 2]


def unsupported(fake: FakeNvml) -> None:
    fake.gpus[1].status = NOT_SUPPORTED


def lost(fake: FakeNvml) -> None:
    fake.gpus[1].status = GPU_IS_LOST


def oversize(fake: FakeNvml) -> None:
    fake.gpus[1].report_size = 1 << 20


@pytest.mark.parametrize(
    ("fault", "code"), [(unsupported, "NVML_UNSUPPORTED"), (lost, "GPU_LOST"), (oversize, "NVML_FAULT")]
)
def test_what_nvml_refuses_names_the_gpu_and_has_its_code(fault: Callable[[FakeNvml], None], code: str) -> None:
    fake = library()
    with fake.installed(), Nvml() as nvml:
        known = nvidia_gpus(nvml)
        fault(fake)
        with pytest.raises(DeviceFailed) as failed:
            evidence("tdx", lambda: known).quote(DATA)
    assert (failed.value.code, failed.value.field) == (code, UUIDS[1])
    assert failed.value.remedy


def test_evidence_of_another_session_is_no_evidence() -> None:
    """The GPU's report of one session beside the CPU's quote of another."""
    provider = evidence("tdx", lambda: nvidia_gpus(Gpus()))
    ours, other = session(provider), session(provider)
    assert verify(ours, policy("tdx", ())).first_mile == "GPU_ATTESTED"
    cpu, others = ours.evidence.items[:1], other.evidence.items[1:]
    ours.evidence = dataclasses.replace(ours.evidence, items=(*cpu, *others))
    with pytest.raises(VerificationError) as refused:
        verify(ours, policy("tdx", ()))
    assert refused.value.code == "NONCE_MISMATCH"
