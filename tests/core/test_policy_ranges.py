"""Numbers of a policy: those out of range are refused where policies are opened, the others never raise later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point
from enclavescale.fleet import sign_policy
from schemas.errors import ConfigError
from schemas.records import DomainRule, Policy
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.policy_ranges import DOMAIN_RANGES, LIMIT_RANGES, check_ranges
from stream_jobs.policy_store import PolicyTrust, open_policy
from tests.core import fleet
from tests.core.fleet import MODEL
from tests.core.replay import remembered
from tests.core.story import Story

PPM = ("quantile_ppm", "confidence_ppm", "quorum_ppm", "max_colluding_ppm", "drift_cap_ppm")
OUTSIDE = [
    *((name, end) for name, (low, high) in DOMAIN_RANGES.items() for end in (low - 1, high + 1)),
    *((name, 0) for name in ("quantile_ppm", "confidence_ppm")),
    *((name, 1_000_000) for name in ("quantile_ppm", "confidence_ppm")),
    ("forecast_horizons_ms", (1_000, 0)),
    ("forecast_horizons_ms", (2**31 - 1,)),
    ("pane_ms", 1_500),
    ("pane_ms", 1),
]


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def view_of(**rule: Any) -> PolicyView:
    hosts = [fleet.enrolment(f"h{number}", "d", f"t{number % 2}") for number in range(3)]
    return fleet.policy_of(hosts, [fleet.domain_rule("d", **rule)])


def refused(policy: Policy, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_ranges(policy)
    assert caught.value.code == "CONFIG_INVALID"
    assert str(caught.value.field).startswith(field)


@pytest.mark.parametrize(("name", "value"), OUTSIDE)
def test_a_domain_s_number_out_of_range_is_refused(name: str, value: Any) -> None:
    refused(view_of(**{name: value}).policy, f"domains[0].{name}")


def test_so_are_other_numbers_and_models_that_are_none() -> None:
    policy = view_of().policy
    check_ranges(policy)
    for name, (low, _) in LIMIT_RANGES.items():
        refused(replace(policy, limits=replace(policy.limits, **{name: low - 1})), f"limits.{name}")
    for changed, field in (({"gpus": 0}, "gpus"), ({"capacity_w": 0}, "capacity_w"), ({"model": "none"}, "model")):
        host = replace(policy.hosts[1], classes=(replace(policy.hosts[1].classes[0], **changed),))
        refused(replace(policy, hosts=(policy.hosts[0], host)), f"hosts[1].classes[0].{field}")
    refused(replace(policy, sample_hz=0), "sample_hz")
    refused(replace(policy, models=(replace(MODEL, clip_high_w=0),)), "models[0].clip_high_w")
    refused(replace(policy, models=(replace(MODEL, edges_w=(200, 100)),)), "edges_w")


def test_every_number_of_a_rule_has_a_range() -> None:
    assert set(DOMAIN_RANGES) | {"domain", "forecast_horizons_ms"} == set(DomainRule.__dataclass_fields__)


def test_a_signed_policy_out_of_range_is_not_opened() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    trust = PolicyTrust((public_point(key.public_key()),))
    assert open_policy(sign_policy(view_of().policy, key), trust).domains["d"].quantile_ppm == 990_000
    with pytest.raises(ConfigError) as caught:
        open_policy(sign_policy(view_of(quantile_ppm=1_000_000).policy, key), trust)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "domains[0].quantile_ppm")


EXTREMES = [
    *({name: end} for name in PPM for end in DOMAIN_RANGES[name]),
    *({name: DOMAIN_RANGES[name][1]} for name in ("horizon_ms", "history_windows", "limit_w", "k_min_hosts")),
    {"history_windows": 0, "horizon_ms": 1, "forecast_horizons_ms": ()},
    {"forecast_horizons_ms": tuple(range(1, 40)), "horizon_ms": 3},
]


@pytest.mark.parametrize("rule", EXTREMES, ids=",".join)
def test_the_ends_of_the_ranges_work(rule: dict[str, Any]) -> None:
    view = view_of(**rule)
    check_ranges(view.policy)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    for window in range(5):
        for number in range(3):
            story.report(f"h{number}", window)
    assert story.outputs
    assert story.run.rejections == []
    withheld = "k_min_hosts" in rule
    assert all((output.mean is None) == withheld for output in story.outputs)
