"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.errors import ConfigError


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet. Raises ConfigError."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already", field="file", remedy="Name another file.") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="file") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or replace one: readers see the old or the new one. Raises ConfigError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror}", field="out") from error
