"""What is wrong, in words, the worst first. Pure: facts and a clock in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.records import FleetPower
from stream_jobs.core.aside import ABSENT
from stream_jobs.web.card import Card
from stream_jobs.web.judging import Standing

TROUBLE, WATCH = "trouble", "watch"
"""Somebody must act now; somebody should look before long."""

SILENT_WINDOWS = 3
"""A domain without a new output for so many windows is silent."""

SILENT_MS = 15_000
"""… and for at least so long, ms."""

SOON_MS = 3 * 86_400_000
"""Before its end, a policy, a set of collateral or a session's evidence is worth a look, ms."""

NOW_MS = 6 * 3_600_000
"""… and before this it is urgent, ms."""

LATE_MS = 120_000
"""Figures older than this when they were published, and by more than ten windows, are late, ms."""

MINUS = "\N{MINUS SIGN}"

HARMLESS = frozenset({"DUPLICATE"})
"""Refusals that at-least-once delivery makes by itself."""

GRAVE = frozenset({"EQUIVOCATION", "POLICY_UNTRUSTED"})
"""Refusals of which one is enough to act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong. `weight`: larger is worse, among those of one level; `kind` is its
    code in JSON."""

    level: str
    weight: int
    kind: str
    text: str
    todo: str
    domain: str | None = None

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {"level": self.level, "code": self.kind, "domain": self.domain, "text": self.text, "todo": self.todo}


def worst_first(found: Iterable[Problem]) -> list[Problem]:
    """Trouble before what to watch, then by weight, then by domain."""
    return sorted(found, key=lambda one: (one.level != TROUBLE, -one.weight, one.domain or "", one.kind))


def power(watts: int) -> str:
    """Watts in words: MW from one MW on, kW from one kW on."""
    size, unit = (1_000_000, "MW") if abs(watts) >= 1_000_000 else (1_000, "kW")
    return f"{MINUS if watts < 0 else ''}{abs(watts) / size:.2f} {unit}"


def span(ms: int) -> str:
    """A length of time in words, its two largest units at most."""
    seconds = max(0, ms) // 1000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} days"


def of_domain(domain: str, card: Card, now_ms: int, standing: Standing) -> Iterator[Problem]:
    """What is wrong with one domain by its newest output."""
    if card.newest is None:
        yield Problem(
            level=TROUBLE, weight=60, kind="NO_OUTPUT", domain=domain, text=f"{domain} has no output that verifies.",
            todo="Is a worker assigned to its partition? Do its hosts send? See the worker's /readyz and log.",
        )  # fmt: skip
        return
    output = card.newest.signed.output
    window_ms = output.window_end_ms - output.window_start_ms
    silent_ms = now_ms - card.published_ms
    if silent_ms > max(SILENT_MS, SILENT_WINDOWS * window_ms):
        yield Problem(
            level=TROUBLE, weight=80, kind="SILENT", domain=domain,
            text=f"{domain} has had no new output for {span(silent_ms)}.",
            todo="See whether workers run and are ready, and whether the domain's hosts send reports.",
        )  # fmt: skip
    late_ms = card.published_ms - output.window_end_ms
    if late_ms > max(LATE_MS, 10 * window_ms):
        yield Problem(
            level=WATCH, weight=20, kind="LATE_FIGURES", domain=domain,
            text=f"{domain}: the newest figures were {span(late_ms)} old when they were published.",
            todo="A worker that catches up, or hosts whose clocks or queues are behind. A replay is always late.",
        )  # fmt: skip
    yield from _figures(domain, output)
    yield from _history(domain, card, output)
    newest = standing.policy
    if newest is not None and (
        output.policy_counter < newest.policy.counter and output.window_start_ms >= newest.policy.effective_from_ms
    ):
        yield Problem(
            level=WATCH, weight=35, kind="POLICY_OLD", domain=domain,
            text=f"{domain} still computes under policy {output.policy_counter}; {newest.policy.counter} is in force.",
            todo="See whether the worker knows the policy's signer and reads the policy topic.",
        )  # fmt: skip


def _figures(domain: str, output: FleetPower) -> Iterator[Problem]:
    margin = output.margin
    if margin.margin is None and output.coverage.quorum_met:
        reason = margin.margin_absent_reason or "no reason given"
        yield Problem(
            level=TROUBLE, weight=70, kind="MARGIN_WITHHELD", domain=domain,
            text=f"{domain}: no margin is stated: {reason}.",
            todo="Do not rely on an older margin. Bring back the hosts that are missing.",
        )  # fmt: skip
    elif margin.margin is not None and margin.margin.value_w < 0:
        yield Problem(
            level=TROUBLE, weight=98, kind="OVER_LIMIT", domain=domain,
            text=f"{domain} is over its limit of {power(margin.limit_w)} by {power(-margin.margin.value_w)}.",
            todo="Lower power caps, or move or stop jobs of this domain.",
        )  # fmt: skip
    elif margin.margin is not None and margin.margin.low_w < 0:
        yield Problem(
            level=WATCH, weight=60, kind="MARGIN_UNSURE", domain=domain,
            text=f"{domain} may be over its limit: margin {power(margin.margin.value_w)}, at worst "
            f"{power(margin.margin.low_w)}.",
            todo="Start no more load here until the interval clears zero.",
        )  # fmt: skip
    over = [
        one for one in output.forecasts
        if one.quantile_ppm == margin.quantile_ppm and one.estimate.value_w > margin.limit_w
    ]  # fmt: skip
    if over and margin.margin is not None and margin.margin.low_w >= 0:  # else the margin has said it
        first = min(over, key=lambda one: one.horizon_ms)
        yield Problem(
            level=WATCH, weight=50, kind="FORECAST_OVER", domain=domain,
            text=f"{domain}: the forecast is over the limit in {span(first.horizon_ms)}, by "
            f"{power(first.estimate.value_w - margin.limit_w)}.",
            todo="Hold back jobs that are about to start here.",
        )  # fmt: skip
    coverage = output.coverage
    missing = coverage.enrolled_hosts - coverage.reporting_hosts
    if missing > 0 and coverage.quorum_met:
        yield Problem(
            level=WATCH, weight=45, kind="HOSTS_MISSING", domain=domain,
            text=f"{domain}: {missing} of {coverage.enrolled_hosts} hosts do not report.",
            todo="See the agents of the missing hosts; refusals below may name the reason.",
        )  # fmt: skip
    elif not coverage.quorum_met:
        share = 100 * coverage.reporting_capacity_w / max(1, coverage.enrolled_capacity_w)
        yield Problem(
            level=TROUBLE, weight=75, kind="NO_QUORUM", domain=domain,
            text=f"{domain} states no margin: {share:.0f} % of its capacity report, the policy asks for "
            f"{output.coverage.quorum_ppm / 10_000:.0f} %.",
            todo="See the network and the agents of this domain, then the refusals below.",
        )  # fmt: skip


def _history(domain: str, card: Card, output: FleetPower) -> Iterator[Problem]:
    if output.source.gap_records:
        yield Problem(
            level=TROUBLE, weight=85, kind="INPUT_GAP", domain=domain,
            text=f"{domain}: {output.source.gap_records} records are missing from the log before this output.",
            todo="See retention and deletions on the reports topic (docs/operations.md).",
        )  # fmt: skip
    if card.forks:
        yield Problem(
            level=TROUBLE, weight=95, kind="FORK", domain=domain,
            text=f"{domain}: two different outputs of one window and revision.",
            todo="Workers disagree: replay the window, and compare the workers' versions.",
        )  # fmt: skip
    if card.chain == "broken":
        yield Problem(
            level=TROUBLE, weight=88, kind="CHAIN_BROKEN", domain=domain,
            text=f"{domain}: the newest output does not link to the one before it.",
            todo="An output was lost or held back: run `enclavescale audit chain`.",
        )  # fmt: skip
    claims = [one for one in output.set_aside if one.code != ABSENT]
    aside = sum(one.hosts for one in claims)
    if aside:
        codes = ", ".join(sorted({one.code for one in claims}))
        yield Problem(
            level=WATCH, weight=40, kind="SET_ASIDE", domain=domain,
            text=f"{domain}: claims of {aside} hosts count only in part ({codes}).",
            todo="A new job, or hosts that lie: look at these hosts.",
        )  # fmt: skip


def of_standing(standing: Standing, collateral_used: bool, now_ms: int) -> Iterator[Problem]:
    """What is about to end, or has ended."""
    policy = standing.policy
    if standing.checked and policy is None:
        yield Problem(
            level=TROUBLE, weight=92, kind="NO_POLICY", text="No trusted policy is on the policy topic.",
            todo="Check --policy-signer; publish the policy again: `enclavescale policy apply FILE --again`.",
        )  # fmt: skip
    if policy is not None:
        yield from _ends(
            "POLICY", f"Policy {policy.policy.counter}", policy.policy.not_after_ms, now_ms,
            "Sign and apply a renewal: without one every report is refused.",
        )  # fmt: skip
    if standing.equivocations:
        yield Problem(
            level=TROUBLE, weight=94, kind="POLICY_EQUIVOCATION",
            text="A trusted signer signed two different policies with one counter.",
            todo="Its key may be in other hands: replace the signer (docs/policy.md).",
        )  # fmt: skip
    if collateral_used and standing.collateral_ends_ms is not None:
        yield from _ends(
            "COLLATERAL", "The newest collateral", standing.collateral_ends_ms, now_ms,
            "Fetch it from the vendors and import it: `enclavescale collateral import`.",
        )  # fmt: skip


def of_evidence(host_id: str, expires_ms: int, now_ms: int) -> Iterator[Problem]:
    """The evidence of an aggregator's session that signs now."""
    return _ends(
        "EVIDENCE", f"The evidence of {host_id}", expires_ms, now_ms, "Restart this worker: it binds a new session."
    )


def _ends(code: str, what: str, end_ms: int, now_ms: int, todo: str) -> Iterator[Problem]:
    left_ms = end_ms - now_ms
    if left_ms < 0:
        yield Problem(
            level=TROUBLE, weight=82, kind=f"{code}_ENDED", text=f"{what} ended {span(-left_ms)} ago.", todo=todo
        )
    elif left_ms < SOON_MS:
        level = TROUBLE if left_ms < NOW_MS else WATCH
        yield Problem(level=level, weight=55, kind=f"{code}_ENDS", text=f"{what} ends in {span(left_ms)}.", todo=todo)


def of_refusals(counts: Mapping[str, int], minutes: int) -> Iterator[Problem]:
    """Refusals by code over the last minutes."""
    shown = {code: count for code, count in counts.items() if code not in HARMLESS}
    if not shown:
        return
    total = sum(shown.values())
    largest = sorted(shown.items(), key=lambda one: (-one[1], one[0]))
    grave = sorted(GRAVE & shown.keys())
    named = ", ".join(f"{code} {count}" for code, count in largest[:3]) + (" …" if len(largest) > 3 else "")
    yield Problem(
        level=TROUBLE if grave else WATCH, weight=65 if grave else 30, kind=grave[0] if grave else "REFUSALS",
        text=f"{total} {'record' if total == 1 else 'records'} refused in {minutes} min: {named}.",
        todo="Each code is explained below, with the places of the newest.",
    )  # fmt: skip


def of_versions(versions: Sequence[str]) -> Iterator[Problem]:
    """Core versions of the newest outputs."""
    found = sorted(set(versions))
    if len(found) > 1:
        yield Problem(
            level=WATCH, weight=25, kind="CORE_VERSIONS", text=f"Workers run core versions {' and '.join(found)}.",
            todo="Finish the upgrade, or roll it back.",
        )  # fmt: skip
