"""What carries SPDM messages: one request out, one response back, in time. TCP and recordings enter here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Transport(Protocol):
    """A connection to one responder. It adds and removes its framing; messages are DSP0274's, without it."""

    @property
    def name(self) -> str:
        """What it is, for the recording: "tcp", "spdm-emu-mctp", "recorded"."""

    @property
    def max_message(self) -> int:
        """Bytes of the longest message it carries, either way."""

    @property
    def alignment(self) -> int:
        """Responses are filled with zeros to a multiple of so many bytes, as PCI DOE fills them to 4; 1 for none."""

    def exchange(self, request: bytes, timeout_s: float) -> bytes:
        """The response to `request`, complete within `timeout_s` seconds.

        Raises SpdmTimeout, SpdmClosed, SpdmTransportRefused, SpdmFrameInvalid, SpdmLimit, SpdmReplayMismatch.
        """

    def close(self) -> None:
        """End the connection; again does nothing."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the requester sees it, so that tests need none: `now` in s of no particular origin, `wait` for s."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
