"""OCSP responses (RFC 6960 §4.2) in strict DER: who says what about which certificates, and for how long.

Nothing here is verified: `verifier.trust.ocsp` does that. A response that says more than we understand (a critical
extension, another response type) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from verifier.abi import der, x509
from verifier.abi.der import Der, DerError
from verifier.errors import OcspMalformed
from verifier.limits import MAX_OCSP_BYTES, MAX_OCSP_CERTIFICATES, MAX_OCSP_ENTRIES

GOOD, REVOKED, UNKNOWN = "good", "revoked", "unknown"

_NONCE = "1.3.6.1.5.5.7.48.1.2"
_BASIC = bytes.fromhex("2b0601050507300101")
"""Content octets of id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1."""

HASHES = {
    bytes.fromhex("2b0e03021a"): "sha1",
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
"""Hashes of certificate ids by the content octets of their OIDs."""

_NULL = b"\x05\x00"
_BY_NAME, _BY_KEY, _EXPLICIT_0, _EXPLICIT_1 = 0xA1, 0xA2, 0xA0, 0xA1
_GOOD, _REVOKED, _UNKNOWN = 0x80, 0xA1, 0x82
_ERRORS = {1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}
_KEY_HASH_BYTES = 20
_MAX_DIGEST_BYTES = 64
_MAX_SERIAL = (1 << 160) - 1
_MAX_REASON = 10
_MAX_NONCE_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspEntry:
    """What is said of one certificate.

    `hash_name` is that of the issuer's name and key, `hash_id` the DER it was written with; times are UTC milliseconds;
    `reason` is a CRLReason (6: on hold), None where none is given; `extensions` the DER of the entry's own.
    """

    hash_id: bytes
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial_number: int
    status: str
    revoked_ms: int | None
    reason: int | None
    this_update_ms: int
    next_update_ms: int | None
    extensions: bytes

    @property
    def hash_name(self) -> str:
        """As hashlib calls it."""
        return _hash_of(self.hash_id)

    def encode(self) -> bytes:
        """A SingleResponse."""
        identifier = der.sequence(
            der.read_all(self.hash_id, "hash"),
            der.octets(self.issuer_name_hash),
            der.octets(self.issuer_key_hash),
            der.unsigned(self.serial_number),
        )
        if self.status == REVOKED:
            reason = b"" if self.reason is None else _explicit(0, der.unsigned(self.reason, der.ENUMERATED)).encode()
            status = Der(_REVOKED, _time(self.revoked_ms or 0).encode() + reason)
        else:
            status = Der(_GOOD if self.status == GOOD else _UNKNOWN, b"")
        parts = [identifier, status, _time(self.this_update_ms)]
        if self.next_update_ms is not None:
            parts.append(_explicit(0, _time(self.next_update_ms)))
        if self.extensions:
            parts.append(Der(_EXPLICIT_1, self.extensions))
        return der.sequence(*parts).encode()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OcspResponse:
    """A parsed response; nothing in it is verified yet.

    `der` is the whole response and decides equality, `tbs` its signed part, `algorithm` its signature's
    (`verifier.signature.ALGORITHMS`). Of `responder_name` (DER) and `responder_key` (SHA-1 of the key's bits) one is
    given. `certificates` are the DER of those it brings. `nonce` is the OCSP nonce, None without one.
    """

    der: bytes
    tbs: bytes
    algorithm: str
    signature: bytes
    responder_name: bytes | None
    responder_key: bytes | None
    produced_ms: int
    entries: tuple[OcspEntry, ...]
    nonce: bytes | None
    extensions: bytes
    certificates: tuple[bytes, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OcspResponse) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def encode_tbs(self) -> bytes:
        """The signed part, made anew from the fields."""
        if self.responder_name is not None:
            responder = Der(_BY_NAME, self.responder_name)
        else:
            responder = _explicit(2, der.octets(self.responder_key or b""))
        entries = Der(der.SEQUENCE, b"".join(entry.encode() for entry in self.entries))
        parts = [responder, _time(self.produced_ms), entries]
        return der.sequence(*parts, *([Der(_EXPLICIT_1, self.extensions)] if self.extensions else [])).encode()


def encode_response(tbs: bytes, algorithm_id: bytes, signature: bytes, certificates: tuple[bytes, ...] = ()) -> bytes:
    """A successful response of its signed part, the DER of the AlgorithmIdentifier, signature and certificates."""
    parts = [
        der.read_all(tbs, "tbs"),
        der.read_all(algorithm_id, "algorithm"),
        Der(x509.BIT_STRING, b"\x00" + signature),
    ]
    if certificates:
        parts.append(_explicit(0, Der(der.SEQUENCE, b"".join(certificates))))
    answer = der.sequence(Der(der.OBJECT_ID, _BASIC), der.octets(der.sequence(*parts).encode()))
    return der.sequence(der.unsigned(0, der.ENUMERATED), _explicit(0, answer)).encode()


def parse_ocsp(data: bytes) -> OcspResponse:
    """The response of exactly `data`. Raises `OcspMalformed`, also for one that reports an error."""
    if len(data) > MAX_OCSP_BYTES:
        raise OcspMalformed(f"an OCSP response of {len(data)} bytes, at most {MAX_OCSP_BYTES}", field="ocsp")
    try:
        return _basic(data, _answer(data))
    except DerError as error:
        raise OcspMalformed(str(error), field="ocsp") from None


def _answer(data: bytes) -> bytes:
    """The BasicOCSPResponse of a successful response."""
    members = der.read_sequence(der.read_all(data, "response"), "response")
    status = der.read_unsigned(members[0], "status", 255, der.ENUMERATED) if members else 255
    if status:
        raise DerError(f"the responder reports {_ERRORS.get(status, status)}")
    if len(members) != 2:
        raise DerError("response: not a status and an answer")
    answer = der.read_sequence(_inner(members[1], _EXPLICIT_0, "response"), "response")
    if len(answer) != 2 or answer[0] != Der(der.OBJECT_ID, _BASIC):
        raise DerError("response: not a basic one")
    return answer[1].expect(der.OCTET_STRING, "response")


def _basic(data: bytes, basic: bytes) -> OcspResponse:
    at, end = der.span_of(basic, 0, len(basic), der.SEQUENCE, "basic response")
    _, behind = der.span_of(basic, at, end, der.SEQUENCE, "tbs")
    tbs = basic[at:behind]
    algorithm, at = x509.algorithm_of(basic, behind, end)
    start, stop = der.span_of(basic, at, end, x509.BIT_STRING, "signature")
    if end != len(basic) or basic[start : start + 1] != b"\x00":
        raise DerError("basic response: something behind it, or unused bits in its signature")
    certificates = _certificates(basic[stop:end]) if stop < end else ()
    rest = list(der.read_sequence(der.read_all(tbs, "tbs"), "tbs"))
    if len(rest) not in (3, 4):
        raise DerError("tbs: not responder, time, answers and extensions")
    name, key = _responder(rest[0])
    extensions = rest[3].expect(_EXPLICIT_1, "extensions") if len(rest) == 4 else b""
    return OcspResponse(
        der=data,
        tbs=tbs,
        algorithm=algorithm,
        signature=basic[start + 1 : stop],
        responder_name=name,
        responder_key=key,
        produced_ms=_read_time(rest[1]),
        entries=_entries(rest[2]),
        nonce=_nonce(extensions),
        extensions=extensions,
        certificates=certificates,
    )


def _responder(value: Der) -> tuple[bytes | None, bytes | None]:
    if value.tag == _BY_NAME:
        name = der.read_all(value.content, "responder")
        name.expect(der.SEQUENCE, "responder")
        return value.content, None
    key = _inner(value, _BY_KEY, "responder")
    return None, der.read_octets(key, "responder", _KEY_HASH_BYTES)


def _certificates(data: bytes) -> tuple[bytes, ...]:
    rest = _inner(der.read_all(data, "certificates"), _EXPLICIT_0, "certificates").expect(der.SEQUENCE, "certificates")
    found: list[bytes] = []
    while rest:
        if len(found) == MAX_OCSP_CERTIFICATES:
            raise DerError(f"more than {MAX_OCSP_CERTIFICATES} certificates")
        one, rest = der.read_one(rest, "certificate")
        found.append(one.encode())
    return tuple(found)


def _entries(value: Der) -> tuple[OcspEntry, ...]:
    found: list[OcspEntry] = []
    rest = value.expect(der.SEQUENCE, "answers")
    while rest:
        if len(found) == MAX_OCSP_ENTRIES:
            raise DerError(f"more than {MAX_OCSP_ENTRIES} answers")
        one, rest = der.read_one(rest, "answer")
        found.append(_entry(one))
    if not found:
        raise DerError("no answers")
    return tuple(found)


def _entry(value: Der) -> OcspEntry:
    members = list(der.read_sequence(value, "answer"))
    if len(members) < 3:
        raise DerError("answer: not id, status and time")
    identifier, status, updated, *rest = members
    parts = der.read_sequence(identifier, "certificate id")
    if len(parts) != 4:
        raise DerError("certificate id: not hash, name, key and serial number")
    hash_id = parts[0].encode()
    _hash_of(hash_id)
    revoked_ms, reason = _revocation(status)
    next_update = (
        _read_time(_inner(rest.pop(0), _EXPLICIT_0, "answer")) if rest and rest[0].tag == _EXPLICIT_0 else None
    )
    extensions = rest.pop(0).expect(_EXPLICIT_1, "answer") if rest else b""
    if rest:
        raise DerError("answer: something behind its extensions")
    _known(extensions, ())
    return OcspEntry(
        hash_id=hash_id,
        issuer_name_hash=_digest(parts[1]),
        issuer_key_hash=_digest(parts[2]),
        serial_number=der.read_unsigned(parts[3], "serial number", _MAX_SERIAL),
        status={_GOOD: GOOD, _REVOKED: REVOKED}.get(status.tag, UNKNOWN),
        revoked_ms=revoked_ms,
        reason=reason,
        this_update_ms=_read_time(updated),
        next_update_ms=next_update,
        extensions=extensions,
    )


def _revocation(status: Der) -> tuple[int | None, int | None]:
    """(when, why) of a revocation; (None, None) of the other two."""
    if status.tag in (_GOOD, _UNKNOWN):
        if status.content:
            raise DerError("status: something in it")
        return None, None
    content = status.expect(_REVOKED, "status")
    moment, rest = der.read_one(content, "status")
    if not rest:
        return _read_time(moment), None
    reason = _inner(der.read_all(rest, "status"), _EXPLICIT_0, "status")
    return _read_time(moment), der.read_unsigned(reason, "reason", _MAX_REASON, der.ENUMERATED)


def _hash_of(identifier: bytes) -> str:
    content = der.read_all(identifier, "hash").expect(der.SEQUENCE, "hash")
    oid, rest = der.read_one(content, "hash")
    found = HASHES.get(oid.expect(der.OBJECT_ID, "hash"))
    if found is None or rest not in (b"", _NULL):
        raise DerError("hash: one nobody here accepts")
    return found


def _digest(value: Der) -> bytes:
    content = value.expect(der.OCTET_STRING, "digest")
    if len(content) > _MAX_DIGEST_BYTES:
        raise DerError("digest: too long")
    return content


def _nonce(extensions: bytes) -> bytes | None:
    """The content of the nonce extension, an OCTET STRING inside its value (RFC 8954)."""
    value = _known(extensions, (_NONCE,)).get(_NONCE)
    if value is None:
        return None
    nonce = der.read_all(value, "nonce").expect(der.OCTET_STRING, "nonce")
    if not 1 <= len(nonce) <= _MAX_NONCE_BYTES:
        raise DerError(f"nonce: {len(nonce)} bytes")
    return nonce


def _known(extensions: bytes, understood: tuple[str, ...]) -> dict[str, bytes]:
    """Values by OID. A critical extension that is not `understood` is refused."""
    if not extensions:
        return {}
    found = x509.extensions_of(extensions, 0, len(extensions), "extensions")
    if any(critical and oid not in understood for oid, (critical, _) in found.items()):
        raise DerError("extensions: a critical one nobody here understands")
    return {oid: value for oid, (_, value) in found.items()}


def _inner(value: Der, tag: int, what: str) -> Der:
    return der.read_all(value.expect(tag, what), what)


def _explicit(number: int, value: Der) -> Der:
    return Der(0xA0 | number, value.encode())


def _read_time(value: Der) -> int:
    value.expect(x509.GENERALIZED_TIME, "time")
    data = value.encode()
    return x509.time_of(data, 0, len(data))[0]


def _time(moment_ms: int) -> Der:
    text = datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y%m%d%H%M%SZ").rjust(15, "0")
    return Der(x509.GENERALIZED_TIME, text.encode())
