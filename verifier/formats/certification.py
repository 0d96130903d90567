"""From a quote's certification data to a verified PCK chain (ATTESTATION.md §2).

Type 5 carries the whole chain, and is never completed from elsewhere: an incomplete one is refused. Types 1 to 4 carry
no chain; their certificates come from the caller's endorsements and collateral. None of these is trusted for where it
came from: the chain leads to a pinned root, and the leaf's key must have signed the QE report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verifier.abi.dcap import CERTIFICATION_PCK_CHAIN, CERTIFICATION_PCK_LEAF, SignatureSection
from verifier.abi.pem import split_chain
from verifier.errors import CertChainInvalid, CertificationUnsupported
from verifier.limits import MAX_PCK_CANDIDATES
from verifier.signature import verify_raw
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.chain import known_root
from verifier.trust.pck_chain import ChainCache, PckChain, verify_pck_chain
from verifier.trust.roots import TrustAnchor
from verifier.trust.store import Collateral


def certified_chain(
    section: SignatureSection,
    trust_roots: Sequence[TrustAnchor],
    endorsements: Sequence[Certificate],
    collateral: Collateral | None,
    cache: ChainCache | None,
) -> PckChain:
    """The verified PCK chain of a quote. Raises a subclass of `VerificationError`."""
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
    pool = [*endorsements, *(collateral.certificates if collateral is not None else ())]
    if certification.kind == CERTIFICATION_PCK_LEAF:
        leaf, *more = (parse_certificate(data) for data in split_chain(certification.data))
        if more:
            raise CertChainInvalid("type 4 is the PCK certificate alone", field="certification_data")
    else:
        leaf = _leaf_that_signed(section, pool)
    return verify_pck_chain(_issuers_first(leaf, pool), trust_roots)


def _carried(text: bytes, trust_roots: Sequence[TrustAnchor]) -> PckChain:
    return verify_pck_chain([known_root(data) or parse_certificate(data) for data in split_chain(text)], trust_roots)


def _only_leaf(text: bytes) -> Certificate:
    """The certificate of type 4, which carries one and no more. `CertChainInvalid`."""
    certificates = split_chain(text)
    if len(certificates) != 1:
        raise CertChainInvalid(f"{len(certificates)} certificates where one belongs", field="certification_data")
    return parse_certificate(certificates[0])


def _leaf_that_signed(section: SignatureSection, pool: Iterable[Certificate]) -> Certificate:
    """The PCK certificate whose key signed the QE report: it names the platform whatever the quote says of PPIDs."""
    leaves = [one for one in pool if one.pck_extension is not None][:MAX_PCK_CANDIDATES]
    for leaf in leaves:
        if verify_raw(leaf.public_key, section.qe_report.raw, section.qe_report_signature):
            return leaf
    raise CertificationUnsupported(
        f"certification type {section.certification.kind} carries no chain, "
        + ("and no PCK certificate was given" if not leaves else "and no given PCK certificate signed the QE report"),
        field="certification_data",
    )


def _issuers_first(leaf: Certificate, pool: Sequence[Certificate]) -> list[Certificate]:
    """The leaf with its issuer and the issuer's, by name and signature; fewer where the pool lacks one."""
    found = [leaf]
    while len(found) < 3:
        child = found[-1]
        issuer = next((one for one in pool if one.subject == child.issuer and child.signed_by(one)), None)
        if issuer is None or issuer in found:
            break
        found.append(issuer)
    return found
