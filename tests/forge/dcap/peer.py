"""The peer to compare with: dcap-qvl, a Rust library under MIT licence, as its Python package.

It runs in a process of its own, because some inputs make it abort: a failed assertion in its certificate library
ends the whole process that asked. To abort is to refuse.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import dcap_qvl

ROOT = Path(__file__).resolve().parents[3]
ABORTED = "the peer aborted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`accepted` with status and advisory ids (sorted), or refused: `why` and where, in the words of who refuses."""

    accepted: bool
    status: str | None = None
    advisory_ids: tuple[str, ...] = ()
    why: str = ""
    field: str = ""

    @property
    def outcome(self) -> tuple[bool, str | None, tuple[str, ...]]:
        """What two verifiers must agree on."""
        return self.accepted, self.status, self.advisory_ids


class Peer:
    """A process that answers; a context manager. One that aborted is started anew."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.aborts = 0

    def ask(self, *, quote: bytes, collateral: str, at: int, root: bytes | None) -> Verdict:
        """Its verdict at `at` (Unix seconds) with QuoteCollateralV3 JSON; `root` is a DER, None for Intel's root."""
        question = {
            "quote": quote.hex(),
            "collateral": collateral,
            "at": at,
            "root": None if root is None else root.hex(),
        }
        sent, received = self._pipes()
        sent.write(json.dumps(question) + "\n")
        sent.flush()
        line = received.readline()
        if not line:
            self.aborts += 1
            self.close()
            return Verdict(False, why=ABORTED)
        answer = json.loads(line)
        return Verdict(
            answer["accepted"], answer.get("status"), tuple(answer.get("advisory_ids", ())), answer.get("why", "")
        )

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forge.dcap.peer"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The verdict on one question.

    `claims_only` judges no TCB status; debug, SEPT_VE_DISABLE and service TDs it refuses all the same.
    """
    quote, at = bytes.fromhex(question["quote"]), question["at"]
    root = None if question["root"] is None else bytes.fromhex(question["root"])
    try:
        collateral = dcap_qvl.QuoteCollateralV3.from_json(question["collateral"])
    except ValueError as error:
        return {"accepted": False, "why": str(error)}
    try:
        claims = dcap_qvl.QuoteVerifier(root).verify_with_policy(
            quote, collateral, at, dcap_qvl.QuotePolicy.claims_only(at)
        )
    except ValueError as error:
        return {"accepted": False, "why": _with_causes(str(error), quote, collateral, at, root)}
    tcb = json.loads(claims.to_json())["tcb"]
    return {"accepted": True, "status": tcb["status"], "advisory_ids": sorted(set(tcb["advisory_ids"]))}


def _with_causes(text: str, quote: bytes, collateral: Any, at: int, root: bytes | None) -> str:
    """The message with its causes, which only the older call gives."""
    try:
        if root is None:
            dcap_qvl.verify(quote, collateral, at)
        else:
            dcap_qvl.verify_with_root_ca(quote, collateral, root, at)
    except ValueError as error:
        text = str(error) if str(error).startswith(text) else f"{text} | {error}"
    return " ".join(text.split())


def main() -> None:
    """Answer one question per line until the input ends."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
