"""Archives: a range of all topics as Avro object container files and an index with digests."""

from stream_jobs.archive.errors import (
    ArchiveDamaged,
    ArchiveError,
    ArchiveExists,
    ArchiveInputLost,
    ArchiveInvalid,
    ArchiveNotWritten,
    ArchiveUnfinished,
)
from stream_jobs.archive.export import Exported, export_archive
from stream_jobs.archive.files import Directory
from stream_jobs.archive.index import Index, Request
from stream_jobs.archive.selection import needed_context_ms
from stream_jobs.archive.source import ArchiveSource, check_archive, open_archive

__all__ = [
    "ArchiveDamaged",
    "ArchiveError",
    "ArchiveExists",
    "ArchiveInputLost",
    "ArchiveInvalid",
    "ArchiveNotWritten",
    "ArchiveSource",
    "ArchiveUnfinished",
    "Directory",
    "Exported",
    "Index",
    "Request",
    "check_archive",
    "export_archive",
    "needed_context_ms",
    "open_archive",
]
