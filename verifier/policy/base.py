"""What a rule is, and how rules compose (after sigstore's `verify/policy.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from verifier.claims import Claims
from verifier.errors import PolicyEmpty, VerificationError

C_contra = TypeVar("C_contra", bound=Claims, contravariant=True)
"""What a rule needs to see: a rule on quotes also judges sessions, never the other way round."""


class Rule(Protocol[C_contra]):
    """One demand on verified claims."""

    def check(self, claims: C_contra) -> None:
        """Return if the claims satisfy the rule; raise a `VerificationError` if not."""


@dataclass(frozen=True, slots=True)
class AllOf(Generic[C_contra]):
    """Every rule must hold, in order: the first that fails names the refusal. No rules: `PolicyEmpty`."""

    rules: Sequence[Rule[C_contra]]
    what: str

    def check(self, claims: C_contra) -> None:
        """Check every rule, up to the first that fails."""
        if not self.rules:
            raise PolicyEmpty(f"{self.what} demands nothing", field=self.what)
        for rule in self.rules:
            rule.check(claims)

    def failures(self, claims: C_contra) -> list[VerificationError]:
        """Why each rule that fails does, in order; the first is what `check` raises, none is acceptance."""
        if not self.rules:
            return [PolicyEmpty(f"{self.what} demands nothing", field=self.what)]
        found: dict[tuple[str, str | None, str], VerificationError] = {}
        for rule in self.rules:
            for error in _failures(rule, claims):
                found.setdefault((error.code, error.field, str(error)), error)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class AnyOf(Generic[C_contra]):
    """One rule must hold, else `refusal` is raised. No rules: `PolicyEmpty`.

    An alternative that is itself empty is an error of the policy: it is raised, not passed over.
    """

    rules: Sequence[Rule[C_contra]]
    what: str
    refusal: type[VerificationError]

    def check(self, claims: C_contra) -> None:
        """Check the rules until one holds."""
        if not self.rules:
            raise PolicyEmpty(f"{self.what} accepts nothing", field=self.what)
        reasons = []
        for rule in self.rules:
            try:
                rule.check(claims)
            except PolicyEmpty:
                raise
            except VerificationError as error:
                what = rule.what if isinstance(rule, AllOf) else error.code
                reasons.append(f"{what}: {error}")
                continue
            return
        shown = "; ".join(reasons[:_REASONS]) + ("; …" if len(reasons) > _REASONS else "")
        raise self.refusal(f"none of {len(self.rules)} alternatives of {self.what} holds: {shown}", field=self.what)


_REASONS = 4
"""Alternatives whose own reasons a message repeats."""


@dataclass(frozen=True, slots=True)
class ForTee(Generic[C_contra]):
    """A rule for quotes of one TEE ("sgx" or "tdx"); it says nothing about others."""

    tee: str
    rule: Rule[C_contra]

    def check(self, claims: C_contra) -> None:
        """Check the rule where the quote is of its TEE."""
        if claims.quote.tee == self.tee:
            self.rule.check(claims)


def _failures(rule: Rule[C_contra], claims: C_contra) -> list[VerificationError]:
    if isinstance(rule, AllOf):
        return rule.failures(claims)
    if isinstance(rule, ForTee):
        return _failures(rule.rule, claims) if claims.quote.tee == rule.tee else []
    try:
        rule.check(claims)
    except VerificationError as error:
        return [error]
    return []
