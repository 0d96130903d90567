"""Small rules over verified claims that compose; a composition of nothing refuses."""

from verifier.policy.base import AllOf, AnyOf, ForTee, Rule
from verifier.policy.default import accepted_until_ms, certain_between, policy_rules, policy_warnings

__all__ = [
    "AllOf",
    "AnyOf",
    "ForTee",
    "Rule",
    "accepted_until_ms",
    "certain_between",
    "policy_rules",
    "policy_warnings",
]
