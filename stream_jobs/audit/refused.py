"""The tree of refused records behind an output, rebuilt from the dead letters.

The core appends a refused record's digest to its domain's tree, in log order, if it knows the domain, else to a tree of
records of no domain; the next output takes that tree's root as the last entry of its own (`core.windows.Tally`). The
manifest names the refused among its witnesses in the same order: the domain's first, then those of no domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.records import WindowManifest
from stream_jobs.audit.document import Path
from stream_jobs.audit.errors import RefusedTreeUnproven
from stream_jobs.core.log_digest import MAX_WITNESSES
from stream_jobs.core.merkle import inclusion_path, merkle_root

MAX_CUTS = 64
"""Closes tried as the begin of a tree of records of no domain."""


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A dead letter: where its original stands in the log, its digest (32 bytes), its domain.

    `stray`: whether its code is one that records of unknown domains get.
    """

    offset: int
    digest: bytes
    domain: str
    stray: bool


@dataclass(frozen=True, slots=True)
class RefusedTree:
    """Entries of the tree of refused records: the domain's own; those of no domain, whose root is the last entry."""

    own: tuple[bytes, ...]
    strays: tuple[bytes, ...]

    def entries(self) -> list[bytes]:
        """The tree's entries, 32 bytes each."""
        return [*self.own, merkle_root(self.strays)] if self.strays else list(self.own)

    def path_of(self, digest: bytes) -> tuple[Path, Path | None] | None:
        """The path of a record's first entry, and for one of no domain that of its tree; None if it has none."""
        entries = self.entries()
        if digest in self.own:
            return _path(entries, self.own.index(digest)), None
        if digest in self.strays:
            return _path(self.strays, self.strays.index(digest)), _path(entries, len(entries) - 1)
        return None


def _path(entries: Sequence[bytes], index: int) -> Path:
    return Path(index=index, count=len(entries), siblings=inclusion_path(entries, index))


def refused_tree(
    manifest: WindowManifest, letters: Mapping[int, RefusedRecord], closes: Sequence[int] = ()
) -> RefusedTree:
    """The tree whose root `manifest` (its first chunk) states.

    `letters`: dead letters with a digest by source offset, from the close of the domain's output before on, or from
    further back. `closes`: where outputs of the partition closed before this one, for floods of more refused records
    than a manifest names. Raises `RefusedTreeUnproven`.
    """
    for tree in _candidates(manifest, letters, closes):
        entries = tree.entries()
        if len(entries) == manifest.refused_count and merkle_root(entries) == manifest.refused_root:
            return tree
    raise RefusedTreeUnproven(
        f"{manifest.domain}, window {manifest.window_start_ms} ms, revision {manifest.revision}: the manifest counts "
        f"{manifest.refused_count} entries; the dead letters give no tree with its root"
    )


def _candidates(
    manifest: WindowManifest, letters: Mapping[int, RefusedRecord], closes: Sequence[int]
) -> Iterator[RefusedTree]:
    count, named = manifest.refused_count, manifest.witnesses
    if count < 1:
        return
    if len(named) < MAX_WITNESSES:
        found = tuple(letters[one.offset].digest for one in named if one.offset in letters)
        yield RefusedTree(found, ())
        yield RefusedTree(found[: count - 1], found[count - 1 :])
        return
    below = [letters[at] for at in sorted(letters) if at < manifest.close_offset]
    own = tuple(one.digest for one in below if one.domain == manifest.domain)
    yield RefusedTree(own[-count:], ())
    for close in [*sorted(set(closes), reverse=True)[:MAX_CUTS], -1]:
        strays = [one.digest for one in below if one.stray and one.domain != manifest.domain and one.offset > close]
        yield RefusedTree(own[len(own) - count + 1 :], tuple(strays))
