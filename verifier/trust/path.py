"""A certification path under a pinned root, for vendors of devices (RFC 5280 §6, as much of it as they use).

What bytes and roots alone decide is in `verify_path`, and may be remembered; what time decides is in
`check_path_validity`, and is checked on every use. Revocation is the formats' own: each vendor publishes it otherwise.

The steps, in order; the same numbers stand at the code:

 1. As many certificates as the profile allows; each names the next as its subject, from the root down.
 2. The root's public key is one that the caller pinned.
 3. Issuers are CAs with room below them and may sign certificates; the leaf's constraints are the profile's.
 4. No critical extension is passed over; every key and algorithm is one the profile accepts.
 5. Each certificate is signed by its issuer, the root by itself.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

from verifier.errors import (
    CertChainInvalid,
    CertConstraint,
    CertExpired,
    CertKeyUnsupported,
    CertNotYetValid,
    CertSignature,
    NoTrustRoots,
    RootUntrusted,
)
from verifier.limits import CHAIN_CACHE_ENTRIES, MAX_ROOTS_REMEMBERED
from verifier.trust.certificate import Certificate, key_kind
from verifier.trust.roots import Root


@dataclass(frozen=True, slots=True, kw_only=True)
class PathProfile:
    """What a vendor's paths look like.

    `field` names the path in errors. `lengths` counts certificates, root and leaf included. `issuer_keys` and
    `leaf_keys` are kinds of keys (`verifier.trust.certificate.key_kind`), `algorithms` those of signatures.
    `leaf_may_be_ca`: a leaf that says it is a CA passes (device identities that issue nothing); a leaf that says
    nothing passes always. `usage_required`: issuers must have a KeyUsage extension, not only a fitting one.
    `known_critical` are OIDs of critical extensions that the caller reads.
    """

    field: str
    lengths: range
    issuer_keys: frozenset[str]
    leaf_keys: frozenset[str]
    algorithms: frozenset[str]
    leaf_may_be_ca: bool = False
    usage_required: bool = True
    known_critical: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPath:
    """A path, root first, under `root`. Only `verify_path` makes one; whether it is valid now, time says."""

    certificates: tuple[Certificate, ...]
    root: Root

    @property
    def leaf(self) -> Certificate:
        """The last certificate: the device's or signer's own."""
        return self.certificates[-1]

    @property
    def valid_from_ms(self) -> int:
        """Latest notBefore, UTC milliseconds."""
        return max(one.not_before_ms for one in self.certificates)

    @property
    def expires_ms(self) -> int:
        """Earliest notAfter, UTC milliseconds."""
        return min(one.not_after_ms for one in self.certificates)


def verify_path(certificates: Sequence[Certificate], roots: Sequence[Root], profile: PathProfile) -> VerifiedPath:
    """Verify everything about a path, root first, that time cannot change.

    Raises a subclass of `VerificationError` at the first step that fails, and nothing else.
    """
    path = tuple(certificates)
    # (1)
    check_names(path, profile)
    # (2)
    root = find_root(path[0], roots, profile)
    # (3)
    check_constraints(path, profile)
    # (4)
    check_critical(path, profile)
    check_keys(path, profile)
    # (5)
    check_signatures(path, profile)
    return VerifiedPath(certificates=path, root=root)


def place(path: Sequence[Certificate], index: int, profile: PathProfile) -> str:
    """How errors name a certificate: by its role, issuers between by their number below the root."""
    if index == 0:
        return f"{profile.field}.root"
    return f"{profile.field}.leaf" if index == len(path) - 1 else f"{profile.field}.issuer{index}"


def check_names(path: Sequence[Certificate], profile: PathProfile) -> None:
    """Length, links by name, no certificate twice. `CertChainInvalid`."""
    if len(path) not in profile.lengths:
        wanted = profile.lengths
        shown = f"{wanted[0]}" if len(wanted) == 1 else f"{wanted[0]} to {wanted[-1]}"
        has = "1 certificate" if len(path) == 1 else f"{len(path)} certificates"
        raise CertChainInvalid(f"{has}, {shown} expected", field=profile.field)
    if len(set(path)) != len(path):
        raise CertChainInvalid("a certificate twice", field=profile.field)
    for index, one in enumerate(path):
        if one.issuer != path[max(index - 1, 0)].subject:
            above = path[max(index - 1, 0)].common_name
            raise CertChainInvalid(
                f"{one.common_name!r} does not name {above!r} as its issuer", field=place(path, index, profile)
            )


def find_root(first: Certificate, roots: Sequence[Root], profile: PathProfile) -> Root:
    """The pinned root whose key the path's first certificate has. `NoTrustRoots`, `RootUntrusted`."""
    if not roots:
        raise NoTrustRoots("no root of trust is named", field="trust_roots")
    for root in roots:
        if root.spki == first.spki:
            return root
    raise RootUntrusted(f"root {first.common_name!r} is not pinned", field=f"{profile.field}.root")


def check_constraints(path: Sequence[Certificate], profile: PathProfile) -> None:
    """Issuers are CAs with room below them that may sign certificates; the leaf's own. `CertConstraint`."""
    for index, one in enumerate(path[:-1]):
        below, where = len(path) - 2 - index, place(path, index, profile)
        if one.is_ca is not True:
            raise CertConstraint(f"{one.common_name!r} is not a CA", field=where)
        if one.path_length is not None and one.path_length < below:
            raise CertConstraint(f"{one.common_name!r} allows {one.path_length} CAs below", field=where)
        if one.sign_certificates is None and profile.usage_required:
            raise CertConstraint(f"{one.common_name!r} has no keyUsage that lets it sign certificates", field=where)
        if one.sign_certificates is False:
            raise CertConstraint(f"{one.common_name!r} may not sign certificates", field=where)
    leaf, where = path[-1], place(path, len(path) - 1, profile)
    if leaf.is_ca and not profile.leaf_may_be_ca:
        raise CertConstraint("the leaf is a CA", field=where)
    if leaf.sign_data is False:
        raise CertConstraint("the leaf may not sign data", field=where)


def check_critical(path: Sequence[Certificate], profile: PathProfile) -> None:
    """No critical extension is passed over (RFC 5280 §4.2). `CertConstraint`."""
    for index, one in enumerate(path):
        unknown = [oid for oid in one.unknown_critical if oid not in profile.known_critical]
        if unknown:
            names = ", ".join(unknown[:2])
            raise CertConstraint(f"critical extensions {names}", field=place(path, index, profile))


def check_keys(path: Sequence[Certificate], profile: PathProfile) -> None:
    """Keys and algorithms are those of the profile. `CertKeyUnsupported`."""
    for index, one in enumerate(path):
        accepted = profile.leaf_keys if index == len(path) - 1 else profile.issuer_keys
        if key_kind(one) not in accepted or one.algorithm not in profile.algorithms:
            raise CertKeyUnsupported(
                f"a key {key_kind(one)}, signed with {one.algorithm}", field=place(path, index, profile)
            )


def check_signatures(path: Sequence[Certificate], profile: PathProfile) -> None:
    """The root signed itself, each issuer the next one. `CertSignature`."""
    for index, one in enumerate(path):
        held = one.signed_by(path[index - 1]) if index else _signs_itself(one)
        if not held:
            raise CertSignature(f"{one.common_name!r} is not signed by its issuer", field=place(path, index, profile))


@lru_cache(maxsize=MAX_ROOTS_REMEMBERED)
def _signs_itself(root: Certificate) -> bool:
    """Remembered: its bytes alone decide it, and every path of a vendor ends in one of a few."""
    return root.signed_by(root)


def check_path_validity(path: VerifiedPath, now_ms: int, profile: PathProfile) -> None:
    """notBefore <= now <= notAfter for each. `CertNotYetValid`, `CertExpired`; certain for this `now` only."""
    for index, one in enumerate(path.certificates):
        where = place(path.certificates, index, profile)
        if now_ms < one.not_before_ms:
            raise CertNotYetValid(f"{one.common_name!r} is not valid yet", field=where).holding(now_ms, now_ms)
        if now_ms > one.not_after_ms:
            raise CertExpired(f"{one.common_name!r} has expired", field=where).holding(now_ms, now_ms)


class PathCache:
    """Verified paths by their certificates, roots and profile: at most `entries`, the least recently used leaves.

    A hit is safe at any time: what is remembered does not depend on `now`. Refusals are not remembered.
    """

    def __init__(self, entries: int = CHAIN_CACHE_ENTRIES) -> None:
        if entries < 1:
            raise ValueError("a cache needs at least one entry")
        self._entries = entries
        self._map: OrderedDict[tuple[bytes, tuple[Root, ...], PathProfile], VerifiedPath] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._map)

    def verify(
        self,
        certificates: Sequence[Certificate],
        roots: Sequence[Root],
        profile: PathProfile,
        verify: Callable[[Sequence[Certificate], Sequence[Root], PathProfile], VerifiedPath] = verify_path,
    ) -> VerifiedPath:
        """`verify_path` with memory: the same result, the same error."""
        digest = hashlib.sha256()
        for one in certificates:
            digest.update(len(one.der).to_bytes(4, "little") + one.der)
        key = digest.digest(), tuple(roots), profile
        with self._lock:
            found = self._map.get(key)
            if found is not None:
                self._map.move_to_end(key)
                return found
        path = verify(certificates, roots, profile)
        with self._lock:
            self._map[key] = path
            self._map.move_to_end(key)
            while len(self._map) > self._entries:
                self._map.popitem(last=False)
        return path
