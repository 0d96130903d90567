"""Why evidence was refused: one error per cause, each with a stable code and a remedy.

Hostile bytes cause a `VerificationError` and nothing else. A programmer's mistake (a session id of the wrong
length, say) is a `ValueError`, never one of these.
"""

from __future__ import annotations

from typing import Self

from schemas.errors import EnclaveScaleError


class VerificationError(EnclaveScaleError):
    """Evidence that is refused. `code` says which cause, `field` where, `remedy` what a person can do.

    `holds_from_ms` and `holds_until_ms` (UTC milliseconds, inclusive; None: unbounded) say for which `now` the same
    evidence under the same policy fails in the same way; a cache may repeat the refusal inside, and only inside.
    `verified` names the stages of verification that held before this refusal; `events` says of each signature of an
    SPDM transcript whether it holds: (kind, "ok" or "BAD …").
    """

    code = "VERIFICATION_FAILED"
    remedy = "Read the code and the field; the evidence is refused."

    def __init__(
        self, message: str, *, field: str | None = None, code: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, code=code, field=field, remedy=remedy)
        self.holds_from_ms: int | None = None
        self.holds_until_ms: int | None = None
        self.verified: tuple[str, ...] = ()
        self.events: tuple[tuple[str, str], ...] = ()

    def holding(self, from_ms: int, until_ms: int) -> Self:
        """This error, marked as certain only for `from_ms` <= now <= `until_ms`."""
        self.holds_from_ms, self.holds_until_ms = from_ms, until_ms
        return self

    def replica(self) -> VerificationError:
        """A fresh error that says the same; an exception raised twice would drag its old traceback along."""
        copy = type(self)(str(self), field=self.field, code=self.code, remedy=self.remedy)
        copy.holds_from_ms, copy.holds_until_ms = self.holds_from_ms, self.holds_until_ms
        copy.verified, copy.events = self.verified, self.events
        return copy
