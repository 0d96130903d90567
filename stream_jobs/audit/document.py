"""Proofs as documents: JSON with a version, digests in hexadecimal, records as base64 of their framed bytes.

A proof holds all that is needed to check it but one thing: which policy signer is trusted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from schemas.codec import MAX_POLICY_BYTES, MAX_VALUE_BYTES
from schemas.collateral import MAX_SET_ITEMS
from stream_jobs.audit.errors import ProofMalformed, ProofVersion

FORMAT, VERSION = "enclavescale-proof", 1
REPORT, EQUIVOCATION = "report", "equivocation"
ACCEPTED, REFUSED = "accepted", "refused"
OUTPUTS, MANIFESTS = "outputs", "manifests"

MAX_DOCUMENT_BYTES = 128 << 20
"""Largest document read, bytes: two of the largest policies and large sets of collateral, in base64."""

MAX_PATH = 64
"""Hashes in a path: more than any tree that could be counted needs."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Where an entry stands in a Merkle tree (RFC 9162): number `index` of `count`, and the siblings up to the root."""

    index: int
    count: int
    siblings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportProof:
    """That the record of `digest` (32 bytes) was accepted or refused in the window of `output`.

    `output`, `manifest`, `policy`, `collateral`: framed bytes as on their topics, the latter every item of the set that
    the output names, if it names one. `path`: in the tree of accepted or of refused
    records. `outer`: only for a record that was refused before its domain was known: it stands in a tree of such
    records, whose root is an entry of the tree of refused ones. `report`: its own framed bytes, or None.
    """

    digest: bytes
    verdict: str
    path: Path
    outer: Path | None
    output: bytes
    manifest: bytes
    policy: bytes
    policy_signer: bytes
    collateral: tuple[bytes, ...] = ()
    report: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One of two contradicting records. `manifest` is None where the outputs themselves contradict each other."""

    output: bytes
    manifest: bytes | None
    policy: bytes
    policy_signer: bytes
    collateral: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivocationProof:
    """That aggregators signed two different outputs (or manifests: `records`) for one window and revision."""

    records: str
    said: tuple[Said, Said]


Proof = ReportProof | EquivocationProof


def proof_text(proof: Proof) -> str:
    """The document, with a line end."""
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if isinstance(proof, ReportProof):
        document |= {
            "kind": REPORT,
            "verdict": proof.verdict,
            "digest": proof.digest.hex(),
            "path": _path_json(proof.path),
            "outer": None if proof.outer is None else _path_json(proof.outer),
            "output": _text(proof.output),
            "manifest": _text(proof.manifest),
            "policy": _text(proof.policy),
            "policy_signer": proof.policy_signer.hex(),
            "collateral": [_text(one) for one in proof.collateral],
            "report": None if proof.report is None else _text(proof.report),
        }
    else:
        document |= {
            "kind": EQUIVOCATION,
            "records": proof.records,
            "said": [
                {
                    "output": _text(one.output),
                    "manifest": None if one.manifest is None else _text(one.manifest),
                    "policy": _text(one.policy),
                    "policy_signer": one.policy_signer.hex(),
                    "collateral": [_text(item) for item in one.collateral],
                }
                for one in proof.said
            ],
        }
    return json.dumps(document, indent=1) + "\n"


def read_proof(data: bytes) -> Proof:
    """The proof in a document. Raises `ProofMalformed` or `ProofVersion`, nothing else, whatever the bytes."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ProofMalformed(f"a document of {len(data)} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    try:
        document = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProofMalformed(f"no JSON: {error}"[:200]) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProofMalformed("not a proof of EnclaveScale", field="format")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise ProofMalformed("no version", field="version")
    if version != VERSION:
        raise ProofVersion(f"version {version}; this release knows {VERSION}", field="version")
    fields = _Fields({name: one for name, one in document.items() if name not in ("format", "version")}, "")
    kind = fields.choice("kind", (REPORT, EQUIVOCATION))
    return _report(fields) if kind == REPORT else _equivocation(fields)


def _report(fields: _Fields) -> ReportProof:
    proof = ReportProof(
        verdict=fields.choice("verdict", (ACCEPTED, REFUSED)),
        digest=fields.digest("digest"),
        path=_path(fields.take("path"), "path"),
        outer=fields.optional("outer", lambda value: _path(value, "outer")),
        output=fields.record("output"),
        manifest=fields.record("manifest"),
        policy=fields.record("policy", MAX_POLICY_BYTES),
        policy_signer=fields.point("policy_signer"),
        collateral=fields.records("collateral"),
        report=fields.optional("report", lambda value: _record(value, "report", MAX_VALUE_BYTES)),
    )
    fields.end()
    return proof


def _equivocation(fields: _Fields) -> EquivocationProof:
    records = fields.choice("records", (OUTPUTS, MANIFESTS))
    said = fields.take("said")
    fields.end()
    if not isinstance(said, list) or len(said) != 2:
        raise ProofMalformed("said: two records", field="said")
    first, second = (_said(one, f"said[{number}].", records) for number, one in enumerate(said))
    return EquivocationProof(records=records, said=(first, second))


def _said(value: Any, where: str, records: str) -> Said:
    fields = _Fields(value, where)
    said = Said(
        output=fields.record("output"),
        manifest=fields.optional("manifest", lambda one: _record(one, f"{where}manifest", MAX_VALUE_BYTES)),
        policy=fields.record("policy", MAX_POLICY_BYTES),
        policy_signer=fields.point("policy_signer"),
        collateral=fields.records("collateral"),
    )
    fields.end()
    if (said.manifest is not None) != (records == MANIFESTS):
        raise ProofMalformed(f"{where}manifest does not fit", field=f"{where}manifest")
    return said


class _Fields:
    """The fields of one JSON object, each taken once; what is left is too much."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ProofMalformed(f"{where or 'document'}: no object", field=where.rstrip(".") or None)
        self._left: dict[str, Any] = dict(value)
        self._where = where

    def take(self, name: str) -> Any:
        """The value of a field that must be there."""
        if name not in self._left:
            raise ProofMalformed(f"{self._where}{name} is missing", field=self._where + name)
        return self._left.pop(name)

    def optional(self, name: str, read: Callable[[Any], T]) -> T | None:
        """What `read` makes of a field that may be null."""
        value = self.take(name)
        return None if value is None else read(value)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of some words."""
        value = self.take(name)
        if not isinstance(value, str) or value not in allowed:
            raise ProofMalformed(f"{self._where}{name}: one of {', '.join(allowed)}", field=self._where + name)
        return value

    def digest(self, name: str) -> bytes:
        """32 bytes in hexadecimal."""
        return _hexadecimal(self.take(name), self._where + name, 32)

    def point(self, name: str) -> bytes:
        """65 bytes in hexadecimal."""
        return _hexadecimal(self.take(name), self._where + name, 65)

    def record(self, name: str, limit: int = MAX_VALUE_BYTES) -> bytes:
        """Bytes in base64."""
        return _record(self.take(name), self._where + name, limit)

    def records(self, name: str) -> tuple[bytes, ...]:
        """A list of bytes in base64: items of a set of collateral."""
        value, where = self.take(name), self._where + name
        if not isinstance(value, list) or len(value) > MAX_SET_ITEMS:
            raise ProofMalformed(f"{where}: a list of at most {MAX_SET_ITEMS}", field=where)
        return tuple(_record(one, where, MAX_VALUE_BYTES) for one in value)

    def end(self) -> None:
        """Refuse what nobody took."""
        if self._left:
            name = self._where + min(self._left)
            raise ProofMalformed(f"{name[:80]}: unknown field", field=name[:80])


def _path(value: Any, where: str) -> Path:
    fields = _Fields(value, f"{where}.")
    index, count, siblings = fields.take("index"), fields.take("count"), fields.take("siblings")
    fields.end()
    if type(index) is not int or type(count) is not int or not 0 <= index < count < 1 << MAX_PATH:
        raise ProofMalformed(f"{where}: index and count of an entry", field=where)
    if not isinstance(siblings, list) or len(siblings) > MAX_PATH:
        raise ProofMalformed(f"{where}.siblings: a list of at most {MAX_PATH}", field=f"{where}.siblings")
    return Path(
        index=index,
        count=count,
        siblings=tuple(_hexadecimal(one, f"{where}.siblings", 32) for one in siblings),
    )


def _path_json(path: Path) -> Mapping[str, Any]:
    return {"index": path.index, "count": path.count, "siblings": [one.hex() for one in path.siblings]}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _record(value: Any, where: str, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > limit * 4 // 3 + 4:
        raise ProofMalformed(f"{where}: base64 of at most {limit} bytes", field=where)
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise ProofMalformed(f"{where}: not base64", field=where) from None


def _hexadecimal(value: Any, where: str, size: int) -> bytes:
    if isinstance(value, str) and len(value) == 2 * size:
        try:
            return binascii.unhexlify(value)
        except ValueError:
            pass
    raise ProofMalformed(f"{where}: {size} bytes in hexadecimal", field=where)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
