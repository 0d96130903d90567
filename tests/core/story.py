"""Short logs told step by step: who reports which window, what a worker writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from attester.session import Session
from schemas.records import FleetPower, SessionEvidence
from stream_jobs.core.effects import ControlWanted, Effect, Emission, Rejection
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.standing import CollateralOffer
from tests.core import fleet
from tests.core.fleet import AGGREGATORS, PANE_MS, T0, WINDOW_MS, report_of, seal, session_of
from tests.core.replay import Crash, Run, new_core, restart

W = WINDOW_MS
CARRIED = object()


def small_policy(hosts: int = 3, domains: Sequence[str] = ("d",), **changes: Any) -> PolicyView:
    """`hosts` hosts per domain, named h0, h1, … (with the domain in front if there are several)."""
    grace = changes.pop("grace_ms", W)
    names = [(host_name(domain, i, domains), domain) for domain in domains for i in range(hosts)]
    enrolled = [fleet.enrolment(name, domain, f"t{i % 2}") for i, (name, domain) in enumerate(names)]
    return fleet.policy_of(enrolled, [fleet.domain_rule(one, grace_ms=grace) for one in domains], **changes)


def host_name(domain: str, number: int, domains: Sequence[str] = ("d",)) -> str:
    return f"h{number}" if len(domains) == 1 else f"{domain}h{number}"


class Story:
    """Appends records one after another to a log that a core reads. Windows are counted from `T0`."""

    def __init__(self, *policies: PolicyView):
        self.policies = policies
        self.run = Run(new_core(policies))
        self.now_ms = T0
        self.next_offset = 0

    @property
    def state(self) -> Any:
        return next(iter(self.run.core.domains.values()))

    @property
    def outputs(self) -> list[FleetPower]:
        return [made.output for _, made in self.run.emissions]

    def put(self, key: str | bytes | None, value: bytes | None, at_ms: int | None = None) -> list[Effect]:
        self.now_ms = max(self.now_ms, at_ms or 0)
        before = len(self.run.emissions), len(self.run.rejections)
        self.run.feed(fleet.log_record(self.next_offset, self.now_ms, key, value))
        self.next_offset += 1
        return [
            *(made for _, made in self.run.emissions[before[0] :]),
            *self.run.rejections[before[1] :],
        ]

    def report(
        self,
        host: str,
        window: int,
        *,
        order: int = 0,
        seq: int | None = None,
        evidence: SessionEvidence | object | None = CARRIED,
        session: Session | None = None,
        domain: str = "d",
        at_ms: int | None = None,
        **changes: Any,
    ) -> list[Effect]:
        signer = session or session_of(host, domain, order)
        body = report_of(signer, T0 + window * W, window if seq is None else seq, draw=window, **changes)
        carried: Any = signer.evidence if evidence is CARRIED else evidence
        at = max(self.now_ms, body.window_end_ms if body.window_end_ms < T0 + 10**9 else 0) if at_ms is None else at_ms
        return self.put(domain, seal(signer, body).value(carried), at)

    def control(
        self,
        kind: str,
        view: PolicyView,
        *,
        domain: str = "d",
        effective_ms: int | None = None,
        closed: int | None = None,
        worker: int = 0,
        issued_ms: int | None = None,
        **changes: Any,
    ) -> list[Effect]:
        """A control record; `closed`: number of the window up to whose begin it closes."""
        wanted = ControlWanted(
            kind=kind,
            domain=domain,
            policy_digest=view.digest,
            content_digest=view.digest if kind == "POLICY_SWITCH" else None,
            effective_from_ms=effective_ms,
            closed_through_ms=None if closed is None else T0 + closed * W,
            reason="told",
        )
        session = session_of(AGGREGATORS[worker], None)
        body = fleet.control_of(session, wanted, self.now_ms if issued_ms is None else issued_ms, **changes)
        return self.put(domain, seal(session, body).value(session.evidence))

    def wanted(
        self, view: PolicyView, idle_since: dict[str, int] | None = None, collateral: CollateralOffer | None = None
    ) -> list[ControlWanted]:
        return self.run.core.wanted(view, self.now_ms, idle_since or {}, collateral)

    def write(self, wanted: ControlWanted, worker: int = 0) -> list[Effect]:
        """Write a wanted control record."""
        session = session_of(AGGREGATORS[worker], None)
        body = fleet.control_of(session, wanted, self.now_ms)
        return self.put(wanted.domain, seal(session, body).value(session.evidence))

    def crash_everywhere(self) -> None:
        """Restart after every record: after a commit just now, or some records ago with a part of the last outputs.

        By default after some 60 of a long log's records, in every tier above after all.
        """
        full = os.environ.get("ENCLAVESCALE_TIER", "test") != "test"
        every = 1 if full else len(self.run.log) // 60 | 1  # odd: both kinds of crash
        for at in range(0, len(self.run.log), every):
            crash = Crash(at, at) if at % 2 else Crash(max(0, at - 5), at, kept=1)
            _, difference = restart(self.run, self.policies, crash)
            assert difference is None, difference


def code_of(effects: list[Effect]) -> str:
    """The one rejection's code."""
    assert len(effects) == 1, effects
    only = effects[0]
    assert isinstance(only, Rejection), only
    return only.code


def made_of(effects: list[Effect]) -> list[FleetPower]:
    """The outputs among effects."""
    return [one.output for one in effects if isinstance(one, Emission)]


__all__ = ["PANE_MS", "Story", "W", "code_of", "host_name", "made_of", "small_policy"]
