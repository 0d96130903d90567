"""TCB statuses and what a verified quote says about its platform's TCB (ATTESTATION.md §5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TcbStatus(StrEnum):
    """Intel's names. The two relaunch statuses come from convergence only, never from a document."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    """What one part of the TCB is worth: `part` is "platform", "tdx_module" or "qe".

    `tcb_date_ms` is the matched level's date; `superseded_ms` the date of the oldest level above it that is newer,
    from which on this part was behind (for one that is OutOfDate under levels of the same day, that day), None if it
    was not; `newest_ms` the date of the level to reach. UTC milliseconds.
    """

    part: str
    status: TcbStatus
    tcb_date_ms: int | None
    advisory_ids: tuple[str, ...]
    superseded_ms: int | None = None
    newest_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """A component that keeps a part from its best level: what it has and what it needs."""

    part: str
    component: str
    has: int
    needs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbState:
    """Converged status of the TCB a TD was launched on, or runs on now.

    `tcb_date_ms` is the earliest of the parts'; `advisory_ids` their union, sorted.
    """

    status: TcbStatus
    tcb_date_ms: int | None
    advisory_ids: tuple[str, ...]
    parts: tuple[PartStatus, ...]
    shortfalls: tuple[Shortfall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbReport:
    """What the TCB is worth. `status` is the one Intel's library reports; `launch` and `current` stand apart.

    `current` equals `launch` except for TD 1.5 reports, whose module may have been updated under the running TD.
    """

    status: TcbStatus
    tcb_date_ms: int | None
    advisory_ids: tuple[str, ...]
    launch: TcbState
    current: TcbState
    tcb_evaluation_number: int
    qe_evaluation_number: int
