"""What a rule is, and how rules compose (after sigstore's `verify/policy.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from verifier.claims import Claims
from verifier.errors import PolicyEmpty, PolicyInvalid, VerificationError

C_contra = TypeVar("C_contra", contravariant=True)
"""What a rule needs to see: a rule on quotes also judges sessions, never the other way round."""

Q_contra = TypeVar("Q_contra", bound=Claims, contravariant=True)
"""The same, with a CPU's evidence in it."""


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
        return _distinct(error for rule in self.rules for error in failures_of(rule, claims))


@dataclass(frozen=True, slots=True)
class Every(Generic[C_contra]):
    """Every rule must hold, in order; none at all is a policy that reports and does not judge."""

    rules: Sequence[Rule[C_contra]]

    def check(self, claims: C_contra) -> None:
        """Check every rule, up to the first that fails."""
        for rule in self.rules:
            rule.check(claims)

    def failures(self, claims: C_contra) -> list[VerificationError]:
        """Why each rule that fails does, in order, each reason once."""
        return _distinct(error for rule in self.rules for error in failures_of(rule, claims))


@dataclass(frozen=True, slots=True)
class AnyOf(Generic[C_contra]):
    """One rule must hold, else `refusal` is raised. No rules: `PolicyEmpty`.

    An alternative that is itself empty, or that cannot be meant, is an error of the policy: it is raised.
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
            except (PolicyEmpty, PolicyInvalid):
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
class ForTee(Generic[Q_contra]):
    """A rule for evidence of one TEE ("sgx", "tdx" or "snp"); it says nothing about others."""

    tee: str
    rule: Rule[Q_contra]

    def check(self, claims: Q_contra) -> None:
        """Check the rule where the evidence is of its TEE."""
        if claims.quote.tee == self.tee:
            self.rule.check(claims)

    def failures(self, claims: Q_contra) -> list[VerificationError]:
        """Why the rule fails, if it speaks of this evidence."""
        return failures_of(self.rule, claims) if claims.quote.tee == self.tee else []


def failures_of(rule: Rule[C_contra], claims: C_contra) -> list[VerificationError]:
    """Why `rule` fails: every demand of it that does, where it is made of several."""
    several = getattr(rule, "failures", None)  # an instance check of a protocol costs more than most rules
    if several is not None:
        return cast("Callable[[C_contra], list[VerificationError]]", several)(claims)
    try:
        rule.check(claims)
    except VerificationError as error:
        return [error]
    return []


def _distinct(errors: Iterable[VerificationError]) -> list[VerificationError]:
    found: dict[tuple[str, str | None, str], VerificationError] = {}
    for error in errors:
        found.setdefault((error.code, error.field, str(error)), error)
    return list(found.values())
