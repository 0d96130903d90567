"""All evidence of a host, asked for live and judged by the real verifier; and what happens when devices change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from attester.devices import SpdmDevice, SpdmEndpoint, SpdmIdentityUnreadable, connect
from attester.gpu import nvidia_gpus
from attester.host_evidence import DeviceFailed, HostEvidence
from attester.session import DevicesChanged, Session, shown_identities
from attester.simulated import SimulatedTee
from attester.spdm.errors import SpdmUnreachable
from attester.spdm.limits import Limits
from attester.spdm.tcp import DEFAULT_PORT
from schemas.codec import report_data_of
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import EvidenceItem
from tests.attester.emulator import Emulator
from tests.attester.host import UUIDS, Gpus, evidence, leaf_digest, policy, session, verify
from tests.attester.loopback import honest, listening
from tests.attester.responder import DirectTransport, Responder
from tests.forge.composite import world as composite
from tests.forge.mint import MRTD, PLATFORM_ID
from tests.forge.world import NOW_MS, binding
from tests.forge.world import policy as plain_policy
from verifier.errors import EvidenceAmbiguous, EvidenceTooLarge, VerificationError
from verifier.nonces import gpu_identities_digest
from verifier.session import verify_session

DATA = bytes(range(64))
SENSOR = "sensor-0.rack7"


class Direct:
    """A device behind no socket; `asked` are its requests, `closed` how often a connection ended."""

    def __init__(self, responder: Responder | None = None) -> None:
        self.responder = responder or Responder()
        self.closed = 0

    def __call__(self, endpoint: SpdmEndpoint) -> Any:
        transport = DirectTransport(self.responder)
        transport.close = self._close  # type: ignore[method-assign]
        return transport

    def _close(self) -> None:
        self.closed += 1


def device(direct: Direct, subject: str = SENSOR, **changes: Any) -> SpdmDevice:
    return SpdmDevice(SpdmEndpoint(subject=subject, host="sensor", **changes), connect=direct)


@contextlib.contextmanager
def behind(framing: str, responder: Responder) -> Iterator[SpdmDevice]:
    """A device behind a real socket in that framing."""
    serve = honest(responder) if framing == "dsp0287" else Emulator(responder, framing).serve
    with listening(serve) as port:
        yield SpdmDevice(SpdmEndpoint.at(SENSOR, f"127.0.0.1:{port}", framing=framing))


@pytest.mark.parametrize("tee", ["tdx", "snp"])
def test_cpu_gpus_and_sensor_verify_as_one_host(tee: str) -> None:
    responder = Responder()
    with behind("dsp0287", responder) as sensor:
        made = session(evidence(tee, lambda: (*nvidia_gpus(Gpus()), sensor)))
    found = verify(made, policy(tee, (responder,)))
    assert found.first_mile == "SPDM_MEASURED"
    assert [one.subject for one in found.claims.devices] == [*UUIDS, SENSOR]
    assert found.binding.gpu_identities_digest == gpu_identities_digest(
        [composite.gpu_digest(composite.GPU_0), composite.gpu_digest(composite.GPU_1), leaf_digest(responder)]
    )


@pytest.mark.parametrize("framing", ["dsp0287", "spdm-emu-mctp", "spdm-emu-pci-doe"])
def test_a_sensor_alone_verifies_in_any_framing(framing: str) -> None:
    responder = Responder()
    with behind(framing, responder) as sensor:
        made = session(evidence("tdx", lambda: (sensor,)))
    assert verify(made, policy("tdx", (responder,), gpus=False)).first_mile == "SPDM_MEASURED"


def test_another_slot_is_asked_for() -> None:
    direct = Direct(Responder(slots=(0, 3)))
    made = session(evidence("tdx", lambda: (device(direct, slot=3),)))
    assert verify(made, policy("tdx", (direct.responder,), gpus=False)).first_mile == "SPDM_MEASURED"


def test_a_simulated_tee_needs_no_devices() -> None:
    tee = SimulatedTee.create(platform_id=PLATFORM_ID, mrtd=MRTD)
    provider = HostEvidence(tee)
    assert (provider.kind, provider.simulated, provider.identities_digest()) == (tee.kind, True, None)
    for made in (session(provider), Session(tee, lambda point: binding(session_public_key=point))):
        found = verify_session(
            evidence=made.evidence,
            binding_bytes=made.binding_bytes,
            report_data=report_data_of(made.binding_bytes),
            session_id=made.session_id,
            policy=plain_policy(tee.root_der),
            role="host",
            now_ms=NOW_MS,
        )
        assert (found.simulated, found.first_mile, made.simulated) == (True, "NONE", True)


def test_every_session_asks_with_nonces_of_its_own() -> None:
    gpus, direct = Gpus(), Direct()
    provider = evidence("tdx", lambda: (*nvidia_gpus(gpus), device(direct)))
    first, second = session(provider), session(provider)
    assert len({nonce for _, nonce in gpus.asked}) == 8, "two GPUs, who they are and their evidence, twice"
    judged_by = policy("tdx", (direct.responder,))
    assert verify(first, judged_by).session_id != verify(second, judged_by).session_id
    assert direct.closed == 4


class Swapped(Gpus):
    """A GPU whose key is another from the second question on, as after a firmware update or an exchange."""

    def gpu_evidence(self, uuid: str, nonce: bytes) -> tuple[bytes, bytes]:
        if len(self.asked) == len(self.worlds):
            self.worlds[UUIDS[0]] = composite.FOREIGN_GPU
        return super().gpu_evidence(uuid, nonce)


class Lost(Gpus):
    """One GPU fewer at the second look."""

    looks = 0

    def devices(self) -> list[str]:
        self.looks += 1
        return list(self.worlds)[: 2 if self.looks == 1 else 1]


@pytest.mark.parametrize("kind", [Swapped, Lost])
def test_devices_that_change_between_binding_and_evidence_make_no_session(kind: type[Gpus]) -> None:
    gpus = kind()
    provider = evidence("tdx", lambda: nvidia_gpus(gpus))
    with pytest.raises(DevicesChanged):
        session(provider)
    assert len(session(provider).evidence.items) == (5 if kind is Swapped else 3), (
        "the next attempt names what is there"
    )


def test_a_binding_that_forgets_the_devices_makes_no_session() -> None:
    provider = evidence("tdx", lambda: nvidia_gpus(Gpus()))
    with pytest.raises(DevicesChanged):
        Session(provider, lambda point: binding(session_public_key=point))
    with pytest.raises(DevicesChanged):
        Session(
            HostEvidence(SimulatedTee.create()),
            lambda point: binding(session_public_key=point, gpu_identities_digest=bytes(32)),
        )


def test_a_binding_with_another_key_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="public key"):
        Session(SimulatedTee.create(), lambda point: binding())


def test_identities_of_unreadable_devices_are_refused() -> None:
    cpu = EvidenceItem(kind="tdx_quote_v4", data=b"q", subject_absent_reason="cpu")
    assert shown_identities([cpu]) is None
    with pytest.raises(DevicesChanged, match="sensor"):
        shown_identities([cpu, EvidenceItem(kind="spdm_transcript", data=b"{}", subject="sensor")])


def test_errors_of_an_endpoint_name_it_and_keep_their_code() -> None:
    class Nobody:
        def __call__(self, endpoint: SpdmEndpoint) -> Any:
            raise SpdmUnreachable("nobody listens", field="endpoint")

    provider = evidence("tdx", lambda: (device(Nobody()),))  # type: ignore[arg-type]
    with pytest.raises(DeviceFailed, match=f"{SENSOR}: nobody listens") as failed:
        provider.identities_digest()
    assert (failed.value.code, failed.value.remedy) == (SpdmUnreachable.code, SpdmUnreachable.remedy)


def test_a_device_that_lacks_measurements_is_no_device() -> None:
    direct = Direct(Responder(flags=0x02 | 0x04))
    with pytest.raises(EnclaveScaleError) as refused:
        device(direct).identity()
    assert refused.value.code == "SPDM_NOT_OFFERED"
    assert direct.closed == 1


def test_a_transcript_without_a_leaf_is_no_identity() -> None:
    direct = Direct(Responder())
    known = direct.responder.identity
    direct.responder.identity = replace(known, chain=(*known.chain[:-1], b"0\x00"))
    with pytest.raises(SpdmIdentityUnreadable):
        device(direct).identity()


def test_two_devices_of_one_name_are_refused_before_anything_is_sent() -> None:
    direct = Direct()
    with pytest.raises(EvidenceAmbiguous):
        evidence("tdx", lambda: (device(direct), device(direct))).quote(DATA)


def test_more_than_a_record_holds_is_refused_before_anything_is_sent() -> None:
    class Wordy(Gpus):
        def devices(self) -> list[str]:
            return [f"GPU-{number}" for number in range(60)]

        def gpu_evidence(self, uuid: str, nonce: bytes) -> tuple[bytes, bytes]:
            self.worlds = {uuid: composite.GPU_0}
            return super().gpu_evidence(uuid, nonce)

    with pytest.raises(EvidenceTooLarge):
        evidence("tdx", lambda: nvidia_gpus(Wordy())).quote(DATA)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("sensor", "sensor", DEFAULT_PORT),
        ("sensor.rack7:2323", "sensor.rack7", 2323),
        ("[fe80::1]:9", "fe80::1", 9),
        ("[fe80::1]", "fe80::1", DEFAULT_PORT),
    ],
)
def test_addresses(address: str, host: str, port: int) -> None:
    found = SpdmEndpoint.at(SENSOR, address)
    assert (found.host, found.port, found.framing, found.slot) == (host, port, "dsp0287", 0)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"subject": ""}, "subject"),
        ({"subject": "a\n"}, "subject"),
        ({"subject": "x" * 129}, "subject"),
        ({"address": ""}, "address"),
        ({"address": "fe80::1:9"}, "address"),
        ({"address": "sensor:x"}, "address"),
        ({"address": "sensor:0"}, "address"),
        ({"address": "sensor:65536"}, "address"),
        ({"framing": "mctp"}, "framing"),
        ({"slot": 8}, "slot"),
        ({"slot": -1}, "slot"),
    ],
)
def test_endpoints_that_make_no_sense_are_refused(wrong: dict[str, Any], field: str) -> None:
    right: dict[str, Any] = {"subject": SENSOR, "address": "sensor:9"}
    with pytest.raises(ConfigError) as refused:
        SpdmEndpoint.at(**(right | wrong))
    assert refused.value.field == field
    with pytest.raises(ConfigError):
        SpdmEndpoint(subject=SENSOR, host="sensor", length="all")  # type: ignore[arg-type]


def test_nobody_at_an_endpoint_is_unreachable() -> None:
    with listening(lambda connection: None) as port:
        pass
    endpoint = SpdmEndpoint(subject=SENSOR, host="127.0.0.1", port=port, limits=Limits(connect_s=5))
    with pytest.raises(SpdmUnreachable):
        connect(endpoint)


Items = tuple[EvidenceItem, ...]


def named(item: EvidenceItem, subject: str) -> EvidenceItem:
    return replace(item, subject=subject)


MIXED: dict[str, tuple[Callable[[Items, Items], Items], str]] = {
    "the sensor's of another session": (lambda ours, other: (*ours[:5], other[5]), "NONCE_MISMATCH"),
    "the GPUs' of another session": (lambda ours, other: (ours[0], *other[1:5], ours[5]), "NONCE_MISMATCH"),
    "the CPU's of another session": (lambda ours, other: (other[0], *ours[1:]), "REPORT_DATA_MISMATCH"),
    "no sensor": (lambda ours, other: ours[:5], "EVIDENCE_MISSING"),
    "one GPU fewer": (lambda ours, other: (*ours[:3], ours[5]), "EVIDENCE_MISSING"),
    "no devices at all": (lambda ours, other: ours[:1], "GPU_IDENTITIES_MISMATCH"),
    "no CPU": (lambda ours, other: ours[1:], "EVIDENCE_MISSING"),
    "a report without its certificates": (lambda ours, other: (*ours[:2], *ours[3:]), "EVIDENCE_MISSING"),
    "one GPU under two names": (
        lambda ours, other: (*ours[:3], named(ours[1], UUIDS[1]), named(ours[2], UUIDS[1]), ours[5]),
        "DEVICE_DUPLICATE",
    ),
    "GPUs under each other's names": (
        lambda ours, other: (
            ours[0],
            *(named(item, UUIDS[1]) for item in ours[1:3]),
            *(named(item, UUIDS[0]) for item in ours[3:5]),
            ours[5],
        ),
        "NONCE_MISMATCH",
    ),
    "GPUs with each other's certificates": (
        lambda ours, other: (ours[0], ours[1], named(ours[4], UUIDS[0]), ours[3], named(ours[2], UUIDS[1]), ours[5]),
        "NVIDIA_REPORT_SIGNATURE",
    ),
}


@pytest.fixture(scope="module")
def two_sessions() -> tuple[Session, Items, Items, Any]:
    """A session of a host with everything, its items, those of its next session, and what judges them."""
    direct = Direct()
    provider = evidence("tdx", lambda: (*nvidia_gpus(Gpus()), device(direct)))
    ours, other = session(provider), session(provider)
    judged_by = policy("tdx", (direct.responder,))
    assert verify(other, judged_by).first_mile == "SPDM_MEASURED"
    return ours, ours.evidence.items, other.evidence.items, judged_by


@pytest.mark.parametrize("name", MIXED)
def test_a_host_is_judged_as_a_whole(two_sessions: tuple[Session, Items, Items, Any], name: str) -> None:
    made, ours, other, judged_by = two_sessions
    mix, code = MIXED[name]
    for items, expected in ((mix(ours, other), code), (ours, None)):
        made.evidence = replace(made.evidence, items=items)
        if expected is None:
            assert verify(made, judged_by).first_mile == "SPDM_MEASURED"
            continue
        with pytest.raises(VerificationError) as refused:
            verify(made, judged_by)
        assert refused.value.code == expected
