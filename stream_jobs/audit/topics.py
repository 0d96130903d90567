"""What audits read from the topics: outputs backwards, policies by digest. Nothing read here is verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.codec import SINGLE_OBJECT, Framing, decode_collateral, decode_signed_policy, record_digest
from schemas.collateral import SET, item_digest, set_digest, set_members
from schemas.errors import SchemaError
from schemas.records import FleetPower, SignedFleetPower
from schemas.topics import TopicNames
from stream_jobs.audit.errors import RecordNotFound
from stream_jobs.audit.outputs import read_output
from stream_jobs.log_record import LogRecord
from stream_jobs.replay.source import RecordSource

BLOCK = 256
"""Records read at once where a topic is read backwards: outputs have some 10 KB."""

_ID = "ce_id"


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """An output where it stands, not verified; `digest`: its identity, 32 bytes."""

    record: LogRecord
    signed: SignedFleetPower
    digest: bytes

    @property
    def value(self) -> bytes:
        """Its framed bytes."""
        return self.record.value or b""

    @property
    def output(self) -> FleetPower:
        """What was signed."""
        return self.signed.output


class AuditTopics:
    """The topics of one cluster or archive. All methods raise ReadFailed where records cannot be had."""

    def __init__(self, source: RecordSource, names: TopicNames, framing: Framing = SINGLE_OBJECT):
        self.source, self.names, self.framing = source, names, framing
        self._policies: dict[bytes, list[tuple[bytes, bytes]]] | None = None
        self._items: dict[bytes, bytes] = {}
        self._sets: dict[bytes, tuple[bytes, ...]] | None = None

    def all_of(self, topic: str) -> Iterator[LogRecord]:
        """Every record of a topic, partition by partition."""
        for extent in self.source.extents(topic):
            yield from self.source.read(topic, extent.partition, extent.first, extent.end)

    def between(self, topic: str, partition: int, first: int, end: int | None = None) -> Iterator[LogRecord]:
        """Records of a partition with offsets in [first, end), as far as there are any; None: to the end."""
        for extent in self.source.extents(topic):
            if extent.partition == partition:
                upto = extent.end if end is None else min(end, extent.end)
                if max(first, extent.first) < upto:
                    yield from self.source.read(topic, partition, max(first, extent.first), upto)

    def backwards(self, topic: str, partition: int, end: int) -> Iterator[LogRecord]:
        """Records of a partition below offset `end`, the newest first."""
        for extent in self.source.extents(topic):
            if extent.partition == partition:
                end = min(end, extent.end)
                while end > extent.first:
                    first = max(extent.first, end - BLOCK)
                    yield from reversed(list(self.source.read(topic, partition, first, end)))
                    end = first

    def first_offset(self, topic: str, partition: int) -> int:
        """Lowest offset that is still there; 0 for a partition that does not exist."""
        return next((one.first for one in self.source.extents(topic) if one.partition == partition), 0)

    def as_output(self, record: LogRecord, domain: str | None = None) -> OutputRecord | None:
        """The output in a record, None if there is none or it is of another domain than `domain`."""
        if domain is not None and not (record.key or b"").startswith(f"{domain}/".encode()):
            return None
        try:
            signed, digest = read_output(record.value or b"", self.framing)
        except SchemaError:
            return None
        return OutputRecord(record, signed, digest) if domain in (None, signed.output.domain) else None

    def output_with(self, digest: bytes) -> OutputRecord:
        """An output by its digest. Raises RecordNotFound.

        Its event id is its digest, so that nearly always no other need be decoded.
        """
        wanted = (_ID, digest.hex().encode())
        for by_id in (True, False):
            for record in self.all_of(self.names.output):
                found = None if by_id and wanted not in record.headers else self.as_output(record)
                if found is not None and found.digest == digest:
                    return found
        raise RecordNotFound(f"the output topic has no output {digest.hex()}")

    def output_at(self, partition: int, offset: int) -> OutputRecord:
        """The output at a place of the output topic. Raises RecordNotFound."""
        for record in self.between(self.names.output, partition, offset, offset + 1):
            if found := self.as_output(record):
                return found
        raise RecordNotFound(f"{self.names.output}[{partition}] has no output at offset {offset}")

    def outputs_backwards(self, domain: str) -> Iterator[OutputRecord]:
        """What passes for outputs of a domain, the last on the topic first."""
        for extent in self.source.extents(self.names.output):
            for record in self.backwards(extent.topic, extent.partition, extent.end):
                if found := self.as_output(record, domain):
                    yield found

    def policies(self, digest: bytes) -> list[tuple[bytes, bytes]]:
        """Signed policies of a digest: framed bytes and the signer's point of each. Raises RecordNotFound.

        Normally one. The digest does not cover the signature, so that somebody may have put one there that fails.
        """
        if self._policies is None:
            self._policies = {}
            for record in self.all_of(self.names.policy):
                try:
                    signed, preimage = decode_signed_policy(record.value or b"", self.framing)
                except SchemaError:
                    continue
                held = self._policies.setdefault(record_digest(preimage), [])
                found = record.value or b"", signed.signer_public_key
                if found not in held:
                    held.append(found)
        if digest not in self._policies:
            raise RecordNotFound(f"the policy topic has no policy {digest.hex()}")
        return self._policies[digest]

    def collateral(self, digest: bytes | None) -> list[tuple[bytes, ...]]:
        """Sets of collateral by which a worker's evidence may be judged: items of each, framed bytes.

        `digest`: of the set that its output names. Where it names none, none, and the last complete one on the topic.
        Raises RecordNotFound where the set named is not there as a whole.
        """
        if self._sets is None:
            self._sets = self._read_sets()
        if digest is None:
            complete = [one for one in reversed(self._sets.values()) if all(item in self._items for item in one)]
            return [(), *(tuple(self._items[item] for item in one) for one in complete[:1])]
        members = self._sets.get(digest, ())
        if not members or any(one not in self._items for one in members):
            raise RecordNotFound(f"the collateral topic has no complete set {digest.hex()}")
        return [tuple(self._items[one] for one in members)]

    def _read_sets(self) -> dict[bytes, tuple[bytes, ...]]:
        found: dict[bytes, tuple[bytes, ...]] = {}
        for record in self.all_of(self.names.collateral):
            try:
                item = decode_collateral(record.value or b"", self.framing)
                if item.kind == SET:
                    members = set_members(item)
                    found[set_digest(members)] = members
                else:
                    self._items[item_digest(item)] = record.value or b""
            except SchemaError:
                continue
        return found
