"""A host whose hardware is forged: its kernel, GPUs and SPDM device answer live, and one policy knows them all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from attester.host_evidence import DeviceAttester, HostEvidence
from attester.session import Session
from attester.tsm import SEV_GUEST, TsmQuotes
from schemas.codec import report_data_of
from schemas.records import Measurement, Policy, RegisterRule, TrustRoot
from tests.attester.fake_tsm import FakeTsm
from tests.attester.responder import Responder
from tests.forge.composite import world as composite
from tests.forge.nvidia import world as nvidia
from tests.forge.snp import world as snp
from tests.forge.world import binding
from verifier.abi.pem import join_chain
from verifier.session import VerifiedSession, verify_session
from verifier.trust.certificate import parse_certificate

NOW_MS = composite.NOW * 1000
UUIDS = ("GPU-7a1c", "GPU-93fe")


@dataclass
class Gpus:
    """A `GpuAttester`: one forged GPU for each UUID. `report` and `chain` change what they give."""

    worlds: dict[str, nvidia.World] = field(
        default_factory=lambda: dict(zip(UUIDS, (composite.GPU_0, composite.GPU_1), strict=True))
    )
    report: Callable[[bytes], bytes] = lambda report: report
    chain: Callable[[bytes], bytes] = lambda chain: chain
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    def devices(self) -> list[str]:
        return list(self.worlds)

    def gpu_evidence(self, uuid: str, nonce: bytes) -> tuple[bytes, bytes]:
        self.asked.append((uuid, nonce))
        minted = self.worlds[uuid].but(nonce=nonce).mint()
        return self.report(minted.report), self.chain(join_chain(minted.chain).rstrip(b"\x00"))


def kernel(tee: str) -> FakeTsm:
    """The kernel of the forge's TDX or SEV-SNP machine."""
    host = composite.SNP if tee == "snp" else composite.TDX
    world = host.cpu

    def make(report_data: bytes, level: int) -> tuple[bytes, bytes]:
        if isinstance(world, snp.World):
            minted = world.but(fields={"report_data": report_data, "vmpl": level}).mint()
            return minted.report, b"".join(minted.certificates)
        return world.but(body={**world.body, "report_data": report_data}).mint().quote, b""

    return FakeTsm(make, provider=SEV_GUEST if tee == "snp" else "tdx_guest")


def evidence(tee: str, devices: Callable[[], tuple[DeviceAttester, ...]]) -> HostEvidence:
    return HostEvidence(TsmQuotes(kernel(tee)), devices)


def session(provider: HostEvidence, **changes: Any) -> Session:
    """A session whose binding names the devices there are."""

    def bind(point: bytes) -> Any:
        return binding(session_public_key=point, gpu_identities_digest=provider.identities_digest(), **changes)

    return Session(provider, bind)


def leaf_digest(responder: Responder) -> bytes:
    return hashlib.sha256(parse_certificate(responder.identity.chain[-1]).spki).digest()


def policy(tee: str, responders: tuple[Responder, ...], gpus: bool = True) -> tuple[Policy, Any]:
    """The policy that has enrolled the host with these devices, and the collateral it is judged with."""
    whole = composite.SNP if tee == "snp" else composite.TDX
    host = whole.but(sensors=(), **({} if gpus else {"gpus": ()}))
    minted = composite.mint(host)
    digests = (*host.digests(), *map(leaf_digest, responders))
    found = composite.policy_of(
        minted, composite.enrolment(host, gpu_key_digests=tuple(one.hex() for one in digests)), host
    )
    if not responders:
        return found, minted.collateral
    blocks = tuple(RegisterRule(register=f"block{one.index}", value=one.value) for one in responders[0].blocks or ())
    sensor = Measurement(label="sensor", role="host", tee="spdm", registers=blocks[:2])
    root = TrustRoot(label="sensor vendor", tee="spdm", certificate_der=responders[0].root, simulated=False)
    others = tuple(one for one in found.measurements if one.tee != "spdm")
    return (
        replace(found, measurements=(*others, sensor), trust_roots=(*found.trust_roots, root)),
        minted.collateral,
    )


def verify(made: Session, judged_by: tuple[Policy, Any]) -> VerifiedSession:
    """The real verifier's word on a session."""
    return verify_session(
        evidence=made.evidence,
        binding_bytes=made.binding_bytes,
        report_data=report_data_of(made.binding_bytes),
        session_id=made.session_id,
        policy=judged_by[0],
        role="host",
        now_ms=NOW_MS,
        collateral=judged_by[1],
    )
