"""Every host's own transition counts of a class, kept as long as a window can be revised: a revoked host leaves it.

Only their sum is ever published. Counts are small numbers with noise, so a byte holds nearly all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KeptCounts:
    """Counts of some hosts: `rows` int32[hosts] in the roster; `low` int8[hosts, cells], which is the count modulo 256;
    `at` int32[m] places in the flat matrix where that is not all, `high` int32[m] what is missing there, of 256 each.
    """

    rows: npt.NDArray[np.int32]
    low: npt.NDArray[np.int8]
    at: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]

    @classmethod
    def of(cls, rows: npt.NDArray[np.int32], counts: npt.NDArray[np.signedinteger[Any]]) -> KeptCounts:
        """Keep integers [hosts, cells]."""
        low = counts.astype(np.int8)  # wraps around
        over = np.flatnonzero(low.ravel() != counts.ravel())
        high = (counts.ravel()[over].astype(np.int64) - low.ravel()[over]) >> 8
        return cls(rows, low, over.astype(np.int32), high.astype(np.int32))

    def sum_where(self, chosen: npt.NDArray[np.bool_]) -> Ints:
        """Sum over the chosen hosts, int64[cells]."""
        cells = self.low.shape[1]
        total: Ints = self.low[chosen].sum(axis=0, dtype=np.int64)
        theirs = chosen[self.at // cells]
        np.add.at(total, self.at[theirs] % cells, self.high[theirs].astype(np.int64) << 8)
        return total

    def where(self, chosen: npt.NDArray[np.bool_]) -> KeptCounts:
        """The chosen hosts' counts."""
        cells = self.low.shape[1]
        places = np.cumsum(chosen) - 1
        theirs = chosen[self.at // cells]
        at = places[self.at[theirs] // cells] * cells + self.at[theirs] % cells
        return KeptCounts(self.rows[chosen], self.low[chosen], at.astype(np.int32), self.high[theirs])
