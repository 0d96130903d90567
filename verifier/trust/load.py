"""Collateral from files: the only place in this package that opens one. What a file holds, its content says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from schemas.errors import ConfigError
from verifier.errors import CollateralTooLarge
from verifier.limits import MAX_COLLATERAL_BYTES, MAX_COLLATERAL_FILES, MAX_COLLATERAL_FILES_BYTES
from verifier.trust.contents import Contents
from verifier.trust.reading import read, read_endorsement
from verifier.trust.store import Collateral


def load_collateral(paths: Iterable[Path]) -> Collateral:
    """The set of everything in `paths`: files, and directories with all below them (hidden names left out).

    A file that cannot be understood is kept with its error. Raises `CollateralTooLarge` beyond the limits, and
    `ConfigError` for a file that cannot be opened.
    """
    contents = Contents()
    for path, data in _files(paths):
        contents.source = str(path)
        read(data, contents)
    return Collateral(contents)


def load_endorsements(paths: Iterable[Path]) -> Collateral:
    """The set of the certificates and revocation lists in `paths`: PEM, DER, hex or base64 of DER.

    Raises `CollateralMalformed` for a file that holds anything else, and as `load_collateral`.
    """
    contents = Contents()
    for path, data in _files(paths):
        contents.source = str(path)
        read_endorsement(data, contents)
    return Collateral(contents)


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    count = total = 0
    try:
        for path in paths:
            for file in _below(path) if path.is_dir() else (path,):
                # One byte more than may be: whoever reads says that it is too large.
                with file.open("rb") as opened:
                    data = opened.read(MAX_COLLATERAL_BYTES + 1)
                count, total = count + 1, total + len(data)
                if count > MAX_COLLATERAL_FILES or total > MAX_COLLATERAL_FILES_BYTES:
                    raise CollateralTooLarge(f"{path}: too many files, or too large together", field="collateral")
                yield file, data
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}", field="collateral") from error


def _below(directory: Path) -> Iterator[Path]:
    """Regular files under `directory`, sorted by name; links to directories are not followed."""

    def failed(error: OSError) -> None:
        raise error

    for folder, inner, names in os.walk(directory, onerror=failed):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and stat.S_ISREG(file.stat().st_mode):
                yield file
