"""Evidence of one host in one file, for people and other programs: {"items": [{"kind", "subject", "data"}], "binding"}.

The same items as in a session's evidence (`SessionEvidence`), bytes in base64 with padding. `subject` is absent or
null for the CPU; `binding`, absent or null, are the Avro bytes of the session binding that the evidence was made for.
"""

from __future__ import annotations

import base64
import json
from binascii import Error, a2b_base64
from dataclasses import dataclass
from typing import Any

from schemas.records import EvidenceItem
from verifier.abi.json import loads, members_of
from verifier.errors import CollateralMalformed, CollateralTooLarge, CompositeMalformed, EvidenceTooLarge
from verifier.limits import MAX_COMPOSITE_BYTES, MAX_EVIDENCE_ITEMS

_FIELD = "composite"
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class CompositeFile:
    """The items of a file in its order, and the Avro bytes of the binding, None where the file has none."""

    items: tuple[EvidenceItem, ...]
    binding_bytes: bytes | None

    def encode(self) -> bytes:
        """The file's text: UTF-8, one item a line."""
        items = [
            {"kind": one.kind, "subject": one.subject, "data": base64.b64encode(one.data).decode()}
            for one in self.items
        ]
        lines = ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in items)
        binding = "null" if self.binding_bytes is None else f'"{base64.b64encode(self.binding_bytes).decode()}"'
        return f'{{"items": [\n  {lines}\n], "binding": {binding}}}\n'.encode()


def parse_composite(data: bytes) -> CompositeFile:
    """Read a file of composite evidence. `CompositeMalformed`, `EvidenceTooLarge`; its items are not verified."""
    try:
        members = loads(data, _FIELD, MAX_COMPOSITE_BYTES)
        found = members.pop("items", None)
        binding = members.pop("binding", None)
        _nothing_left(members, _FIELD)
        if not isinstance(found, list):
            raise CompositeMalformed("items are not a list", field="items")
        if len(found) > MAX_EVIDENCE_ITEMS:
            raise EvidenceTooLarge(f"{len(found)} evidence items", field="items")
        items = tuple(_item(one, f"items[{index}]") for index, one in enumerate(found))
    except CollateralTooLarge as error:
        raise EvidenceTooLarge(str(error), field=error.field) from None
    except CollateralMalformed as error:
        raise CompositeMalformed(str(error), field=error.field) from None
    return CompositeFile(items, None if binding is None else _bytes(binding, "binding"))


def _item(value: Any, field: str) -> EvidenceItem:
    members = members_of(value, field)
    kind, subject = members.pop("kind", None), members.pop("subject", None)
    data = _bytes(members.pop("data", None), f"{field}.data")
    _nothing_left(members, field)
    if not _is_name(kind) or not (subject is None or _is_name(subject)):
        raise CompositeMalformed(f"{field}: kind or subject is no text", field=field)
    return EvidenceItem(
        kind=kind, data=data, subject=subject, subject_absent_reason="absent in the file" if subject is None else None
    )


def _is_name(value: Any) -> bool:
    """Text without control characters, and without halves of surrogate pairs, which no bytes can stand for."""
    return isinstance(value, str) and value.isprintable()


def _bytes(value: Any, field: str) -> bytes:
    if not isinstance(value, str):
        raise CompositeMalformed(f"{field} is no text in base64", field=field)
    try:
        return a2b_base64(value.encode("ascii"), strict_mode=True) if value else b""
    except (Error, UnicodeEncodeError):
        raise CompositeMalformed(f"{field} is not base64", field=field) from None


def _nothing_left(members: dict[str, Any], field: str) -> None:
    for name in members:
        raise CompositeMalformed(f"unknown key {ascii(name)[1:-1][:_SHOWN_CHARACTERS]}", field=field)
