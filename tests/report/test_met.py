"""Facts of sessions: what verification yields, what it refuses, how many are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.codec import encode_binding, session_id_of
from stream_jobs.log_record import LogRecord
from stream_jobs.replay import met
from stream_jobs.replay.met import NOT_EVALUATED, SessionBook
from tests.core.fleet import AGGREGATORS, T0, session_of
from tests.core.story import small_policy

VIEW = small_policy()


def at(offset: int, topic: str = "t", partition: int = 0) -> LogRecord:
    return LogRecord(topic, partition, offset, T0, 1, None, b"", ())


def noted(book: SessionBook, host: str, **changes: Any) -> bytes:
    """Note a host's evidence and say that it stands at offset 5; returns the session's id."""
    evidence = replace(session_of(host, "d").evidence, **changes)
    session_id = session_id_of(encode_binding(evidence.binding))
    book.note(evidence, VIEW, role="host", now_ms=T0)
    book.seen(at(5), session_id)
    return session_id


def test_a_session_is_what_its_evidence_proves() -> None:
    book = SessionBook()
    session_id = noted(book, "h0")
    for offset in (9, 7):
        book.seen(at(offset), session_id)
    book.seen(at(99, "another"), session_id)
    one = book.sessions[session_id]
    assert (one.host_id, one.domain, one.role, one.code, one.policy_counter) == ("h0", "d", "host", None, 1)
    assert (one.tee, one.simulated, one.tcb_status) == ("tdx", True, NOT_EVALUATED)
    assert (one.first_offset, one.last_offset, one.copies, one.topic) == (5, 9, 4, "t")
    assert one.valid_from_ms
    assert one.expires_ms
    assert one.valid_from_ms < T0 < one.expires_ms
    assert ["unsafe_allow_unevaluated_tcb" in text for text in one.warnings] == [True]


def test_an_aggregator_has_no_domain() -> None:
    book = SessionBook()
    evidence = session_of(AGGREGATORS[0], None).evidence
    book.note(evidence, VIEW, role="aggregator", now_ms=T0)
    (one,) = book.sessions.values()
    assert (one.role, one.domain, one.code) == ("aggregator", None, None)


def test_evidence_that_does_not_verify_is_named_with_its_code_until_a_copy_does() -> None:
    book = SessionBook()
    session_id = noted(book, "h0", items=())
    assert book.sessions[session_id].code == "EVIDENCE_MISSING"
    assert book.sessions[session_id].tee is None
    assert noted(book, "h0") == session_id
    assert (book.sessions[session_id].code, book.sessions[session_id].copies) == (None, 2)
    assert noted(book, "h0", items=()) == session_id
    assert book.sessions[session_id].code is None, "it stands on the copy that holds"


def test_sessions_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(met, "MAX_SESSIONS", 1)
    book = SessionBook()
    first = noted(book, "h0")
    noted(book, "h1")
    noted(book, "h1")
    assert list(book.sessions) == [first]
    assert book.left_out == 2
