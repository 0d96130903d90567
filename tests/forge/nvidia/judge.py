"""One hostile case: a world with one fact wrong, how it is judged, and the code it must be refused with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.forge.nvidia.world import NONCE, Minted, World
from verifier.abi.ocsp import parse_ocsp
from verifier.policy.nvidia import NvidiaDemands
from verifier.trust.certificate import parse_certificate
from verifier.trust.crl import parse_crl
from verifier.trust.path import PathCache
from verifier.trust.roots import Root

EVERYTHING = NvidiaDemands(unbound_kinds=("switch",))
"""The defaults, for switches without the FWID that none of them reports."""


def root_of(certificate: bytes) -> Root:
    """A forged root, trusted in NVIDIA's place: DER of its certificate."""
    return Root(label="forge", spki=parse_certificate(certificate).spki, simulated=False)


def same(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True)
class Case:
    """`step` names the check that catches the lie (see `steps.py`); None: no single function does.

    `demands` None: no policy. `beside` are other devices of the same host; `nonce` and `kind` the caller's demands.
    """

    name: str
    code: str
    step: str | None
    world: World
    demands: NvidiaDemands | None = EVERYTHING
    nonce: bytes | None = NONCE
    kind: str | None = None
    beside: tuple[World, ...] = ()
    allow_unattested_switches: bool = True
    trust_roots: Callable[[list[Root]], list[Root]] = same

    def judge(self) -> Any:
        """Verify every device and apply the policy; what a hostile case must not survive."""
        from verifier.policy import nvidia as policy

        devices = []
        for world in (self.world, *self.beside):
            minted = world.mint()
            roots = self.trust_roots([root_of(minted.root)])
            devices.append(verify(minted, nonce=self.nonce, kind=self.kind, roots=roots))
        if self.demands is not None:
            rules = policy.nvidia_rules(self.demands)
            for device in devices:
                rules.check(device)
        policy.check_devices(devices, allow_unattested_switches=self.allow_unattested_switches)
        return devices[0]


def verify(
    minted: Minted,
    *,
    nonce: bytes | None = NONCE,
    kind: str | None = None,
    roots: list[Root] | None = None,
    at: int | None = None,
    seen: PathCache | None = None,
) -> Any:
    """The verified report; modules are looked up late, so that a test may disable a step in them."""
    from verifier.formats import nvidia

    return nvidia.verify_nvidia_report(
        report=minted.report,
        certificates=[parse_certificate(one) for one in minted.chain],
        trust_roots=[root_of(minted.root)] if roots is None else roots,
        now_ms=(minted.at if at is None else at) * 1000,
        nonce=nonce,
        kind=kind,
        rims=minted.rims,
        ocsp=[parse_ocsp(one) for one in minted.ocsp],
        crls=[parse_crl(one) for one in minted.crls],
        chains_seen=seen,
    )
