"""GPUs of the benchmark's own: reports and certificates in NVIDIA's formats, under a root that only its policy names.

Device Identity CA ── chip family ── provisioner ── boot ROM ── leaf ── report

Sizes and signatures are those of a Hopper GPU that is passed through by itself: 64 measurements, five certificates and
a report on P-384.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from schemas.records import TrustRoot
from verifier.abi.dice import CompositeDeviceId, Fwid
from verifier.abi.nvidia import MeasurementBlock, NvidiaReport
from verifier.abi.nvidia_opaque import OpaqueField
from verifier.abi.pem import join_chain

LABEL = "benchmark GPUs"
MEASUREMENTS = 64
_SHA384 = bytes.fromhex("608648016503040202")
_DICE = x509.ObjectIdentifier("2.23.133.5.4.1")
_BEGIN, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC)
_NOBODY = "EnclaveScale benchmark, not hardware"
_FIRMWARE = hashlib.sha384(b"benchmark firmware").digest()
_OPAQUE = {
    6: bytes.fromhex("009f009601000000"), 14: bytes.fromhex("b1030000"), 15: b"882" + bytes(6), 16: b"0" + bytes(4),
    17: b"1010\x00", 18: b"0200\x00", 19: bytes(2), 3: b"550.90.07\x00", 4: bytes(8),
    12: bytes.fromhex("00000000010000000400000001000000"), 13: bytes(4), 11: b"\x55", 20: _FIRMWARE, 21: b"\x55",
    34: b"\x01\x00", 36: b"\x00\x00",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    """A certificate of the chain with its key."""

    name: str
    key: ec.EllipticCurvePrivateKey
    der: bytes


def _issue(name: str, above: Link | None, *, is_ca: bool | None = True, dice: bytes | None = None) -> Link:
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(above.name if above else name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    usage = x509.KeyUsage(
        digital_signature=not is_ca, key_cert_sign=bool(is_ca), crl_sign=bool(is_ca), content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = builder.add_extension(usage, critical=True)
    if dice is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(_DICE, dice), critical=False)
    made = builder.sign(above.key if above else key, SHA384())
    return Link(name, key, made.public_bytes(Encoding.DER))


def _named(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _NOBODY),
        ]
    )


def _spki(link: Link) -> bytes:
    return link.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class GpuVendor:
    """The certificates above all GPUs of the benchmark."""

    def __init__(self) -> None:
        self.root = _issue("NVIDIA Device Identity CA", None)
        self.family = _issue("NVIDIA GH100 Identity", self.root)
        self.provisioner = _issue("NVIDIA GH100 Provisioner ICA 1", self.family)

    def trust_root(self) -> TrustRoot:
        """The policy entry without which nothing of these GPUs counts."""
        return TrustRoot(label=LABEL, tee="nvidia", certificate_der=self.root.der, simulated=False)


class HostGpus:
    """The GPUs of one host: an `attester.gpu.GpuAttester`. `hardware_s`: what the made-up devices took, s."""

    def __init__(self, vendor: GpuVendor, count: int) -> None:
        self.hardware_s = 0.0
        self._gpus: dict[str, tuple[Link, bytes]] = {}
        for number in range(count):
            boot_rom = _issue("GH100 A01 GSP BROM", vendor.provisioner)
            extension = CompositeDeviceId(
                device_key=_spki(boot_rom), fwid=Fwid(algorithm=_SHA384, digest=_FIRMWARE)
            ).encode()
            leaf = _issue("GH100 A01 GSP FMC LF", boot_rom, is_ca=None, dice=extension)
            above = (vendor.provisioner, vendor.family, vendor.root)
            chain = join_chain((leaf.der, boot_rom.der, *(one.der for one in above))).rstrip(b"\x00")
            self._gpus[f"GPU-{number:08d}"] = leaf, chain
        self.digests = tuple(hashlib.sha256(_spki(leaf)).hexdigest() for leaf, _ in self._gpus.values())

    def devices(self) -> Sequence[str]:
        """Their UUIDs."""
        return tuple(self._gpus)

    def gpu_evidence(self, uuid: str, nonce: bytes) -> tuple[bytes, bytes]:
        """A GPU's report over `nonce` (32 bytes), and its chain in PEM, leaf first."""
        begin = time.process_time()
        leaf, chain = self._gpus[uuid]
        report = _report(nonce)
        r, s = decode_dss_signature(leaf.key.sign(report, ec.ECDSA(SHA384())))
        signed = report + r.to_bytes(48, "big") + s.to_bytes(48, "big")
        self.hardware_s += time.process_time() - begin
        return signed, chain


def _report(nonce: bytes) -> bytes:
    return NvidiaReport(
        nonce=nonce,
        slot=0,
        param1=0,
        param2=0,
        blocks=tuple(
            MeasurementBlock(number=at, value_type=1, value=hashlib.sha384(f"block {at}".encode()).digest())
            for at in range(1, MEASUREMENTS + 1)
        ),
        responder_nonce=hashlib.sha256(b"device" + nonce).digest(),
        opaque=tuple(OpaqueField(kind=kind, value=value) for kind, value in _OPAQUE.items()),
        signature=b"",
    ).signed_bytes()
