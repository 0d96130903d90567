"""Signing: a document becomes the value that the policy topic carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point, sign_raw
from enclavescale.policy.errors import PolicyRefused
from enclavescale.policy.held import TRUSTED, HeldPolicy, hold_value
from schemas.codec import MAX_POLICY_BYTES, encode_policy, encode_signed_policy, policy_preimage
from schemas.errors import ConfigError
from schemas.records import Policy

DAY_MS = 86_400_000
DEFAULT_VALID_DAYS = 7
MAX_COUNTER = 2**62
"""Counters end here: one that leaves no room above it could never be succeeded."""

_SORTED = {"domains": "domain", "hosts": "host_id", "aggregators": "host_id", "models": "model"}
_HIGHER = "Give a higher --counter, or auto."


def canonical(policy: Policy) -> Policy:
    """The policy with domains, hosts, aggregators and models sorted by name, as the schema has them."""
    lists: dict[str, Any] = {
        name: tuple(sorted(getattr(policy, name), key=attrgetter(key))) for name, key in _SORTED.items()
    }
    return replace(policy, **lists)


def unissued(policy: Policy) -> Policy:
    """The policy without what signing fills in: to be edited and signed anew."""
    return replace(policy, counter=0, issued_at_ms=0, not_after_ms=0)


def next_counter(wanted: int | None, stated: int, known: Sequence[HeldPolicy], *, first: bool = False) -> int:
    """The counter to sign with. `wanted` None: one above that of the policies `known`, 1 if this is the `first`.

    `stated` is the document's own, taken where nothing else says. Raises PolicyRefused POLICY_ROLLBACK for one that
    does not exceed all of `known`, ConfigError where nothing says which it is, or for one out of range.
    """
    highest = max((one.policy.counter for one in known), default=None)
    if wanted is None:
        wanted = highest + 1 if highest is not None else stated or (1 if first else None)
    if wanted is None:
        raise ConfigError(
            "nothing says which counter is next",
            field="counter",
            remedy="Give --counter N, --previous FILE, or the cluster whose policy topic says so; where another key "
            "signed those before, --policy-signer with that key; for the first policy of all --first.",
        )
    if highest is not None and wanted <= highest:
        newest = max(known, key=lambda one: one.policy.counter)
        raise PolicyRefused(
            f"counter {wanted}; {newest.origin} has {highest}", code="POLICY_ROLLBACK", field="counter", remedy=_HIGHER
        )
    if not 1 <= wanted <= MAX_COUNTER:
        raise ConfigError(f"{wanted} is not within 1 to {MAX_COUNTER}", field="counter", remedy=_HIGHER)
    return wanted


def prepared(policy: Policy, *, counter: int, now_ms: int, valid_days: int | None) -> Policy:
    """The policy as it will be signed: counter, time of signing, end. `valid_days` None: the document's own end, or
    `DEFAULT_VALID_DAYS` where it has none."""
    not_after_ms = policy.not_after_ms
    if valid_days is not None or not not_after_ms:
        days = DEFAULT_VALID_DAYS if valid_days is None else valid_days
        not_after_ms = max(now_ms, policy.effective_from_ms) + days * DAY_MS
    return replace(canonical(policy), counter=counter, issued_at_ms=now_ms, not_after_ms=not_after_ms)


def sign(policy: Policy, key: ec.EllipticCurvePrivateKey) -> HeldPolicy:
    """The signed value, read back and verified as workers do. Raises ConfigError for one that is too large."""
    body = encode_policy(policy)
    point = public_point(key.public_key())
    value = encode_signed_policy(body, sign_raw(key, policy_preimage(body)), point)
    if len(value) > MAX_POLICY_BYTES:
        raise ConfigError(f"{len(value)} bytes, {MAX_POLICY_BYTES} at most", code="TOO_LARGE", field="hosts")
    held = hold_value(value, "signed now", (point,))
    if held.signature != TRUSTED or held.policy != policy:
        raise ConfigError("what was signed does not read back as it was", field="policy")
    return held
