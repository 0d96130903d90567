"""What `enclavescale collateral status` says: sets on the topic, what domains rest on, when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from enclavescale.reach import partitions_of_topic
from schemas.codec import decode_signed_output
from schemas.errors import EnclaveScaleError
from stream_jobs.collateral_store import CollateralIndex, set_ends_ms
from stream_jobs.reading import backwards, open_reader
from verifier.abi.fields import moment

READ_S = 20.0
"""Longest wait for progress while a topic is read, s."""

_DAY_MS = 86_400_000


def domains_of(kafka: Mapping[str, str], topic: str) -> dict[str, str | None]:
    """Set named by the last output of every domain, hexadecimal, as outputs say it: nothing is verified.

    Looks at the last records of each partition. Raises ClusterUnreachable, TopicFailed, ReadFailed.
    """
    found: dict[str, str | None] = {}
    with contextlib.closing(open_reader(kafka)) as consumer:
        for partition in partitions_of_topic(consumer, topic):
            for chunk in backwards(consumer, topic, partition, READ_S):
                for message in reversed(chunk):
                    try:
                        output = decode_signed_output(message.value() or b"")[0].output
                    except EnclaveScaleError:
                        continue
                    digest = output.collateral_digest
                    found.setdefault(output.domain, None if digest is None else digest.hex())
                break
    return dict(sorted(found.items()))


def topic_status(index: CollateralIndex, now_ms: int, domains: Mapping[str, str | None]) -> dict[str, Any]:
    """The newest set with its items, and which domains rest on it or on another; times in RFC 3339 and UTC ms."""
    newest = index.newest(now_ms)
    ends_ms = None if newest is None else set_ends_ms(newest.view.held)
    members = () if newest is None else index.members(newest.view.digest) or ()
    items = [item for one in members if (item := index.item(one)) is not None]
    return {
        "at": moment(now_ms),
        "set": None if newest is None else newest.view.digest.hex(),
        "ends": None if ends_ms is None else moment(ends_ms),
        "ends_ms": ends_ms,
        "days_left": None if ends_ms is None else round((ends_ms - now_ms) / _DAY_MS, 1),
        "items": [
            {
                "kind": one.kind,
                "id": one.id,
                "next_update": None if one.next_update_ms is None else moment(one.next_update_ms),
                "fetched_at": moment(one.fetched_at_ms),
            }
            for one in sorted(items, key=lambda one: (one.kind, one.id, one.next_update_ms or 0))
        ],
        "domains": dict(domains),
    }


def status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for people, the answer first."""
    if found["set"] is None:
        yield "no set of collateral stands on the topic"
    else:
        end = "holds nothing that ends" if found["ends"] is None else f"first lacks something at {found['ends']}"
        yield f"set {found['set']}: {len(found['items'])} items, {end}" + (
            "" if found["ok"] else "  <- import newer ones"
        )
    for one in found["items"]:
        yield f"  {one['kind']:<12} {one['id']:<40} until {one['next_update'] or 'no end of its own'}"
    for domain, digest in found["domains"].items():
        state = (
            "no collateral" if digest is None else "this set" if digest == found["set"] else f"another set, {digest}"
        )
        yield f"  domain {domain}: {state}"
