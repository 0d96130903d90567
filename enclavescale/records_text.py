"""A record as text for people: JSON whose arrays of numbers are decoded, with times in UTC and long bytes cut."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from enclavescale.live import moment

MAX_BYTES = 64
"""Longer byte strings are cut for people; `--json` has them whole."""

INDENT = "  "
NUMBERS = {
    "transitions": "<i4",
    "pane_sums": "<i4",
    "histogram": "<i4",
    "transitions_sum": "<i8",
    "pane_sums_sum": "<i8",
    "histogram_sum": "<i8",
    "transition_matrix_ppm": "<i4",
    "stationary_ppm": "<i4",
}
"""Fields that hold arrays of integers, as the schemas' documentation says."""

SHAPES = {
    "transitions": "transitions_shape",
    "pane_sums": "pane_sums_shape",
    "histogram": "histogram_shape",
    "transitions_sum": "transitions_shape",
    "pane_sums_sum": "pane_sums_shape",
}
SQUARE = "transition_matrix_ppm"


def _numbers(name: str, value: bytes, record: Any) -> Any:
    """The integers of a field, in rows where it is a matrix; None where the bytes do not fit."""
    array = np.frombuffer(value, NUMBERS[name]) if len(value) % np.dtype(NUMBERS[name]).itemsize == 0 else None
    if array is None:
        return None
    shape = tuple(getattr(record, SHAPES.get(name, ""), ()))
    if name == SQUARE:
        side = round(array.size**0.5)
        shape = (side, side)
    if len(shape) == 2 and shape[0] * shape[1] == array.size:
        return array.reshape(shape).tolist()
    return array.tolist()


def for_people(value: Any) -> Any:
    """A record as JSON data for people."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result: dict[str, Any] = {}
        for one in dataclasses.fields(value):
            held = getattr(value, one.name)
            result[one.name] = for_people(held)
            if isinstance(held, bytes) and one.name in NUMBERS:
                numbers = _numbers(one.name, held, value)
                if numbers is not None:
                    result[one.name] = numbers
            elif one.name.endswith("_ms") and isinstance(held, int) and held > 10**11:
                result[f"{one.name} (UTC)"] = moment(held)
        return result
    if isinstance(value, tuple | list):
        return [for_people(one) for one in value]
    if isinstance(value, bytes):
        return value.hex() if len(value) <= MAX_BYTES else f"{value[:MAX_BYTES].hex()}… ({len(value)} bytes)"
    return value


def _text(value: Any, indent: str) -> str:
    inner = indent + INDENT
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(name)}: {_text(one, inner)}" for name, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(one, list | dict) for one in value):
        return "[\n" + ",\n".join(inner + _text(one, inner) for one in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def record_text(record: Any) -> str:
    """The whole record; a row of a matrix stands on one line."""
    return _text(for_people(record), "")
