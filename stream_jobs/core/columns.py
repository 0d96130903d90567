"""What a window keeps of its accepted reports: one tuple each while they come, columns of arrays from its close on.

Admission is as short as it can be, and a window that is only kept for revisions takes a third of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.records import GpuClass
from stream_jobs.core.entries import Scales
from stream_jobs.core.kept import KeptCounts
from stream_jobs.core.roster import Roster, Value, coded

Ints = npt.NDArray[np.int64]

_Report = tuple[str, int, int, int, int, bytes, bytes, bytes | None, str | None, Scales]

BLOCK_ROWS = 512
"""Reports whose transitions are added up at a time."""

MAX_NEW = 4096
"""Reports kept as they came: more are put into columns before the window's close, where they take a third."""


@dataclass(slots=True)
class _Columns:
    """Settled reports of one class, by host in the roster's order."""

    rows: npt.NDArray[np.int32]
    gpus: Ints
    capacity_w: Ints
    effective_w: Ints
    readings: Ints
    panes: npt.NDArray[np.int32]
    histograms: npt.NDArray[np.int16] | npt.NDArray[np.int32] | None
    counted: npt.NDArray[np.bool_]
    labels: list[str | None]
    scales: npt.NDArray[np.int16]

    def where(self, chosen: npt.NDArray[np.bool_]) -> _Columns:
        """The chosen hosts' reports."""
        counted = self.counted[chosen]
        return _Columns(
            rows=self.rows[chosen],
            gpus=self.gpus[chosen],
            capacity_w=self.capacity_w[chosen],
            effective_w=self.effective_w[chosen],
            readings=self.readings[chosen],
            panes=self.panes[chosen],
            histograms=self.histograms[chosen] if self.histograms is not None and counted.any() else None,
            counted=counted,
            labels=[label for label, stays in zip(self.labels, chosen.tolist(), strict=True) if stays],
            scales=self.scales[chosen],
        )

    def ordered(self) -> _Columns:
        """The same by row."""
        if bool((self.rows[1:] > self.rows[:-1]).all()):
            return self
        order = np.argsort(self.rows, kind="stable")
        places = order.tolist()
        return _Columns(
            rows=self.rows[order],
            gpus=self.gpus[order],
            capacity_w=self.capacity_w[order],
            effective_w=self.effective_w[order],
            readings=self.readings[order],
            panes=self.panes[order],
            histograms=None if self.histograms is None else self.histograms[order],
            counted=self.counted[order],
            labels=[self.labels[place] for place in places],
            scales=self.scales[order],
        )

    def with_more(self, other: _Columns) -> _Columns:
        """The reports of both."""
        known = [one for one in (self.histograms, other.histograms) if one is not None]
        cells = known[0].shape[1] if known else 0
        parts = [
            np.zeros((one.rows.size, cells), np.int16) if one.histograms is None else one.histograms
            for one in (self, other)
        ]
        return _Columns(
            rows=np.concatenate([self.rows, other.rows]),
            gpus=np.concatenate([self.gpus, other.gpus]),
            capacity_w=np.concatenate([self.capacity_w, other.capacity_w]),
            effective_w=np.concatenate([self.effective_w, other.effective_w]),
            readings=np.concatenate([self.readings, other.readings]),
            panes=np.concatenate([self.panes, other.panes]),
            histograms=_narrow(np.concatenate(parts)) if known else None,
            counted=np.concatenate([self.counted, other.counted]),
            labels=self.labels + other.labels,
            scales=np.concatenate([self.scales, other.scales]),
        )


def _histograms(stated: Sequence[bytes | None]) -> npt.NDArray[np.int16] | npt.NDArray[np.int32] | None:
    """Matrix of the hosts' counts, 0 for a host that states none; None if all state none."""
    known = next((one for one in stated if one is not None), None)
    if known is None:
        return None
    nothing = bytes(len(known))
    counts = b"".join(nothing if one is None else one for one in stated)
    return _narrow(np.frombuffer(counts, "<i4").reshape(len(stated), -1))


def _narrow(counts: npt.NDArray[np.signedinteger[Any]]) -> npt.NDArray[np.int16] | npt.NDArray[np.int32]:
    """The same in half the memory, where every number fits."""
    if counts.size and int(counts.min()) >= -(2**15) and int(counts.max()) < 2**15:
        return counts.astype(np.int16, copy=False)
    return counts.astype(np.int32, copy=False)


class ClassSum:
    """The reports of one class: exact sums over the hosts, and what each host states, hosts in the roster's order.

    Lists by host: `host_ids`, `labels` (pseudonymous group labels),
    `pane_scales_micro` (of the noise that each states in its pane sums, millionths), `pane_epsilons_micro`. Arrays by
    host, not to be written to: `gpus_of`, `capacity_of_w`, `effective_of_w`, `readings_of` and what follows them.
    """

    __slots__ = ("_columns", "_kept", "_made", "_new", "_roster", "_transitions", "edges_w", "scales")

    def __init__(self, edges_w: tuple[int, ...], roster: Roster) -> None:
        self.edges_w = edges_w
        self._transitions = np.zeros((len(edges_w) + 2,) * 2, np.int64)
        self.scales: list[Scales] = []
        self._roster = roster
        self._new: list[_Report] = []
        self._columns: _Columns | None = None
        self._kept: list[KeptCounts] = []
        self._made: dict[str, Any] = {}

    @classmethod
    def empty(cls, edges_w: tuple[int, ...], panes: int, roster: Roster) -> ClassSum:
        """A class of which nobody reports, in a window of so many panes."""
        result = cls(edges_w, roster)
        nothing = np.zeros(0, np.int64)
        result._columns = _Columns(
            rows=nothing.astype(np.int32),
            gpus=nothing,
            capacity_w=nothing,
            effective_w=nothing,
            readings=nothing,
            panes=np.zeros((0, panes), np.int32),
            histograms=None,
            counted=np.zeros(0, np.bool_),
            labels=[],
            scales=np.zeros(0, np.int16),
        )
        return result

    def add(self, host_id: str, stated: GpuClass, label: str | None, scales: Scales) -> None:
        """Take one host's report, of the class's own shapes."""
        capacity_w, limit_w = stated.capacity_w, stated.enforced_limit_w
        self._new.append(
            (
                host_id,
                stated.gpus,
                capacity_w,
                capacity_w if limit_w is None or limit_w > capacity_w else limit_w,
                stated.readings_taken,
                stated.transitions,
                stated.pane_sums,
                stated.histogram,
                label,
                scales,
            )
        )
        if len(self._new) >= MAX_NEW:
            self._settled()

    # -- columns -----------------------------------------------------------------------------------------------

    def _settled(self) -> _Columns:
        """The columns, with what came since the last time."""
        if self._new or self._columns is None:
            self._columns = self._joined(self._columns, self._new)
            self._new = []
            self.rest()
        return self._columns

    def _joined(self, before: _Columns | None, new: list[_Report]) -> _Columns:
        names, gpus, capacity, effective, readings, counts, panes, histograms, labels, scales = zip(*new, strict=True)
        rows = self._roster.rows_of(names).astype(np.int32)
        for start in range(0, len(counts), BLOCK_ROWS):
            part = counts[start : start + BLOCK_ROWS]
            matrix = np.frombuffer(b"".join(part), "<i4").reshape(len(part), -1)
            self._transitions += matrix.sum(axis=0, dtype=np.int64).reshape(self._transitions.shape)
            self._kept.append(KeptCounts.of(rows[start : start + BLOCK_ROWS], matrix))
        self.scales, codes = coded(scales, self.scales)
        after = _Columns(
            rows=rows,
            gpus=np.array(gpus, np.int64),
            capacity_w=np.array(capacity, np.int64),
            effective_w=np.array(effective, np.int64),
            readings=np.array(readings, np.int64),
            panes=np.frombuffer(b"".join(panes), "<i4").reshape(len(new), -1),
            histograms=_histograms(histograms),
            counted=np.array([one is not None for one in histograms], np.bool_),
            labels=list(labels),
            scales=codes.astype(np.int16),
        )
        return after.ordered() if before is None else before.with_more(after).ordered()

    def remove(self, hosts: Iterable[str]) -> bool:
        """Take back the reports of these hosts, as if they had never come; False if none is left."""
        gone = self._roster.rows_of(list(hosts)).astype(np.int32)
        columns = self._settled()
        for place, kept in enumerate(self._kept):
            leaves = np.isin(kept.rows, gone)
            if leaves.any():
                self._transitions -= kept.sum_where(leaves).reshape(self._transitions.shape)
                self._kept[place] = kept.where(~leaves)
        self._columns = columns.where(~np.isin(columns.rows, gone))
        self.rest()
        return bool(self._columns.rows.size)

    def rest(self) -> None:
        """Let go of what is quickly made again: until the next revision, if there is one, only columns are kept."""
        self._made = {}

    def remembered(self, name: str, make: Callable[[], Value]) -> Value:
        """What `make` returns, the first time it is asked for under this name since the last report or `rest`."""
        self._settled()
        found: Value | None = self._made.get(name)
        if found is None:
            found = self._made[name] = make()
        return found

    def _scale_list(self, place: int) -> list[int]:
        stated = [one[place] for one in self.scales]
        return [stated[code] for code in self._settled().scales.tolist()]

    @property
    def transitions(self) -> Ints:
        """Sum of the hosts' noisy counts, int64[k+2, k+2], not to be written to."""
        self._settled()
        return self._transitions

    @property
    def host_ids(self) -> list[str]:
        """The hosts."""
        return self.remembered("ids", lambda: self._roster.names_of(self._settled().rows))

    @property
    def labels(self) -> list[str | None]:
        """Their group labels."""
        return self._settled().labels

    @property
    def pane_scales_micro(self) -> list[int]:
        """Scale of each one's noise in a pane sum, millionths of its unit."""
        return self.remembered("panes", lambda: self._scale_list(2))

    @property
    def pane_epsilons_micro(self) -> list[int]:
        """Budget of each one's pane sums, millionths."""
        return self.remembered("epsilons", lambda: self._scale_list(3))

    # -- arrays ------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> Ints:
        """The hosts' rows in the roster, ascending."""
        return self._settled().rows.astype(np.int64)

    @property
    def gpus_of(self) -> Ints:
        """GPUs by host."""
        return self._settled().gpus

    @property
    def capacity_of_w(self) -> Ints:
        """Capacity by host, W."""
        return self._settled().capacity_w

    @property
    def effective_of_w(self) -> Ints:
        """Capacity by host, lowered to the enforced limit if stated, W."""
        return self._settled().effective_w

    @property
    def readings_of(self) -> Ints:
        """Readings taken by host."""
        return self._settled().readings

    @property
    def scale_codes(self) -> npt.NDArray[np.int16]:
        """For every host the place of what it states of its noise in `scales`."""
        return self._settled().scales

    @property
    def hosts(self) -> int:
        """Hosts in the sums."""
        return len(self._settled().rows)

    @property
    def gpus(self) -> int:
        """Their GPUs."""
        return int(self._settled().gpus.sum())

    @property
    def capacity_w(self) -> int:
        """Their capacity, W."""
        return int(self._settled().capacity_w.sum())

    @property
    def readings_taken(self) -> int:
        """Their readings."""
        return int(self._settled().readings.sum())

    @property
    def panes(self) -> npt.NDArray[np.int32]:
        """Noisy pane sums of every host, int32[hosts, panes]."""
        return self._settled().panes

    def pane_matrix(self) -> Ints:
        """The same as int64."""
        return self.panes.astype(np.int64)

    @property
    def pane_sums(self) -> Ints:
        """Noisy pane sums of all hosts together, int64[panes]."""
        return np.asarray(self.panes.sum(axis=0, dtype=np.int64))

    @property
    def histograms(self) -> npt.NDArray[np.int16] | npt.NDArray[np.int32] | None:
        """Noisy counts of every host per cell [hosts, cells], 0 where not `counted`; None if no host releases any."""
        return self._settled().histograms

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Which hosts release a histogram, bool[hosts]."""
        return self._settled().counted
