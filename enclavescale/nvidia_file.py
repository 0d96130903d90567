"""Device evidence as NVIDIA's own tools write it: JSON of reports and chains, of one device or a whole host."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from schemas.records import EvidenceItem
from verifier.abi.json import loads, members_of
from verifier.errors import CollateralMalformed, CollateralTooLarge, EvidenceTooLarge, NvidiaReportMalformed
from verifier.limits import MAX_COMPOSITE_BYTES, MAX_EVIDENCE_ITEMS

_FIELD = "evidence"
_LIST = "evidence_list"


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """The report and the PEM chain (leaf first) of one device, as a file has them; nothing is verified."""

    report: bytes
    chain: bytes

    def items(self, subject: str) -> tuple[EvidenceItem, EvidenceItem]:
        """The same as items of composite evidence."""
        return (
            EvidenceItem(kind="nvidia_gpu_report", data=self.report, subject=subject),
            EvidenceItem(kind="nvidia_gpu_certificates", data=self.chain, subject=subject),
        )


def looks_like_devices(data: bytes) -> bool:
    """Whether `data` is JSON with the members that such files have."""
    return data[:1] in (b"{", b"[") and b'"evidence"' in data and b'"certificate"' in data


def read_devices(data: bytes) -> list[DeviceFile]:
    """The devices of a file: an object with `evidence` and `certificate` (base64 of the report and of PEM), a list of
    such objects, or an object with that list as `evidence_list`.

    A nonce in the file is not read: what a device was asked for, whoever judges must know. Raises
    `NvidiaReportMalformed` or `EvidenceTooLarge`.
    """
    text = b'{"evidence_list":' + data + b"}" if data[:1] == b"[" else data
    try:
        members = loads(text, _FIELD, MAX_COMPOSITE_BYTES)
        if _LIST not in members:
            return [_device(members)]
        found = members[_LIST]
        if not isinstance(found, list) or not found:
            raise NvidiaReportMalformed("no list of devices", field=_LIST)
        if 2 * len(found) > MAX_EVIDENCE_ITEMS:
            raise EvidenceTooLarge(f"{len(found)} devices", field=_LIST)
        return [_device(members_of(one, _LIST)) for one in found]
    except CollateralTooLarge as error:
        raise EvidenceTooLarge(str(error), field=_FIELD) from None
    except CollateralMalformed as error:
        raise NvidiaReportMalformed(str(error), field=_FIELD) from None


def _device(members: dict[str, Any]) -> DeviceFile:
    return DeviceFile(report=_decoded(members, "evidence"), chain=_decoded(members, "certificate"))


def _decoded(members: dict[str, Any], name: str) -> bytes:
    value = members.get(name)
    if not isinstance(value, str):
        raise NvidiaReportMalformed(f"{name} is no text", field=name)
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise NvidiaReportMalformed(f"{name} is not base64", field=name) from None
