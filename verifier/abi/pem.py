"""Strict PEM (RFC 7468): certificate blocks and white space, nothing between them."""

from __future__ import annotations

import base64
import binascii
import re

from verifier.errors import CertChainInvalid
from verifier.limits import CHAIN_CERTIFICATES, MAX_CERTIFICATE_BYTES, MAX_CERTIFICATION_BYTES

_BLOCK = re.compile(
    rb"\s*-----BEGIN CERTIFICATE-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n?-----END CERTIFICATE-----\s*"
)


def split_chain(text: bytes) -> tuple[bytes, ...]:
    """DER of the certificates in certification data type 5, in the order given; one NUL at the end may close it.

    Raises `CertChainInvalid` for anything else than 1 to `CHAIN_CERTIFICATES` canonical blocks.
    """
    if len(text) > MAX_CERTIFICATION_BYTES:
        raise CertChainInvalid(f"{len(text)} bytes of PEM", field="certification_data")
    text = text.removesuffix(b"\x00")
    certificates: list[bytes] = []
    position = 0
    while position < len(text):
        match = _BLOCK.match(text, position)
        if match is None:
            raise CertChainInvalid("not a PEM certificate chain", field="certification_data")
        if len(certificates) == CHAIN_CERTIFICATES:
            raise CertChainInvalid(f"more than {CHAIN_CERTIFICATES} certificates", field="certification_data")
        certificates.append(_decode(match.group(1)))
        position = match.end()
    return tuple(certificates)


def join_chain(certificates: tuple[bytes, ...]) -> bytes:
    """PEM text of DER certificates in the order given, closed by the NUL that Intel's library writes."""
    blocks = []
    for certificate in certificates:
        body = base64.b64encode(certificate)
        lines = [body[i : i + 64] for i in range(0, len(body), 64)]
        blocks.append(b"-----BEGIN CERTIFICATE-----\n" + b"\n".join(lines) + b"\n-----END CERTIFICATE-----\n")
    return b"".join(blocks) + b"\x00"


def _decode(body: bytes) -> bytes:
    text = body.replace(b"\r", b"").replace(b"\n", b"")
    try:
        certificate = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise CertChainInvalid("bad base64", field="certification_data") from error
    # Stray bits in the last character would make two texts of one certificate.
    if base64.b64encode(certificate) != text or len(certificate) > MAX_CERTIFICATE_BYTES:
        raise CertChainInvalid("base64 is not canonical, or the certificate too long", field="certification_data")
    return certificate
