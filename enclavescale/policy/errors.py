"""A policy that is not signed, or not put in force."""

from __future__ import annotations

from verifier.errors import VerificationError


class PolicyRefused(VerificationError):
    """A policy that must not become the newest one."""

    code = "POLICY_REFUSED"
    remedy = "Correct what `enclavescale policy lint` reports, and sign it again."
