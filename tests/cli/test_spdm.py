"""`enclavescale spdm` against a responder on the loopback interface: exit codes, JSON, screen, the file it leaves."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from attester.spdm.tcp import ROLE_INQUIRY, encode_frame
from tests.attester.emulator import TYPES, Emulator
from tests.attester.loopback import Serve, calling, frame, honest, listening, saying, silent
from tests.attester.responder import AT, KINDS, Responder
from tests.cli.conftest import call
from verifier.abi.spdm_messages import ErrorResponse
from verifier.formats.spdm import read_transcript
from verifier.nonces import device_nonce

NONCES = ["01" * 32, "02" * 32]


def root_file(tmp_path: Path, responder: Responder) -> str:
    path = tmp_path / "root.der"
    path.write_bytes(responder.root)
    return str(path)


def ask(serve: Serve, *options: str) -> Result:
    with listening(serve) as port:
        return call("spdm", f"127.0.0.1:{port}", "--at", AT, *options)


def verdict_of(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", ["1.1", "1.2", "1.3"])
def test_a_genuine_device_is_accepted(tmp_path: Path, kind: str, version: str) -> None:
    responder = Responder(kind=kind, versions=(0x10 + int(version[2:]),))
    result = ask(honest(responder), "--trust-root", root_file(tmp_path, responder), "--json")
    verdict = verdict_of(result)
    assert result.exit_code == 0, verdict
    assert verdict["accepted"] is True
    assert verdict["events"] == [["challenge", "ok"], ["measurements", "ok"]]
    assert verdict["claims"]["spdm_version"] == version
    assert verdict["claims"]["grade"] == "SPDM_MEASURED"


@pytest.mark.parametrize("framing", TYPES)
def test_a_device_of_the_emulator_is_accepted(tmp_path: Path, framing: str) -> None:
    responder, out = Responder(), tmp_path / "transcript.json"
    options = ["--framing", framing, "--trust-root", root_file(tmp_path, responder), "--out", str(out), "--json"]
    result = ask(Emulator(responder, framing).serve, *options)
    assert result.exit_code == 0
    assert verdict_of(result)["claims"]["grade"] == "SPDM_MEASURED"
    assert json.loads(out.read_bytes())["transport"] == framing


@pytest.mark.parametrize("version", [0x11, 0x12, 0x13])
def test_excuses_do_not_spoil_the_evidence(tmp_path: Path, version: int) -> None:
    busy = ErrorResponse(version=0, error=0x03)
    put_off = {
        name: [busy, ErrorResponse(version=0, error=0x42, extended=bytes((1, code, 9, 2)))]
        for name, code in (("DIGESTS", 0x81), ("CERTIFICATE", 0x82), ("CHALLENGE_AUTH", 0x83), ("MEASUREMENTS", 0xE0))
    }
    responder = Responder(versions=(version,), put_off=put_off)
    result = ask(honest(responder), "--trust-root", root_file(tmp_path, responder), "--json")
    assert result.exit_code == 0
    assert responder.asked.count(0xFF) == 4


def test_the_file_is_evidence_that_verify_reads(tmp_path: Path) -> None:
    responder = Responder()
    root, out = root_file(tmp_path, responder), tmp_path / "transcript.json"
    options = [part for nonce in NONCES for part in ("--nonce", nonce)]
    asked = ask(honest(responder), "--trust-root", root, "--out", str(out), *options, "--json")
    judged = call("verify", str(out), "--trust-root", root, "--at", AT, "--policy", "authentic", *options, "--json")
    assert asked.exit_code == judged.exit_code == 0
    assert f"wrote {out}: " in asked.stderr
    assert verdict_of(judged) == verdict_of(asked)
    messages = read_transcript(out.read_bytes())
    assert [messages[n][4:36].hex() for n in (-4, -2)] == NONCES


def test_nonces_of_a_session(tmp_path: Path) -> None:
    responder = Responder()
    out, data = tmp_path / "transcript.json", bytes(range(64))
    options = ["--report-data", data.hex(), "--subject", "sensor-7", "--out", str(out)]
    assert ask(honest(responder), "--trust-root", root_file(tmp_path, responder), *options).exit_code == 0
    messages = read_transcript(out.read_bytes())
    assert [messages[n][4:36] for n in (-4, -2)] == [device_nonce(data, "spdm", "sensor-7", n) for n in (0, 1)]


def test_nonces_are_new_every_time(tmp_path: Path) -> None:
    responder, seen = Responder(), set()
    for name in ("a", "b"):
        out = tmp_path / name
        ask(honest(responder), "--out", str(out))
        messages = read_transcript(out.read_bytes())
        seen |= {messages[-4][4:36], messages[-2][4:36]}
    assert len(seen) == 4


def test_without_a_root_it_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "transcript.json"
    result = ask(honest(Responder()), "--out", str(out), "--json")
    assert result.exit_code == 3
    assert verdict_of(result)["codes"] == ["NO_TRUST_ROOTS"]
    assert len(read_transcript(out.read_bytes())) > 12


def test_another_root_is_refused(tmp_path: Path) -> None:
    result = ask(honest(Responder()), "--trust-root", root_file(tmp_path, Responder(kind="p384")), "--json")
    assert result.exit_code == 3
    assert verdict_of(result)["codes"] == ["ROOT_UNTRUSTED"]


def test_an_altered_measurement_is_refused(tmp_path: Path) -> None:
    def alter(name: str, response: bytes) -> bytes:
        return response[:20] + bytes([response[20] ^ 1]) + response[21:] if name == "MEASUREMENTS" else response

    responder = Responder(tamper=alter)
    result = ask(honest(responder), "--trust-root", root_file(tmp_path, responder), "--json")
    assert result.exit_code == 3
    verdict = verdict_of(result)
    assert verdict["codes"] == ["SPDM_SIGNATURE"]
    assert verdict["events"] == [["challenge", "ok"], ["measurements", "BAD InvalidSignature"]]


def test_the_screen_says_what_counts(tmp_path: Path) -> None:
    responder = Responder()
    result = ask(honest(responder), "--trust-root", root_file(tmp_path, responder))
    assert result.exit_code == 0
    for words in ("ACCEPTED", "SPDM 1.3", "SPDM_MEASURED"):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("serve", "options", "code", "exit_code"),
    [
        (silent(), ["--round-trip", "0.01"], "SPDM_TIMEOUT", 1),
        (silent(), ["--timeout", "0.1"], "SPDM_TIMEOUT", 1),
        (saying(b""), [], "SPDM_CLOSED", 1),
        (saying(frame(b"", kind=0xC3, extra=0)), [], "SPDM_TRANSPORT_REFUSED", 1),
        (saying(b"HTTP/1.1 400 Bad Request\r\n"), [], "SPDM_FRAME_INVALID", 3),
        (saying(frame(bytes.fromhex("10000000"))), [], "SPDM_RESPONSE_INVALID", 3),
        (saying(frame(bytes.fromhex("100400000005"))), [], "SPDM_MALFORMED", 3),
        (saying(frame(bytes.fromhex("107f0700"))), [], "SPDM_RESPONDER_ERROR", 1),
        (saying(frame(bytes.fromhex("1004000000010010"))), [], "SPDM_NOT_OFFERED", 1),
    ],
)
def test_what_gives_no_transcript_says_why(serve: Serve, options: list[str], code: str, exit_code: int) -> None:
    result = ask(serve, *options, "--json")
    assert result.exit_code == exit_code
    said = json.loads(result.stdout)
    assert said["error"] == code
    assert said["remedy"]
    assert code in result.stderr


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = call("spdm", f"127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "SPDM_UNREACHABLE" in result.stderr


def test_a_device_that_calls(tmp_path: Path) -> None:
    responder = Responder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    inquiry = encode_frame(ROLE_INQUIRY, b"", "remainder")
    with calling(port, inquiry, honest(responder)):
        options = ["--listen", "--at", AT, "--trust-root", root_file(tmp_path, responder)]
        assert call("spdm", f"127.0.0.1:{port}", *options).exit_code == 0


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    result = ask(honest(Responder()), "--out", str(tmp_path / "no" / "file"))
    assert result.exit_code == 2
    assert "no/file: No such file" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["::1:4194"],
        [":4194"],
        ["host:0"],
        ["host:70000"],
        ["host:port"],
        ["host", "--slot", "8"],
        ["host", "--spdm-version", "2.0"],
        ["host", "--nonce", NONCES[0]],
        ["host", "--nonce", NONCES[0], "--nonce", NONCES[0]],
        ["host", "--nonce", "00", "--nonce", NONCES[0]],
        ["host", "--framing", "spdm-emu"],
        ["host", "--framing", "spdm-emu-tcp", "--length", "message"],
        ["host", "--framing", "spdm-emu-mctp", "--listen"],
        ["host", "--subject", "x"],
        ["host", "--report-data", "00", "--nonce", NONCES[0], "--nonce", NONCES[1]],
    ],
)
def test_usage(arguments: list[str]) -> None:
    assert call("spdm", *arguments).exit_code == 2
