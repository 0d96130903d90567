"""What a run of the requester leaves behind: the transcript, as evidence that anyone may verify later."""

from __future__ import annotations

import json
from dataclasses import dataclass

NOTE = "messages alternate request, response; SPDM message bytes without transport framing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A complete exchange with one device. Nothing in it is verified: that is `verifier.formats.spdm`'s work.

    `messages` alternate request and response. `version` is the version byte both ends spoke (0x12 for 1.2), `nonces`
    are those of CHALLENGE and of GET_MEASUREMENTS, `retries` counts how often the device put us off.
    """

    messages: tuple[bytes, ...]
    transport: str
    version: int
    slot: int
    nonces: tuple[bytes, bytes]
    retries: int = 0

    def to_json(self) -> bytes:
        """The evidence file: a JSON object whose `messages` are hexadecimal, one per line, and a newline at the end."""
        document = {"transport": self.transport, "note": NOTE, "messages": [one.hex() for one in self.messages]}
        return json.dumps(document, indent=1).encode() + b"\n"
