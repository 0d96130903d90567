"""The topics beside the log: policies, collateral, beacons. Whatever can be checked of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

from schemas.codec import decode_collateral, decode_signed_beacon
from schemas.collateral import VALUE_DIGEST, collateral_key
from schemas.errors import EnclaveScaleError
from stream_jobs.log_record import LogRecord
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.source import RecordSource
from stream_jobs.replay.trusted import TrustedPolicies
from stream_jobs.replay.verdicts import Finding, Severity
from verifier.signature import load_session_key, verify_record_signature

NONCE_BYTES = 32

Said = Callable[[Finding], None]


def check_policies(source: RecordSource, request: ReplayRequest, said: Said) -> TrustedPolicies:
    """Every record of the policy topic is a policy to follow; returns them. Raises ReadFailed."""

    def say(code: str, record: LogRecord, message: str) -> None:
        said(_finding(code, Severity.ALARM, record, message))

    policies = TrustedPolicies.read(source, request, say)
    for digest, view in policies.views.items():
        if request.as_of_ms is not None and view.policy.not_after_ms < request.as_of_ms:
            text = f"policy {view.policy.counter} ended {_ago(request.as_of_ms - view.policy.not_after_ms)}"
            said(_finding("POLICY_ENDED", Severity.NOTICE, policies.places[digest], text))
    return policies


def check_beacons(source: RecordSource, request: ReplayRequest, sessions: Mapping[bytes, bytes], said: Said) -> int:
    """Every beacon is signed by a worker's session; `sessions`: public keys of those met. Returns how many."""
    count = 0
    for record in _records(source, request.topics.beacons):
        count += 1
        try:
            signed, preimage = decode_signed_beacon(record.value or b"", request.framing)
            beacon = signed.beacon
            if len(beacon.nonce) != NONCE_BYTES:
                said(_finding("BEACON_REFUSED", Severity.ALARM, record, f"a nonce has {NONCE_BYTES} bytes"))
            _envelope(record, f"beacon/{beacon.nonce.hex()}", said)
            point = sessions.get(beacon.session_id)
            if point is None:
                text = f"session {beacon.session_id.hex()} signed nothing in this range"
                said(_finding("BEACON_UNPROVEN", Severity.NOTICE, record, text))
                continue
            verify_record_signature(load_session_key(point), preimage, signed.signature)
        except EnclaveScaleError as error:
            said(_finding("BEACON_REFUSED", Severity.ALARM, record, f"{error.code}: {error}"))
    return count


def check_collateral(source: RecordSource, request: ReplayRequest, said: Said) -> int:
    """Every item decodes and has the digest that its key names. Returns how many there are."""
    count = 0
    for record in _records(source, request.topics.collateral):
        count += 1
        value = record.value or b""
        try:
            item = decode_collateral(value, request.framing)
        except EnclaveScaleError as error:
            said(_finding("COLLATERAL_REFUSED", Severity.ALARM, record, f"{error.code}: {error}"))
            continue
        if record.key != collateral_key(item):
            text = "the key is not kind, id and digest of the item"
            said(_finding("COLLATERAL_REFUSED", Severity.ALARM, record, text))
        if record.headers not in ((), ((VALUE_DIGEST, hashlib.sha256(value).hexdigest().encode()),)):
            said(_finding("ENVELOPE_DIFFERS", Severity.ALARM, record, "headers are not the value's digest"))
        if request.as_of_ms is not None and item.next_update_ms is not None and item.next_update_ms < request.as_of_ms:
            text = f"{item.kind} {item.id}: its next update was due {_ago(request.as_of_ms - item.next_update_ms)}"
            said(_finding("COLLATERAL_ENDED", Severity.NOTICE, record, text))
    return count


def _records(source: RecordSource, topic: str) -> Iterator[LogRecord]:
    for extent in source.extents(topic):
        yield from source.read(topic, extent.partition, extent.first, extent.end)


def _envelope(record: LogRecord, key: str, said: Said) -> None:
    if record.key != key.encode():
        said(_finding("ENVELOPE_DIFFERS", Severity.ALARM, record, f"the key is {record.key!r:.80}, not {key}"))
    if record.headers:
        said(_finding("ENVELOPE_DIFFERS", Severity.ALARM, record, f"header {record.headers[0][0]!r}"))


def _finding(code: str, severity: Severity, record: LogRecord, message: str) -> Finding:
    return Finding(
        code=code,
        severity=severity,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        message=message,
    )


def _ago(ms: int) -> str:
    days = ms // 86_400_000
    return f"{days} days ago" if days >= 2 else f"{ms // 60_000} minutes ago"
