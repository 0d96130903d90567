"""What fuzzing starts from: carried quotes, forged worlds of every shape, the shared corpus where it is mounted."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from functools import cache

from tests.forge.dcap import documents
from tests.forge.dcap.world import GENUINE, SGX3, TDX4, TDX5_15, Minted, World
from tests.verifier.corpus import Case, cases
from tests.verifier.fuzzing import Seed, parts_of
from tests.verifier.fuzzing_der import nodes_of
from tests.verifier.vectors import DATA

DCAP = ("sgx_v3", "sgx_v5", "tdx_v4", "tdx_v5")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.S)
_HEADERS = {
    "tcb_info": ("tcbInfo", "TCB-Info-Issuer-Chain", "tcb_info_issuer_chain"),
    "qe_identity": ("enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain", "qe_identity_issuer_chain"),
}

WORLDS: dict[str, World] = {**GENUINE, "SGX v3, TCB info v2": SGX3.but(tcb_info_edit=documents.as_v2)}
"""Forged worlds by name; their keys are at hand, so what is changed in them can be signed again."""


@cache
def minted(name: str) -> Minted:
    """The forged world of that name, minted once."""
    return WORLDS[name].mint()


@cache
def real_cases() -> tuple[Case, ...]:
    """The corpus' quotes; what was derived from them by a mutation, mutations here find themselves."""
    return tuple(case for case in cases() if case.entry["evidence_type"] in DCAP and case.entry["origin"] != "derived")


@cache
def quotes() -> tuple[Seed, ...]:
    """Quotes of every version."""
    found = [Seed(f"carried/{path.name}", "quote", path.read_bytes()) for path in sorted(DATA.glob("*.quote.bin"))]
    found += [Seed(f"forge/{name}", "quote", minted(name).quote) for name in WORLDS]
    for case in real_cases():
        path = case.path("quote")
        if path is not None:
            found.append(Seed(f"corpus/{case.name}", "quote", path.read_bytes()))
    return _unique(found)


@cache
def collaterals() -> tuple[Seed, ...]:
    """QuoteCollateralV3 objects."""
    found = [Seed(f"forge/{name}", "collateral", minted(name).collateral_json.encode()) for name in WORLDS]
    for case in real_cases():
        path = case.path("collateral")
        if path is not None:
            found.append(Seed(f"corpus/{path.stem}", "collateral", path.read_bytes()))
    return _unique(found)


def _unique(seeds: Iterable[Seed]) -> tuple[Seed, ...]:
    """The first of those with the same bytes."""
    found: dict[bytes, Seed] = {}
    for seed in seeds:
        found.setdefault(seed.data, seed)
    return tuple(found.values())


def _member(key: str, kind: str) -> Iterator[Seed]:
    for seed in collaterals():
        value = json.loads(seed.data).get(key)
        if value:
            yield Seed(f"{seed.name}/{key}", kind, bytes.fromhex(value) if kind == "der" else value.encode())


@cache
def chains() -> tuple[Seed, ...]:
    """PEM texts: PCK chains of quotes, issuer chains of collateral."""
    found = []
    for seed in quotes():
        parts = parts_of(seed.data)
        if parts is not None and parts.kind == 5:
            found.append(Seed(f"{seed.name}/chain", "pem", parts.certification))
    for key in ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain"):
        found += _member(key, "pem")
    return _unique(found)


@cache
def certificates() -> tuple[Seed, ...]:
    """DER certificates out of the chains."""
    found = []
    for seed in chains():
        for number, block in enumerate(_PEM.findall(seed.data.decode("latin-1"))):
            found.append(Seed(f"{seed.name}/{number}", "der", base64.b64decode(block)))
    return _unique(found)


@cache
def extensions() -> tuple[Seed, ...]:
    """Intel's extension out of the PCK certificates."""
    found = []
    for seed in certificates():
        nodes = nodes_of(seed.data)
        for at, node in enumerate(nodes[:-2]):
            # The first OID under Intel's arc is the extension's own, the OCTET STRING after it holds the value.
            if seed.data[node.start : node.end] == _EXTENSION_OID and nodes[at + 1].tag == 0x04:
                inner = nodes[at + 1]
                found.append(Seed(f"{seed.name}/extension", "der", seed.data[inner.body : inner.end]))
    return _unique(found)


_EXTENSION_OID = bytes.fromhex("06092a864886f84d010d01")


@cache
def crls() -> tuple[Seed, ...]:
    """DER revocation lists."""
    return _unique([*_member("pck_crl", "der"), *_member("root_ca_crl", "der")])


@cache
def tcb_infos() -> tuple[Seed, ...]:
    """TCB info as signed."""
    return _unique(_member("tcb_info", "json"))


@cache
def identities() -> tuple[Seed, ...]:
    """Enclave identities as signed."""
    return _unique(_member("qe_identity", "json"))


@cache
def evaluation_numbers() -> tuple[Seed, ...]:
    """TCB evaluation data numbers as signed."""
    found = [
        Seed(f"forge/{tee}", "json", world.evaluation_numbers()["tcbEvalNumbers_raw"].encode())
        for tee, world in (("sgx", SGX3), ("tdx", TDX4))
    ]
    for case in cases():
        path = case.path("json")
        if case.entry["evidence_type"] == "dcap_tcb_eval_numbers" and path is not None:
            text = json.loads(path.read_bytes())["tcbEvalNumbers_raw"]
            found.append(Seed(f"corpus/{case.name}", "json", text.encode()))
    return _unique(found)


@cache
def envelopes() -> tuple[Seed, ...]:
    """Signed documents as a PCS answers them."""
    found = []
    for seed in collaterals():
        members = json.loads(seed.data)
        for key, (name, _, _) in _HEADERS.items():
            body = f'{{"{name}":{members[key]},"signature":"{members[key + "_signature"]}"}}'
            found.append(Seed(f"{seed.name}/{name}", "json", body.encode()))
    for seed in evaluation_numbers():
        body = b'{"tcbEvaluationDataNumbers":' + seed.data + b',"signature":"' + b"5a" * 64 + b'"}'
        found.append(Seed(f"{seed.name}/numbers", "json", body))
    return _unique(found)


@cache
def responses() -> tuple[Seed, ...]:
    """The same with HTTP headers around them, as `curl -i` writes; and headers alone, as `curl -D`."""
    found = []
    for seed in collaterals():
        members = json.loads(seed.data)
        for key, (name, header, chain) in _HEADERS.items():
            body = f'{{"{name}":{members[key]},"signature":"{members[key + "_signature"]}"}}'
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nRequest-ID: 5a\r\n"
                f"{header}: {urllib.parse.quote(members[chain])}\r\n\r\n"
            )
            found.append(Seed(f"{seed.name}/{name}/response", "http", (head + body).encode()))
            found.append(Seed(f"{seed.name}/{name}/head", "http", head.encode()))
        issuers = urllib.parse.quote(members["pck_crl_issuer_chain"])
        head = f"HTTP/1.1 200 OK\r\nSGX-PCK-CRL-Issuer-Chain: {issuers}\r\n\r\n"
        crl = bytes.fromhex(members["pck_crl"])
        found.append(Seed(f"{seed.name}/crl/response", "http", head.encode() + crl))
        found.append(Seed(f"{seed.name}/crl/hex/response", "http", head.encode() + crl.hex().encode()))
    return _unique(found)


@cache
def texts() -> tuple[Seed, ...]:
    """CRLs as PEM and hex, evaluation numbers as the shared corpus has them."""
    found = []
    for seed in crls():
        body = base64.encodebytes(seed.data).decode()
        pem = f"-----BEGIN X509 CRL-----\n{body}-----END X509 CRL-----\n"
        found += [
            Seed(f"{seed.name}/pem", "pem", pem.encode()),
            Seed(f"{seed.name}/hex", "text", seed.data.hex().encode()),
        ]
    for tee, world in (("sgx", SGX3), ("tdx", TDX5_15)):
        found.append(Seed(f"forge/{tee}/numbers", "collateral", json.dumps(world.evaluation_numbers()).encode()))
    return tuple(found)


@cache
def files() -> tuple[Seed, ...]:
    """Everything a collateral directory may hold."""
    return (*collaterals(), *envelopes(), *responses(), *texts(), *chains(), *certificates(), *crls())
