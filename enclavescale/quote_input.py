"""Evidence as people keep it: a quote's bytes, or their text in hexadecimal or base64, told apart by content."""

from __future__ import annotations

import base64
import binascii
from typing import IO

from verifier.errors import EvidenceTooLarge, QuoteMalformed
from verifier.limits import MAX_QUOTE_BYTES

MAX_INPUT_BYTES = 4 * MAX_QUOTE_BYTES
"""Bytes read of a file: text needs up to twice a quote's bytes, and line ends; nothing beyond is ever in memory."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n\f\v"
_WRAPPING = b"\"'"
"""What a JSON string or a shell leaves around a text."""

_FROM_URL = bytes.maketrans(b"-_", b"+/")
"""The alphabet for URLs as the standard one."""


def read_quote(stream: IO[bytes]) -> bytes:
    """The bytes of the one quote that `stream` holds. `EvidenceTooLarge`, `QuoteMalformed`."""
    data = stream.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise EvidenceTooLarge(f"more than {MAX_INPUT_BYTES} bytes", field="evidence", remedy="Give one quote.")
    return decode_quote(data)


def decode_quote(data: bytes) -> bytes:
    """Binary as it is, text decoded: what editors (a byte order mark) and C (NULs) put around it does not count.

    A quote begins with its version and a zero byte, so it never looks like text.
    """
    bare = data.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\x00")
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
