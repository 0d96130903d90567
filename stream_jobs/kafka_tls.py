"""TLS as librdkafka's properties describe it, for Python's `ssl`: aiokafka speaks it, and it tells why it failed."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from schemas.errors import ConfigError

TLS_PROPERTIES = frozenset(
    {
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.key.location",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.crl.location",
        "ssl.cipher.suites",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
    }
)
"""Properties that mean the same to both clients."""


def ssl_context(properties: Mapping[str, str]) -> ssl.SSLContext:
    """The server's chain and its name are checked, as librdkafka checks them; a client certificate where given.

    Raises ConfigError naming the property, never its value.
    """
    if str(properties.get("enable.ssl.certificate.verification", "true")).lower() != "true":
        raise ConfigError("TLS without verification is not offered", field="kafka.enable.ssl.certificate.verification")
    algorithm = str(properties.get("ssl.endpoint.identification.algorithm", "https")).lower()
    if algorithm not in ("https", "none"):
        field = "kafka.ssl.endpoint.identification.algorithm"
        raise ConfigError("ssl.endpoint.identification.algorithm: https or none", field=field)
    context = _trusting(properties)
    context.check_hostname = algorithm == "https"
    _show_certificate(context, properties)
    if ciphers := properties.get("ssl.cipher.suites"):
        with _named("ssl.cipher.suites"):
            context.set_ciphers(ciphers)
    if crl := properties.get("ssl.crl.location"):
        with _named("ssl.crl.location"):
            context.load_verify_locations(cafile=crl)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    return context


def _trusting(properties: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to believe: `ssl.ca.pem`, or `ssl.ca.location` (a file or a directory), or the system's authorities."""
    text, place = properties.get("ssl.ca.pem"), properties.get("ssl.ca.location")
    if text and place:
        raise ConfigError("ssl.ca.pem and ssl.ca.location: give one of them", field="kafka.ssl.ca.pem")
    if text:
        with _named("ssl.ca.pem"):
            return ssl.create_default_context(cadata=text)
    if not place or place == "probe":
        return ssl.create_default_context()
    with _named("ssl.ca.location"):
        if Path(place).is_dir():
            return ssl.create_default_context(capath=place)
        return ssl.create_default_context(cafile=place)


def _show_certificate(context: ssl.SSLContext, properties: Mapping[str, str]) -> None:
    place, text = properties.get("ssl.certificate.location"), properties.get("ssl.certificate.pem")
    key_place, key_text = properties.get("ssl.key.location"), properties.get("ssl.key.pem")
    for one, two, name in ((place, text, "ssl.certificate"), (key_place, key_text, "ssl.key")):
        if one and two:
            raise ConfigError(f"{name}.pem and {name}.location: give one of them", field=f"kafka.{name}.pem")
    if not (place or text or key_place or key_text):
        return
    if not (place or text):
        field = "kafka.ssl.certificate.location"
        raise ConfigError("a private key without ssl.certificate.location or .pem", field=field)
    field = "ssl.certificate.location" if place else "ssl.certificate.pem"
    with _named(field), _as_file(place, text) as certificate, _as_file(key_place, key_text) as key:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate or "", key, properties.get("ssl.key.password", ""))


@contextlib.contextmanager
def _as_file(place: str | None, text: str | None) -> Iterator[str | None]:
    """Python's `ssl` reads files only: a text becomes one that nobody else opens and, on Linux, no disk holds."""
    if not text:
        yield place
    elif hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem")
        with open(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.NamedTemporaryFile(suffix=".pem") as named:  # made with mode 0600
            named.write(text.encode())
            named.flush()
            yield named.name


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """What OpenSSL or the system says, with the property's name and without its value."""
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "cannot be used"
        raise ConfigError(f"{name}: {reason}", field=f"kafka.{name}") from None
