"""Parts of the pinned schemas that are read and written by themselves, because their exact bytes are signed."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import fastavro

from schemas.errors import SchemaError
from schemas.mapping import from_avro
from schemas.pins import part
from schemas.records import EvidenceItem, SessionBinding, SessionEvidence
from schemas.scan import MAX_CELLS, Scan

T = TypeVar("T")


class Part:
    """One part of a pinned schema, wrapped in a record with the single field `value`: how it is read and written."""

    def __init__(self, name: str, *path: str, max_cells: int = MAX_CELLS) -> None:
        self._parsed = part(name, *path)
        self._scan = Scan(self._parsed, max_cells)
        self._what = ".".join(path)

    def write(self, value: Any) -> bytes:
        """Canonical bytes of `value`."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._parsed, {"value": value})
        return out.getvalue()

    def read(self, value: bytes, start: int) -> tuple[Any, bytes]:
        """Read the part at `start` and return it with its bytes. Refuses anything but the canonical encoding."""
        taken = value[start : self._scan.end(value, start, self._what)]
        read: Any = fastavro.schemaless_reader  # its annotations are wider than a record's
        try:
            result = read(
                io.BytesIO(taken), self._parsed, None, return_record_name=True, return_record_name_override=True
            )
        except Exception as error:  # the scan leaves undecodable text; whatever else fastavro raises means the same
            raise SchemaError(f"{self._what}: {type(error).__name__}: {error}"[:300], field=self._what) from error
        return result["value"], taken


def take_fixed(value: bytes, start: int, size: int, what: str) -> bytes:
    """The `size` bytes at `start`. Raises SchemaError naming `what`."""
    taken = value[start : start + size]
    if len(taken) != size:
        raise SchemaError(f"{what} is cut short", field=what)
    return taken


def finish(value: bytes, end: int) -> None:
    """Refuse bytes after `end` with SchemaError TRAILING_BYTES."""
    if end != len(value):
        raise SchemaError(f"{len(value) - end} bytes after the record", code="TRAILING_BYTES")


BINDING = Part("SignedRecord", "evidence", "binding")
ITEMS = Part("SignedRecord", "evidence", "items")
NO_EVIDENCE = Part("SignedRecord", "evidence_absent_reason")


@lru_cache(maxsize=256)
def _one_of(value: T) -> T:
    """The first of equal values: evidence stays in memory, and the sessions of a fleet say nearly the same."""
    return value


def _intern(record: dict[str, Any]) -> dict[str, Any]:
    """Let equal texts be one object, for the same reason."""
    for name, value in record.items():
        if type(value) is str:
            record[name] = sys.intern(value)
    return record


def read_evidence(value: bytes, start: int) -> tuple[SessionEvidence | None, bytes | None, bytes | None, int]:
    """Read the field `evidence` of a signed record at `start`: evidence, its binding's bytes, its own, where it ends.

    Raises SchemaError.
    """
    branch = take_fixed(value, start, 1, "evidence")
    if branch == b"\x00":
        return None, None, None, start + 1
    if branch != b"\x02":
        raise SchemaError("evidence has an unknown union branch", field="evidence")
    binding, binding_bytes = BINDING.read(value, start + 1)
    items, items_bytes = ITEMS.read(value, start + 1 + len(binding_bytes))
    bound = from_avro(SessionBinding, _intern(binding))
    bound = replace(
        bound,
        privacy=_one_of(bound.privacy),
        clip_ranges=_one_of(bound.clip_ranges),
        state_grids=_one_of(bound.state_grids),
    )
    evidence = SessionEvidence(binding=bound, items=tuple(from_avro(EvidenceItem, _intern(item)) for item in items))
    taken = branch + binding_bytes + items_bytes
    return evidence, binding_bytes, taken, start + len(taken)
