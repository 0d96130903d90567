"""One hostile case: a world with one fact wrong, how it is judged, and the code it must be refused with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.forge.dcap.world import Minted, World
from verifier.trust.roots import INTEL_ROLES, TrustAnchor


@lru_cache(maxsize=1024)
def anchor(root: bytes) -> TrustAnchor:
    """A forged root, trusted explicitly in Intel's place: DER of its certificate."""
    key = x509.load_der_x509_certificate(root).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TrustAnchor(label="forge", spki=spki, simulated=False, roles=INTEL_ROLES)


def nothing(collateral: Any) -> Any:
    return collateral


@dataclass(frozen=True, kw_only=True)
class Case:
    """`step` names the check that catches the lie (see `steps.py`); None: no single function does.

    `policy` is a policy file's table, None for the one that is `built_in` (None: no policy at all). `beside` are worlds
    whose collateral is given too; `report_data` and `tee` are the caller's demands, `early_report_data` one made of
    `verify_quote`; `held` edits the `Collateral` itself (None: none is given).
    """

    name: str
    code: str
    step: str | None
    world: World
    policy: Mapping[str, Any] | None = None
    built_in: str | None = "authentic"
    beside: tuple[World, ...] = ()
    only_beside: bool = False
    report_data: bytes | None = None
    early_report_data: bytes | None = None
    tee: str | None = None
    held: Callable[[Any], Any] = nothing
    trust_roots: Callable[[list[TrustAnchor]], list[TrustAnchor]] = nothing

    def judge(self) -> Any:
        """Verify and apply the policy; what a hostile case must not survive."""
        minted = self.world.mint()
        others = [one.mint() for one in self.beside]
        return judge(
            minted,
            collateral=self.held(collateral_of(others if self.only_beside else [minted, *others])),
            policy=self.policy,
            built_in=self.built_in,
            early_report_data=self.early_report_data,
            report_data=self.report_data,
            tee=self.tee,
            trust_roots=self.trust_roots([anchor(minted.root)]),
        )


def collateral_of(minted: list[Minted]) -> Any:
    """The collateral of several worlds in one set."""
    from verifier.trust.store import Collateral

    first, *rest = (Collateral.from_json(one.collateral_json.encode()) for one in minted)
    return first.merged(*rest) if rest else first


def judge(
    minted: Minted,
    *,
    collateral: Any,
    policy: Mapping[str, Any] | None = None,
    built_in: str | None = "authentic",
    early_report_data: bytes | None = None,
    report_data: bytes | None = None,
    tee: str | None = None,
    trust_roots: list[TrustAnchor] | None = None,
) -> Any:
    """The verified quote; modules are looked up late, so that a test may disable a step in them."""
    from verifier.claims import Claims
    from verifier.formats import dcap
    from verifier.policy import quote as quote_policy

    now_ms = minted.at * 1000
    verified = dcap.verify_quote(
        quote=minted.quote,
        collateral=collateral,
        trust_roots=[anchor(minted.root)] if trust_roots is None else trust_roots,
        now_ms=now_ms,
        tee=tee,
        report_data=early_report_data,
    )
    if policy is None and built_in is None:
        return verified
    rules = quote_policy.BUILT_IN[built_in or ""] if policy is None else quote_policy.parse_quote_policy(dict(policy))
    quote_policy.quote_rules(rules, report_data=report_data).check(Claims(quote=verified, now_ms=now_ms))
    return verified
