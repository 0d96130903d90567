"""Numbers in archives: read at a bounded cost."""

from __future__ import annotations

from typing import Any

import pytest

from stream_jobs.archive.records import NotARecord, decode_long, encode_long


def test_a_number_without_an_end_costs_nothing() -> None:
    """Read to its end it would cost the square of its length, hours for one that fits a segment."""

    class Counted(bytes):
        reads = 0

        def __getitem__(self, at: Any) -> Any:
            Counted.reads += 1
            return super().__getitem__(at)

    with pytest.raises(NotARecord, match="longer than it need be"):
        decode_long(Counted(b"\x80" * 100_000), 0)
    assert Counted.reads <= 10
    for number in (0, -1, 2**63 - 1, -(2**63)):
        assert decode_long(encode_long(number), 0) == (number, len(encode_long(number)))
