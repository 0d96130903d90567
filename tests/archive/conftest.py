"""Exports here do not wait for the disk, except where a test says so: what it is asked for is tested by itself."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest


@pytest.fixture(autouse=True, scope="package")
def no_waiting() -> Iterator[None]:
    """No fsync."""
    with patch("stream_jobs.archive.files.os.fsync", lambda _: None):
        yield
