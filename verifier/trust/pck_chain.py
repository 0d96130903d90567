"""A PCK chain whose signatures hold: what depends on bytes and pinned roots, never on the time (ATTESTATION.md §2).

The steps, in order; the same numbers stand at the code:

 1. Three certificates as Intel issues them; issuer and subject names make them root, intermediate, leaf, in any order.
 2. The root's public key is one that the caller pinned. The quote's own root is never trusted for being there.
 3. Each certificate carries the common name of its role under that root.
 4. Constraints: CAs and path length, key usage, no unknown critical extension, every key on P-256.
 5. Each certificate is signed by its issuer.
 6. The PCK certificate's extension names the platform.

Validity and revocation depend on `now`: `verifier.formats.dcap` checks them on every use.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from verifier.abi.pck import PckExtension, parse_pck_extension
from verifier.errors import PckExtensionInvalid
from verifier.limits import CHAIN_CACHE_ENTRIES
from verifier.trust import chain as chains
from verifier.trust.certificate import Certificate
from verifier.trust.chain import Chain
from verifier.trust.roots import TrustAnchor


@dataclass(frozen=True, slots=True, kw_only=True)
class PckChain:
    """A chain under `anchor` whose PCK certificate was issued for `platform`. Only `verify_pck_chain` makes one."""

    chain: Chain
    anchor: TrustAnchor
    platform: PckExtension


def verify_pck_chain(certificates: Sequence[Certificate], trust_roots: Sequence[TrustAnchor]) -> PckChain:
    """Verify everything about a chain that time cannot change.

    Raises a subclass of `VerificationError` at the first step that fails, and nothing else.
    """
    # (1)
    chains.check_profile(certificates)
    chain = chains.build_chain(certificates)
    # (2)
    anchor = chains.find_anchor(chain.root, trust_roots)
    # (3)
    chains.check_roles(chain, anchor.roles)
    # (4)
    chains.check_basic_constraints(chain)
    chains.check_key_usage(chain)
    chains.check_critical_extensions(chain)
    chains.check_keys(chain)
    # (5)
    chains.check_signatures(chain)
    # (6)
    return PckChain(chain=chain, anchor=anchor, platform=platform_of(chain.leaf))


def platform_of(leaf: Certificate) -> PckExtension:
    """The platform the PCK certificate was issued for. `PckExtensionInvalid`."""
    if leaf.pck_extension is None:
        raise PckExtensionInvalid("the PCK certificate has no Intel extension", field="pck_extension")
    return parse_pck_extension(leaf.pck_extension)


class ChainCache:
    """Verified chains by their bytes and roots: at most `entries`, the least recently used leaves first.

    A hit is safe at any time: what is remembered does not depend on `now`. Refusals are not remembered.
    """

    def __init__(self, entries: int = CHAIN_CACHE_ENTRIES) -> None:
        if entries < 1:
            raise ValueError("a cache needs at least one entry")
        self._entries = entries
        self._map: OrderedDict[tuple[bytes, tuple[TrustAnchor, ...]], PckChain] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._map)

    @staticmethod
    def key(text: bytes, trust_roots: Sequence[TrustAnchor]) -> tuple[bytes, tuple[TrustAnchor, ...]]:
        """What a verified chain depends on: the chain's bytes and the roots, labels included."""
        return hashlib.sha256(text).digest(), tuple(trust_roots)

    def get(self, key: tuple[bytes, tuple[TrustAnchor, ...]]) -> PckChain | None:
        """The remembered chain, or None."""
        with self._lock:
            chain = self._map.get(key)
            if chain is not None:
                self._map.move_to_end(key)
            return chain

    def put(self, key: tuple[bytes, tuple[TrustAnchor, ...]], chain: PckChain) -> None:
        """Remember a verified chain."""
        with self._lock:
            self._map[key] = chain
            self._map.move_to_end(key)
            while len(self._map) > self._entries:
                self._map.popitem(last=False)
