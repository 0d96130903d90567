"""Lint: a strict policy without a finding, and each code provoked at the place it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enclavescale.fleet import sign_policy
from enclavescale.policy.document import parse_document
from enclavescale.policy.finding import CODES, ERROR, WARNING
from enclavescale.policy.held import HeldPolicy
from enclavescale.policy.lint import errors_in, lint, lint_held
from enclavescale.policy.template import template
from schemas.errors import EnclaveScaleError
from schemas.records import Policy, RegisterRule, RevokedSubject
from stream_jobs.policy_store import PolicyTrust, open_policy
from tests.policy.samples import DAY_MS, NOW_MS, TEE, demo, point_of, strict

KEY = ec.generate_private_key(ec.SECP256R1())
Change = Callable[[Policy], Policy]


def whole(**fields: Any) -> Change:
    return lambda policy: replace(policy, **fields)


def limit(**fields: Any) -> Change:
    return lambda policy: replace(policy, limits=replace(policy.limits, **fields))


def entry(held: str, number: int = 0, **fields: Any) -> Change:
    """One record of a list changed."""

    def change(policy: Policy) -> Policy:
        entries = list(getattr(policy, held))
        entries[number] = replace(entries[number], **fields)
        return replace(policy, **{held: tuple(entries)})

    return change


def twice(held: str, **fields: Any) -> Change:
    """The first record of a list a second time at its end."""
    return lambda policy: replace(
        policy, **{held: (*getattr(policy, held), replace(getattr(policy, held)[0], **fields))}
    )


def register(**fields: Any) -> Change:
    rules = strict().measurements[0].registers
    return entry("measurements", registers=(replace(rules[0], **fields), *rules[1:]))


def both(*changed: Change) -> Change:
    def change(policy: Policy) -> Policy:
        for one in changed:
            policy = one(policy)
        return policy

    return change


MRTD = strict().measurements[0].registers[:1]
SNP = (RegisterRule(register="measurement", value=bytes(48)),)
AT_LEAST = RegisterRule(register="reported_tcb_at_least", value=bytes(8))
CASES: list[tuple[str, str, str, Change]] = [
    ("POLICY_VERSION", ERROR, "version", whole(version=2)),
    ("POLICY_COUNTER", ERROR, "counter", whole(counter=0)),
    ("POLICY_ENDED", ERROR, "not_after_ms", whole(not_after_ms=NOW_MS)),
    ("POLICY_ENDS_SOON", WARNING, "not_after_ms", whole(not_after_ms=NOW_MS + DAY_MS)),
    ("POLICY_LONG", WARNING, "not_after_ms", whole(not_after_ms=NOW_MS + 31 * DAY_MS)),
    ("POLICY_TIMES", ERROR, "not_after_ms", whole(effective_from_ms=NOW_MS + 7 * DAY_MS)),
    ("POLICY_TIMES", WARNING, "issued_at_ms", whole(issued_at_ms=NOW_MS + DAY_MS)),
    ("CORE_VERSION", WARNING, "core_version", whole(core_version="0")),
    ("POLICY_UNSAFE", WARNING, "unsafe_allow_create_time", whole(unsafe_allow_create_time=True)),
    ("POLICY_NAME", ERROR, "domains[0].domain", entry("domains", domain="hall-a\x00")),
    ("POLICY_NAME", ERROR, "hosts[0].tenant", entry("hosts", tenant="")),
    ("POLICY_NAME", ERROR, "measurements[0].label", entry("measurements", label=" x")),
    ("POLICY_UNSORTED", WARNING, "hosts", entry("hosts", host_id="z")),
    ("POLICY_DUPLICATE", ERROR, "domains", twice("domains")),
    ("POLICY_DUPLICATE", ERROR, "models", twice("models")),
    ("POLICY_DUPLICATE", ERROR, "measurements[0].label", twice("measurements")),
    ("POLICY_DUPLICATE", ERROR, "measurements[0].registers", entry("measurements", registers=(*MRTD, *MRTD))),
    ("POLICY_DUPLICATE", ERROR, "trust_roots[1].label", twice("trust_roots")),
    ("POLICY_DUPLICATE", ERROR, "hosts[0].classes", entry("hosts", classes=strict().hosts[0].classes * 2)),
    ("POLICY_DOMAINS_EMPTY", ERROR, "domains", whole(domains=())),
    ("POLICY_HOSTS_EMPTY", ERROR, "hosts", whole(hosts=())),
    ("POLICY_AGGREGATORS_EMPTY", ERROR, "aggregators", whole(aggregators=())),
    ("POLICY_DOMAIN_UNKNOWN", ERROR, "hosts[2].domain", entry("hosts", 2, domain="hall-b")),
    ("POLICY_DOMAIN_EMPTY", WARNING, "domains[1]", twice("domains", domain="hall-b", partition=1)),
    ("POLICY_PARTITION", ERROR, "domains[0].partition", entry("domains", partition=8)),
    ("POLICY_PARTITION", WARNING, "domains[1].partition", twice("domains", domain="hall-b")),
    ("POLICY_WINDOW", WARNING, "domains[0].window_ms", entry("domains", window_ms=7_000)),
    ("POLICY_TIMING", WARNING, "limits.max_idle_ms", limit(max_idle_ms=90_000)),
    ("POLICY_TIMING", WARNING, "limits.lateness_ms", limit(lateness_ms=59_999)),
    ("POLICY_TIMING", WARNING, "limits.clock_skew_tolerance_ms", limit(clock_skew_tolerance_ms=60_000)),
    ("POLICY_TIMING", WARNING, "limits.max_beacon_age_ms", limit(max_beacon_age_ms=119_999)),
    ("POLICY_TIMING", ERROR, "limits.max_beacon_age_ms", limit(max_beacon_age_ms=0)),
    ("POLICY_TIMING", ERROR, "limits.max_collateral_age_ms", limit(max_collateral_age_ms=-1)),
    ("POLICY_K_MIN", WARNING, "domains[0].k_min_hosts", entry("domains", k_min_hosts=7)),
    ("POLICY_K_MIN", WARNING, "domains[0].k_min_tenants", entry("domains", k_min_tenants=4)),
    ("POLICY_K_MIN_LOW", WARNING, "domains[0].k_min_hosts", entry("domains", k_min_hosts=1)),
    ("POLICY_LIMIT", WARNING, "domains[0].limit_w", entry("domains", limit_w=33_600)),
    ("POLICY_QUORUM", WARNING, "domains[0].quorum_ppm", entry("domains", quorum_ppm=499_999)),
    ("POLICY_COLLUDING", WARNING, "domains[0].max_colluding_ppm", entry("domains", max_colluding_ppm=500_000)),
    ("POLICY_EPSILON", WARNING, "limits.max_epsilon_micro", limit(max_epsilon_micro=10_000_001)),
    ("POLICY_CLASSES", ERROR, "hosts[5].classes", entry("hosts", 5, classes=())),
    ("POLICY_CAPACITY", WARNING, "hosts[0].classes[0].capacity_w", entry("models", clip_high_w=699)),
    ("POLICY_SOURCES", ERROR, "accepted_sources", whole(accepted_sources=())),
    ("POLICY_SOURCES", ERROR, "accepted_sources[1]", whole(accepted_sources=("nvml", "ipmi"))),
    ("POLICY_SOURCES", WARNING, "accepted_sources[0]", whole(accepted_sources=("simulated",))),
    ("POLICY_MODES", ERROR, "accepted_sampler_modes", whole(accepted_sampler_modes=())),
    ("POLICY_MODES", WARNING, "accepted_sampler_modes[1]", whole(accepted_sampler_modes=("instant", "average"))),
    ("POLICY_GRADE", ERROR, "min_first_mile", whole(min_first_mile="TDISP")),
    ("POLICY_GRADE", ERROR, "min_first_mile", whole(min_first_mile="")),
    ("POLICY_GRADE", ERROR, "hosts[1].gpu_key_digests", entry("hosts", 1, gpu_key_digests=())),
    ("POLICY_GRADE", WARNING, "min_first_mile", whole(min_first_mile="NONE")),
    ("POLICY_BEACON", WARNING, "limits.max_beacon_age_ms", limit(max_beacon_age_ms=None)),
    ("POLICY_PLATFORM", ERROR, "hosts[0].platform_ids", entry("hosts", platform_ids=())),
    ("POLICY_PLATFORM", ERROR, "aggregators[0].platform_ids[0]", entry("aggregators", platform_ids=("xyz",))),
    ("POLICY_PLATFORM", ERROR, "hosts[0].platform_ids[0]", entry("hosts", platform_ids=("ab" * 17,))),
    ("POLICY_PLATFORM_SHARED", WARNING, "aggregators[0].platform_ids[0]", entry("hosts", platform_ids=("AB" * 16,))),
    ("POLICY_MEASUREMENT_MISSING", ERROR, "measurements", whole(measurements=strict().measurements[:1])),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].role", entry("measurements", role="guest")),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].tee", entry("measurements", tee="sev")),
    ("POLICY_MEASUREMENT", ERROR, "measurements[1].tee", entry("measurements", 1, tee="nvidia")),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].registers", entry("measurements", registers=())),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].registers", entry("measurements", tee="snp", registers=SNP)),
    (
        "POLICY_MEASUREMENT",
        ERROR,
        "measurements[0].registers",
        entry("measurements", tee="snp", registers=(*SNP, AT_LEAST)),
    ),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].registers[0].register", register(register="mrenclave")),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].registers[0].value", register(value=bytes(47))),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].registers[0].mask", register(mask=bytes(48))),
    ("POLICY_MEASUREMENT", ERROR, "measurements[0].registers[0].mask", register(mask=b"\xff")),
    ("POLICY_MEASUREMENT_PARTIAL", WARNING, "measurements[0].registers", entry("measurements", registers=MRTD)),
    ("POLICY_TCB_MISSING", ERROR, "tcb_rules", whole(tcb_rules=())),
    ("POLICY_TCB", ERROR, "tcb_rules[0].accepted_statuses", entry("tcb_rules", accepted_statuses=())),
    ("POLICY_TCB", ERROR, "tcb_rules[0].accepted_statuses[0]", entry("tcb_rules", accepted_statuses=("Revoked",))),
    ("POLICY_TCB", ERROR, "tcb_rules[0].accepted_statuses[0]", entry("tcb_rules", accepted_statuses=("uptodate",))),
    ("POLICY_TCB", ERROR, "tcb_rules[1].tee", twice("tcb_rules", tee="snp")),
    ("POLICY_TCB", ERROR, "tcb_rules[0].grace_days", entry("tcb_rules", grace_days=-1)),
    (
        "POLICY_TCB_LAX",
        WARNING,
        "tcb_rules[0].accepted_statuses[0]",
        entry("tcb_rules", accepted_statuses=("OutOfDate",)),
    ),
    ("POLICY_TCB_LAX", WARNING, "tcb_rules[0].grace_days", entry("tcb_rules", grace_days=31)),
    ("POLICY_TCB_LAX", WARNING, "tcb_rules[0].allowed_advisories", entry("tcb_rules", allowed_advisories=("*",))),
    ("POLICY_ROOT", ERROR, "trust_roots[0].tee", entry("trust_roots", tee="arm")),
    (
        "POLICY_ROOT_SIMULATED",
        WARNING,
        "trust_roots[1].simulated",
        lambda p: replace(p, trust_roots=(*p.trust_roots, TEE.trust_root())),
    ),
    ("POLICY_REVOKED", ERROR, "revoked[0].kind", whole(revoked=(RevokedSubject(kind="rack", id="1", reason=""),))),
    ("POLICY_REVOKED", ERROR, "revoked[0].id", whole(revoked=(RevokedSubject(kind="gpu", id="h0", reason=""),))),
    ("ENROLMENT_AMBIGUOUS", ERROR, "platform_ids", twice("hosts", host_id="h9")),
    ("ENROLMENT_AMBIGUOUS", ERROR, "host_id", twice("aggregators")),
    ("POLICY_INVALID", ERROR, "gpu_key_digests", entry("hosts", gpu_key_digests=("00",))),
    ("CERT_CHAIN_INVALID", ERROR, "trust_roots[0].certificate_der", entry("trust_roots", certificate_der=b"0")),
    (
        "TRUST_ROOT_INVALID",
        ERROR,
        "trust_roots[0].certificate_der",
        entry("trust_roots", certificate_der=b"0", tee="tdx"),
    ),
    ("CONFIG_INVALID", ERROR, "sample_hz", whole(sample_hz=0)),
    ("CONFIG_INVALID", ERROR, "limits.max_idle_ms", limit(max_idle_ms=0)),
    ("CONFIG_INVALID", ERROR, "domains[0].pane_ms", entry("domains", pane_ms=7_000)),
    (
        "CONFIG_INVALID",
        ERROR,
        "hosts[3].classes[0].model",
        entry("hosts", 3, classes=(replace(strict().hosts[0].classes[0], model="B200"),)),
    ),
    ("CONFIG_INVALID", ERROR, "models[0].clip_high_w", entry("models", clip_high_w=0)),
]


def test_a_strict_policy_has_no_finding() -> None:
    assert lint(strict(), now_ms=NOW_MS, partitions=8) == ()


@pytest.mark.parametrize(("code", "severity", "field", "change"), CASES)
def test_each_fault_is_named_with_its_place(code: str, severity: str, field: str, change: Change) -> None:
    found = lint(change(strict()), now_ms=NOW_MS, partitions=8)
    assert (code, severity, field) in {(one.code, one.severity, one.field) for one in found}, found
    assert all(one.remedy and one.message for one in found)
    errors = [one.severity == ERROR for one in found]
    assert errors == sorted(errors, reverse=True), "errors stand first"


def test_every_code_is_provoked() -> None:
    assert set(CODES) <= {code for code, *_ in CASES}


def test_a_number_out_of_range_is_said_once_and_all_of_them_are() -> None:
    broken = both(limit(max_idle_ms=0), entry("domains", pane_ms=7_000), entry("models", clip_high_w=0))(strict())
    found = [one.field for one in lint(broken, now_ms=NOW_MS) if one.code == "CONFIG_INVALID"]
    assert sorted(found) == ["domains[0].pane_ms", "limits.max_idle_ms", "models[0].clip_high_w"]


def test_the_demo_has_warnings_alone() -> None:
    found = lint(demo(), now_ms=NOW_MS, partitions=2)
    assert errors_in(found) == ()
    assert {one.code for one in found} >= {"POLICY_UNSAFE", "POLICY_ROOT_SIMULATED", "POLICY_SOURCES"}


def test_a_document_is_judged_as_it_would_be_signed() -> None:
    bare = replace(strict(), counter=0, issued_at_ms=0, not_after_ms=0, hosts=strict().hosts[::-1])
    assert lint_held(HeldPolicy(bare, "here"), now_ms=NOW_MS) == ()
    assert {one.code for one in lint(bare, now_ms=NOW_MS)} >= {"POLICY_COUNTER", "POLICY_ENDED", "POLICY_UNSORTED"}


def test_the_template_is_refused_until_it_is_filled_in() -> None:
    held = HeldPolicy(parse_document(template().encode(), as_json=False), "template")
    found = lint_held(held, now_ms=NOW_MS)
    assert {one.code for one in found} == {
        "POLICY_DOMAINS_EMPTY",
        "POLICY_HOSTS_EMPTY",
        "POLICY_AGGREGATORS_EMPTY",
        "POLICY_MEASUREMENT_MISSING",
    }
    assert errors_in(found) == found


def test_the_template_s_examples_filled_in_are_a_policy_without_errors() -> None:
    kept = [line for line in template().splitlines() if not line.endswith("= []")]
    text = "\n".join(line[1:] if line[:1] == "#" and line[:2] not in ("#", "# ") else line for line in kept)
    text = text.replace("…48 bytes…", "11" * 48).replace("30…", TEE.root_der.hex()).replace('["…"]', f'["{"22" * 32}"]')
    policy = parse_document(text.encode(), as_json=False)
    assert (len(policy.hosts), len(policy.measurements), len(policy.trust_roots), len(policy.tcb_rules)) == (1, 1, 1, 1)
    found = {one.code for one in lint_held(HeldPolicy(policy, "template"), now_ms=NOW_MS) if one.severity == ERROR}
    assert found == {"POLICY_MEASUREMENT_MISSING"}, "the workers' code is nobody's example"


@pytest.mark.parametrize("change", [change for *_, change in CASES])
def test_what_workers_refuse_lint_refuses(change: Change) -> None:
    policy = change(strict())
    opened = True
    try:
        open_policy(sign_policy(policy, KEY), PolicyTrust((point_of(KEY),)))
    except EnclaveScaleError:
        opened = False
    assert opened or errors_in(lint(policy, now_ms=NOW_MS, partitions=8))
