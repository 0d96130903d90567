"""A recorded transcript as a transport: the responses it holds, each to exactly the request it was an answer to."""

from __future__ import annotations

from collections.abc import Sequence

from attester.spdm.errors import SpdmClosed, SpdmReplayMismatch


class RecordedTransport:
    """Replays `messages`, request and response in turn as a recording holds them.

    Each request must be the recorded one to the byte, so that a replay proves what the requester would send now.
    """

    name = "recorded"
    max_message = 0xFFFF - 2  # what was recorded over TCP is asked for again with the same limits
    alignment = 1

    def __init__(self, messages: Sequence[bytes]) -> None:
        self._messages = tuple(messages)
        self._next = 0

    @property
    def exhausted(self) -> bool:
        """True when every recorded exchange has been replayed."""
        return self._next == len(self._messages)

    def exchange(self, request: bytes, timeout_s: float) -> bytes:
        """The recorded response. Raises SpdmReplayMismatch for another request, SpdmClosed after the last."""
        at = self._next
        if at + 2 > len(self._messages):
            raise SpdmClosed(f"the recording ends before the response to message {at}", field=f"messages[{at}]")
        recorded, response = self._messages[at : at + 2]
        if request != recorded:
            byte = next((n for n, (a, b) in enumerate(zip(request, recorded, strict=False)) if a != b), None)
            where = f"byte {byte} differs" if byte is not None else f"{len(recorded)} bytes, not {len(request)}"
            raise SpdmReplayMismatch(f"message {at} is another request: {where}", field=f"messages[{at}]")
        self._next = at + 2
        return response

    def close(self) -> None:
        """Nothing to end."""
