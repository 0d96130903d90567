"""What a replay says, gathered as it comes for the report. Memory does not grow with the number of windows."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any

from enclavescale.report.columns import Series, coverage_ppm
from stream_jobs.replay.verdicts import Figures, Finding, Severity, Verdict, WindowVerdict

MAX_WINDOWS = 1_000
"""Outputs of a partition that are not identical, kept in full."""

MAX_FINDINGS = 1_000
"""Findings of a partition kept of each severity."""

MAX_DOMAINS = 1_000
"""Domains of which figures are kept; the verdicts of others are counted."""

MAX_FOREIGN = 100
"""Names in a partition of domains of which nothing is believed, kept apart: they must not take the others' room."""

MAX_CODES = 64
"""Codes of refusals counted apart in a domain: outputs of one that lies may name any."""

MAX_RUNS = 500
RUN_OUTPUTS = 100
"""Outputs of one row of identical ones."""

REMEMBERED = 4_096
"""Windows whose counts are remembered, for their revisions."""


@dataclass(slots=True, kw_only=True)
class IdenticalRun:
    """Identical outputs one after another in a domain. Powers in W: extremes; None where no window has one."""

    first_start_ms: int
    last_start_ms: int
    last_end_ms: int
    outputs: int = 0
    revisions: int = 0
    mean_w: tuple[int, int] | None = None
    margin_w: tuple[int, int] | None = None
    coverage_ppm: tuple[int, int] | None = None
    accepted: int = 0
    refused: int = 0
    first_offset: int | None = None
    last_offset: int | None = None

    def take(self, verdict: WindowVerdict, start_ms: int, figures: Figures) -> None:
        """Take one more."""
        self.outputs += 1
        self.revisions += bool(verdict.revision)
        self.first_start_ms = min(self.first_start_ms, start_ms)
        self.last_start_ms = max(self.last_start_ms, start_ms)
        self.last_end_ms = max(self.last_end_ms, figures.window_end_ms)
        self.mean_w = _wider(self.mean_w, figures.mean_w)
        self.margin_w = _wider(self.margin_w, figures.margin_w)
        share = coverage_ppm(figures)
        self.coverage_ppm = _wider(self.coverage_ppm, None if share is None else (share,))
        self.accepted += figures.accepted
        self.refused += sum(count for _, count in figures.refused)
        if verdict.offset is not None:
            self.first_offset = verdict.offset if self.first_offset is None else self.first_offset
            self.last_offset = verdict.offset


@dataclass(slots=True, kw_only=True)
class PrivacyRun:
    """Windows one after another that state the same privacy loss. `epsilon_micro`: the largest of any host."""

    first_start_ms: int
    last_end_ms: int
    windows: int
    mode: str
    epsilon_micro: int
    w_event_windows: int
    w_event_epsilon_micro: int


@dataclass(slots=True, kw_only=True)
class Dilution:
    """The least that hid a host or tenant in any window, and how often it was too little. Shares in ppm."""

    outputs: int = 0
    not_met: int = 0
    hosts: int | None = None
    tenants: int | None = None
    k_min_hosts: int = 0
    k_min_tenants: int = 0
    largest_host_share_ppm: int = 0
    largest_tenant_share_ppm: int = 0

    def take(self, figures: Figures) -> None:
        """Take an output's figures."""
        self.outputs += 1
        self.not_met += not figures.dilution_met
        hosts, tenants = figures.reporting_hosts, figures.tenants
        self.hosts = hosts if self.hosts is None else min(self.hosts, hosts)
        self.tenants = tenants if self.tenants is None else min(self.tenants, tenants)
        self.k_min_hosts = max(self.k_min_hosts, figures.k_min_hosts)
        self.k_min_tenants = max(self.k_min_tenants, figures.k_min_tenants)
        self.largest_host_share_ppm = max(self.largest_host_share_ppm, figures.largest_host_share_ppm)
        self.largest_tenant_share_ppm = max(self.largest_tenant_share_ppm, figures.largest_tenant_share_ppm)


@dataclass(slots=True)
class DomainStory:
    """What is told of one domain."""

    domain: str
    partition: int
    series: Series
    verdicts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    runs: list[IdenticalRun] = field(default_factory=list)
    runs_left_out: int = 0
    privacy: list[PrivacyRun] = field(default_factory=list)
    privacy_left_out: int = 0
    dilution: Dilution = field(default_factory=Dilution)
    epsilon_sum_micro: int = 0
    below_quorum: int = 0
    without_mean: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    late_accepted: int = 0
    simulated: int = 0
    policies: Counter[str] = field(default_factory=Counter)
    collateral: Counter[str] = field(default_factory=Counter)
    open_run: bool = False
    _counted: OrderedDict[int, tuple[int, int, int]] = field(default_factory=OrderedDict)

    def take(self, verdict: WindowVerdict, start_ms: int) -> None:
        """Take a verdict."""
        self.verdicts[verdict.verdict.value] += 1
        figures = verdict.figures
        # What does not follow from the log says nothing about the domain.
        believed = None if verdict.verdict is Verdict.EXTRA else figures
        if believed is not None:
            self.series.settle(believed.window_end_ms - start_ms)
        self.series.add(start_ms, verdict.verdict.value, believed)
        identical = verdict.verdict is Verdict.IDENTICAL
        if identical and figures is not None:
            self._run(verdict, start_ms, figures)
        self.open_run = identical
        if believed is not None:
            self._count(believed)
            self._window(start_ms, believed)

    def _run(self, verdict: WindowVerdict, start_ms: int, figures: Figures) -> None:
        if not self.open_run or not self.runs or self.runs[-1].outputs >= RUN_OUTPUTS:
            if len(self.runs) >= MAX_RUNS:
                self.runs_left_out += 1
                return
            self.runs.append(
                IdenticalRun(first_start_ms=start_ms, last_start_ms=start_ms, last_end_ms=figures.window_end_ms)
            )
        self.runs[-1].take(verdict, start_ms, figures)

    def _count(self, figures: Figures) -> None:
        for code, count in figures.refused:
            self.refused[code if code in self.refused or len(self.refused) < MAX_CODES else "OTHER"] += count
        self.dilution.take(figures)
        self.below_quorum += not figures.quorum_met
        self.simulated += figures.simulated_w != 0
        if figures.mean_w is None and len(self.without_mean) < MAX_CODES:
            self.without_mean[figures.mean_absent_reason or "no reason stated"] += 1
        if len(self.policies) < MAX_CODES or figures.policy_digest in self.policies:
            self.policies[figures.policy_digest] += 1
        digest = figures.collateral_digest
        if digest is not None and (len(self.collateral) < MAX_CODES or digest in self.collateral):
            self.collateral[digest] += 1

    def _window(self, start_ms: int, figures: Figures) -> None:
        """What a window's revision says of the whole window counts once."""
        now = figures.epsilon_micro, figures.accepted, figures.late_accepted
        before = self._counted.get(start_ms)
        self._counted[start_ms] = now
        if len(self._counted) > REMEMBERED:
            self._counted.popitem(last=False)
        more = [max(0, one - other) for one, other in zip(now, before or (0, 0, 0), strict=True)]
        self.epsilon_sum_micro += more[0]
        self.accepted += more[1]
        self.late_accepted += more[2]
        self._privacy(start_ms, figures, revised=before is not None)

    def _privacy(self, start_ms: int, figures: Figures, *, revised: bool) -> None:
        stated = figures.privacy_mode, figures.epsilon_micro, figures.w_event_windows, figures.w_event_epsilon_micro
        last = self.privacy[-1] if self.privacy else None
        if last and stated == (last.mode, last.epsilon_micro, last.w_event_windows, last.w_event_epsilon_micro):
            last.windows += not revised
            last.last_end_ms = max(last.last_end_ms, figures.window_end_ms)
        elif len(self.privacy) >= MAX_RUNS:
            self.privacy_left_out += 1
        else:
            self.privacy.append(
                PrivacyRun(
                    first_start_ms=start_ms,
                    last_end_ms=figures.window_end_ms,
                    windows=1,
                    mode=stated[0],
                    epsilon_micro=stated[1],
                    w_event_windows=stated[2],
                    w_event_epsilon_micro=stated[3],
                )
            )


class Gathered:
    """Takes verdicts and findings as a replay makes them.

    Those of one partition come in an order of their own, those of several in any: what is kept does not depend on it.
    """

    def __init__(self) -> None:
        self._domains: dict[tuple[str, int], DomainStory] = {}
        self._foreign: dict[tuple[str, int], DomainStory] = {}
        self.domains_left_out = 0
        """Outputs of domains beyond `MAX_DOMAINS` in a partition."""
        self._in_partition: Counter[tuple[int, bool]] = Counter()
        self._windows: dict[int, list[WindowVerdict]] = {}
        self._findings: dict[tuple[Severity, int], list[Finding]] = {}
        self.finding_codes: Counter[str] = Counter()

    @property
    def domains(self) -> list[DomainStory]:
        """By name; those of which nothing is believed come last."""
        return [held[key] for held in (self._domains, self._foreign) for key in sorted(held)]

    @property
    def windows(self) -> list[WindowVerdict]:
        """Outputs that are not identical, by partition, in the order of the log."""
        return [one for partition in sorted(self._windows) for one in self._windows[partition]]

    def findings(self, severity: Severity) -> list[Finding]:
        """Findings by place."""
        found = [one for (kind, _), kept in self._findings.items() if kind is severity for one in kept]
        return sorted(found, key=lambda one: (one.topic, one.partition, one.offset, one.code, one.message))

    def verdict(self, verdict: WindowVerdict) -> None:
        """Take a verdict."""
        if verdict.verdict is not Verdict.IDENTICAL:
            _keep(self._windows.setdefault(verdict.partition, []), verdict, MAX_WINDOWS)
        if verdict.domain is None or verdict.window_start_ms is None:
            return
        story = self._story(verdict, (verdict.domain, verdict.partition))
        if story is None:
            self.domains_left_out += 1
        else:
            story.take(verdict, verdict.window_start_ms)

    def _story(self, verdict: WindowVerdict, key: tuple[str, int]) -> DomainStory | None:
        """Where a verdict is told; None where there is no room. A name that only forged outputs bear stays apart."""
        story = self._domains.get(key)
        if story is not None or verdict.figures is None:
            return story or self._foreign.get(key)
        believed = verdict.verdict is not Verdict.EXTRA
        if not believed and key in self._foreign:
            return self._foreign[key]
        place = verdict.partition, believed
        if self._in_partition[place] >= (MAX_DOMAINS if believed else MAX_FOREIGN):
            return None
        self._in_partition[place] += 1
        if not believed:
            self._foreign[key] = DomainStory(*key, Series())
            return self._foreign[key]
        if key in self._foreign:
            self._in_partition[verdict.partition, False] -= 1
            self._domains[key] = self._foreign.pop(key)
        else:
            self._domains[key] = DomainStory(*key, Series())
        return self._domains[key]

    def finding(self, finding: Finding) -> None:
        """Take a finding."""
        self.finding_codes[finding.code] += 1
        _keep(self._findings.setdefault((finding.severity, finding.partition), []), finding, MAX_FINDINGS)


def _keep(kept: list[Any], one: object, most: int) -> None:
    if len(kept) < most:
        kept.append(one)


def _wider(known: tuple[int, int] | None, found: tuple[int, ...] | None) -> tuple[int, int] | None:
    if found is None:
        return known
    return (found[0], found[0]) if known is None else (min(known[0], found[0]), max(known[1], found[0]))
