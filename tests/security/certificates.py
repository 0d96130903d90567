"""A small authority for tests: certificates that hold, and each of the ways in which one does not."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE_NAMES = ("localhost", "127.0.0.1")
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Leaf:
    """Files of one certificate and its key; `both` holds the two, as Kafka's PEM store wants them."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """One certificate authority in a directory; `ca` is its certificate's file."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._key = directory, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder(self._name, self._name, self._key.public_key(), 1, now - 90 * DAY, now + 900 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def leaf(
        self,
        common_name: str,
        *,
        names: tuple[str, ...] = (),
        expired: bool = False,
        password: str | None = None,
    ) -> Leaf:
        """A certificate for a server (`names`: DNS names and addresses) or a client, and its key, encrypted or not."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        first, last = (now - 30 * DAY, now - DAY) if expired else (now - DAY, now + 30 * DAY)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = x509.CertificateBuilder(
            self._name, subject, key.public_key(), x509.random_serial_number(), first, last
        ).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), False)
        made = builder.sign(self._key, hashes.SHA256())
        secret: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        )
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
        stem = self._directory / f"{common_name}{'-expired' if expired else ''}{'-locked' if password else ''}"
        leaf = Leaf(stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".pem"))
        chain = made.public_bytes(serialization.Encoding.PEM) + self.ca.read_bytes()
        leaf.certificate.write_bytes(chain)
        leaf.both.write_bytes(pem + chain)
        leaf.key.write_bytes(pem)
        leaf.key.chmod(0o600)
        return leaf


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
