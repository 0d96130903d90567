"""The policy signer's key: P-256, PKCS#8 in PEM, encrypted under a passphrase, in a file of its owner alone."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from attester.signing import public_point
from schemas.errors import ConfigError

PASSPHRASE_VARIABLE = "ENCLAVESCALE_POLICY_PASSPHRASE"  # noqa: S105  its name
"""Environment variable that may hold the passphrase."""

MIN_PASSPHRASE = 12
"""Bytes of a passphrase that a new key takes."""

MAX_KEY_BYTES = 64 * 1024
"""Bytes read of a key's file."""

_NEW = "Name another file: a key that signed policies must never be overwritten."


def read_passphrase(file: Path | None, environment: Mapping[str, str]) -> bytes | None:
    """The passphrase: the first line of a file, else the environment's, else None. Raises ConfigError."""
    if file is not None:
        try:
            lines = file.read_bytes().splitlines()
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}", field="passphrase_file") from error
        return lines[0] if lines else b""
    held = environment.get(PASSPHRASE_VARIABLE)
    return None if held is None else os.fsencode(held)


def make_key(path: Path, passphrase: bytes) -> bytes:
    """Make a key in a new file of mode 0600; returns its public point (65 bytes). Raises ConfigError."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigError(
            f"a passphrase has {MIN_PASSPHRASE} bytes or more",
            field="passphrase",
            remedy="Take one from a password manager: whoever has the file then still lacks the key.",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already", field="out", remedy=_NEW) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="out") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()  # half a key is none
        raise ConfigError(f"{path}: {error.strerror}", field="out") from error
    return public_point(key.public_key())


def load_key(path: Path, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    """The key in a file: of its owner alone, encrypted, P-256. Raises ConfigError; says nothing of what is in it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="key") from error
    if mode & 0o077:
        remedy = f"chmod 600 {path}; if others could read it, rotate the signer (docs/policy.md)."
        raise ConfigError(f"{path} is accessible to others (mode {mode:04o})", field="key", remedy=remedy)
    if b"ENCRYPTED PRIVATE KEY" not in pem:
        raise ConfigError(
            f"{path} holds no encrypted PKCS#8 key",
            field="key",
            remedy="Make one with `enclavescale policy keygen`, or encrypt yours: openssl pkcs8 -topk8.",
        )
    try:
        key = load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        remedy = f"Give it with --passphrase-file, in {PASSPHRASE_VARIABLE}, or at the prompt."
        raise ConfigError(f"{path}: wrong passphrase, or no key", field="passphrase", remedy=remedy) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{path} holds no P-256 key", field="key", remedy="Policies are signed with ECDSA on P-256.")
    return key
