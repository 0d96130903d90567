"""Our verdict and a peer's on the same evidence, at the same time, with the same collateral and root."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.forge.dcap.judge import anchor
from tests.forge.dcap.mutant import Mutant
from tests.forge.dcap.peer import Peer, Verdict
from tests.forge.dcap.world import Minted
from verifier.abi.pck import parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.claims import Claims
from verifier.errors import VerificationError
from verifier.formats.dcap import VerifiedQuote, verify_quote
from verifier.policy.quote import AUTHENTIC, quote_rules
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.roots import INTEL_SGX_ROOT, TrustAnchor
from verifier.trust.store import Collateral

_RULES = quote_rules(AUTHENTIC)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One pair of verdicts. `what` says what was judged, `message` why we refuse, `verified` what we verified."""

    what: str
    minted: Minted
    ours: Verdict
    theirs: Verdict
    message: str = ""
    verified: VerifiedQuote | None = field(default=None, repr=False)

    @property
    def agrees(self) -> bool:
        """Both accept with the same status and advisories, or both refuse."""
        return self.ours.outcome == self.theirs.outcome

    @cached_property
    def qe_identity(self) -> dict[str, Any]:
        """The QE identity that was given; empty if it cannot be read."""
        return _document(self.minted.collateral.get("qe_identity", ""))

    @cached_property
    def tcb_info(self) -> dict[str, Any]:
        """The TCB info that was given; empty if it cannot be read."""
        return _document(self.minted.collateral.get("tcb_info", ""))

    @cached_property
    def cpu_svn_differs(self) -> bool:
        """Whether the PCK certificate's CPUSVN is not its sixteen components; False where there is no certificate."""
        try:
            chain = split_chain(parse_quote(self.minted.quote).signature.certification.data)
            extensions = [parse_certificate(one).pck_extension for one in chain]
            platforms = [parse_pck_extension(one) for one in extensions if one is not None]
        except VerificationError:
            return False
        return any(one.cpu_svn != bytes(one.component_svns) for one in platforms)

    @property
    def levels_descend(self) -> bool:
        """Whether the levels of QE identity and modules stand in descending order."""
        lists = [self.qe_identity.get("tcbLevels")]
        lists += [one.get("tcbLevels") for one in self.tcb_info.get("tdxModuleIdentities", ())]
        try:
            svns = [[level["tcb"]["isvsvn"] for level in levels] for levels in lists if levels]
            return all(found == sorted(found, reverse=True) for found in svns)
        except (KeyError, TypeError):
            return True

    def __str__(self) -> str:
        ours = f"{self.ours.status}" if self.ours.accepted else f"{self.ours.why} at {self.ours.field}: {self.message}"
        theirs = f"{self.theirs.status}" if self.theirs.accepted else self.theirs.why
        return f"{self.what}\n  ours:   {ours} {self.ours.advisory_ids}\n  theirs: {theirs} {self.theirs.advisory_ids}"


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def compare(peer: Peer, mutant: Mutant) -> Comparison:
    """Ask both about forged evidence under its own root."""
    return compare_evidence(peer, f"{mutant.family}: {mutant.what}", mutant.minted)


def anchor_of(root: bytes) -> TrustAnchor:
    """The anchor of a root's DER; empty: Intel's."""
    return anchor(root) if root else INTEL_SGX_ROOT


def compare_evidence(peer: Peer, what: str, minted: Minted, endorsements: tuple[Certificate, ...] = ()) -> Comparison:
    """Ask both about `minted`. `endorsements` go to us only: the peer takes no certificates besides collateral's."""
    theirs = peer.ask(quote=minted.quote, collateral=minted.collateral_json, at=minted.at, root=minted.root or None)
    now_ms = minted.at * 1000
    try:
        verified = verify_quote(
            quote=minted.quote,
            collateral=Collateral.from_json(minted.collateral_json.encode()),
            trust_roots=[anchor_of(minted.root)],
            now_ms=now_ms,
            endorsements=endorsements,
        )
        _RULES.check(Claims(quote=verified, now_ms=now_ms))
    except VerificationError as error:
        ours = Verdict(False, why=error.code, field=error.field or "")
        return Comparison(what=what, minted=minted, ours=ours, theirs=theirs, message=str(error))
    assert verified.tcb is not None
    ours = Verdict(True, str(verified.tcb.status), verified.tcb.advisory_ids)
    return Comparison(what=what, minted=minted, ours=ours, theirs=theirs, verified=verified)
