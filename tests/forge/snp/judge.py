"""One hostile case: a world with one fact wrong, how it is judged, and the code it must be refused with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.records import RegisterRule
from tests.forge.snp.world import Minted, World, same
from verifier.trust.roots import Root

LENIENT: dict[str, Any] = {
    "allow_debug": True, "allow_migration_agent": True, "allow_cxl": True, "allow_masked_chip_id": True,
    "unsafe_allow_unknown_policy_bits": True, "unsafe_allow_unknown_platform_bits": True,
    "unsafe_allow_incomplete_alias_check": True, "demand_revocation": False, "vmpls": (0, 1, 2, 3),
    "tcb_minimums": None,
}  # fmt: skip
"""Demands that demand nothing but that the guest asked for its report: a case adds one."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """`step` names the check that catches the lie (see `steps.py`); None: no single function does.

    `demands` change `LENIENT`, None: no policy; `registers` are those of a measurement. `beside` are worlds whose
    certificates and lists are given too, before the case's own; `report_data` is a demand of the caller's.
    """

    name: str
    code: str
    step: str | None
    world: World
    demands: dict[str, Any] | None = None
    registers: tuple[RegisterRule, ...] = ()
    beside: tuple[World, ...] = ()
    report_data: bytes | None = None
    simulated: bool = False
    roots: Callable[[tuple[Root, ...]], tuple[Root, ...]] = same

    def judge(self, chains_seen: Any = None) -> Any:
        """Verify and apply the policy; what a hostile case must not survive."""
        from verifier.claims import Claims
        from verifier.policy import base, snp

        minted = self.world.mint()
        verified = verify(
            minted,
            beside=tuple(one.mint() for one in self.beside),
            report_data=self.report_data,
            roots=self.roots((Root(label="forge", spki=minted.root, simulated=self.simulated),)),
            chains_seen=chains_seen,
        )
        claims = Claims(quote=verified, now_ms=minted.at * 1000)  # type: ignore[arg-type,unused-ignore]
        if self.demands is not None:
            rules = snp.snp_rules(snp.SnpDemands(**LENIENT | self.demands))
            base.AllOf(rules, "snp").check(claims)
        if self.registers:
            base.AllOf(snp.snp_code_rules(self.registers), "measurement").check(claims)
        return verified


def verify(
    minted: Minted,
    *,
    beside: tuple[Minted, ...] = (),
    report_data: bytes | None = None,
    roots: tuple[Root, ...] | None = None,
    at: int | None = None,
    chains_seen: Any = None,
) -> Any:
    """The verified report; modules are looked up late, so that a test may disable a step in them."""
    from verifier.formats import snp
    from verifier.trust.certificate import parse_certificate
    from verifier.trust.crl import parse_crl

    worlds = (*beside, minted)
    return snp.verify_snp_report(
        report=minted.report,
        endorsements=[parse_certificate(one) for world in worlds for one in world.certificates],
        crls=[parse_crl(one) for world in worlds for one in world.crls],
        trust_roots=(Root(label="forge", spki=minted.root, simulated=False),) if roots is None else roots,
        now_ms=(minted.at if at is None else at) * 1000,
        report_data=report_data,
        chains_seen=chains_seen,
    )
