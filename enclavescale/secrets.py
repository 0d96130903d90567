"""Passwords, keys and tokens from files: named as the property with `.file` behind it, read once, never shown."""

from __future__ import annotations

import logging
import stat
from collections.abc import MutableMapping
from pathlib import Path

from schemas.errors import ConfigError

log = logging.getLogger(__name__)

SECRETS = frozenset(
    {
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
    }
)
"""librdkafka's properties whose values are secret: refused on the command line, readable from a file."""

TOKEN_FILE = "sasl.oauthbearer.token.file"  # noqa: S105 - a name
"""Of ours: a file with a token for SASL OAUTHBEARER, read again whenever a token is asked for."""

_KEY_FILE = "ssl.key.location"
MAX_SECRET_BYTES = 64 * 1024
_SUFFIX = ".file"


def read_secrets(properties: MutableMapping[str, str]) -> None:
    """Put in place of every `NAME.file` what that file holds, as `NAME`; of a token's file, what reads it.

    Raises ConfigError: both of them given, a file that cannot be read, is empty, or that anybody may change. One that
    anybody may read is warned of: mounted secrets often are so.
    """
    for name in sorted(SECRETS):
        place = properties.pop(name + _SUFFIX, None)
        if place is None:
            continue
        if name in properties:
            raise ConfigError(f"{name} and {name}{_SUFFIX}: give one of them", field=f"kafka.{name}")
        properties[name] = read_secret(Path(place), f"kafka.{name}{_SUFFIX}")
    if key := properties.get(_KEY_FILE):
        check_private(Path(key), f"kafka.{_KEY_FILE}")
    if token := properties.pop(TOKEN_FILE, None):
        # Loads a client library: only for those who use tokens.
        from stream_jobs.kafka_tokens import TOKEN_CALLBACK, TokenFile  # noqa: PLC0415

        check_private(Path(token), f"kafka.{TOKEN_FILE}")
        properties[TOKEN_CALLBACK] = TokenFile(token)


def read_secret(path: Path, field: str) -> str:
    """The text of a secret's file without the end of its last line. Raises ConfigError naming `field`."""
    check_private(path, field)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field=field) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text", field=field) from None
    if len(data) > MAX_SECRET_BYTES:
        raise ConfigError(f"{path}: more than {MAX_SECRET_BYTES} bytes", field=field)
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ConfigError(f"{path}: empty", field=field)
    return text


def check_private(path: Path, field: str) -> None:
    """Raise ConfigError for a secret's file that is none or that anybody may change; warn where anybody may read it."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field=field) from None
    if stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path}: a directory", field=field)
    if found.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"{path}: anybody on this machine may change it", field=field, remedy=f"chmod 600 {path}, then try again."
        )
    if found.st_mode & stat.S_IROTH:
        log.warning("%s: anybody on this machine may read it; chmod 600 unless its directory is closed", path)
