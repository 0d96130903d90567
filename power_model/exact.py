"""Sums of floats that do not depend on the order or on how wide the processor adds: as integers of one unit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEW = 192
"""Fewer values are summed sooner by `math.fsum`."""

_BITS = 62


def total(values: Floats) -> float:
    """Return the sum of float64[...], each rounded to the same unit first: 2^-48 of the largest for 10,000 values.

    Raises OverflowError or ValueError if one is not finite.
    """
    if values.size <= FEW:
        return math.fsum(values.ravel().tolist())
    shift = _shift(values, values.size)
    return math.ldexp(int(np.rint(values * math.ldexp(1.0, shift)).astype(np.int64).sum()), -shift)


def columns(rows: Floats) -> Floats:
    """Return the sum of every column, float64[columns], of float64[n, columns]; as `total`."""
    if not rows.size:
        return np.zeros(rows.shape[1], dtype=np.float64)
    unit = math.ldexp(1.0, _shift(rows, len(rows)))
    result: Floats = np.rint(rows * unit).astype(np.int64).sum(axis=0) / unit
    return result


def _shift(values: Floats, count: int) -> int:
    """Binary places to move values by, so that no sum of `count` whole numbers exceeds 64 bits."""
    largest = max(float(values.max()), -float(values.min()))
    if not math.isfinite(largest):
        raise ValueError("not finite")
    # A power of two that a float can hold, and its inverse too.
    return max(-1000, min(_BITS - count.bit_length() - math.frexp(largest)[1], 1000))


def dot(left: Floats, right: Floats) -> float:
    """Return the sum of the products of two arrays of one shape, as `total`."""
    return total(left * right)


def grouped(values: Floats, codes: npt.NDArray[np.integer[Any]], groups: int) -> Floats:
    """Return the sums of float64[n] by `codes` [n], float64[groups], added one after another in the given order."""
    result: Floats = np.bincount(codes, weights=values, minlength=groups).astype(np.float64, copy=False)
    return result
