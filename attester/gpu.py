"""Evidence of NVIDIA GPUs: a report over the session's nonce and the certificates of the key that signed it.

What is known of GPUs comes from an attester (`GpuAttester`; on a host the NVML of the sampler), so that this room needs
no driver. Switches (NVSwitch) are not asked: NVML has no report of theirs.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Protocol

from schemas.errors import EnclaveScaleError
from schemas.records import EvidenceItem
from verifier.abi.nvidia import parse_nvidia_report
from verifier.claimed import chain_blocks, claimed_device
from verifier.evidence import NVIDIA_CERTIFICATES, NVIDIA_REPORT, DeviceItems
from verifier.nonces import NVIDIA, device_nonce

NONCE_BYTES = 32
_FILL = b"\x00 \t\r\n"
"""What may stand behind a chain in a buffer."""


class GpuEvidenceInvalid(EnclaveScaleError):
    """What a GPU gave is no report over the nonce it was asked with, or has no certificate chain."""

    code = "GPU_EVIDENCE_INVALID"
    remedy = (
        "See whether the GPU is in confidential-computing mode and ready (`nvidia-smi conf-compute -q`), and update "
        "driver and firmware."
    )


class GpuAttester(Protocol):
    """Who asks GPUs for their reports. Raises subclasses of EnclaveScaleError."""

    def devices(self) -> Sequence[str]:
        """UUIDs of the GPUs there are."""

    def gpu_evidence(self, uuid: str, nonce: bytes) -> tuple[bytes, bytes]:
        """The report of a GPU over `nonce` (32 bytes), and the certificate chain of its key in PEM, leaf first."""


class NvidiaGpu:
    """One GPU as a `DeviceAttester`; its evidence goes by its UUID."""

    def __init__(self, attester: GpuAttester, uuid: str) -> None:
        self._attester = attester
        self.subject = uuid

    def identity(self) -> bytes:
        """SHA-256 of its leaf key's SubjectPublicKeyInfo, 32 bytes; costs one report, over a nonce that is thrown away.

        Raises GpuEvidenceInvalid and what the attester and the verifier's parsers raise.
        """
        report, chain = self._ask(secrets.token_bytes(NONCE_BYTES))
        claimed = claimed_device(DeviceItems(NVIDIA, self.subject, report, chain))
        if claimed is None:
            raise GpuEvidenceInvalid("the leaf certificate cannot be read", field="certificates")
        return claimed.key_digest

    def evidence(self, report_data: bytes) -> list[EvidenceItem]:
        """Report and certificates for the session of `report_data` (64 bytes). Raises as `identity` does."""
        report, chain = self._ask(device_nonce(report_data, NVIDIA, self.subject))
        return [
            EvidenceItem(kind=NVIDIA_REPORT, data=report, subject=self.subject),
            EvidenceItem(kind=NVIDIA_CERTIFICATES, data=chain, subject=self.subject),
        ]

    def _ask(self, nonce: bytes) -> tuple[bytes, bytes]:
        report, text = self._attester.gpu_evidence(self.subject, nonce)
        if parse_nvidia_report(report).nonce != nonce:
            raise GpuEvidenceInvalid("the report is over another nonce", field="report")
        chain = text.rstrip(_FILL) + b"\n"
        chain_blocks(chain)
        return report, chain


def nvidia_gpus(attester: GpuAttester) -> tuple[NvidiaGpu, ...]:
    """Every GPU of the host, in the attester's order."""
    return tuple(NvidiaGpu(attester, uuid) for uuid in attester.devices())
