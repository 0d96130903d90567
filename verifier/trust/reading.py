"""Reading collateral by its content: what a PCS or PCCS answers, what is saved of it, and plain files.

| content | as |
|---|---|
| object with keys of QuoteCollateralV3 | a whole set, as dcap-qvl writes it |
| object with `tcbInfo`, `enclaveIdentity` or `tcbEvaluationDataNumbers`, and `signature` | a body of `/tcb`, … |
| object with `tcbEvalNumbers_raw`, `signature`, `issuer_chain` | evaluation numbers, text and chain apart |
| array of objects with `cert` | a body of `/pckcerts` |
| `HTTP/…` or header lines, then perhaps a body | `curl -i`, `curl -D`: `…-Issuer-Chain` headers, and the body |
| PEM, DER (one value or several), hex or base64 of either | certificates and revocation lists |
| DER that begins with a status | an OCSP response (RFC 6960) |
| XML of a SoftwareIdentity | a reference integrity manifest (RIM) |
| URL-encoded PEM, a JSON string of hex | the value of such a header, the body of `/rootcacrl` |

A UTF-8 byte order mark, which some editors write, is passed over. Names of files, and the kind a server says it answers
with, are not looked at.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from verifier.abi import der, json
from verifier.abi.collateral import (
    ENVELOPES,
    EVALUATION_NUMBERS,
    QE_IDENTITY,
    TCB_INFO,
    parse_signed,
    signed_document,
)
from verifier.abi.der import DerError
from verifier.abi.fields import member
from verifier.abi.pem_blocks import BEGIN, CERTIFICATE, CRL, has_blocks, split_blocks
from verifier.abi.rim import is_rim
from verifier.errors import CollateralMalformed, CollateralTooLarge
from verifier.limits import (
    MAX_COLLATERAL_BYTES,
    MAX_HTTP_LINES,
    MAX_PEM_BLOCKS,
    MAX_URL_ESCAPES,
)
from verifier.trust.contents import PCK_CRL, ROOT_CRL, UNKNOWN, Contents, Unreadable
from verifier.trust.crl import parse_crl

_CHAINS = ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain", "pck_certificate_chain")
_DOCUMENTS = ((TCB_INFO, "tcb_info_signature"), (QE_IDENTITY, "qe_identity_signature"))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HEX_MARKS = (b"0x", b"0X")
_URL_ENCODED = b"-----BEGIN%20"
_SPACE = b" \t\r\n"
SET_KEYS = frozenset((*_CHAINS, TCB_INFO, QE_IDENTITY, PCK_CRL, ROOT_CRL))
"""Keys of QuoteCollateralV3, Intel's structure as dcap-qvl writes it; signatures stand beside their documents."""


def read_set(data: bytes | str, into: Contents) -> None:
    """A QuoteCollateralV3 object: PEM chains, revocation lists as hex of DER, signed texts, signatures in hex.

    An absent or empty member is missing. Raises `CollateralMalformed` or `CollateralTooLarge` if this is no such
    object; a member that cannot be read is kept with its error.
    """
    into.blocks = 0
    text = data.removeprefix("\ufeff") if isinstance(data, str) else data.removeprefix(_BYTE_ORDER_MARK)
    add_set(json.loads(text, "collateral", any_number=True), into)


def add_set(found: dict[str, Any], into: Contents) -> None:
    """The members of a QuoteCollateralV3 object."""
    if not SET_KEYS & found.keys():
        raise CollateralMalformed("none of the keys of QuoteCollateralV3", field="collateral")
    for text in dict.fromkeys(_texts(found, _CHAINS, into)):
        with into.part(CERTIFICATE):
            into.add_blocks(_url_decoded(_ascii(text, "issuer_chain")), "issuer_chain")
    for kind, signature in _DOCUMENTS:
        for text in _texts(found, (kind,), into):
            with into.part(kind):
                into.add_document(signed_document(kind, text, found.get(signature)))
    for kind in (ROOT_CRL, PCK_CRL):
        for text in _texts(found, (kind,), into):
            with into.part(kind):
                into.add_crl(parse_crl(_crl_der(_ascii(text, kind), kind)), kind)


def _texts(found: dict[str, Any], names: tuple[str, ...], into: Contents) -> Iterator[str]:
    for name in names:
        value = found.get(name)
        if type(value) is str:
            if value:
                yield value
        elif value is not None:
            error = CollateralMalformed(f"{name}: not a text", field=name)
            into.unreadable.append(Unreadable(into.source, name if name not in _CHAINS else CERTIFICATE, error))


def _ascii(text: str, what: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise CollateralMalformed(f"{what}: not ASCII", field=what) from None


def _crl_der(text: bytes, what: str) -> bytes:
    """DER of one revocation list given as hex or base64 of DER, or as PEM; a PCCS answers in each of these."""
    data = _decoded(text.strip(_SPACE))
    if data is None:
        raise CollateralMalformed(f"{what}: neither hex, base64 nor PEM", field=what)
    if not data.startswith(BEGIN):
        return data
    blocks = split_blocks(data, what)
    if len(blocks) != 1 or blocks[0][0] != CRL:
        raise CollateralMalformed(f"{what}: not one revocation list", field=what)
    return blocks[0][1]


def _decoded(text: bytes) -> bytes | None:
    """The bytes that `text` is hex or base64 of, also as a JSON string; PEM as it is."""
    if text.startswith(BEGIN):
        return text
    if len(text) > 1 and text[:1] == text[-1:] == b'"':
        text = text[1:-1]
    try:
        return bytes.fromhex((text[2:] if text.startswith(_HEX_MARKS) else text).decode("ascii"))
    except ValueError:
        pass
    try:
        return base64.b64decode(text.translate(None, b"\r\n"), validate=True)
    except binascii.Error:
        return None


def _url_decoded(text: bytes) -> bytes:
    """PEM as it stands in a header is decoded, other text left as it is. `CollateralTooLarge`."""
    if not text.startswith(_URL_ENCODED):
        return text
    check_escapes(text)
    return unquote_to_bytes(text)


_CHAIN_HEADERS = frozenset(
    {
        b"tcb-info-issuer-chain",
        b"sgx-tcb-info-issuer-chain",
        b"sgx-enclave-identity-issuer-chain",
        b"sgx-qe-identity-issuer-chain",
        b"sgx-pck-crl-issuer-chain",
        b"sgx-pck-certificate-issuer-chain",
        b"tcb-evaluation-data-numbers-issuer-chain",
    }
)
"""Headers that carry URL-encoded PEM, in any capitals; PCS API v3 and v4 name some differently."""

_RAW_NUMBERS = "tcbEvalNumbers_raw"
_HEADER_NAME = re.compile(rb"[A-Za-z0-9-]{1,64}")
_NO_CERTIFICATE = "Not available"
"""What the PCS writes where it has no certificate for a TCB level."""

_CRL_VERSION = bytes.fromhex("020101")


def read(data: bytes, into: Contents) -> None:
    """Everything in one piece of collateral. A part that cannot be read is kept with its error.

    Raises `CollateralTooLarge` only where the set as a whole gets too large.
    """
    into.blocks = 0
    with into.part(UNKNOWN):
        if len(data) > MAX_COLLATERAL_BYTES:
            raise CollateralTooLarge(f"{len(data)} bytes, at most {MAX_COLLATERAL_BYTES}", field="collateral")
        data = data.removeprefix(_BYTE_ORDER_MARK)
        answer = _split_answer(data)
        if answer is None:
            _read_body(data, into)
        else:
            _read_answer(*answer, into)


def read_endorsement(data: bytes, into: Contents) -> None:
    """Certificates, revocation lists, OCSP responses: PEM, DER, hex or base64. Unlike `read` it keeps no errors.

    Raises `CollateralMalformed` or `CollateralTooLarge`.
    """
    if len(data) > MAX_COLLATERAL_BYTES:
        raise CollateralTooLarge(f"{len(data)} bytes, at most {MAX_COLLATERAL_BYTES}", field="collateral")
    into.blocks = 0
    _read_x509(data.removeprefix(_BYTE_ORDER_MARK), into)
    if into.unreadable:
        raise into.unreadable[0].error


def _read_body(data: bytes, into: Contents) -> None:
    text = data.strip(_SPACE)
    if text[:1] == b"{":
        _read_object(text, into)
    elif text[:1] == b"[":
        _read_certificates(text, into)
    elif is_rim(text):
        into.add_rim(data)
    else:
        _read_x509(data, into)


def _read_x509(data: bytes, into: Contents) -> None:
    text = _url_decoded(data.strip(_SPACE))
    if has_blocks(text):
        into.add_blocks(text, "pem")
        return
    # 0x30 is a SEQUENCE and the digit zero, with which neither hex nor base64 of one begins; "0x30" marks hex.
    is_der = data[:1] == b"0" and not (text.startswith(_HEX_MARKS) and text[2:3] == b"3")
    decoded = data if is_der else _decoded(text)
    if not decoded:
        raise CollateralMalformed("neither JSON, PEM, DER, hex, base64 nor an HTTP answer", field="collateral")
    if decoded.startswith(BEGIN):
        into.add_blocks(decoded, "pem")
    else:
        for part in _values_of(decoded):
            _read_der(part, into)


def _values_of(data: bytes) -> list[bytes]:
    """DER values one behind the other, as `cat` makes of files; whatever is not such is left whole.

    Raises `CollateralTooLarge` for more than PEM may have blocks.
    """
    found: list[bytes] = []
    at = 0
    while at < len(data):
        try:
            _, stop = der.span_of(data, at, len(data), der.SEQUENCE, "der")
        except DerError:
            return [data]
        found.append(data[at:stop])
        if len(found) > MAX_PEM_BLOCKS:
            raise CollateralTooLarge(f"more than {MAX_PEM_BLOCKS} values in one piece", field="der")
        at = stop
    return found


def _read_der(data: bytes, into: Contents) -> None:
    """A revocation list, whose version is a plain INTEGER, or a certificate, whose version is tagged.

    An OCSP response begins with its status, an ENUMERATED.
    """
    try:
        start, end = der.span_of(data, 0, len(data), der.SEQUENCE, "der")
        if data[start : start + 1] == bytes([der.ENUMERATED]):
            into.add_ocsp_response(data)
            return
        inner, _ = der.span_of(data, start, end, der.SEQUENCE, "der")
    except DerError as error:
        raise CollateralMalformed(f"not DER: {error}", field="der") from None
    if data.startswith(_CRL_VERSION, inner):
        with into.part(CRL):
            into.add_crl(parse_crl(data))
    else:
        into.add_certificate(data)


def _read_object(text: bytes, into: Contents) -> None:
    found = json.loads(text, "json", any_number=True)
    kinds = [kind for name, kind in ENVELOPES.items() if name in found]
    if kinds:
        with into.part(kinds[0]):
            into.add_document(parse_signed(text))
    elif _RAW_NUMBERS in found:
        with into.part(CERTIFICATE):
            chain: str = member(found, "issuer_chain", str, "json")
            into.add_blocks(_ascii(chain, "issuer_chain"), "issuer_chain")
        with into.part(EVALUATION_NUMBERS):
            text_alone: str = member(found, _RAW_NUMBERS, str, "json")
            into.add_document(signed_document(EVALUATION_NUMBERS, text_alone, found.get("signature")))
    else:
        add_set(found, into)


def _read_certificates(text: bytes, into: Contents) -> None:
    check_escapes(text)
    listed: list[Any] = member(json.loads(b'{"certificates":' + text + b"}", "json"), "certificates", list, "json")
    if len(listed) > MAX_PEM_BLOCKS:
        raise CollateralTooLarge(f"{len(listed)} certificates, at most {MAX_PEM_BLOCKS}", field="json")
    for one in listed:
        with into.part(CERTIFICATE):
            certificate: str = member(json.members_of(one, "json"), "cert", str, "json")
            if certificate != _NO_CERTIFICATE:
                into.add_blocks(unquote_to_bytes(certificate), "cert")


def _split_answer(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
    """(headers, body) of HTTP answers as curl writes them, one behind the other after redirections; None: no such."""
    found: list[tuple[bytes, bytes]] = []
    at = lines = 0
    while at < len(data):
        stop = data.find(b"\n", at)
        line = data[at : stop if stop >= 0 else len(data)].rstrip(b"\r")
        at, lines = stop + 1 if stop >= 0 else len(data), lines + 1
        if lines > MAX_HTTP_LINES:
            raise CollateralTooLarge(f"more than {MAX_HTTP_LINES} lines of headers", field="headers")
        if not line:
            if not data.startswith(b"HTTP/", at):
                break
        elif not line.startswith(b"HTTP/"):
            name, colon, value = line.partition(b":")
            if not colon or not _HEADER_NAME.fullmatch(name):
                return None
            found.append((name.lower(), value.strip()))
    return (found, data[at:]) if found else None


def check_escapes(text: bytes) -> None:
    """Decoding costs time for each percent sign. `CollateralTooLarge`."""
    if text.count(b"%") > MAX_URL_ESCAPES:
        raise CollateralTooLarge(f"more than {MAX_URL_ESCAPES} URL escapes", field="collateral")


def _read_answer(headers: list[tuple[bytes, bytes]], body: bytes, into: Contents) -> None:
    chains = [value for name, value in headers if name in _CHAIN_HEADERS]
    check_escapes(b"".join(chains))
    for value in chains:
        with into.part(CERTIFICATE):
            into.add_blocks(unquote_to_bytes(value), "issuer_chain")
    if body.strip(_SPACE):
        _read_body(body, into)
    elif not chains:
        raise CollateralMalformed("HTTP headers without a chain, and no body", field="headers")
