"""One host of a small fleet, as policy, collateral and evidence know it; its parts come from the forges of each kind.

binding ── report data ─┬─ CPU's evidence (TDX or SNP)
                        └─ nonces ── GPUs, switches, SPDM devices
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from schemas.codec import encode_binding, report_data_of, session_id_of
from schemas.records import (
    ClassEnrolment,
    EvidenceItem,
    HostEnrolment,
    Measurement,
    Policy,
    RegisterRule,
    SessionBinding,
    SessionEvidence,
    TcbRule,
    TrustRoot,
)
from tests.forge.dcap import certificates as dcap_certificates
from tests.forge.dcap import world as dcap
from tests.forge.dcap.judge import collateral_of
from tests.forge.nvidia import certificates as nvidia_certificates
from tests.forge.nvidia import world as nvidia
from tests.forge.rim import world as rim
from tests.forge.snp import world as snp
from tests.forge.spdm import keys as spdm_keys
from tests.forge.spdm import world as spdm
from tests.forge.world import DOMAIN, HOST_ID, binding, policy
from verifier.abi.pem import join_chain
from verifier.nonces import CHALLENGE_INDEX, MEASUREMENTS_INDEX, NVIDIA, SPDM, device_nonce, gpu_identities_digest
from verifier.trust.store import Collateral

NOW = dcap.NOW
DAY = 86_400
OTHER_HOST = "host-2"


def same(value: Any) -> Any:
    return value


def _alone(world: nvidia.World) -> nvidia.World:
    """A GPU passed through by itself: no switches, no protected PCIe."""
    return world.but(opaque={**world.opaque, 22: None, 21: b"\x55", 36: b"\x00\x00"}, rims=())


GPU_0 = _alone(nvidia.HOPPER)
GPU_1 = nvidia.another(GPU_0, 1)
FOREIGN_GPU = nvidia.another(GPU_0, 2)
"""Genuine, and another host's."""

LINKED = tuple(nvidia.another(nvidia.HOPPER, number, rims=()) for number in (10, 11))
SWITCHES = tuple(
    nvidia.another(nvidia.LS10, 20 + number, opaque={22: pdi}, rims=()) for number, pdi in enumerate(nvidia.SWITCHES)
)


def _long(cert: spdm_keys.Cert) -> spdm_keys.Cert:
    return replace(cert, not_before=NOW - 100 * DAY, not_after=NOW + 300 * DAY)


SENSOR = spdm.V12.but(root=_long(spdm.ROOT), issuers=(_long(spdm.ISSUER),), leaf=_long(spdm.LEAF))
SENSOR_1 = SENSOR.but(leaf=replace(SENSOR.leaf, key="device 1", serial=8), seed="2")


def rim_entries(indexes: tuple[int, ...], values: dict[int, bytes] | None = None) -> tuple[rim.Entry, ...]:
    """Entries whose values are what a forged device measures, or others."""
    found = {index: nvidia.value_of(index + 1) for index in indexes} | (values or {})
    return tuple(
        rim.Entry(index=index, attributes=(("ns2:Hash0", value.hex()),)) for index, value in sorted(found.items())
    )


DRIVER_RIM = rim.DRIVER.but(version=nvidia.DRIVER, entries=rim_entries((0, 1, 2, 34)))
VBIOS_RIM = rim.VBIOS.but(version=nvidia.VBIOS, entries=rim_entries((3, 4, 5)))
SWITCH_RIM = rim.SWITCH.but(version="96.10.73.00.01", entries=rim_entries((0, 1, 2)))
RIMS = (DRIVER_RIM, VBIOS_RIM, SWITCH_RIM)


def gpu_digest(world: nvidia.World) -> bytes:
    """SHA-256 of the device's leaf key."""
    return hashlib.sha256(nvidia_certificates.spki_of(world.leaf.key)).digest()


def sensor_digest(world: spdm.World) -> bytes:
    return hashlib.sha256(spdm_keys.spki_of(world.leaf.key, world.key_kind)).digest()


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a host is made of; the defaults are a TDX machine with two GPUs and a sensor, all genuine.

    `subjects` renames GPUs; `nonces` changes the nonce of a device (kind, subject, index, the right nonce); `items` the
    evidence as it is sent; `identities` the digest that the binding names; `held` the collateral beside Intel's.
    """

    cpu: dcap.World | snp.World = field(default_factory=lambda: dcap.TDX4)
    gpus: tuple[nvidia.World, ...] = (GPU_0, GPU_1)
    switches: tuple[nvidia.World, ...] = ()
    sensors: tuple[spdm.World, ...] = (SENSOR,)
    rims: tuple[rim.World, ...] = RIMS
    binding: Callable[[SessionBinding], SessionBinding] = same
    report_data: Callable[[bytes], bytes] = same
    subjects: Callable[[str], str] = same
    nonces: Callable[[str, str, int, bytes], bytes] = lambda kind, subject, index, nonce: nonce
    identities: Callable[[list[bytes]], bytes | None] = lambda found: gpu_identities_digest(found) if found else None
    items: Callable[[list[EvidenceItem]], list[EvidenceItem]] = same
    held: Callable[[list[bytes]], list[bytes]] = same

    def but(self, **changes: Any) -> Host:
        """This host with one fact changed."""
        return replace(self, **changes)

    @property
    def snp(self) -> bool:
        return isinstance(self.cpu, snp.World)

    def devices(self) -> list[tuple[str, nvidia.World]]:
        """GPUs and switches by their subjects."""
        named = [(self.subjects(f"GPU-{index}"), one) for index, one in enumerate(self.gpus)]
        return named + [(f"SWITCH-{index}", one) for index, one in enumerate(self.switches)]

    def digests(self) -> list[bytes]:
        """Key digests of every device."""
        return [gpu_digest(one) for _, one in self.devices()] + [sensor_digest(one) for one in self.sensors]


@dataclass(frozen=True, kw_only=True)
class Minted:
    """A host's evidence as it is sent, its collateral, and the certificates of the roots it hangs on, by use."""

    binding: SessionBinding
    binding_bytes: bytes
    items: tuple[EvidenceItem, ...]
    collateral: Collateral
    roots: dict[str, bytes]


def mint(host: Host, *, role: str = "host") -> Minted:
    """Everything, signed."""
    bound = host.binding(
        binding(gpu_identities_digest=host.identities(host.digests()), role=role)
        if role == "host"
        else binding(role=role, host_id="agg-1", domain=None, source="none", sampler_mode=None)
    )
    binding_bytes = encode_binding(bound)
    report_data = report_data_of(binding_bytes)
    items, collateral, held, roots = _cpu(host, host.report_data(report_data))
    for subject, world in host.devices():
        nonce = host.nonces(NVIDIA, subject, 0, device_nonce(report_data, NVIDIA, subject))
        minted = world.but(nonce=nonce).mint()
        items.append(EvidenceItem(kind="nvidia_gpu_report", data=minted.report, subject=subject))
        chain = join_chain(minted.chain).rstrip(b"\x00")
        items.append(EvidenceItem(kind="nvidia_gpu_certificates", data=chain, subject=subject))
        held += [*minted.ocsp, *minted.crls]
        roots["nvidia"] = minted.root
    for index, sensor in enumerate(host.sensors):
        subject = f"sensor-{index}.rack7:2323"
        right = (device_nonce(report_data, SPDM, subject, at) for at in (CHALLENGE_INDEX, MEASUREMENTS_INDEX))
        nonces = [host.nonces(SPDM, subject, at, nonce) for at, nonce in enumerate(right)]
        items.append(EvidenceItem(kind="spdm_transcript", data=transcript(sensor, *nonces), subject=subject))
        roots["spdm"] = spdm_keys.mint(sensor.root, sensor.root)
    held += [minted_rim(one) for one in host.rims]
    roots["rim"] = dcap_certificates.issue(rim.ROOT)
    return Minted(
        binding=bound,
        binding_bytes=binding_bytes,
        items=tuple(host.items(items)),
        collateral=collateral.merged(Collateral.of(host.held(held))),
        roots=roots,
    )


def _cpu(host: Host, report_data: bytes) -> tuple[list[EvidenceItem], Collateral, list[bytes], dict[str, bytes]]:
    world = host.cpu
    if isinstance(world, snp.World):
        minted = world.but(fields={**world.fields, "report_data": report_data}).mint()
        items = [
            EvidenceItem(kind="snp_report", data=minted.report),
            EvidenceItem(kind="snp_certificates", data=b"".join(minted.certificates)),
        ]
        return items, Collateral.empty(), list(minted.crls), {"snp": world.certificates()[2]}
    quote = world.but(body={**world.body, "report_data": report_data}).mint()
    return [EvidenceItem(kind="tdx_quote_v4", data=quote.quote)], collateral_of([quote]), [], {"tdx": quote.root}


@lru_cache(maxsize=64)
def minted_rim(world: rim.World) -> bytes:
    return world.mint()


def transcript(sensor: spdm.World, challenge: bytes, measurements: bytes) -> bytes:
    """The device's transcript, asked with these nonces where it asks for one."""

    def ask(message: Any) -> Any:
        return replace(message, nonce=measurements) if message.signed else message

    edits = {"Challenge": lambda message: replace(message, nonce=challenge), "GetMeasurements": ask, **sensor.edits}
    minted = sensor.but(edits=edits).mint()
    return json.dumps({"messages": [one.hex() for one in minted.messages]}).encode()


def measurements_of(host: Host) -> tuple[Measurement, ...]:
    """What the policy trusts: the agent's image, and what the sensor measures."""
    mrtd = RegisterRule(register="mrtd", value=dcap.MRTD)
    guest = (
        RegisterRule(register="measurement", value=snp.MEASUREMENT),
        RegisterRule(register="product", value=b"Genoa"),
        RegisterRule(register="reported_tcb_at_least", value=snp.PRODUCTS["Genoa"]["tcb"]),
    )
    blocks = tuple(RegisterRule(register=f"block{one.index}", value=one.value) for one in spdm.measurement_blocks()[:2])
    return (
        Measurement(label="agent", role="host", tee="tdx", registers=(mrtd,)),
        Measurement(label="worker", role="aggregator", tee="tdx", registers=(mrtd,)),
        Measurement(label="agent", role="host", tee="snp", registers=guest),
        Measurement(label="sensor", role="host", tee="spdm", registers=blocks),
    )


def enrolment(host: Host, **changes: Any) -> HostEnrolment:
    """The host as it is enrolled: its platform, and each of its devices once."""
    world = host.cpu
    platform = snp.chip_id(world.product, world.seed) if isinstance(world, snp.World) else world.platform.ppid
    found = HostEnrolment(
        host_id=HOST_ID, domain=DOMAIN, tenant="t", failure_domain="r", platform_ids=(platform.hex(),),
        gpu_key_digests=tuple(dict.fromkeys(one.hex() for one in host.digests())),
        classes=(ClassEnrolment(model="H100", gpus=len(host.gpus), capacity_w=700),) if host.gpus else (),
    )  # fmt: skip
    return replace(found, **changes)


def policy_of(minted: Minted, enrolled: HostEnrolment, host: Host) -> Policy:
    """A policy of nothing unsafe, for two hosts."""
    other = replace(
        enrolled, host_id=OTHER_HOST, platform_ids=("0e" * 16,), gpu_key_digests=(gpu_digest(FOREIGN_GPU).hex(),)
    )
    rule = TcbRule(
        tee="tdx", accepted_statuses=("UpToDate",), grace_days=0, allowed_advisories=(), min_tcb_evaluation_number=1
    )
    platform = dcap.TDX4.platform.ppid.hex()
    base = policy(b"")
    return replace(
        base,
        hosts=(enrolled, other),
        aggregators=(replace(base.aggregators[0], platform_ids=(platform,)),),
        measurements=measurements_of(host),
        trust_roots=tuple(
            TrustRoot(label=f"forge {use}", tee=use, certificate_der=der, simulated=False)
            for use, der in minted.roots.items()
        ),
        tcb_rules=(rule,),
        unsafe_allow_unevaluated_tcb=False,
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One judgement. `step` names what catches the lie (see `steps.py`); None: no single function does.

    The policy is made for `enrolled`, the host as its owner knows it; `enrolment` are changes to its entry.
    """

    name: str
    code: str
    step: str | None
    host: Host = field(default_factory=Host)
    enrolled: Host | None = None
    enrolment: dict[str, Any] = field(default_factory=dict)
    policy: Callable[[Policy], Policy] = same
    collateral: Callable[[Collateral], Collateral | None] = same
    role: str = "host"
    now: int = NOW

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `verify_session`."""
        minted = mint(self.host, role=self.role)
        owner = self.enrolled or self.host
        enrolled = enrolment(owner, **self.enrolment)
        return {
            "evidence": SessionEvidence(binding=minted.binding, items=minted.items),
            "binding_bytes": minted.binding_bytes,
            "report_data": report_data_of(minted.binding_bytes),
            "session_id": session_id_of(minted.binding_bytes),
            "policy": self.policy(policy_of(minted, enrolled, owner)),
            "role": self.role,
            "now_ms": self.now * 1000,
            "collateral": self.collateral(minted.collateral),
        }

    def judge(self) -> Any:
        """Verify; what a hostile case must not survive. Looked up late, so that a test may disable a step."""
        from verifier import session

        return session.verify_session(**self.arguments())


TDX = Host()
SNP = Host(cpu=snp.GENOA)
GENUINE = {
    "TDX, two GPUs, a sensor": (TDX, "SPDM_MEASURED"),
    "SNP, two GPUs, a sensor": (SNP, "SPDM_MEASURED"),
    "TDX, two GPUs": (TDX.but(sensors=()), "GPU_ATTESTED"),
    "SNP, GPUs and switches in protected PCIe": (SNP.but(gpus=LINKED, switches=SWITCHES, sensors=()), "GPU_ATTESTED"),
    "TDX, sensors alone": (TDX.but(gpus=(), sensors=(SENSOR, SENSOR_1)), "SPDM_MEASURED"),
    "TDX, no devices": (TDX.but(gpus=(), sensors=()), "NONE"),
}  # fmt: skip
"""Hosts whose evidence is genuine, and the grade that each earns."""
