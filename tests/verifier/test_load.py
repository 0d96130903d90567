"""Files of collateral: told by content, whatever they are called, and bounded."""

from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from schemas.errors import ConfigError
from tests.forge.dcap.world import TDX4, pem, pem_chain
from tests.verifier.selecting import Real, asking, held, real
from verifier.errors import CollateralMalformed, CollateralTooLarge, VerificationError
from verifier.limits import MAX_COLLATERAL_BYTES, MAX_HTTP_LINES, MAX_PEM_BLOCKS, MAX_URL_ESCAPES
from verifier.trust import load
from verifier.trust.load import load_collateral, load_endorsements
from verifier.trust.store import Collateral

MINTED = TDX4.mint().collateral
INFO = f'{{"tcbInfo":{MINTED["tcb_info"]},"signature":"{MINTED["tcb_info_signature"]}"}}'
IDENTITY = f'{{"enclaveIdentity":{MINTED["qe_identity"]},"signature":"{MINTED["qe_identity_signature"]}"}}'
CRL = bytes.fromhex(MINTED["pck_crl"])
ROOT_CRL = bytes.fromhex(MINTED["root_ca_crl"])
PEM = pem(TDX4.pck_chain()[0]).encode()
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def answer(body: bytes | str, line_end: str = "\r\n", **headers: str) -> bytes:
    """An HTTP answer as `curl -i` writes it; chains are URL-encoded as a PCS encodes them."""
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", "Request-ID: 5f1c"]
    lines += [f"{name.replace('_', '-')}: {quote(value, safe='')}" for name, value in headers.items()]
    return (line_end.join(lines) + 2 * line_end).encode() + (body.encode() if isinstance(body, str) else body)


def files_of_a_pccs() -> dict[str, bytes]:
    """What four requests were answered with."""
    return {
        "tcb": answer(INFO, TCB_Info_Issuer_Chain=MINTED["tcb_info_issuer_chain"]),
        "identity": answer(IDENTITY, SGX_Enclave_Identity_Issuer_Chain=MINTED["qe_identity_issuer_chain"]),
        "pckcrl": answer(CRL, SGX_PCK_CRL_Issuer_Chain=MINTED["pck_crl_issuer_chain"]),
        "rootcacrl": MINTED["root_ca_crl"].encode(),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_answers_of_a_pccs_serve_a_platform(tmp_path: Path) -> None:
    found = load_collateral([write(tmp_path, files_of_a_pccs())])
    assert found.unreadable == ()
    assert found.digest == held(TDX4).digest
    asking(TDX4).of(found)


HEADERS = [
    "TCB-Info-Issuer-Chain",
    "SGX-TCB-Info-Issuer-Chain",
    "sgx-tcb-info-issuer-chain",
    "SGX-Enclave-Identity-Issuer-Chain",
    "SGX-QE-Identity-Issuer-Chain",
    "SGX-PCK-CRL-Issuer-Chain",
    "SGX-PCK-Certificate-Issuer-Chain",
    "TCB-Evaluation-Data-Numbers-Issuer-Chain",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_every_issuer_chain_header_is_read(tmp_path: Path, header: str, line_end: str) -> None:
    data = answer("", line_end, **{header: MINTED["tcb_info_issuer_chain"]})
    found = load_collateral([write(tmp_path, {"headers": data})])
    assert len(found.certificates) == 2
    assert found.unreadable == ()


def test_headers_and_bodies_kept_apart(tmp_path: Path) -> None:
    """`curl -D headers -o body`, one behind the other after a redirection; also without the status line."""
    chain = answer("", TCB_Info_Issuer_Chain=MINTED["tcb_info_issuer_chain"])
    moved = b"HTTP/1.1 307 Moved\r\nLocation: https://example.invalid\r\n\r\n"
    files = {"h": moved + chain, "b": INFO.encode(), "bare": chain.split(b"\r\n", 1)[1]}
    found = load_collateral([write(tmp_path, files)])
    assert found.unreadable == ()
    assert (len(found.certificates), len(found.held_documents)) == (2, 1)


PLAIN: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "a set": (json.dumps(MINTED).encode(), (2, 2, 3)),
    "a set, indented": (json.dumps(MINTED, indent=2).encode(), (2, 2, 3)),
    "TCB info": (INFO.encode(), (1, 0, 0)),
    "TCB info with space around": (b"\n " + INFO.encode() + b"\n", (1, 0, 0)),
    "an identity": (IDENTITY.encode(), (1, 0, 0)),
    "evaluation numbers": (json.dumps(TDX4.evaluation_numbers()).encode(), (1, 0, 2)),
    "PEM": (pem_chain(*TDX4.pck_chain()).encode(), (0, 0, 3)),
    "PEM with a NUL": (pem_chain(*TDX4.pck_chain()).encode() + b"\x00", (0, 0, 3)),
    "PEM with CRLF": (pem_chain(*TDX4.pck_chain()).replace("\n", "\r\n").encode(), (0, 0, 3)),
    "PEM of a list": (
        b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(CRL) + b"-----END X509 CRL-----\n",
        (0, 1, 0),
    ),
    "DER of a certificate": (TDX4.pck_chain()[0], (0, 0, 1)),
    "DER of a list": (CRL, (0, 1, 0)),
    "hex of DER": (CRL.hex().encode(), (0, 1, 0)),
    "hex in capitals, in lines": (CRL.hex("\n", 30).upper().encode(), (0, 1, 0)),
    "hex of PEM": (pem(TDX4.pck_chain()[0]).encode().hex().encode(), (0, 0, 1)),
    "base64 of DER": (base64.encodebytes(CRL), (0, 1, 0)),
    "PEM with a byte order mark": (BYTE_ORDER_MARK + PEM, (0, 0, 1)),
    "PEM with explanations": (
        b"Certificate:\n    Data: 1-2\n" + PEM + b"subject=CN = x\nissuer=y\n" + pem(TDX4.pck_chain()[1]).encode(),
        (0, 0, 2),
    ),
    "PEM URL-encoded": (quote(pem_chain(*TDX4.pck_chain()), safe="").encode() + b"\n", (0, 0, 3)),
    "hex in a JSON string": (f'"{CRL.hex()}"\n'.encode(), (0, 1, 0)),
    "hex with its mark": (b"0x" + CRL.hex().encode(), (0, 1, 0)),
    "hex with its mark in a JSON string": (b'"0X' + CRL.hex().upper().encode() + b'"', (0, 1, 0)),
    "a set with a byte order mark": (BYTE_ORDER_MARK + json.dumps(MINTED).encode(), (2, 2, 3)),
    "TCB info with a byte order mark": (BYTE_ORDER_MARK + INFO.encode(), (1, 0, 0)),
    "a set with its chains URL-encoded": (
        json.dumps({name: quote(text) if "chain" in name else text for name, text in MINTED.items()}).encode(),
        (2, 2, 3),
    ),
    "a set with other people's members": (
        json.dumps(MINTED | {"cached_at": 1.25, "by": {"x": [1e9, -2.5]}}).encode(), (2, 2, 3),
    ),
    "an answer of /pckcerts": (
        json.dumps(
            [{"tcb": {}, "cert": quote(pem(TDX4.pck_chain()[0]))}, {"tcb": {}, "cert": "Not available"}]
        ).encode(),
        (0, 0, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "counts"), PLAIN.values(), ids=PLAIN.keys())
def test_content_decides(tmp_path: Path, data: bytes, counts: tuple[int, int, int]) -> None:
    found = load_collateral([write(tmp_path, {"x.txt": data}) / "x.txt"])
    assert found.unreadable == ()
    assert (len(found.held_documents), len(found.crls), len(found.certificates)) == counts


@pytest.mark.parametrize("one", real(), ids=lambda one: one.name)
def test_real_sets_load(tmp_path: Path, one: Real) -> None:
    found = load_collateral([write(tmp_path, {"c": one.text})])
    assert found.unreadable == ()
    one.asking.of(found, one.now_ms)


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "COLLATERAL_MALFORMED"),
    "spaces": (b" \n ", "COLLATERAL_MALFORMED"),
    "a sentence": (b"Put collateral here.\n", "COLLATERAL_MALFORMED"),
    "HTML": (b"<html></html>", "COLLATERAL_MALFORMED"),
    "an error page": (answer("<html>not found</html>"), "COLLATERAL_MALFORMED"),
    "headers alone": (b"HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n", "COLLATERAL_MALFORMED"),
    "JSON of something else": (b'{"name":"x"}', "COLLATERAL_MALFORMED"),
    "an array of something else": (b"[1]", "COLLATERAL_MALFORMED"),
    "damaged JSON": (INFO.encode()[:-1], "COLLATERAL_MALFORMED"),
    "a private key": (b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "COLLATERAL_MALFORMED"),
    "PEM without end": (pem(CRL).encode()[:60], "COLLATERAL_MALFORMED"),
    "PEM in the middle of a line": (b"x\nx" + PEM, "COLLATERAL_MALFORMED"),
    "PEM with words behind it": (PEM + b"x\n", "COLLATERAL_MALFORMED"),
    "PEM behind a damaged beginning": (PEM.replace(b"-----BEGIN", b"-----BGIN") + PEM, "COLLATERAL_MALFORMED"),
    "hex of nothing": (b"0x", "COLLATERAL_MALFORMED"),
    "a JSON string of a sentence": (b'"Put collateral here."', "COLLATERAL_MALFORMED"),
    "an encoded chain that is none": (b"-----BEGIN%20CERT", "COLLATERAL_MALFORMED"),
    "too many escapes": (b"-----BEGIN%20" + b"%2D" * (MAX_URL_ESCAPES + 1), "COLLATERAL_TOO_LARGE"),
    "a float that somebody signed": (INFO.encode().replace(b'"version":3', b'"version":3.5'), "COLLATERAL_MALFORMED"),
    "DER of something else": (b"\x30\x03\x02\x01\x05", "COLLATERAL_MALFORMED"),
    "DER cut short": (CRL[:-1], "COLLATERAL_MALFORMED"),
    "a chain that is no PEM": (answer(INFO, TCB_Info_Issuer_Chain="x"), "COLLATERAL_MALFORMED"),
    "too many bytes": (b"{" + b" " * MAX_COLLATERAL_BYTES, "COLLATERAL_TOO_LARGE"),
    "too many headers": (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HTTP_LINES, "COLLATERAL_TOO_LARGE"),
    "too many blocks": (pem(b"\x30\x00").encode() * (MAX_PEM_BLOCKS + 1), "COLLATERAL_MALFORMED"),
}


@pytest.mark.parametrize(("data", "code"), WRONG.values(), ids=WRONG.keys())
def test_what_makes_no_sense_is_kept_with_its_error(tmp_path: Path, data: bytes, code: str) -> None:
    folder = write(tmp_path, files_of_a_pccs() | {"wrong": data})
    found = load_collateral([folder])
    assert [(one.source, one.error.code) for one in found.unreadable] == [(str(folder / "wrong"), code)]
    asking(TDX4).of(found)


def test_directories_are_walked_and_hidden_names_left_out(tmp_path: Path) -> None:
    files = files_of_a_pccs()
    write(tmp_path / "a" / "b", {name: files[name] for name in ("tcb", "identity")})
    write(tmp_path / "c", {name: files[name] for name in ("pckcrl", "rootcacrl")})
    write(tmp_path, {".hidden": b"junk", ".git/config": b"junk"})
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = load_collateral([tmp_path])
    assert found.unreadable == ()
    asking(TDX4).of(found)
    assert sorted(one.source for one in found.held_documents) == [
        str(tmp_path / "a" / "b" / "identity"),
        str(tmp_path / "a" / "b" / "tcb"),
    ]


def test_files_linked_to_are_read(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: names that link into a hidden directory."""
    write(tmp_path / "..data", files_of_a_pccs())
    for name in files_of_a_pccs():
        (tmp_path / name).symlink_to(tmp_path / "..data" / name)
    asking(TDX4).of(load_collateral([tmp_path]))


def test_several_paths_make_one_set(tmp_path: Path) -> None:
    folder = write(tmp_path, files_of_a_pccs())
    found = load_collateral([folder / name for name in files_of_a_pccs()] * 2)
    assert found.digest == held(TDX4).digest


def test_no_paths_make_an_empty_set() -> None:
    assert load_collateral([]).digest == Collateral.empty().digest


def test_a_pipe_named_outright_is_read(tmp_path: Path) -> None:
    """As `<(curl …)` makes one; inside a directory it would wait for ever, and is left out."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert load_collateral([tmp_path]).digest == Collateral.empty().digest
    writer = threading.Thread(target=pipe.write_bytes, args=(json.dumps(MINTED).encode(),))
    writer.start()
    found = load_collateral([pipe])
    writer.join()
    assert found.digest == held(TDX4).digest


def test_what_cannot_be_opened_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_collateral([tmp_path / "absent"])


@pytest.mark.parametrize(("limit", "value"), [("MAX_COLLATERAL_FILES", 2), ("MAX_COLLATERAL_FILES_BYTES", 3000)])
def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(load, limit, value)
    with pytest.raises(CollateralTooLarge):
        load_collateral([write(tmp_path, files_of_a_pccs())])


@pytest.mark.parametrize("name", [name for name in PLAIN if {"DER", "PEM", "hex"} & set(name.split())])
def test_endorsements_are_certificates_and_lists(tmp_path: Path, name: str) -> None:
    data, (_, crls, certificates) = PLAIN[name]
    found = load_endorsements([write(tmp_path, {"x": data})])
    assert (len(found.crls), len(found.certificates)) == (crls, certificates)


@pytest.mark.parametrize("name", ["nothing", "a sentence", "a private key", "DER cut short", "too many bytes"])
def test_endorsements_that_are_none_are_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(VerificationError):
        load_endorsements([write(tmp_path, {"x": WRONG[name][0]})])


@pytest.mark.parametrize("name", ["a set", "TCB info", "an answer of /pckcerts"])
def test_collateral_is_no_endorsement(tmp_path: Path, name: str) -> None:
    with pytest.raises(CollateralMalformed):
        load_endorsements([write(tmp_path, {"x": PLAIN[name][0]})])


def test_a_plus_sign_in_a_header_is_one(tmp_path: Path) -> None:
    """Some proxies leave base64 as it is; a plus is not a space there."""
    chain: Any = MINTED["tcb_info_issuer_chain"]
    raw = chain.replace("\n", "%0A").replace(" ", "%20")
    data = f"HTTP/2 200\r\ntcb-info-issuer-chain: {raw}\r\n\r\n{INFO}".encode()
    found = load_collateral([write(tmp_path, {"x": data})])
    assert found.unreadable == ()
    assert len(found.certificates) == 2


def test_a_file_that_cannot_be_opened_does_not_stop_the_others(tmp_path: Path) -> None:
    minted = TDX4.mint()
    (tmp_path / "set.json").write_text(minted.collateral_json)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    held = load_collateral([tmp_path])
    assert [one.error.code for one in held.unreadable] == ["COLLATERAL_MALFORMED"]
    assert len(held.held_documents) == 2
    with pytest.raises(ConfigError):
        load_collateral([tmp_path / "dangling"])
