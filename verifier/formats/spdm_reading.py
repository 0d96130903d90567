"""Read a recorded SPDM transcript: JSON with the messages in hexadecimal, or a packet capture.

The JSON form is an object whose member `messages` is a list of messages, requests and responses in turn, as hexadecimal
text without the transport's header. Other members are for people; nobody signed them and nobody reads them.
"""

from __future__ import annotations

from verifier.abi import json as strict_json
from verifier.abi.pcap import is_capture, parse_capture
from verifier.errors import CollateralMalformed, CollateralTooLarge, SpdmMalformed, SpdmTooLarge
from verifier.limits import MAX_JSON_DEPTH, MAX_SPDM_MESSAGES, MAX_SPDM_TRANSCRIPT_BYTES


def read_transcript(data: bytes) -> tuple[bytes, ...]:
    """The messages of a transcript in either form. Raises subclasses of `SpdmError`, and nothing else."""
    return parse_capture(data) if is_capture(data) else _messages(data)


def _messages(data: bytes) -> tuple[bytes, ...]:
    try:
        members = strict_json.loads(data, "transcript", MAX_SPDM_TRANSCRIPT_BYTES, any_number=True)
        for name, value in members.items():
            if name != "messages":
                strict_json.check_unread(value, f"transcript.{name}", MAX_JSON_DEPTH)
    except CollateralTooLarge as error:
        raise SpdmTooLarge(str(error), field="transcript") from None
    except CollateralMalformed as error:
        raise SpdmMalformed(str(error), field="transcript") from None
    found = members.get("messages")
    if type(found) is not list:
        raise SpdmMalformed("transcript.messages: missing, or no list", field="transcript.messages")
    if len(found) > MAX_SPDM_MESSAGES:
        raise SpdmTooLarge(f"{len(found)} messages, at most {MAX_SPDM_MESSAGES}", field="transcript.messages")
    return tuple(_message(index, text) for index, text in enumerate(found))


def _message(index: int, text: object) -> bytes:
    where = f"transcript.messages[{index}]"
    if type(text) is not str:
        raise SpdmMalformed(f"{where}: not hexadecimal text", field=where)
    try:
        message = bytes.fromhex(text)
    except ValueError:
        message = b""
    if len(text) != 2 * len(message) or not message:
        raise SpdmMalformed(f"{where}: not hexadecimal text", field=where)
    return message
