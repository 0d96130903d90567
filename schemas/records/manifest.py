"""Manifest records: which reports an output rests on. Field docs are in `avsc/SignedWindowManifest.v1.avsc`."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records.output import CodeCount


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """Consecutive offsets of undecodable records."""

    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A record that holds more than an accepted signature covers."""

    offset: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowManifest:
    """Which reports one output rests on."""

    domain: str
    window_start_ms: int
    window_end_ms: int
    revision: int
    chunk: int
    chunks: int
    accepted_digests: bytes
    accepted_count: int
    accepted_root: bytes
    refused: tuple[CodeCount, ...]
    refused_count: int
    refused_root: bytes
    undecodable: tuple[OffsetRange, ...]
    close_offset: int
    witnesses: tuple[Witness, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedWindowManifest:
    """The value of the manifests topic. signature covers the bytes of manifest as received."""

    manifest: WindowManifest
    signature: bytes
    session_id: bytes
