"""Collateral from files: the only place in this package that opens one. What a file holds, its content says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from schemas.errors import ConfigError
from verifier.errors import CollateralMalformed, CollateralTooLarge, VerificationError
from verifier.limits import MAX_COLLATERAL_BYTES, MAX_COLLATERAL_FILES, MAX_COLLATERAL_FILES_BYTES
from verifier.trust.contents import UNKNOWN, Contents, Unreadable
from verifier.trust.reading import read, read_endorsement
from verifier.trust.store import Collateral

_ENDORSEMENTS = "Give certificates, revocation lists or OCSP responses, PEM or DER; manifests go with --rim."


def load_collateral(paths: Iterable[Path]) -> Collateral:
    """The set of everything in `paths`: files, and directories with all below them (hidden names left out).

    A file that cannot be understood is kept with its error. Raises `CollateralTooLarge` beyond the limits, and
    `ConfigError` for a file that cannot be opened.
    """
    contents = Contents()
    for path, data in _files(paths):
        contents.source = str(path)
        if isinstance(data, VerificationError):
            contents.unreadable.append(Unreadable(contents.source, UNKNOWN, data))
        else:
            read(data, contents)
    return Collateral(contents)


def load_endorsements(paths: Iterable[Path]) -> Collateral:
    """The set of the certificates and revocation lists in `paths`: PEM, DER, hex or base64 of DER.

    Raises `CollateralMalformed` or `CertChainInvalid`, naming the file, for one that holds anything else, and as
    `load_collateral`.
    """
    contents = Contents()
    for path, data in _files(paths):
        contents.source = str(path)
        if isinstance(data, VerificationError):
            raise data
        try:
            read_endorsement(data, contents)
        except VerificationError as error:
            raise _named(error, path) from None
    held = Collateral(contents)
    for der, wrong in held.unreadable_certificates:
        raise _named(wrong, Path(held.certificate_sources[der]))
    return held


def _named(error: VerificationError, path: Path) -> VerificationError:
    """The same refusal, with the file it speaks of."""
    return type(error)(f"{path}: {error}", field=error.field, remedy=_ENDORSEMENTS)


def load_rims(paths: Iterable[Path]) -> tuple[bytes, ...]:
    """The reference integrity manifests in `paths`, unread but for their size, each once.

    Raises `CollateralTooLarge` and `ConfigError`, as `load_collateral`.
    """
    contents = Contents()
    for path, data in _files(paths):
        contents.source = str(path)
        if isinstance(data, VerificationError):
            raise data
        contents.add_rim(data)
    return tuple(contents.rims)


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes | VerificationError]]:
    """Each file with its bytes; of one below a directory that cannot be opened, why not: the others are read."""
    count = total = 0
    try:
        for path in paths:
            within = path.is_dir()
            for file in _below(path) if within else (path,):
                data = _bytes_of(file, within)
                count, total = count + 1, total + (len(data) if isinstance(data, bytes) else 0)
                if count > MAX_COLLATERAL_FILES or total > MAX_COLLATERAL_FILES_BYTES:
                    raise CollateralTooLarge(f"{path}: too many files, or too large together", field="collateral")
                yield file, data
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}", field="collateral") from error


def _bytes_of(file: Path, within: bool) -> bytes | VerificationError:
    try:
        # One byte more than may be: whoever reads says that it is too large.
        with file.open("rb") as opened:
            return opened.read(MAX_COLLATERAL_BYTES + 1)
    except OSError as error:
        if not within:
            raise
        return CollateralMalformed(f"cannot be opened: {error.strerror}", field="collateral")


def _below(directory: Path) -> Iterator[Path]:
    """Regular files under `directory`, and links that lead nowhere, sorted; links to directories are not followed."""

    def failed(error: OSError) -> None:
        raise error

    for folder, inner, names in os.walk(directory, onerror=failed):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and (file.is_file() or not file.exists()):
                yield file
