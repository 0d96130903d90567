"""Sets of collateral for toy fleets: what simulated evidence is worth under each is written in the set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from stream_jobs.core.policies import CollateralView
from stream_jobs.core.sessions import SessionVerifier
from stream_jobs.core.standing import CollateralOffer
from stream_jobs.core.windows import Verified
from tests.core.fleet import AGGREGATORS
from verifier.errors import TcbStatusRefused
from verifier.trust.contents import Contents
from verifier.trust.store import Collateral


class ToySet(Collateral):
    """Collateral by which some hosts' platforms are out of date."""

    def __init__(self, name: str, refuses: Callable[[str], bool]):
        super().__init__(Contents())
        self.name, self.refuses = name, refuses


def toy_set(name: str, refuses: Callable[[str], bool] = lambda _: False) -> CollateralView:
    return CollateralView(hashlib.sha256(name.encode()).digest(), ToySet(name, refuses))


def _some(salt: str, share: float) -> Callable[[str], bool]:
    return lambda host: host not in AGGREGATORS and hashlib.sha256((salt + host).encode()).digest()[0] < 256 * share


FIRST, STRICT, OTHER, HARSH, NARROW = POOL = (
    toy_set("first"),
    toy_set("strict", _some("strict", 0.4)),
    toy_set("other", _some("other", 0.2)),
    toy_set("harsh", lambda host: host.endswith("h0")),
    toy_set("narrow", lambda host: host == AGGREGATORS[1]),
)
SETS = {view.digest: view for view in POOL}


def offer(view: CollateralView, fetched_at_ms: int = 0) -> CollateralOffer:
    return CollateralOffer(view, fetched_at_ms)


def judging(verify: SessionVerifier) -> SessionVerifier:
    """`verify` for simulated evidence, which knows no collateral, under toy sets."""

    def judge(*, collateral: Collateral | None = None, **given: Any) -> Verified:
        if isinstance(collateral, ToySet):
            if collateral.refuses(given["evidence"].binding.host_id):
                raise TcbStatusRefused(f"out of date by {collateral.name}")
            collateral = None
        return verify(**given, collateral=collateral)

    return judge
