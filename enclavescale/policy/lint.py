"""Everything that is wrong with a policy, found before it is signed: what workers would refuse, and what is unwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter

from enclavescale.policy.document import utc
from enclavescale.policy.finding import ERROR, Finding, caution, fault, refused
from enclavescale.policy.held import UNSIGNED, HeldPolicy
from enclavescale.policy.issue import DAY_MS, prepared
from enclavescale.policy.lint_fleet import lint_fleet
from enclavescale.policy.lint_trust import lint_trust
from schemas.errors import ConfigError
from schemas.records import Policy
from schemas.topics import AUDIT_RETENTION_MS
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.core.policy_ranges import LIMIT_RANGES, check_ranges
from verifier.policy.enrolment import lint_enrolment

SOON_MS = 2 * DAY_MS
"""From so long before its end a policy is said to end soon, ms."""

MAX_HZ = 1_000
"""Highest sampling rate that workers take, Hz."""

UNSAFE = ("unsafe_allow_unevaluated_tcb", "unsafe_allow_unenrolled_platform", "unsafe_allow_create_time")

_NAMED = {
    "domains": ("domain",),
    "hosts": ("host_id", "tenant", "failure_domain"),
    "aggregators": ("host_id",),
    "models": ("model",),
    "measurements": ("label",),
    "trust_roots": ("label",),
}
"""Lists of records, and which of their fields are names; they are sorted by the first of the sorted ones."""

_SORTED = ("domains", "hosts", "aggregators", "models")
_MAX_NAME = 255


def lint_held(held: HeldPolicy, *, now_ms: int, partitions: int | None = None) -> tuple[Finding, ...]:
    """`lint` of a policy at hand; a document as it would be signed now."""
    policy = held.policy
    if held.signature == UNSIGNED:
        policy = prepared(policy, counter=policy.counter or 1, now_ms=now_ms, valid_days=None)
    return lint(policy, now_ms=now_ms, partitions=partitions)


def lint(policy: Policy, *, now_ms: int, partitions: int | None = None) -> tuple[Finding, ...]:
    """All findings on a policy as of `now_ms` (UTC milliseconds), errors first; none: it can be signed.

    `partitions`: how many the reports topic has, where that is known.
    """
    found = [
        *_times(policy, now_ms),
        *_whole(policy),
        *_ranges(policy),
        *(refused(one, one.field or "") for one in lint_enrolment(policy)),
        *_names(policy),
        *lint_fleet(policy, partitions),
        *lint_trust(policy, now_ms),
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one.severity != ERROR))


def errors_in(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those for which a policy is not signed."""
    return tuple(one for one in findings if one.severity == ERROR)


def _times(policy: Policy, now_ms: int) -> Iterator[Finding]:
    end = policy.not_after_ms
    if policy.counter < 1:
        yield fault("POLICY_COUNTER", "counter", f"counter {policy.counter}")
    if end <= now_ms:
        yield fault("POLICY_ENDED", "not_after_ms", f"ended {utc(end)}")
    elif end - now_ms < SOON_MS:
        yield caution("POLICY_ENDS_SOON", "not_after_ms", f"ends {utc(end)}")
    if max(policy.effective_from_ms, policy.issued_at_ms) >= end:
        yield fault("POLICY_TIMES", "not_after_ms", f"ends {utc(end)}, before it is in force")
    elif end - policy.issued_at_ms > AUDIT_RETENTION_MS:
        days = (end - policy.issued_at_ms) // DAY_MS
        yield caution("POLICY_LONG", "not_after_ms", f"{days} days from issue to end")
    if policy.issued_at_ms > now_ms + policy.limits.clock_skew_tolerance_ms:
        yield caution("POLICY_TIMES", "issued_at_ms", f"issued {utc(policy.issued_at_ms)}, in the future")


def _whole(policy: Policy) -> Iterator[Finding]:
    if policy.version != 1:
        yield fault("POLICY_VERSION", "version", f"version {policy.version}")
    if policy.core_version != CORE_VERSION:
        yield caution(
            "CORE_VERSION", "core_version", f"core {policy.core_version!r}; this release has {CORE_VERSION!r}"
        )
    for name in UNSAFE:
        if getattr(policy, name):
            yield caution("POLICY_UNSAFE", name, "switched on: everybody sees it in outputs")


def _ranges(policy: Policy) -> Iterator[Finding]:
    """What `check_ranges` refuses: the first thing of every record, not only of the first record."""
    bare = replace(policy, domains=(), hosts=(), models=())
    yield from _refused(bare, "", "")
    limits = {name: min(max(getattr(policy.limits, name), low), high) for name, (low, high) in LIMIT_RANGES.items()}
    sound = replace(bare, limits=replace(policy.limits, **limits))
    if not 1 <= policy.sample_hz <= MAX_HZ:
        sound = replace(sound, sample_hz=MAX_HZ)  # of which every pane holds a whole number
    broken: set[str] = set()
    for number, rule in enumerate(policy.domains):
        yield from _refused(replace(sound, domains=(rule,)), "domains[0]", f"domains[{number}]")
    for number, model in enumerate(policy.models):
        found = list(_refused(replace(sound, models=(model,)), "models[0]", f"models[{number}]"))
        broken.update({model.model} if found else ())
        yield from found
    usable = tuple(model for model in policy.models if model.model not in broken)
    if any(_refused(replace(sound, models=usable, hosts=policy.hosts), "", "")):
        for number, host in enumerate(policy.hosts):
            rest = replace(host, classes=tuple(one for one in host.classes if one.model not in broken))
            yield from _refused(replace(sound, models=usable, hosts=(rest,)), "hosts[0]", f"hosts[{number}]")


def _refused(part: Policy, here: str, there: str) -> Iterator[Finding]:
    """What `check_ranges` says of a policy that holds one record; its place `here` is `there` in the whole."""
    try:
        check_ranges(part)
    except ConfigError as cause:
        field = cause.field or ""
        yield refused(cause, there + field.removeprefix(here) if field.startswith(here) else f"{there}.{field}")


def _names(policy: Policy) -> Iterator[Finding]:
    for held, names in _NAMED.items():
        entries = getattr(policy, held)
        for number, record in enumerate(entries):
            for name in names:
                text = getattr(record, name)
                if not text or text != text.strip() or not text.isprintable() or len(text) > _MAX_NAME:
                    yield fault("POLICY_NAME", f"{held}[{number}].{name}", f"name {ascii(text)[:60]}")
        if held in _SORTED and list(entries) != sorted(entries, key=attrgetter(names[0])):
            yield caution("POLICY_UNSORTED", held, f"{held} are not sorted by {names[0]}")
