"""What `serve` and `top` share: a board that is filled from the topics, and the meaning of codes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import cache
from types import TracebackType

from enclavescale.report.explain import explanations
from schemas.codec import SINGLE_OBJECT, Framing
from schemas.errors import EnclaveScaleError
from schemas.topics import TopicNames
from stream_jobs.audit import errors as audit_errors
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.web.board import Board
from stream_jobs.web.follow import Follower
from stream_jobs.web.judging import OutputJudge
from stream_jobs.web.refusals import OTHER

FOREIGN = "No release that this page knows gives this code."

HERE = {
    OTHER: "A dead letter whose code is none of ours: see who else writes to the rejections topic.",
    "WRONG_PARTITION": "An output names another partition than it stands in: it was copied there.",
}


@cache
def _meanings() -> dict[str, str]:
    found = explanations()
    for one in vars(audit_errors).values():
        if isinstance(one, type) and issubclass(one, EnclaveScaleError) and one.__module__ == audit_errors.__name__:
            found.setdefault(one.code, f"{' '.join((one.__doc__ or '').split())} {one.remedy}".strip())
    return HERE | found


def explain(code: str) -> str:
    """What a code means and what to do about it."""
    return _meanings().get(code, FOREIGN)


class Watching:
    """A board and what fills it. A context manager. `trust`: None to show outputs without verifying them; `framing`:
    the ids of schemas that are read."""

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: TopicNames,
        trust: PolicyTrust | None,
        *,
        keep: int,
        framing: Framing = SINGLE_OBJECT,
        explain: Callable[[str], str] = explain,
        wall: Callable[[], float] = time.time,
    ):
        self.board = Board(keep=keep, explain=explain, checked=trust is not None, started_ms=int(wall() * 1000))
        judge = OutputJudge(kafka, topics, trust, framing=framing)
        self._follower = Follower(kafka, topics, self.board, judge, keep=keep, wall=wall)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Watching:
        self._stack.enter_context(self._follower)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def alive(self) -> bool:
        """Whether the topics are still read."""
        return self._follower.alive
