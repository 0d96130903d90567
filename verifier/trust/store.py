"""Collateral: what vendors sign about platforms, held as a set and picked for one platform at one time (§2, §3).

A set is a pool. Where an item came from, what it was delivered with and in which order decide nothing: signers are
found among all certificates by name, issuer and signature, and whatever cannot be read, is signed by someone else or
belongs to another platform stands beside the rest without hiding or replacing anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain, islice

from verifier.abi.collateral import SignedDocument
from verifier.errors import VerificationError
from verifier.limits import MAX_PEM_BLOCKS, MAX_SELECTIONS_REMEMBERED, MAX_VERDICTS_REMEMBERED
from verifier.trust import selection
from verifier.trust.certificate import Certificate, on_p256, parse_certificate
from verifier.trust.contents import Contents, HeldCrl, HeldDocument, Unreadable
from verifier.trust.crl import Crl
from verifier.trust.reading import read, read_set
from verifier.trust.roots import TrustAnchor
from verifier.trust.selection import CollateralWindow, PlatformCollateral

__all__ = ["Collateral", "CollateralWindow", "PlatformCollateral"]

_UNSEEN = object()


class Collateral:
    """An immutable set of documents, lists, certificates, RIMs and OCSP responses, none trusted for being here.

    What is remembered inside are verdicts on signatures and earlier picks, which the contents alone decide.
    """

    def __init__(self, contents: Contents) -> None:
        self.unreadable: tuple[Unreadable, ...] = tuple(contents.unreadable)
        self.given_as = frozenset(contents.given_as)
        self.crls: tuple[HeldCrl, ...] = tuple(contents.crls.values())
        self.held_documents: tuple[HeldDocument, ...] = tuple(contents.documents.values())
        self.certificate_sources = dict(contents.certificates)
        self._delivered = tuple(contents.delivered)
        self.rim_sources = dict(contents.rims)
        self.ocsp_sources = dict(contents.ocsp_responses)
        self._by_key: dict[tuple[str, tuple[str | bytes, ...]], list[HeldDocument]] = {}
        for one in self.held_documents:
            self._by_key.setdefault((one.kind, one.key), []).append(one)
        self._parsed: dict[bytes, Certificate | VerificationError] = {}
        self._verdicts: dict[tuple[object, ...], VerificationError | None] = {}
        self._picks: dict[tuple[object, ...], PlatformCollateral] = {}

    @classmethod
    def empty(cls) -> Collateral:
        """A set of nothing: every platform's collateral is missing."""
        return cls(Contents())

    @classmethod
    def from_json(cls, text: bytes | str) -> Collateral:
        """The set of one QuoteCollateralV3 object (the keys of the vectors' `collateral_format`).

        Raises `CollateralMalformed` or `CollateralTooLarge` if this is no such object; a member that cannot be read
        is kept with its error.
        """
        contents = Contents()
        read_set(text, contents)
        return cls(contents)

    @classmethod
    def of(cls, items: Iterable[bytes | SignedDocument | Crl | Certificate]) -> Collateral:
        """A set of items; bytes are told by their content (`verifier.trust.contents`).

        Raises `CollateralTooLarge` for too many; what cannot be read is kept with its error.
        """
        contents = Contents()
        for position, one in enumerate(items):
            contents.source = f"item {position}"
            if isinstance(one, SignedDocument):
                contents.add_document(one)
            elif isinstance(one, Crl):
                contents.add_crl(one)
            elif isinstance(one, Certificate):
                contents.add_certificate(one.der)
            else:
                read(one, contents)
        return cls(contents)

    def merged(self, *others: Collateral) -> Collateral:
        """This set and others in one. Raises `CollateralTooLarge`."""
        contents = Contents()
        for one in (self, *others):
            for document in one.held_documents:
                contents.documents.setdefault((document.digest, document.signed.signature), document)
            for crl in one.crls:
                contents.crls.setdefault(crl.digest, crl)
            for der, source in one.certificate_sources.items():
                contents.certificates.setdefault(der, source)
            contents.delivered += one._delivered[: MAX_PEM_BLOCKS - len(contents.delivered)]
            contents.rims = {**one.rim_sources, **contents.rims}
            contents.ocsp_responses = {**one.ocsp_sources, **contents.ocsp_responses}
            contents.unreadable.extend(one.unreadable)
            contents.given_as |= one.given_as
        contents.check_size()
        return Collateral(contents)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that stand for what can be read of this set, whatever its order."""
        parts = chain(
            (b"document" + one.digest + one.signed.signature for one in self.held_documents),
            (b"crl" + one.digest for one in self.crls),
            (b"certificate" + hashlib.sha256(der).digest() for der in self.certificate_sources),
            (b"rim" + hashlib.sha256(xml).digest() for xml in self.rim_sources),
            (b"ocsp" + hashlib.sha256(der).digest() for der in self.ocsp_sources),
        )
        return hashlib.sha256(b"".join(sorted(parts))).digest()

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every certificate that can be parsed; none of them is verified."""
        found = (self._certificate(der) for der in self.certificate_sources)
        return tuple(one for one in found if isinstance(one, Certificate))

    @property
    def delivered(self) -> tuple[Certificate, ...]:
        """Certificates in the order they were read, repetitions included, for chains that are judged as they come.

        At most as many as one file may hold. Raises what the first that cannot be parsed raises.
        """
        return tuple(parse_certificate(der) for der in self._delivered)

    @cached_property
    def rims(self) -> tuple[bytes, ...]:
        """Reference integrity manifests as read, none of them verified, in an order of their own."""
        return tuple(sorted(self.rim_sources))

    @cached_property
    def ocsp_responses(self) -> tuple[bytes, ...]:
        """OCSP responses as read, none of them verified, in an order of their own."""
        return tuple(sorted(self.ocsp_sources))

    @cached_property
    def _by_common_name(self) -> dict[str, list[Certificate]]:
        found: dict[str, list[Certificate]] = {}
        for one in self.certificates:
            found.setdefault(one.common_name, []).append(one)
        return found

    @property
    def pck_certificates(self) -> tuple[Certificate, ...]:
        """Certificates with Intel's PCK extension, for quotes that carry none."""
        return tuple(one for one in self.certificates if one.pck_extension is not None)

    @property
    def unreadable_certificates(self) -> tuple[tuple[bytes, VerificationError], ...]:
        """(DER, error) of every certificate that cannot be parsed."""
        found = ((der, self._certificate(der)) for der in self.certificate_sources)
        return tuple((der, one) for der, one in found if isinstance(one, VerificationError))

    def called(self, name: str) -> list[Certificate]:
        """Certificates of this common name. All of the set are parsed, once; `named` is for those who want few."""
        return self._by_common_name.get(name, [])

    def named(self, name: str | bytes) -> list[Certificate]:
        """Certificates that may carry this common name, or DER name; whether they do, the caller checks.

        Only these are parsed: a set may hold thousands.
        """
        return [one for one in self._mentioning(name) if isinstance(one, Certificate)]

    def broken(self, name: str) -> VerificationError | None:
        """Why a certificate that may carry this common name cannot be parsed."""
        return next((one.replica() for one in self._mentioning(name) if isinstance(one, VerificationError)), None)

    def some_certificates(self, limit: int) -> Iterator[Certificate]:
        """At most `limit` certificates with a key on P-256, whatever the order they were read in."""
        found = (self._certificate(der) for der in sorted(self.certificate_sources))
        return islice((one for one in found if isinstance(one, Certificate) and on_p256(one)), limit)

    def documents(self, kind: str, key: tuple[str | bytes, ...]) -> list[HeldDocument]:
        """The documents of `kind` about `key`."""
        return self._by_key.get((kind, key), [])

    def subjects(self, kind: str) -> list[tuple[str | bytes, ...]]:
        """What the documents of `kind` are about, sorted."""
        return sorted((key for held, key in self._by_key if held == kind), key=repr)

    def unreadable_as(self, *kinds: str) -> VerificationError | None:
        """Why a part of the first of these kinds that has one is unreadable: the first such part by its source."""
        for kind in kinds:
            found = [one for one in self.unreadable if one.kind == kind]
            if found:
                return min(found, key=lambda one: (one.source, str(one.error))).error.replica()
        return None

    def remember(self, key: tuple[object, ...], check: Callable[..., None], *arguments: object) -> None:
        """Run a check whose outcome bytes alone decide, named by `key`, at most once. Raises what it raises."""
        verdict = self._verdicts.get(key, _UNSEEN)
        if verdict is _UNSEEN:
            try:
                check(*arguments)
            except VerificationError as error:
                verdict = error.replica()  # without the traceback, which would keep everything it went through
            else:
                verdict = None
            if len(self._verdicts) >= MAX_VERDICTS_REMEMBERED:
                self._verdicts.clear()
            self._verdicts[key] = verdict
        if isinstance(verdict, VerificationError):
            raise verdict.replica()

    def select(
        self, *, tee: str, fmspc: bytes, pce_id: bytes, pck_issuer: Certificate, anchor: TrustAnchor, now_ms: int
    ) -> PlatformCollateral:
        """Verified collateral for one platform at `now_ms`, UTC milliseconds.

        `tee` is "sgx" or "tdx", `fmspc` 6 and `pce_id` 2 bytes of the PCK certificate; `pck_issuer` its issuer in a
        chain already verified up to `anchor`. Raises a subclass of `VerificationError` whose field begins with
        "tcb_info", "qe_identity", "pck_crl" or "root_ca_crl": what is missing, or what is wrong with the best there is;
        of an empty set, "collateral".
        """
        key = (tee, fmspc, pce_id, pck_issuer.der, anchor)
        pick = self._picks.get(key)
        if pick is None or not pick.valid_from_ms <= now_ms <= pick.expires_ms:
            pick = selection.select(
                self, tee=tee, fmspc=fmspc, pce_id=pce_id, pck_issuer=pck_issuer, anchor=anchor, now_ms=now_ms
            )
            if len(self._picks) >= MAX_SELECTIONS_REMEMBERED:
                self._picks.clear()
            self._picks[key] = pick
        return pick

    def _mentioning(self, name: str | bytes) -> list[Certificate | VerificationError]:
        mark = name.encode() if isinstance(name, str) else name
        return [self._certificate(der) for der in self.certificate_sources if mark in der]

    def _certificate(self, der: bytes) -> Certificate | VerificationError:
        found = self._parsed.get(der)
        if found is None:
            try:
                found = parse_certificate(der)
            except VerificationError as error:
                found = error.replica()
            self._parsed[der] = found
        return found
