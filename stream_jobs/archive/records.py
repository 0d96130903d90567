"""Records of the log as Avro: one canonical encoding, read with bounds.

Avro 1.11: longs are zigzag varints, a union begins with its branch, an array is one block and an end. Decoding is
strict: what it accepts is exactly what `encode_record` writes, so that a digest over the bytes is one over the records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from stream_jobs.log_record import LogRecord

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "ArchivedRecord",
        "namespace": "org.enclavescale.archive.v1",
        "doc": "One record of a Kafka topic as it stood in the log; timestamp_type: 0 CreateTime, 1 LogAppendTime.",
        "fields": [
            {"name": "offset", "type": "long"},
            {"name": "timestamp_ms", "type": "long"},
            {"name": "timestamp_type", "type": "int"},
            {"name": "key", "type": ["null", "bytes"]},
            {"name": "value", "type": ["null", "bytes"]},
            {
                "name": "headers",
                "type": {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "ArchivedHeader",
                        "fields": [{"name": "key", "type": "string"}, {"name": "value", "type": ["null", "bytes"]}],
                    },
                },
            },
        ],
    },
    separators=(",", ":"),
)
"""Avro schema of the segments' records."""

_INT64 = 1 << 63
_MAX_SHIFT = 63  # ten bytes hold 64 bits; with more, what is read would cost the square of its length
_TYPES = (-1, 0, 1)  # no timestamp, CreateTime, LogAppendTime


class NotARecord(Exception):
    """Bytes that `encode_record` does not write. `at`: where, bytes from the beginning."""

    def __init__(self, message: str, at: int):
        super().__init__(message)
        self.at = at


def encode_long(number: int) -> bytes:
    """A long as zigzag varint. Raises ValueError beyond 64 bits."""
    if not -_INT64 <= number < _INT64:
        raise ValueError(f"{number} does not fit 64 bits")
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def decode_long(data: bytes, at: int) -> tuple[int, int]:
    """The long at `at` and where the next field begins. Raises NotARecord, also for one with needless bytes."""
    rest, shift, place = 0, 0, at
    try:
        while (byte := data[place]) > 0x7F:
            rest |= (byte & 0x7F) << shift
            place += 1
            shift += 7
            if shift > _MAX_SHIFT:
                raise NotARecord("a number is longer than it need be", at)
    except IndexError:
        raise NotARecord("a number is cut off", at) from None
    rest |= byte << shift
    place += 1
    if rest >= 2 * _INT64 or (byte == 0 and shift):
        raise NotARecord("a number is longer than it need be", at)
    return (rest >> 1) ^ -(rest & 1), place


def encode_bytes(data: bytes) -> bytes:
    """Length and bytes."""
    return encode_long(len(data)) + data


def decode_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes at `at` and where the next field begins. Raises NotARecord."""
    length, place = decode_long(data, at)
    if not 0 <= length <= len(data) - place:
        raise NotARecord(f"{length} bytes are said to follow", at)
    return data[place : place + length], place + length


def _optional(data: bytes | None) -> bytes:
    return b"\x00" if data is None else b"\x02" + encode_bytes(data)


def _decode_optional(data: bytes, at: int) -> tuple[bytes | None, int]:
    branch = data[at : at + 1]
    if branch == b"\x00":
        return None, at + 1
    if branch != b"\x02":
        raise NotARecord("neither null nor bytes", at)
    return decode_bytes(data, at + 1)


def encode_record(record: LogRecord) -> bytes:
    """Avro bytes of one record; topic and partition are its file's. Raises ValueError for numbers out of range."""
    if record.offset < 0 or record.timestamp_type not in _TYPES:
        raise ValueError(f"offset {record.offset}, timestamp type {record.timestamp_type}")
    parts = [
        encode_long(record.offset),
        encode_long(record.timestamp_ms),
        encode_long(record.timestamp_type),
        _optional(record.key),
        _optional(record.value),
    ]
    if record.headers:
        parts.append(encode_long(len(record.headers)))
        for name, value in record.headers:
            parts += [encode_bytes(name.encode()), _optional(value)]
    parts.append(b"\x00")
    return b"".join(parts)


def _decode_headers(data: bytes, at: int) -> tuple[tuple[tuple[str, bytes | None], ...], int]:
    count, place = decode_long(data, at)
    if count == 0:
        return (), place
    # Each header has two bytes at least: what a count makes us hold is bounded by what is there.
    if not 0 < count <= (len(data) - place) // 2:
        raise NotARecord(f"{count} headers are said to follow", at)
    found: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        begin = place
        raw, place = decode_bytes(data, place)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise NotARecord("a header's name is not UTF-8", begin) from None
        value, place = _decode_optional(data, place)
        found.append((name, value))
    if data[place : place + 1] != b"\x00":
        raise NotARecord("headers do not end", place)
    return tuple(found), place + 1


def decode_records(data: bytes, topic: str, partition: int) -> Iterator[tuple[int, LogRecord]]:
    """Every record of a block with the place where it begins. Raises NotARecord."""
    at, end = 0, len(data)
    # Time, type and key are mostly those of the record before. No encoding is the beginning of another, so that equal
    # bytes are equal fields.
    timestamp_ms, timestamp_type, key = 0, 0, None
    stamp, middle = b"", b""
    while at < end:
        begin = at
        offset, at = decode_long(data, at)
        if stamp and data.startswith(stamp, at):
            at += len(stamp)
        else:
            place = at
            timestamp_ms, at = decode_long(data, at)
            stamp = data[place:at]
        if middle and data.startswith(middle, at):
            at += len(middle)
        else:
            place = at
            timestamp_type, at = decode_long(data, at)
            if timestamp_type not in _TYPES:
                raise NotARecord(f"offset {offset}, timestamp type {timestamp_type}", begin)
            key, at = _decode_optional(data, at)
            middle = data[place:at]
        if data[at : at + 1] == b"\x02":
            length, at = decode_long(data, at + 1)
            if not 0 <= length <= end - at:
                raise NotARecord(f"{length} bytes are said to follow", at)
            value: bytes | None = data[at : at + length]
            at += length
        else:
            value, at = _decode_optional(data, at)
        headers, at = ((), at + 1) if data[at : at + 1] == b"\x00" else _decode_headers(data, at)
        if offset < 0:
            raise NotARecord(f"offset {offset}, timestamp type {timestamp_type}", begin)
        yield begin, LogRecord(topic, partition, offset, timestamp_ms, timestamp_type, key, value, headers)
