"""Policies, findings and differences as people see them, and as JSON, from the same facts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from enclavescale.checkup.finding import some
from enclavescale.policy.changes import ADDED, REMOVED, Change
from enclavescale.policy.document import utc
from enclavescale.policy.finding import ERROR, Finding
from enclavescale.policy.held import HOLDS, TRUSTED, UNSIGNED, HeldPolicy
from enclavescale.policy.issue import DAY_MS
from enclavescale.policy.lint import SOON_MS, UNSAFE
from enclavescale.screen_parts import BAD, DOUBT, GOOD, QUIET, Row, block, titled
from schemas.mapping import to_jsonable
from schemas.records import Policy
from stream_jobs.core.policies import CORE_VERSION

ENDED, FUTURE, IN_FORCE = "ended", "future", "in_force"
_SHOWN = 20
_SIGNS = {ADDED: ("+", GOOD), REMOVED: ("-", BAD)}
_CUT = 100


def state_of(policy: Policy, now_ms: int) -> str:
    """Whether a policy, once switched to, would be in force: `ENDED`, `FUTURE` or `IN_FORCE`."""
    if now_ms > policy.not_after_ms:
        return ENDED
    return FUTURE if now_ms < policy.effective_from_ms else IN_FORCE


def policy_json(held: HeldPolicy, now_ms: int) -> dict[str, Any]:
    """A policy and what is known of it, as JSON data."""
    policy = held.policy
    return {
        "origin": held.origin,
        "digest": None if held.digest is None else held.digest.hex(),
        "signer_public_key": None if held.signer is None else held.signer.hex(),
        "signature": held.signature,
        "state": UNSIGNED if held.signature == UNSIGNED else state_of(policy, now_ms),
        "remaining_ms": max(0, policy.not_after_ms - now_ms),
        "core_version_is_ours": policy.core_version == CORE_VERSION,
        "policy": to_jsonable(policy),
    }


def policy_screen(held: HeldPolicy, now_ms: int) -> RenderableType:
    """The whole screen for one policy."""
    policy = held.policy
    blocks: list[RenderableType] = [_headline(held, now_ms), block("", list(_facts(held, now_ms)))]
    if policy.domains:
        blocks.append(titled("Domains", _domains(policy)))
    if policy.models:
        blocks.append(titled("GPU models", _models(policy)))
    blocks.append(block("Trusted", list(_trusted(policy))))
    blocks.append(
        block("Limits", [(name, str(one)) for name, one in to_jsonable(policy.limits).items() if one is not None])
    )
    if policy.revoked:
        revoked = [(one.kind, f"{one.id}  {one.reason}") for one in policy.revoked]
        blocks.append(block("Revoked", revoked))
    return Group(*blocks)


def _headline(held: HeldPolicy, now_ms: int) -> Text:
    policy = held.policy
    name = f"policy {policy.counter}" if policy.counter else "policy without a counter"
    if held.signature == UNSIGNED:
        return Text.assemble((f"{name}: not signed", f"bold {DOUBT}"), f"  {held.origin}")
    if not held.believed:
        return Text.assemble((f"✘ {name}: {held.signature}", BAD), f"  {held.origin}")
    state, left = state_of(policy, now_ms), policy.not_after_ms - now_ms
    if state == ENDED:
        return Text.assemble((f"✘ {name}: ENDED {utc(policy.not_after_ms)}", BAD), f"  {held.origin}")
    if state == FUTURE:
        text = f"{name}: from {utc(policy.effective_from_ms)}"
        return Text.assemble((text, f"bold {DOUBT}"), f"  {held.origin}")
    style = f"bold {DOUBT if left < SOON_MS else GOOD}"
    return Text.assemble((f"✔ {name}: may be in force, {_span(left)} left", style), f"  {held.origin}")


def _facts(held: HeldPolicy, now_ms: int) -> Iterator[Row]:
    policy = held.policy
    if held.digest is not None and held.signer is not None:
        yield "digest", held.digest.hex()
        yield "signer", held.signer.hex()
        said = {
            TRUSTED: Text("holds, by a trusted signer", GOOD),
            HOLDS: Text("holds; --policy-signer not given", DOUBT),
        }
        yield "signature", said.get(held.signature, Text(held.signature, BAD))
        yield "issued", utc(policy.issued_at_ms)
    yield "in force from", utc(policy.effective_from_ms) if policy.effective_from_ms else "at once"
    if policy.not_after_ms:
        style = BAD if policy.not_after_ms <= now_ms else DOUBT if policy.not_after_ms - now_ms < SOON_MS else ""
        yield "until", Text(utc(policy.not_after_ms), style)
    ours = policy.core_version == CORE_VERSION
    yield (
        "core",
        Text(
            policy.core_version if ours else f"{policy.core_version}; this release has {CORE_VERSION}",
            "" if ours else DOUBT,
        ),
    )
    for name in UNSAFE:
        if getattr(policy, name):
            yield "UNSAFE", Text(name, BAD)


def _span(ms: int) -> str:
    return f"{ms / DAY_MS:.1f} days" if ms >= DAY_MS else f"{ms / 3_600_000:.1f} hours"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left")
    return table


def _domains(policy: Policy) -> Table:
    table = _table("", ">part.", ">limit W", ">enrolled W", ">hosts", ">tenants", ">GPUs", ">window s", ">k")
    for rule in policy.domains:
        hosts = [host for host in policy.hosts if host.domain == rule.domain]
        classes = [one for host in hosts for one in host.classes]
        table.add_row(
            rule.domain,
            str(rule.partition),
            f"{rule.limit_w:,}",
            f"{sum(one.capacity_w for one in classes):,}",
            str(len(hosts)),
            str(len({host.tenant for host in hosts})),
            str(sum(one.gpus for one in classes)),
            f"{rule.window_ms / 1000:g}",
            f"{rule.k_min_hosts}/{rule.k_min_tenants}",
        )
    return table


def _models(policy: Policy) -> Table:
    table = _table("", ">states", ">clip W")
    for rule in policy.models:
        table.add_row(rule.model, str(len(rule.edges_w) + 1), f"{rule.clip_low_w} to {rule.clip_high_w}")
    return table


def _trusted(policy: Policy) -> Iterator[Row]:
    yield "sources", ", ".join(policy.accepted_sources) or Text("none", DOUBT)
    yield "sampler modes", ", ".join(policy.accepted_sampler_modes) or Text("none", DOUBT)
    yield "first mile", f"{policy.min_first_mile} at least"
    for one in policy.measurements:
        yield f"{one.role}", f"{one.tee}  {one.label}  ({', '.join(rule.register for rule in one.registers)})"
    for rule in policy.tcb_rules:
        advisories = f", but for {', '.join(rule.allowed_advisories)}" if rule.allowed_advisories else ""
        yield "TCB", f"{rule.tee}  {', '.join(rule.accepted_statuses)}, {rule.grace_days} days of grace{advisories}"
    for root in policy.trust_roots:
        yield (
            "root",
            Text(f"{root.tee}  {root.label}{'  SIMULATED' if root.simulated else ''}", DOUBT if root.simulated else ""),
        )
    workers = [one.host_id for one in policy.aggregators]
    yield (
        "workers",
        ", ".join(workers[:_SHOWN]) + (f" and {len(workers) - _SHOWN} more" if len(workers) > _SHOWN else ""),
    )


def findings_screen(findings: Sequence[Finding]) -> RenderableType:
    """What lint found: code and place, what is wrong, what to do; of one code the first ones."""
    lines: list[RenderableType] = []
    seen: Counter[str] = Counter()
    for one in findings:
        seen[one.code] += 1
        if seen[one.code] > _SHOWN:
            continue
        sign, style = ("✘", BAD) if one.severity == ERROR else ("!", DOUBT)
        lines.append(Text.assemble((f"{sign} {one.code}", style), f"  {one.field}"))
        lines.append(Padding(Text.assemble(one.message, "\n", (one.remedy, QUIET)), (0, 0, 0, 4)))
    lines += [Text(f"  {code}: {count - _SHOWN} more", QUIET) for code, count in seen.items() if count > _SHOWN]
    errors = sum(one.severity == ERROR for one in findings)
    lines.append(Text(f"{some(errors, 'error')}, {some(len(findings) - errors, 'warning')}", "bold"))
    return Group(*lines)


def changes_screen(found: Sequence[Change]) -> RenderableType:
    """Differences, a line each; those that matter to security are marked and say why."""
    lines: list[RenderableType] = []
    for one in found:
        sign, style = _SIGNS.get(one.kind, ("~", ""))
        if one.kind == ADDED:
            text = _short(one.after)
        elif one.kind == REMOVED:
            text = _short(one.before)
        else:
            text = f"{_short(one.before)} → {_short(one.after)}"
        lines.append(Text.assemble((f"{sign} {one.path}", style), f"  {text}"))
        if one.weaker:
            lines.append(Padding(Text(f"WEAKER: {one.weaker}", f"bold {DOUBT}"), (0, 0, 0, 4)))
    marked = sum(bool(one.weaker) for one in found)
    said = f"{some(len(found), 'change')}, {some(marked, 'weakening')}" if found else "no difference"
    lines.append(Text(said, "bold"))
    return Group(*lines)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CUT else f"{text[:_CUT]}…"
