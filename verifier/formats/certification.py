"""From a quote's certification data to a verified PCK chain (ATTESTATION.md §2).

Type 5 carries the whole chain, and is never completed from elsewhere: an incomplete one is refused. Types 1 to 4 carry
no chain; their certificates come from the caller's endorsements and collateral. None of these is trusted for where it
came from: they are found from the pinned roots down, each signed by the one above it, so that no certificate that
somebody made up hides a genuine one, and no order decides. The leaf's key must have signed the QE report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product

from verifier.abi.dcap import CERTIFICATION_PCK_CHAIN, CERTIFICATION_PCK_LEAF, SignatureSection
from verifier.abi.pem import split_chain
from verifier.errors import CertChainInvalid, CertificationUnsupported, CertSignature
from verifier.limits import MAX_DIAGNOSED_CERTIFICATES, MAX_PCK_CANDIDATES
from verifier.signature import verify_raw
from verifier.trust.certificate import Certificate, on_p256, parse_certificate
from verifier.trust.pck_chain import ChainCache, PckChain, verify_pck_chain
from verifier.trust.roots import ChainRoles, TrustAnchor
from verifier.trust.selection import Span
from verifier.trust.store import Collateral

_PPID_BYTES = 16
_CPU_SVN = slice(-20, -4)
"""Types 1 to 3 end with CPUSVN (16 bytes), PCESVN and PCE id (2 each); type 1 begins with the PPID."""


def certified_chain(
    section: SignatureSection,
    trust_roots: Sequence[TrustAnchor],
    endorsements: Sequence[Certificate],
    collateral: Collateral | None,
    cache: ChainCache | None,
    now_ms: int,
    span: Span,
) -> PckChain:
    """The verified PCK chain of a quote. Raises a subclass of `VerificationError`.

    Of several chains that are as genuine (types 1 to 4; a CA or a PCK certificate issued anew) one that is valid at
    `now_ms` counts; `span` is narrowed to where that choice stays the same.
    """
    certification = section.certification
    if certification.kind == CERTIFICATION_PCK_CHAIN:
        if cache is None:
            return _carried(certification.data, trust_roots)
        key = ChainCache.key(certification.data, trust_roots)
        chain = cache.get(key)
        if chain is None:
            chain = _carried(certification.data, trust_roots)
            cache.put(key, chain)
        return chain
    pool = _Pool(endorsements, collateral, trust_roots)
    if certification.kind == CERTIFICATION_PCK_LEAF:
        leaf = _only_leaf(certification.data)
        leaves = [leaf]
    else:
        leaves = pool.leaves_that_signed(section)
        leaf = leaves[0] if leaves else _diagnosed_leaf(section, pool)
    chains = [chain for one in leaves for chain in pool.chains_of(one)]
    best = _best(chains, now_ms, span) if chains else pool.chain_by_names(leaf)
    return verify_pck_chain(best, trust_roots)


def _carried(text: bytes, trust_roots: Sequence[TrustAnchor]) -> PckChain:
    return verify_pck_chain([parse_certificate(data) for data in split_chain(text)], trust_roots)


def _only_leaf(text: bytes) -> Certificate:
    """The certificate of type 4, which carries one and no more. `CertChainInvalid`."""
    certificates = split_chain(text)
    if len(certificates) != 1:
        raise CertChainInvalid(f"{len(certificates)} certificates where one belongs", field="certification_data")
    return parse_certificate(certificates[0])


def _best(chains: Sequence[Sequence[Certificate]], now_ms: int, span: Span) -> Sequence[Certificate]:
    """Of genuine chains one that is valid now, then the one that lasts longest."""
    for one in {certificate for chain in chains for certificate in chain}:
        span.narrow(one.not_before_ms, one.not_after_ms, now_ms)

    def rank(chain: Sequence[Certificate]) -> tuple[bool, int, list[bytes]]:
        current = all(one.not_before_ms <= now_ms <= one.not_after_ms for one in chain)
        return current, min(one.not_after_ms for one in chain), [one.der for one in chain]

    return max(chains, key=rank)


def _signed_report(leaf: Certificate, section: SignatureSection) -> bool:
    return verify_raw(leaf.public_key, section.qe_report.raw, section.qe_report_signature)


def _diagnosed_leaf(section: SignatureSection, pool: _Pool) -> Certificate:
    """The certificate whose key signed the QE report, though no genuine CA issued it. `CertificationUnsupported`."""
    leaves = [one for one in pool.all() if one.pck_extension is not None]
    for leaf in islice(filter(on_p256, leaves), MAX_DIAGNOSED_CERTIFICATES):
        if _signed_report(leaf, section):
            return leaf
    raise CertificationUnsupported(
        f"certification type {section.certification.kind} carries no chain, "
        + ("and no given PCK certificate signed the QE report" if leaves else "and no PCK certificate was given"),
        field="certification_data",
    )


class _Pool:
    """The certificates at hand, each once, in an order of their own (by DER), and what is genuine among them.

    `roots` carry a pinned key and signed themselves; `issuers` are PCK CAs by name that such a root signed. Verdicts
    on signatures are remembered with the collateral.
    """

    def __init__(
        self, endorsements: Iterable[Certificate], collateral: Collateral | None, anchors: Sequence[TrustAnchor]
    ) -> None:
        self._held = Collateral.empty() if collateral is None else collateral
        self._endorsed = tuple(dict.fromkeys(endorsements))
        self._roles = {anchor.roles: None for anchor in anchors}
        keys = {anchor.spki for anchor in anchors}
        self.roots = [
            one
            for one in self._called(lambda roles: (roles.root,))
            if one.spki in keys and one.subject == one.issuer and on_p256(one) and self._signed(one, one)
        ]
        self.issuers = [
            one
            for one in self._called(lambda roles: roles.issuers)
            if on_p256(one) and any(self._signed(one, root) for root in self.roots if root.subject == one.issuer)
        ]

    def leaves_that_signed(self, section: SignatureSection) -> list[Certificate]:
        """Genuine PCK certificates of the key that signed the QE report; any that the quote seems to mean first.

        The signature names the platform, whatever the quote says of PPIDs: that only saves looking far.
        """
        data = section.certification.data
        ppid, cpu_svn = data[:_PPID_BYTES], data[_CPU_SVN]
        ranked = []
        for one in self._called(lambda roles: (roles.leaf,)):
            if one.pck_extension is not None and on_p256(one):
                ranked.append(((ppid not in one.pck_extension, cpu_svn not in one.pck_extension, one.der), one))
        leaves = [one for _, one in sorted(ranked, key=lambda pair: pair[0])]
        tried: set[bytes] = set()
        for leaf in leaves:
            if leaf.spki in tried or not self._issuers_of(leaf):
                continue
            if _signed_report(leaf, section):
                return [one for one in leaves if one.spki == leaf.spki and self._issuers_of(one)]
            tried.add(leaf.spki)
            if len(tried) == MAX_PCK_CANDIDATES:
                break
        return []

    def chains_of(self, leaf: Certificate) -> Iterator[tuple[Certificate, ...]]:
        """Every genuine (leaf, issuer, root)."""
        for issuer, root in product(self._issuers_of(leaf), self.roots):
            if root.subject == issuer.issuer and self._signed(issuer, root):
                yield leaf, issuer, root

    def chain_by_names(self, leaf: Certificate) -> list[Certificate]:
        """Where no chain is genuine: one to say what is wrong with it, by names, and by signatures where they hold."""
        found = [leaf]
        while len(found) < 3:
            child = found[-1]
            named = [one for one in (*self.issuers, *self.roots, *self.all()) if one.subject == child.issuer]
            tried = islice(filter(on_p256, dict.fromkeys(named)), MAX_DIAGNOSED_CERTIFICATES)
            issuer = next((one for one in tried if child.signed_by(one)), named[0] if named else None)
            if issuer is None or issuer in found:
                break
            found.append(issuer)
        return found

    def all(self) -> list[Certificate]:
        """Every certificate, sorted."""
        return sorted({*self._endorsed, *self._held.certificates}, key=lambda one: one.der)

    def _called(self, names_of: Callable[[ChainRoles], tuple[str, ...]]) -> list[Certificate]:
        """The certificates of these roles' common names."""
        names = {name for roles in self._roles for name in names_of(roles)}
        found = [one for one in self._endorsed if one.common_name in names]
        return list(dict.fromkeys(found + [one for name in names for one in self._held.called(name)]))

    def _issuers_of(self, leaf: Certificate) -> list[Certificate]:
        return [one for one in self.issuers if one.subject == leaf.issuer and self._signed(leaf, one)]

    def _signed(self, one: Certificate, issuer: Certificate) -> bool:
        """Whether the issuer's key, on P-256, signed the certificate."""
        try:
            self._held.remember(("pool", one.der, issuer.spki), _check_signature, one, issuer)
        except CertSignature:
            return False
        return True


def _check_signature(one: Certificate, issuer: Certificate) -> None:
    if not one.signed_by(issuer):
        raise CertSignature("not signed by its issuer", field="pck_chain")
