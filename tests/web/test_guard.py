"""Who may listen where, and who gets in: addresses, tokens, certificates."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enclavescale.page.app import Page
from enclavescale.page.guard import Access, Guard, read_token, tls_context
from enclavescale.page.serving import Serving, names_for
from schemas.errors import ConfigError
from tests.web.test_board import a_board

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_loopback_needs_no_lock(host: str) -> None:
    Access().check(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "page.example", "127.0.0.1.example"])
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(ConfigError, match="no loopback address"):
        Access().check(host, None)
    Access().check(host, TOKEN)
    Access(unsafe_public=True).check(host, None)
    pem = Path("x.pem")
    Access(tls_cert=pem, tls_key=pem, client_ca=pem).check(host, None)
    with pytest.raises(ConfigError):  # TLS alone says who serves, not who reads
        Access(tls_cert=pem, tls_key=pem).check(host, None)


def test_tls_options_belong_together() -> None:
    pem = Path("x.pem")
    for access in (Access(tls_cert=pem), Access(tls_key=pem), Access(client_ca=pem)):
        with pytest.raises(ConfigError):
            access.check("127.0.0.1", None)


def test_names_matter_where_there_is_no_lock() -> None:
    def serving(**about: Any) -> Serving:
        return Serving(host="127.0.0.1", port=0, access=Access(**about), on_start=str)

    assert names_for(serving(host_names=("page.lan",)), None) == ("localhost", "127.0.0.1", "page.lan")
    assert names_for(serving(), TOKEN) is None
    assert names_for(serving(unsafe_public=True), None) is None


def test_a_token_comes_from_a_file_or_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nmore\n")
    assert read_token(file, {}) == TOKEN
    assert read_token(None, {"ENCLAVESCALE_PAGE_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) is None
    for bad in ("short", "with space in the middle", "\u00e9" * 20, "x" * 2000, "", "a\x00b" * 9):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(ConfigError) as error:
            read_token(file, {})
        assert not bad or bad not in str(error.value)
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(ConfigError, match="no text"):
        read_token(file, {})
    with pytest.raises(ConfigError):
        read_token(tmp_path / "missing", {})


class Authority:
    """A certificate authority of this test."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.key = directory, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self._make(self.name, self.key, True).public_bytes(serialization.Encoding.PEM))

    def _make(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, secret = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate.write_bytes(self._make(subject, key, False).public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret


def test_only_clients_of_the_authority_get_in(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    server_files, friend, stranger = ours.issue("server"), ours.issue("friend"), theirs.issue("stranger")
    access = Access(tls_cert=server_files[0], tls_key=server_files[1], client_ca=ours.path)

    async def get(server: TestServer, files: tuple[Path, Path] | None) -> int:
        context = ssl.create_default_context(cafile=ours.path)
        if files is not None:
            context.load_cert_chain(*files)
        connector = aiohttp.TCPConnector(ssl=context)
        url = f"https://localhost:{server.port}/api/v1/state"
        async with aiohttp.ClientSession(connector=connector) as client, client.get(url) as answer:
            return answer.status

    async def main() -> None:
        page = Page(a_board(), max_readers=5, reading=lambda: True)
        server = TestServer(page.application(Guard(None, names=None)), scheme="https")
        await server.start_server(ssl=tls_context(access))
        try:
            assert await get(server, friend) == 200
            for files in (None, stranger):
                with pytest.raises((aiohttp.ClientError, ConnectionError)):
                    await get(server, files)
        finally:
            await server.close()

    asyncio.run(main())


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    certificate, key = ours.issue("server")
    with pytest.raises(ConfigError, match="--tls-cert"):
        tls_context(Access(tls_cert=tmp_path / "no", tls_key=key))
    with pytest.raises(ConfigError, match="--tls-cert"):
        tls_context(Access(tls_cert=certificate, tls_key=ours.issue("other")[1]))
    with pytest.raises(ConfigError, match="--client-ca"):
        tls_context(Access(tls_cert=certificate, tls_key=key, client_ca=key))
    assert tls_context(Access()) is None
