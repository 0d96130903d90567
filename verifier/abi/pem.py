"""Certificate chains as quotes carry them: strict PEM (RFC 7468), certificate blocks and white space between them."""

from __future__ import annotations

import base64
from binascii import Error, a2b_base64, b2a_base64

from verifier.abi import der
from verifier.errors import CertChainInvalid
from verifier.limits import CHAIN_CERTIFICATES, MAX_CERTIFICATE_BYTES, MAX_CERTIFICATION_BYTES

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"
_DER = bytes([der.SEQUENCE])


def split_chain(text: bytes) -> tuple[bytes, ...]:
    """DER of the certificates in certification data type 5, in the order given; NULs at the end may close it.

    Intel specifies PEM; its own TDX sample has DER, one certificate after another, and that is read too. Raises
    `CertChainInvalid` for anything else than 1 to `CHAIN_CERTIFICATES` canonical blocks or DER sequences.
    """
    if len(text) > MAX_CERTIFICATION_BYTES:
        raise CertChainInvalid(f"{len(text)} bytes of PEM", field="certification_data")
    if text.startswith(_DER):
        return tuple(_split_der(text))
    *blocks, rest = text.rstrip(b"\x00").split(_END, CHAIN_CERTIFICATES + 1)
    if len(blocks) > CHAIN_CERTIFICATES:
        raise CertChainInvalid(f"more than {CHAIN_CERTIFICATES} certificates", field="certification_data")
    if not blocks or rest.strip():
        raise CertChainInvalid("not a PEM certificate chain", field="certification_data")
    return tuple(map(_decode, blocks))


def join_chain(certificates: tuple[bytes, ...]) -> bytes:
    """PEM text of DER certificates in the order given, closed by the NUL that Intel's library writes."""
    blocks = []
    for certificate in certificates:
        body = base64.b64encode(certificate)
        lines = [body[i : i + 64] for i in range(0, len(body), 64)]
        blocks.append(_BEGIN + b"\n" + b"\n".join(lines) + b"\n" + _END + b"\n")
    return b"".join(blocks) + b"\x00"


def _split_der(data: bytes) -> list[bytes]:
    """Certificates in DER that follow each other to the end."""
    found: list[bytes] = []
    at = 0
    try:
        while at < len(data):
            _, stop = der.span_of(data, at, len(data), der.SEQUENCE, "certificate")
            found.append(data[at:stop])
            at = stop
            if len(found) > CHAIN_CERTIFICATES or len(found[-1]) > MAX_CERTIFICATE_BYTES:
                raise der.DerError(f"more than {CHAIN_CERTIFICATES} certificates, or one too long")
    except der.DerError as error:
        raise CertChainInvalid(f"not a certificate chain: {error}", field="certification_data") from error
    return found


def _decode(block: bytes) -> bytes:
    """DER of one block, given without its END line."""
    head, _, text = block.partition(_BEGIN)
    line, newline, body = text.partition(b"\n")
    if head.strip() or line.removesuffix(b"\r").strip(b" \t") or not newline:
        raise CertChainInvalid("not a PEM certificate chain", field="certification_data")
    encoded = body.replace(b"\n", b"").replace(b"\r", b"")
    try:
        certificate = a2b_base64(encoded)
    except Error as error:
        raise CertChainInvalid("bad base64", field="certification_data") from error
    # The decoder passes over foreign characters and stray bits, which would make many texts of one certificate.
    if not certificate or b2a_base64(certificate, newline=False) != encoded:
        raise CertChainInvalid("base64 is empty or not canonical", field="certification_data")
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise CertChainInvalid(f"a certificate of {len(certificate)} bytes", field="certification_data")
    return certificate
