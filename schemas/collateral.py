"""What names collateral: digests of items and of sets, and the item that says what a set consists of.

An item is named by what its issuer delivered and what that is for; when somebody fetched it, and what was read of its
validity on the way, stands beside it. A set is named by its items alone, in no order of anybody's choosing.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable

from schemas.errors import SchemaError
from schemas.records import CollateralItem

SET = "set"
"""Kind of the item that lists a set's items."""

VALUE_DIGEST = "enclavescale.value.sha256"
"""Header of the collateral topic: SHA-256 of the record's value, hexadecimal. The key leaves out what stands beside an
item, such as when it was fetched."""

DIGEST_BYTES = 32
MAX_SET_ITEMS = 8192
"""Items of one set at most: 256 KiB of digests, half of what the topic takes."""


def item_digest(item: CollateralItem) -> bytes:
    """Name of an item: SHA-256 over kind, id, data and issuer chain, each with its length, -1 for what is null."""
    found = hashlib.sha256(b"enclavescale/collateral-item/1\x00")
    for part in (item.kind.encode("utf-8", "surrogatepass"), item.id.encode("utf-8", "surrogatepass"), item.data,
                 item.issuer_chain):  # fmt: skip
        found.update((-1 if part is None else len(part)).to_bytes(8, "big", signed=True) + (part or b""))
    return found.digest()


def item_parts(item: CollateralItem) -> list[bytes]:
    """What an item gives to a verifier: its data, and the issuer's chain where that came apart."""
    return [item.data] if item.issuer_chain is None else [item.data, item.issuer_chain]


def set_digest(items: Iterable[bytes]) -> bytes:
    """Name of the set of the items with these digests; 32 bytes. Their order and repetitions do not count."""
    return hashlib.sha256(b"enclavescale/collateral-set/1\x00" + b"".join(sorted(set(items)))).digest()


def set_item(items: Iterable[bytes], fetched_at_ms: int) -> CollateralItem:
    """The item that makes a set of the items with these digests. Raises ValueError for none, or too many."""
    digests = sorted(set(items))
    if not 0 < len(digests) <= MAX_SET_ITEMS or any(len(one) != DIGEST_BYTES for one in digests):
        raise ValueError(f"a set has 1 to {MAX_SET_ITEMS} digests of {DIGEST_BYTES} bytes")
    return CollateralItem(
        kind=SET,
        id=set_digest(digests).hex(),
        data=b"".join(digests),
        issuer_chain_absent_reason="a set has no signer",
        not_before_ms_absent_reason="its items say",
        next_update_ms_absent_reason="its items say",
        fetched_at_ms=fetched_at_ms,
    )


def set_members(item: CollateralItem) -> tuple[bytes, ...]:
    """Digests of a set's items, ascending. Raises SchemaError for an item that is no set, or not what its id says."""
    data = item.data
    members = tuple(data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES))
    if item.kind != SET or len(data) % DIGEST_BYTES or not 0 < len(members) <= MAX_SET_ITEMS:
        raise SchemaError("no set of collateral", code="COLLATERAL_SET_INVALID", field="data")
    if any(one >= other for one, other in itertools.pairwise(members)):
        raise SchemaError("digests of a set do not ascend", code="COLLATERAL_SET_INVALID", field="data")
    if item.id != set_digest(members).hex():
        raise SchemaError("the set has another digest than its id", code="COLLATERAL_SET_INVALID", field="id")
    return members


def collateral_key(item: CollateralItem) -> bytes:
    """The record key of an item: `kind/id/<digest>`; of a set its id, which is its digest."""
    if item.kind == SET:
        return f"{SET}/{item.id}".encode()
    return f"{item.kind}/{item.id}/{item_digest(item).hex()}".encode("utf-8", "surrogatepass")
