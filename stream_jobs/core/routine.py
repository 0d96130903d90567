"""What need not be done again for a session whose reports repeat: the walk of their bytes, and most of the checks.

A layout (`schemas.layout`) stands for every byte of a report but the few fields that change from window to window. What
was found in order for it, under one policy and one verdict on the session, is in order for every report that has it;
only the numbers that change are checked. It decides nothing, and is forgotten with the session.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.codec import DecodedRecord
from schemas.layout import ReportLayout
from schemas.records import WindowReport
from schemas.repeats import RepeatDecoder
from stream_jobs.core.checks import ClassPlan
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.windows import DomainState, SessionState, Verified


@dataclass(frozen=True, slots=True)
class _Standing:
    """Checked: reports of `layout` under the policy with this digest and this verdict. `plans`: for their numbers."""

    layout: ReportLayout
    policy_digest: bytes
    verified: Verified
    plans: tuple[ClassPlan, ...]


class Routine:
    """Memory of the sessions of one partition."""

    def __init__(self) -> None:
        self._decoder = RepeatDecoder()
        self._standing: dict[bytes, _Standing] = {}

    def decode(self, value: bytes) -> DecodedRecord | None:
        """`value` decoded, if it repeats an accepted report's bytes. Raises SchemaError as the codec does."""
        return self._decoder.decode(value)

    def plans_of(self, layout: ReportLayout | None, body: WindowReport) -> tuple[ClassPlan, ...] | None:
        """Plans made for the last accepted report of the same session, if it had this layout."""
        standing = self._standing.get(body.session_id)
        return standing.plans if standing is not None and standing.layout is layout else None

    def plans(
        self, decoded: DecodedRecord, body: WindowReport, view: PolicyView, verified: Verified
    ) -> tuple[ClassPlan, ...] | None:
        """Plans of a report of which all but the numbers is known to be in order; else None."""
        standing = self._standing.get(body.session_id)
        if (
            standing is None
            or standing.layout is not decoded.layout
            or standing.verified is not verified
            or standing.policy_digest != view.digest
        ):
            return None
        return standing.plans

    def accepted(
        self,
        value: bytes,
        decoded: DecodedRecord,
        session: SessionState,
        *,
        view: PolicyView,
        verified: Verified,
        plans: tuple[ClassPlan, ...],
    ) -> None:
        """Remember a report that was accepted; `value` is its record's.

        Evidence that the session stands on is put to rest: the session has what the decoder remembers.
        """
        session_id, counts = decoded.body.session_id, decoded.evidence is session.evidence
        before = self._decoder.evidence_of(session_id)
        layout = self._decoder.learn(value, decoded, evidence_counts=counts)
        if layout is not None:
            self._standing[session_id] = _Standing(layout, view.digest, verified, plans)
        after = self._decoder.evidence_of(session_id)
        if counts and after is not None and after is not before:
            session.evidence = after

    def forget(self, state: DomainState) -> None:
        """Forget the sessions of a domain that it no longer has."""
        for session_id in self._decoder.retain(state.name, state.sessions):
            self._standing.pop(session_id, None)
