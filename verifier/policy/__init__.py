"""Small rules over verified claims that compose; a composition of nothing refuses."""

from verifier.policy.base import AllOf, AnyOf, Rule
from verifier.policy.default import policy_rules, policy_warnings

__all__ = ["AllOf", "AnyOf", "Rule", "policy_rules", "policy_warnings"]
