"""PEM blocks (RFC 7468) of any kind and number, as web servers and command lines write them.

Such text may explain a block in lines in front of it (RFC 7468 §5.2), as `openssl x509 -text` does; chains inside
quotes may not (`verifier.abi.pem`).
"""

from __future__ import annotations

import binascii

from verifier.errors import CollateralMalformed, CollateralTooLarge
from verifier.limits import MAX_CRL_BYTES, MAX_PEM_BLOCKS

BEGIN = b"-----BEGIN "
_END = b"-----END "
_DASHES = b"-----"
_LABEL_BYTES = 40
_SPACE = b" \t\r\n\x00"

CERTIFICATE, CRL = "certificate", "crl"
LABELS = {b"CERTIFICATE": CERTIFICATE, b"X509 CRL": CRL, b"CRL": CRL}
"""Labels we read. Another one is refused by its name: a private key does not belong here."""


def split_blocks(text: bytes, field: str) -> list[tuple[str, bytes]]:
    """(kind, DER) of every block, in order; whole lines may stand before one, nothing but white space behind the last.

    Raises `CollateralMalformed`, naming `field`.
    """
    found: list[tuple[str, bytes]] = []
    at = 0
    while True:
        begin = text.find(BEGIN, at)
        between = text[at : begin if begin >= 0 else len(text)].strip(b" \t\r\x00")
        # What looks like the end of a block, or a beginning that is damaged, explains nothing.
        if between.strip(_SPACE) and (begin < 0 or _DASHES in between or not between.endswith(b"\n")):
            raise CollateralMalformed(f"{field}: not PEM, or something behind its blocks", field=field)
        if begin < 0:
            return found
        label, start = _label(text, begin, field)
        end = _END + label + _DASHES
        stop = text.find(end, start)
        if stop < 0 or len(found) == MAX_PEM_BLOCKS:
            raise CollateralMalformed(f"{field}: PEM without end, or more than {MAX_PEM_BLOCKS} blocks", field=field)
        found.append((LABELS[label], _decode(text[start:stop], field)))
        at = stop + len(end)


def has_blocks(text: bytes) -> bool:
    """Whether a line of `text` begins a block."""
    return text.startswith(BEGIN) or b"\n" + BEGIN in text


def _label(text: bytes, begin: int, field: str) -> tuple[bytes, int]:
    first = begin + len(BEGIN)
    last = text.find(_DASHES, first, first + _LABEL_BYTES)
    label = text[first : max(first, last)]
    if label not in LABELS:
        shown = text[first : first + _LABEL_BYTES].partition(_DASHES)[0].decode("ascii", "replace")
        raise CollateralMalformed(f"{field}: PEM of {shown!r}", field=field)
    return label, last + len(_DASHES)


def _decode(body: bytes, field: str) -> bytes:
    if len(body) > 2 * MAX_CRL_BYTES:  # the largest thing we read, in base64 with line ends
        raise CollateralTooLarge(f"{field}: a PEM block of {len(body)} bytes", field=field)
    lines = body.translate(None, b"\r\n\t ")
    try:
        return binascii.a2b_base64(lines, strict_mode=True)
    except binascii.Error:
        raise CollateralMalformed(f"{field}: bad base64", field=field) from None
