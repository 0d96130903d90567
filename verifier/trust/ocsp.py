"""OCSP responses as an input: which of those given speaks about a certificate, and whether it may (RFC 6960 §4.2.2).

The steps, in order; the same numbers stand at the code:

 1. The response names the certificate by its serial number and by its issuer's name and key.
 2. Its responder is the issuer itself, or one the issuer authorised: a certificate the issuer signed for OCSP signing.
 3. The responder signed it. A response that fails 2 or 3 is foreign: anybody can write it. It counts for nothing, and
    says why the certificate is not spoken of where there is no genuine one.
 4. It is current: made before `now`, next update not reached; without one it is current for `OCSP_LIFETIME_MS`.
    Responses of the future count from their own time on; they are looked at before only where there are no others.
 5. The certificate is good: neither revoked (a certificate on hold is revoked) nor unknown.

A response is held, not asked for on the spot: its age is bounded by its window, not by a nonce. Whether a responder's
own certificate is revoked is not asked: such certificates are short-lived, or say so themselves (id-pkix-ocsp-nocheck).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from verifier.abi import der, x509
from verifier.abi.der import DerError
from verifier.abi.ocsp import GOOD, UNKNOWN, OcspEntry, OcspResponse, parse_ocsp
from verifier.errors import (
    CertRevoked,
    OcspExpired,
    OcspMalformed,
    OcspNotYetValid,
    OcspResponder,
    OcspSignature,
    OcspUnknown,
    VerificationError,
)
from verifier.limits import MAX_OCSP_ANSWERS, MAX_OCSP_REMEMBERED, OCSP_LIFETIME_MS
from verifier.signature import verify_signed
from verifier.trust.certificate import Certificate, key_kind, parse_certificate

__all__ = ["OcspResponse", "VerifiedAnswer", "find_answer", "parse_ocsp", "verify_answer"]

_OCSP_SIGNING = bytes.fromhex("2b06010505070309")
"""Content octets of id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9."""

_KEYS = frozenset({"secp256r1", "secp384r1", "secp521r1", "rsa2048", "rsa3072", "rsa4096"})
_ON_HOLD = 6


_Genuine = tuple[OcspResponse, OcspEntry, Certificate]
"""A genuine response, what it says of the certificate, and its responder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedAnswer:
    """A genuine, current answer that a certificate is good. Only `verify_answer` makes one.

    Times are UTC milliseconds, inclusive; `responder` is a common name, `nonce` the OCSP nonce or None.
    """

    serial_hex: str
    responder: str
    nonce: bytes | None
    valid_from_ms: int
    expires_ms: int


def verify_answer(
    responses: Sequence[OcspResponse], subject: Certificate, issuer: Certificate, now_ms: int
) -> VerifiedAnswer | None:
    """As `find_answer`; where there are only foreign responses, that refuses: what is wrong with the newest."""
    answer, foreign = find_answer(responses, subject, issuer, now_ms)
    if foreign is not None:
        raise foreign
    return answer


def find_answer(
    responses: Sequence[OcspResponse], subject: Certificate, issuer: Certificate, now_ms: int
) -> tuple[VerifiedAnswer | None, VerificationError | None]:
    """What `responses` say of `subject`, issued by `issuer` (verified), at `now_ms`; None if no genuine one does.

    Then the second is what is wrong with the foreign ones: `OcspResponder`, `OcspSignature`, `OcspMalformed`; None
    without any. Of the genuine ones the newest must be current; one revocation is enough, however old.
    Raises a subclass of `VerificationError`, certain for this `now` only: at another time other responses count.
    """
    # (1)
    about = sorted(_about(responses, subject, issuer), key=lambda pair: pair[1].this_update_ms, reverse=True)
    field = f"ocsp[{subject.serial_number:x}]"
    begun = [pair for pair in about if _window(*pair)[0] <= now_ms]
    ahead = [pair for pair in about if _window(*pair)[0] > now_ms]
    foreign: list[VerificationError] = []
    answers = _genuine(begun, issuer, field, foreign) or _genuine(ahead, issuer, field, foreign)
    if not answers:
        return None, foreign[0].holding(now_ms, now_ms) if foreign else None
    try:
        answer = _answer(answers, subject, issuer, now_ms)
    except VerificationError as error:
        raise error.holding(now_ms, now_ms) from None
    later = (_window(*pair)[0] - 1 for pair in ahead)
    return replace(answer, expires_ms=min((answer.expires_ms, *later))), None


def _genuine(
    about: Sequence[tuple[OcspResponse, OcspEntry]], issuer: Certificate, field: str, foreign: list[VerificationError]
) -> list[_Genuine]:
    """The first `MAX_OCSP_ANSWERS` of `about` that the issuer stands for; why the others before them are `foreign`."""
    found: list[_Genuine] = []
    for response, entry in about:
        if len(found) == MAX_OCSP_ANSWERS:
            break
        try:
            # (2)
            responder = responder_of(response, issuer, field)
            # (3)
            check_signature(response, responder, field)
        except VerificationError as error:
            foreign.append(error)
        else:
            found.append((response, entry, responder))
    return found


def _answer(answers: Sequence[_Genuine], subject: Certificate, issuer: Certificate, now_ms: int) -> VerifiedAnswer:
    """The answer of the newest response, if there is nothing against any of them."""
    field = f"ocsp[{subject.serial_number:x}]"
    for _, entry, _ in answers:
        # (5), for all of them: a later answer does not undo a revocation
        check_revoked(entry, subject, field)
    response, entry, responder = answers[0]
    # (4)
    check_responder_window(responder, issuer, now_ms, field)
    check_window(response, entry, now_ms, field)
    # (5)
    check_known(entry, subject, field)
    begin, end = _window(response, entry)
    own = responder == issuer
    return VerifiedAnswer(
        serial_hex=f"{subject.serial_number:x}",
        responder=responder.common_name,
        nonce=response.nonce,
        valid_from_ms=begin if own else max(begin, responder.not_before_ms),
        expires_ms=end if own else min(end, responder.not_after_ms),
    )


def _about(
    responses: Sequence[OcspResponse], subject: Certificate, issuer: Certificate
) -> Iterator[tuple[OcspResponse, OcspEntry]]:
    for response in responses:
        for entry in response.entries:
            if entry.serial_number == subject.serial_number and _names_issuer(entry, issuer):
                yield response, entry


def _names_issuer(entry: OcspEntry, issuer: Certificate) -> bool:
    name, key = _issuer_hashes(issuer, entry.hash_name)
    return entry.issuer_name_hash == name and entry.issuer_key_hash == key


@lru_cache(maxsize=MAX_OCSP_REMEMBERED)
def _issuer_hashes(issuer: Certificate, hash_name: str) -> tuple[bytes, bytes]:
    """Digests of the issuer's name and of its key's bits, as certificate ids have them."""

    def digest(data: bytes) -> bytes:
        return hashlib.new(hash_name, data, usedforsecurity=False).digest()

    return digest(issuer.subject), digest(_key_bits(issuer))


def _key_bits(certificate: Certificate) -> bytes:
    """The key's BIT STRING without its first octet, the number of unused bits."""
    try:
        _, key = der.read_sequence(der.read_all(certificate.spki, "key"), "key")
        return key.expect(x509.BIT_STRING, "key")[1:]
    except (DerError, ValueError):
        return b""


def responder_of(response: OcspResponse, issuer: Certificate, field: str) -> Certificate:
    """The certificate the response names as its responder: the issuer, or one it authorised. `OcspResponder`."""
    if _is_named(response, issuer):
        return issuer
    for data in response.certificates:
        try:
            found = parse_certificate(data)
        except VerificationError as error:
            raise OcspMalformed(f"a certificate in the response: {error}", field=field) from None
        if _is_named(response, found):
            check_delegation(found, issuer, field)
            return found
    raise OcspResponder("the response brings no certificate of its responder", field=field)


def _is_named(response: OcspResponse, certificate: Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    return response.responder_key == hashlib.sha1(_key_bits(certificate), usedforsecurity=False).digest()


def check_delegation(responder: Certificate, issuer: Certificate, field: str) -> None:
    """Issued by the issuer, for OCSP signing, no CA, nothing critical passed over. `OcspResponder`."""
    if responder.issuer != issuer.subject or not _signed(responder, issuer):
        raise OcspResponder(f"{responder.common_name!r} was not issued by {issuer.common_name!r}", field=field)
    if not _may_sign_answers(responder):
        raise OcspResponder(f"{responder.common_name!r} is not for OCSP signing", field=field)
    unknown = [oid for oid in responder.unknown_critical if oid != x509.EXTENDED_KEY_USAGE]
    if unknown or responder.is_ca or responder.sign_data is False or key_kind(responder) not in _KEYS:
        raise OcspResponder(f"{responder.common_name!r} is no responder's certificate", field=field)


def _may_sign_answers(responder: Certificate) -> bool:
    value = responder.extensions.get(x509.EXTENDED_KEY_USAGE)
    if value is None:
        return False
    try:
        purposes = der.read_sequence(der.read_all(value, "purposes"), "purposes")
    except DerError:
        return False
    return der.Der(der.OBJECT_ID, _OCSP_SIGNING) in purposes


@lru_cache(maxsize=MAX_OCSP_REMEMBERED)
def _signed(certificate: Certificate, issuer: Certificate) -> bool:
    """Remembered: their bytes alone decide it."""
    return certificate.signed_by(issuer)


@lru_cache(maxsize=MAX_OCSP_REMEMBERED)
def _answered(response: OcspResponse, responder: Certificate) -> bool:
    """Remembered: their bytes alone decide it."""
    return verify_signed(responder.public_key, response.algorithm, response.tbs, response.signature)


def check_signature(response: OcspResponse, responder: Certificate, field: str) -> None:
    """The responder signed the response. `OcspSignature`."""
    if not _answered(response, responder):
        raise OcspSignature(f"{responder.common_name!r} did not sign the response", field=field)


def check_revoked(entry: OcspEntry, subject: Certificate, field: str) -> None:
    """The certificate is not revoked, on hold included. `CertRevoked`."""
    if entry.status not in (GOOD, UNKNOWN):
        how = "on hold" if entry.reason == _ON_HOLD else "revoked"
        raise CertRevoked(f"{subject.common_name}, serial {subject.serial_number:x}, is {how}", field=field)


def check_known(entry: OcspEntry, subject: Certificate, field: str) -> None:
    """The responder knows the certificate. `OcspUnknown`."""
    if entry.status == UNKNOWN:
        raise OcspUnknown(f"{subject.common_name}, serial {subject.serial_number:x}, is not known", field=field)


def check_responder_window(responder: Certificate, issuer: Certificate, now_ms: int, field: str) -> None:
    """A certificate of its own is valid now; the issuer's, callers check. `OcspResponder`."""
    if responder != issuer and not responder.not_before_ms <= now_ms <= responder.not_after_ms:
        raise OcspResponder(f"{responder.common_name!r} is not valid now", field=field)


def check_window(response: OcspResponse, entry: OcspEntry, now_ms: int, field: str) -> None:
    """Made and updated by now, next update not reached. `OcspNotYetValid`, `OcspExpired`."""
    begin, end = _window(response, entry)
    if now_ms < begin:
        raise OcspNotYetValid("the response is from the future", field=field)
    if now_ms > end:
        raise OcspExpired("the response is out of date", field=field)


def _window(response: OcspResponse, entry: OcspEntry) -> tuple[int, int]:
    begin = max(response.produced_ms, entry.this_update_ms)
    if entry.next_update_ms is None:
        return begin, entry.this_update_ms + OCSP_LIFETIME_MS
    return begin, entry.next_update_ms - 1
