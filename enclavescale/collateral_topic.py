"""Collateral for workers: what files hold as items of the collateral topic, and the sets that stand there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import KafkaException

from enclavescale.errors import ClusterUnreachable, TopicFailed
from schemas.codec import encode_collateral
from schemas.collateral import VALUE_DIGEST, collateral_key, item_digest, set_digest, set_item
from schemas.records import CollateralItem
from stream_jobs.collateral_store import CollateralIndex
from stream_jobs.output import make_kafka_producer, producer_properties
from verifier.abi.collateral import ENVELOPES
from verifier.inventory import Inventory
from verifier.trust.appraisal import PCK_CA, PCK_CERTIFICATE, ROOT_CA, TCB_SIGNER
from verifier.trust.contents import OCSP, ROOT_CRL
from verifier.trust.store import Collateral

FLUSH_S = 45.0
"""Longest wait for the brokers' acknowledgement, s: above the producer's delivery time-out, which decides."""

_MEMBERS = {kind: member for member, kind in reversed(ENVELOPES.items())}
_KINDS = {
    ROOT_CRL: "root_crl",
    OCSP: "ocsp",
    **dict.fromkeys((TCB_SIGNER, PCK_CA, PCK_CERTIFICATE, ROOT_CA), "certificate"),
}

MakeProducer = Callable[[dict[str, str]], Any]


def items_of(held: Collateral, inventory: Inventory, states: Sequence[str], fetched_at_ms: int) -> list[CollateralItem]:
    """What a set holds and an inventory finds in one of `states`, as items, each with its bytes as its vendor signed
    them. Sorted by kind and subject, as the inventory is.
    """
    found = []
    parts = _parts(held)
    for one in inventory.items:
        if one.state not in states:
            continue
        for data in parts.get(one.digest, ()):
            found.append(
                CollateralItem(
                    kind=_KINDS.get(one.kind, one.kind),
                    id=one.subject,
                    data=data,
                    issuer_chain_absent_reason="stands as items of its own",
                    not_before_ms=one.issued_ms,
                    not_before_ms_absent_reason=None if one.issued_ms is not None else "states none",
                    next_update_ms=one.next_update_ms,
                    next_update_ms_absent_reason=None if one.next_update_ms is not None else "states none",
                    fetched_at_ms=fetched_at_ms,
                )
            )
    return found


def _parts(held: Collateral) -> dict[bytes, list[bytes]]:
    """Bytes of everything readable, by the digest that an inventory gives it."""
    parts: dict[bytes, list[bytes]] = {}
    for one in held.held_documents:
        text = b'{"%s":%s,"signature":"%s"}' % (
            _MEMBERS[one.kind].encode(),
            one.signed.signed_bytes,
            one.signed.signature.hex().encode(),
        )
        parts.setdefault(one.digest, []).append(text)
    for crl in held.crls:
        parts.setdefault(crl.digest, []).append(crl.crl.der)
    for data in (*held.certificate_sources, *held.rim_sources, *held.ocsp_sources):
        parts.setdefault(hashlib.sha256(data).digest(), []).append(data)
    return parts


@dataclass(frozen=True, slots=True)
class Publication:
    """What an import comes to: `set_digest` of the set, `items` it has, those of them that are `new` on the topic,
    `kept` of the newest set before it.
    """

    set_digest: bytes
    items: int
    new: int
    kept: int


def standing_items(index: CollateralIndex, now_ms: int) -> list[CollateralItem]:
    """Items of the newest set that have not ended."""
    newest = index.newest(now_ms)
    members = () if newest is None else index.members(newest.view.digest) or ()
    found = (index.item(one) for one in members)
    return [one for one in found if one is not None and (one.next_update_ms is None or one.next_update_ms >= now_ms)]


def publish_set(
    kafka: Mapping[str, str],
    topic: str,
    items: Iterable[CollateralItem],
    kept: Iterable[CollateralItem],
    index: CollateralIndex,
    *,
    now_ms: int,
    make_producer: MakeProducer = make_kafka_producer,
) -> Publication:
    """Put items on the topic that are not there, then the set of them and of what is `kept`, which is thereby said to
    be current as of `now_ms`. Raises ConfigError, ClusterUnreachable, TopicFailed.
    """
    given = {item_digest(one): one for one in items}
    before = {item_digest(one): one for one in kept}
    # Kept ones, too, are written again: the topic forgets after a while what it was told once.
    renewed = {
        digest: one
        for digest, one in {**before, **given}.items()
        if (known := index.item(digest)) is None or known.fetched_at_ms < now_ms - RENEW_MS
    }
    new = [digest for digest in given if index.item(digest) is None]
    members = [*given, *before]
    producer = make_producer(producer_properties(kafka))
    _send(producer, topic, [replace(one, fetched_at_ms=now_ms) for one in renewed.values()])
    _send(producer, topic, [set_item(members, now_ms)])
    return Publication(set_digest(members), len(set(members)), len(new), len(set(before) - set(given)))


RENEW_MS = 7 * 86_400_000
"""Items older than this on the topic are written again, ms: a quarter of its retention."""


def _send(producer: Any, topic: str, items: Iterable[CollateralItem]) -> None:
    errors: list[str] = []
    try:
        for item in items:
            value = encode_collateral(item)
            headers = [(VALUE_DIGEST, hashlib.sha256(value).hexdigest())]
            producer.produce(
                topic,
                value,
                key=collateral_key(item),
                headers=headers,
                on_delivery=lambda error, _: errors.append(error.str()) if error is not None else None,
            )
            producer.poll(0)
    except (KafkaException, BufferError) as error:
        raise TopicFailed(f"{topic}: {error}", field=topic) from error
    left = producer.flush(FLUSH_S)
    if errors:
        raise TopicFailed(f"{topic}: {errors[0]}", field=topic)
    if left:
        raise ClusterUnreachable(f"{topic}: {left} records were not acknowledged within {FLUSH_S:.0f} s")
