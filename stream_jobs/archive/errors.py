"""Why an archive cannot be read or written. All of them are also what a `RecordSource` raises."""

from __future__ import annotations

from stream_jobs.reading import ReadFailed


class ArchiveError(ReadFailed):
    """Base of what is wrong with an archive."""

    code = "ARCHIVE_INVALID"
    remedy = "Take another copy of the archive, or export it again."


class ArchiveInvalid(ArchiveError):
    """The directory has no index, or one that no export writes."""

    code = "ARCHIVE_INVALID"
    remedy = (
        "Give the directory that `enclavescale export` wrote, whole; where its index was altered, take another copy."
    )


class ArchiveDamaged(ArchiveError):
    """A segment is missing, or is not what the index says; the message names the file and the place in it."""

    code = "ARCHIVE_DAMAGED"
    remedy = (
        "Take the named file from another copy of the archive, or export it again. Records of others are untouched."
    )


class ArchiveUnfinished(ArchiveError):
    """The export into this directory was interrupted."""

    code = "ARCHIVE_UNFINISHED"
    remedy = "Finish it with `enclavescale export DIR --resume`."


class ArchiveExists(ArchiveError):
    """The directory holds something else than the export that was asked for."""

    code = "ARCHIVE_EXISTS"
    remedy = "Give an empty or a new directory; what was interrupted goes on with --resume."


class ArchiveNotWritten(ArchiveError):
    """The archive cannot be written: no space, no permission, or a record that is larger than any segment."""

    code = "ARCHIVE_NOT_WRITTEN"
    remedy = "Correct what the message names, then go on with --resume: what is finished stays."


class ArchiveInputLost(ArchiveError):
    """Records left the topic, or the topic was made again, while it was exported."""

    code = "ARCHIVE_INPUT_LOST"
    remedy = "Retention was faster than the export: begin again in another directory, with a later --from."
