"""Evidence as people keep it: its bytes, or their text in hexadecimal or base64, told apart by content."""

from __future__ import annotations

import base64
import binascii
from typing import IO

from verifier.errors import EvidenceTooLarge, QuoteMalformed
from verifier.limits import MAX_EVIDENCE_BYTES

MAX_INPUT_BYTES = 4 * MAX_EVIDENCE_BYTES
"""Bytes read of a file: text needs up to twice the evidence's bytes, and line ends; nothing beyond is in memory."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n\f\v"
_WRAPPING = b"\"'"
"""What a JSON string or a shell leaves around a text."""

_DOCUMENTS = (b"{", b"[", b"<")
"""What JSON and XML begin with; neither hexadecimal nor base64 does."""

_FROM_URL = bytes.maketrans(b"-_", b"+/")
"""The alphabet for URLs as the standard one."""


def read_evidence(stream: IO[bytes]) -> bytes:
    """The bytes of the one piece of evidence that `stream` holds. `EvidenceTooLarge`, `QuoteMalformed`."""
    data = stream.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise EvidenceTooLarge(f"more than {MAX_INPUT_BYTES} bytes", field="evidence", remedy="Give one piece.")
    return decode_evidence(data)


def decode_evidence(data: bytes) -> bytes:
    """Binary and documents as they are, text decoded: a byte order mark, and NULs behind text, do not count.

    Quotes and reports begin with a version that no text begins with.
    """
    bare = data.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\x00")
    if bare.lstrip().startswith(_DOCUMENTS):
        return bare.lstrip()
    if bare.translate(None, _TEXT):
        return data
    text = b"".join(bare.split()).strip(_WRAPPING)
    if not text:
        raise QuoteMalformed("it is empty", field="evidence")
    digits = text[2:] if text[:2] in (b"0x", b"0X") else text
    try:
        return binascii.unhexlify(digits)
    except ValueError:
        pass
    letters = text.rstrip(b"=").translate(_FROM_URL)
    try:
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except ValueError:
        raise QuoteMalformed("text that is neither hexadecimal nor base64", field="evidence") from None
