"""What a rule is, and how rules compose (after sigstore's `verify/policy.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from verifier.claims import Claims
from verifier.errors import PolicyEmpty, VerificationError


class Rule(Protocol):
    """One demand on verified claims."""

    def check(self, claims: Claims) -> None:
        """Return if the claims satisfy the rule; raise a `VerificationError` if not."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every rule must hold, in order: the first that fails names the refusal. No rules: `PolicyEmpty`."""

    rules: Sequence[Rule]
    what: str

    def check(self, claims: Claims) -> None:
        """Check every rule."""
        if not self.rules:
            raise PolicyEmpty(f"{self.what} demands nothing", field=self.what)
        for rule in self.rules:
            rule.check(claims)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One rule must hold, else `refusal` is raised. No rules: `PolicyEmpty`.

    An alternative that is itself empty is an error of the policy: it is raised, not passed over.
    """

    rules: Sequence[Rule]
    what: str
    refusal: type[VerificationError]

    def check(self, claims: Claims) -> None:
        """Check the rules until one holds."""
        if not self.rules:
            raise PolicyEmpty(f"{self.what} accepts nothing", field=self.what)
        for rule in self.rules:
            try:
                rule.check(claims)
            except PolicyEmpty:
                raise
            except VerificationError:
                continue
            return
        raise self.refusal(f"none of {len(self.rules)} alternatives of {self.what} holds", field=self.what)
