"""One hostile case: a world with one fact wrong, how it is judged, and the code it must be refused with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.forge.spdm.world import Minted, World, same
from verifier.policy.devices import SpdmDemands, spdm_device_rules
from verifier.trust.roots import Root


@dataclass(frozen=True, kw_only=True)
class Case:
    """`step` names the check that catches the lie (see `steps.py`); None: no single function does.

    `nonces` makes the expected ones from those of the transcript; None: none are expected. `demands`: what a policy
    demands of a transcript that verified; None: nothing.
    """

    name: str
    code: str
    step: str | None
    world: World
    nonces: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] | None = None
    trust_roots: Callable[[list[Root]], list[Root]] = same
    demands: SpdmDemands | None = None

    def judge(self) -> Any:
        minted = self.world.mint()
        nonces = () if self.nonces is None else self.nonces(minted.nonces)
        verified = judge(minted, nonces=nonces, trust_roots=self.trust_roots([root_of(minted)]))
        spdm_device_rules(self.demands, None, fresh=verified.fresh).check(verified)
        return verified


def root_of(minted: Minted) -> Root:
    return Root(label="forge", spki=minted.root, simulated=True)


def judge(minted: Minted, *, nonces: tuple[bytes, ...] = (), trust_roots: list[Root] | None = None) -> Any:
    """The verified transcript; the module is looked up late, so that a test may disable a step in it."""
    from verifier.formats import spdm

    return spdm.verify_spdm_transcript(
        messages=minted.messages,
        trust_roots=[root_of(minted)] if trust_roots is None else trust_roots,
        now_ms=minted.at * 1000,
        nonces=nonces,
    )
