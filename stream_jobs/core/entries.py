"""Who reported in a window, where in the log, of what origin: tuples while reports come, arrays from its close on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator

import numpy as np
import numpy.typing as npt

from schemas.records import PrivacyParameters
from stream_jobs.core.roster import coded
from verifier.policy.subjects import Subject

_DIGEST_BYTES = 32

Origin = tuple[str, str, bool, str]
"""Source, label of the root of trust, whether that is simulated, and verified first-mile grade of a report."""

Scales = tuple[int, int, int, int]
"""What a report states of its noise, millionths: scales of histogram, transitions and pane sums, epsilon of these."""


class Entries:
    """Accepted reports of one window, in log order, by host: identity, place in the log and origin.

    `late`: accepted after the first output. `flagged`: flags of all. `epsilon_micro`, `w_event_windows`,
    `w_event_epsilon_micro`: the largest stated.
    """

    __slots__ = (
        "_codes",
        "_digests",
        "_flags",
        "_ids",
        "_new",
        "_offsets",
        "_places",
        "_privacy",
        "_scales",
        "_stated",
        "_subjects",
        "epsilon_micro",
        "flagged",
        "late",
        "origins",
        "w_event_epsilon_micro",
        "w_event_windows",
    )

    def __init__(self) -> None:
        self._new: dict[str, tuple[bytes, int, Origin]] = {}
        self._subjects: list[tuple[Subject, ...]] = []
        self._privacy: list[PrivacyParameters] = []
        self._flags: list[tuple[str, ...]] = []
        self._ids: list[str] = []
        self._digests = b""
        self._offsets = np.zeros(0, np.int64)
        self._codes = np.zeros(0, np.int16)
        self._places: dict[str, int] | None = None
        self._stated: PrivacyParameters | None = None
        self._scales: Scales = (0, 0, 0, 0)
        self.origins: list[Origin] = []
        self.late = 0
        self.flagged: Counter[str] = Counter()
        self.epsilon_micro = self.w_event_windows = self.w_event_epsilon_micro = 0

    def add(
        self,
        host_id: str,
        digest: bytes,
        offset: int,
        origin: Origin,
        flags: tuple[str, ...],
        late: bool,
        subjects: tuple[Subject, ...],
        privacy: PrivacyParameters,
    ) -> None:
        """Take a host's report, its first. `subjects`: all by which a policy may revoke it."""
        self._new[host_id] = digest, offset, origin
        self._subjects.append(subjects)
        self._privacy.append(privacy)
        self._flags.append(flags)
        if flags:
            self.flagged.update(flags)
        if late:
            self.late += 1

    def scales_of(self, stated: PrivacyParameters) -> Scales:
        """What a report's statement of its privacy says of its noise; notes the statement."""
        if stated is not self._stated:  # reports of a kind share theirs (`schemas.layout`)
            self._stated, self._scales = stated, _scales_of(stated)
            self._note(stated)
        return self._scales

    def _note(self, stated: PrivacyParameters) -> None:
        self.epsilon_micro = max(self.epsilon_micro, stated.epsilon_total_micro)
        self.w_event_windows = max(self.w_event_windows, stated.w_event_windows)
        self.w_event_epsilon_micro = max(self.w_event_epsilon_micro, stated.w_event_epsilon_micro)

    def find(self, host_id: str) -> tuple[bytes, int] | None:
        """Digest and offset of a host's report, None without."""
        new = self._new.get(host_id)
        if new is not None:
            return new[0], new[1]
        if not self._ids:
            return None
        if self._places is None:
            self._places = {one: place for place, one in enumerate(self._ids)}
        at = self._places.get(host_id)
        if at is None:
            return None
        return self._digests[at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES], int(self._offsets[at])

    def __contains__(self, host_id: str) -> bool:
        return host_id in self._new or (bool(self._ids) and self.find(host_id) is not None)

    def __len__(self) -> int:
        return len(self._ids) + len(self._new)

    def __iter__(self) -> Iterator[str]:
        yield from self._ids
        yield from self._new

    def _settle(self) -> None:
        """Move what came since the last time into the columns."""
        if not self._new:
            return
        digests, offsets, origins = zip(*self._new.values(), strict=True)
        self.origins, codes = coded(origins, self.origins)
        self._ids.extend(self._new)
        self._digests += b"".join(digests)
        self._offsets = np.concatenate([self._offsets, np.array(offsets, np.int64)])
        self._codes = np.concatenate([self._codes, codes.astype(np.int16)])
        self._new = {}
        self._places = None

    def revoked(self, denied: frozenset[Subject]) -> set[str]:
        """Hosts whose reports rest on something denied."""
        ids = self.host_ids()
        return {host_id for host_id, mine in zip(ids, self._subjects, strict=True) if not denied.isdisjoint(mine)}

    def without(self, gone: Container[str]) -> Entries:
        """The same as if the reports of these hosts had never come."""
        result = Entries()
        ids, digests, on_time = self.host_ids(), self.digests(), len(self) - self.late
        for place, host_id in enumerate(ids):
            if host_id in gone:
                continue
            subjects, privacy = self._subjects[place], self._privacy[place]
            result.scales_of(privacy)
            late, origin = place >= on_time, self.origins[self._codes[place]]
            offset = int(self._offsets[place])
            result.add(host_id, digests[place], offset, origin, self._flags[place], late, subjects, privacy)
        return result

    def host_ids(self) -> list[str]:
        """Hosts, in log order."""
        self._settle()
        return self._ids

    def digests(self) -> list[bytes]:
        """Their reports' digests."""
        self._settle()
        data = self._digests
        return [data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES)]

    def first_offset(self) -> int | None:
        """The lowest offset, None without a report."""
        self._settle()
        return int(self._offsets.min()) if self._offsets.size else None

    def origin_codes(self) -> npt.NDArray[np.int16]:
        """For every report the place of its origin in `origins`."""
        self._settle()
        return self._codes


def _scales_of(stated: PrivacyParameters) -> Scales:
    transition_scale = pane_scale = pane_epsilon = histogram_scale = 0
    for one in reversed(stated.releases):  # of a name stated twice, the checks look at the first
        if one.release == "transitions":
            transition_scale = one.scale_micro
        elif one.release == "pane_sums":
            pane_scale, pane_epsilon = one.scale_micro, one.epsilon_micro
        elif one.release == "histogram":
            histogram_scale = one.scale_micro
    return histogram_scale, transition_scale, pane_scale, pane_epsilon
