"""A partition that waits: what a job raises where it cannot decide yet, and what it asks about ids of schemas.

Waiting is no decision: nothing is counted, published or committed, and the record is read from the log again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Hold(Exception):
    """This record cannot be decided yet. `code`: why; `remedy`: what a person can do about it;
    `again`: cheap, any thread: is another try worth it?

    None of our errors: nothing failed, and the core turns those into refusals.
    """

    def __init__(self, message: str, *, code: str, remedy: str, again: Callable[[], bool]) -> None:
        super().__init__(message)
        self.code, self.remedy, self.again = code, remedy, again


class SchemaGate(Protocol):
    """Knows the registry's ids."""

    def settled(self, value: bytes | None) -> bool:
        """Does the value name its schema in a way that is known here? Changes nothing."""

    def unsettled(self, value: bytes | None) -> Hold | None:
        """Why a record with this value must wait; None if it can be decided. Cheap: asks nobody itself."""
