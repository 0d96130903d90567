"""Azure's HCL blob: an SNP report and runtime data, as the vTPM of a confidential VM keeps them (ATTESTATION.md §8.4).

32 bytes of head ("HCLA"), the report at 32, 20 bytes about the runtime data at 1216, then the runtime data itself, a
JSON text, and zeros up to the size of the NV index. REPORT_DATA begins with a digest of the runtime data, which holds
the vTPM's attestation key and 64 bytes that the guest chose (`user-data`).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from verifier.abi import json
from verifier.abi.snp import SNP_REPORT_BYTES
from verifier.errors import CollateralMalformed, CollateralTooLarge, HclMalformed, TeeTypeUnsupported
from verifier.limits import MAX_SNP_EVIDENCE_BYTES

HCL_MAGIC = b"HCLA"
VERSIONS = (1, 2)
REPORT_TYPE_SNP = 2
USER_DATA_BYTES = 64
HASHES = {1: "sha256", 2: "sha384", 3: "sha512"}
"""report_data_hash_type, and the digest it names."""

_HEAD = struct.Struct("<4sIIII12s")
_DATA = struct.Struct("<IIIII")
_RUNTIME_AT = _HEAD.size + SNP_REPORT_BYTES + _DATA.size
_REQUEST_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """The blob: `report` 1184 bytes, `runtime_data` the JSON text as it was hashed, `padding` zero bytes behind it."""

    version: int = 2
    request_type: int = 2
    status: int = 0
    report: bytes
    report_type: int = REPORT_TYPE_SNP
    hash_type: int = 1
    runtime_data: bytes
    padding: int = 0

    def encode(self) -> bytes:
        """The blob."""
        size = len(self.runtime_data)
        return b"".join(
            (
                _HEAD.pack(HCL_MAGIC, self.version, _RUNTIME_AT + size, self.request_type, self.status, b""),
                self.report,
                _DATA.pack(_DATA.size + size, _REQUEST_VERSION, self.report_type, self.hash_type, size),
                self.runtime_data,
                bytes(self.padding),
            )
        )

    def runtime_digest(self) -> bytes:
        """What REPORT_DATA must be: the digest of the runtime data, zeros behind it, 64 bytes."""
        return hashlib.new(HASHES[self.hash_type], self.runtime_data).digest().ljust(64, b"\x00")

    def user_data(self) -> bytes | None:
        """64 bytes that the guest chose, None if the runtime data has none. Raises `HclMalformed`."""
        try:
            members = json.loads(self.runtime_data, "runtime_data", MAX_SNP_EVIDENCE_BYTES, any_number=True)
        except (CollateralMalformed, CollateralTooLarge) as error:
            raise HclMalformed(str(error), field="runtime_data") from None
        text = members.get("user-data")
        if text is None:
            return None
        try:
            value = bytes.fromhex(text) if isinstance(text, str) and len(text) == 2 * USER_DATA_BYTES else b""
        except ValueError:
            value = b""
        if len(value) != USER_DATA_BYTES:
            raise HclMalformed("user-data is not 64 bytes of hexadecimal", field="runtime_data.user-data")
        return value


def parse_hcl_report(data: bytes) -> HclReport:
    """The blob of exactly `data`. Raises `HclMalformed`, or `TeeTypeUnsupported` for one of another TEE."""
    if not _RUNTIME_AT <= len(data) <= MAX_SNP_EVIDENCE_BYTES:
        raise HclMalformed(f"a blob of {len(data)} bytes", field="hcl")
    magic, version, report_size, request_type, status, reserved = _HEAD.unpack_from(data)
    if magic != HCL_MAGIC or version not in VERSIONS or any(reserved):
        raise HclMalformed("not a head of version 1 or 2", field="hcl.head")
    data_size, request_version, report_type, hash_type, size = _DATA.unpack_from(data, _HEAD.size + SNP_REPORT_BYTES)
    check_report_type(report_type)
    check_request(status, request_version, hash_type)
    stop = _RUNTIME_AT + size
    if stop > len(data):
        raise HclMalformed(f"runtime data of {size} bytes ends outside of the blob", field="hcl.runtime_data")
    check_sizes(report_size, data_size, size)
    check_padding(data[stop:])
    return HclReport(
        version=version,
        request_type=request_type,
        status=status,
        report=data[_HEAD.size : _HEAD.size + SNP_REPORT_BYTES],
        report_type=report_type,
        hash_type=hash_type,
        runtime_data=data[_RUNTIME_AT:stop],
        padding=len(data) - stop,
    )


def check_report_type(report_type: int) -> None:
    """The blob holds an SNP report; 4 would be a TD report. `TeeTypeUnsupported`."""
    if report_type != REPORT_TYPE_SNP:
        raise TeeTypeUnsupported(f"an HCL blob with a report of type {report_type}", field="hcl.report_type")


def check_request(status: int, request_version: int, hash_type: int) -> None:
    """Made without error, of the one version there is, with a digest we know. `HclMalformed`."""
    if status or request_version != _REQUEST_VERSION or hash_type not in HASHES:
        raise HclMalformed(f"status {status}, version {request_version}, digest {hash_type}", field="hcl.request")


def check_sizes(report_size: int, data_size: int, size: int) -> None:
    """The three sizes in the blob say the same. `HclMalformed`."""
    if data_size != _DATA.size + size or report_size != _RUNTIME_AT + size:
        raise HclMalformed("its sizes contradict each other", field="hcl.sizes")


def check_padding(padding: bytes) -> None:
    """Only zeros behind the runtime data. `HclMalformed`."""
    if any(padding):
        raise HclMalformed("something stands behind the runtime data", field="hcl.padding")
