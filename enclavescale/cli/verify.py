"""`enclavescale verify`: judge one piece of evidence, all of one host, or a worker's record, offline."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from enclavescale.cli.common import EXIT_CODES, EXIT_REFUSED, errors, json_option, say
from enclavescale.cli.evidence import (
    at_option,
    nonce_option,
    policy_of,
    report_data_of,
    show_verdict,
    trust_root_option,
)
from enclavescale.cli.policy_options import points, show_screen, signers_option
from enclavescale.evidence_input import read_evidence
from enclavescale.judging.composite import judge_composite
from enclavescale.judging.inputs import (
    AUTO,
    COMPOSITE,
    GPU,
    KINDS,
    NVIDIA,
    RIM,
    SGX,
    SNP,
    SPDM,
    SWITCH,
    TDX,
    Inputs,
    NamedRoot,
    kind_of,
)
from enclavescale.judging.nvidia import judge_nvidia
from enclavescale.judging.output import MANIFEST, RECORDS, is_signed_policy, judge_manifest, judge_output, record_kind
from enclavescale.judging.quote import judge_quote
from enclavescale.judging.record_screen import record_screen
from enclavescale.judging.rim import judge_rim
from enclavescale.judging.snp import judge_snp
from enclavescale.judging.spdm import judge_spdm
from schemas.codec import MAX_POLICY_BYTES
from verifier.errors import VerificationError
from verifier.policy.quote import QuotePolicy
from verifier.trust.load import load_collateral, load_endorsements, load_rims
from verifier.verdicts.shell import evidence_verdict

MAX_COLLATERAL_BYTES = 64 << 20
"""Of all items of one set, bytes."""

_PATH = click.Path(exists=True, path_type=Path)

_JUDGES: dict[str, Callable[[Inputs], dict[str, Any]]] = {
    AUTO: judge_quote,
    SGX: judge_quote,
    TDX: judge_quote,
    SNP: judge_snp,
    NVIDIA: judge_nvidia,
    GPU: judge_nvidia,
    SWITCH: judge_nvidia,
    RIM: judge_rim,
    SPDM: judge_spdm,
    COMPOSITE: judge_composite,
}
_CHALLENGED = {NVIDIA: 1, GPU: 1, SWITCH: 1, SPDM: 64, COMPOSITE: 1}
"""Kinds of evidence that carry nonces, and how many one piece may be asked about."""

_COMPARED = {NVIDIA, GPU, SWITCH, COMPOSITE}
"""Kinds whose measurements manifests are for."""

_QUOTED = {AUTO, SGX, TDX, SNP, COMPOSITE}
"""Kinds that carry report data."""

_NO_NONCE = "{} carries no nonce of its own: what it was made for is its report data, so give --report-data."
_NO_REPORT_DATA = "{} carries no report data: what it was made for is its nonce, so give --nonce."
_NEITHER = "{} is made for nobody: it has neither nonce nor report data."
_NAMES = {
    AUTO: "A quote",
    SGX: "An SGX quote",
    TDX: "A TDX quote",
    SNP: "An SNP report",
    RIM: "A manifest",
    NVIDIA: "A device's report",
    GPU: "A GPU's report",
    SWITCH: "A switch's report",
    SPDM: "An SPDM transcript",
    COMPOSITE: "A host's evidence",
}


def _template(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the shipped policy file and end."""
    if value and not context.resilient_parsing:
        click.echo(resources.files("verifier.policy").joinpath("fleet.toml").read_text(encoding="utf-8"), nl=False)
        context.exit()


def _policy(context: click.Context, parameter: click.Parameter, value: str) -> QuotePolicy | bytes:
    """The policy of --policy for evidence, or the bytes of the signed one that a worker's record names."""
    path = Path(value)
    if path.is_file():
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)  # what is larger is refused below, unread
        if is_signed_policy(data):
            return data
    return policy_of(context, parameter, value)


@click.command(epilog=EXIT_CODES)
@click.argument("evidence", type=click.File("rb"))
@click.option(
    "--kind",
    type=click.Choice((*KINDS, *RECORDS)),
    default=AUTO,
    show_default=True,
    help="Of evidence or record; auto: by content.",
)
@click.option(
    "--collateral",
    multiple=True,
    type=_PATH,
    help="What PCCS, KDS and NVIDIA publish: files or directories. For a worker's record: values of the collateral "
    "topic.",
)
@click.option(
    "--endorsement",
    multiple=True,
    type=_PATH,
    help="Certificates, CRLs, OCSP responses: PEM, DER or hex of DER. PCK certificates; VCEK or VLEK, ASK, ARK; "
    "a device's chain, leaf first.",
)
@click.option("--rim", multiple=True, type=_PATH, help="NVIDIA's reference manifest of driver or VBIOS.")
@trust_root_option
@click.option(
    "--policy",
    default="strict",
    show_default=True,
    callback=_policy,
    metavar="strict|authentic|FILE",
    help="strict: UpToDate, no debug. authentic: genuine, current, not revoked. Else a TOML or JSON file; for a "
    "worker's record the signed policy that it names.",
)
@signers_option(required=False)
@click.option("--output", "output", type=click.File("rb"), help="For a manifest: the output that it stands beside.")
@at_option
@click.option(
    "--report-data",
    metavar="HEX",
    callback=report_data_of,
    help="What the quote must be made for, at most 64 bytes; padded with zeros on the right, all 64 are compared.",
)
@nonce_option
@click.option(
    "--policy-template",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_template,
    help="Print a complete policy file with its explanations, and end.",
)
@json_option
def verify(
    evidence: IO[bytes],
    kind: str,
    collateral: Sequence[Path],
    endorsement: Sequence[Path],
    rim: Sequence[Path],
    trust_roots: Sequence[NamedRoot],
    policy: QuotePolicy | bytes,
    signers: tuple[str, ...],
    output: IO[bytes] | None,
    now_ms: int,
    report_data: bytes | None,
    nonces: Sequence[bytes],
    as_json: bool,
) -> None:
    """Verify attestation evidence: EVIDENCE is its bytes, or their hex or base64 text (- for stdin).

    A quote (SGX, TDX), an SNP report, a GPU's or switch's report, a reference manifest (RIM), an SPDM transcript (JSON
    or a capture), all of one host (composite), or a worker's record: an output, or a manifest with --output, under the
    signed policy and as of its own window. Nothing is fetched: collateral is what you give. Exit 0 if the policy
    accepts the evidence, 3 if it is refused.
    """
    with errors(as_json):  # what is left is no evidence: a file that cannot be opened
        try:
            data = read_evidence(evidence)
            record = record_kind(data) if kind == AUTO else kind if kind in RECORDS else None
            if record is not None:
                _judge_record(record, data, policy, points(signers), collateral, output, as_json)
            if isinstance(policy, bytes):
                raise click.UsageError(
                    "--policy: a signed policy is for a worker's record; evidence needs a TOML file."
                )
            found = kind_of(data) if kind == AUTO else kind
            if kind == RIM and kind_of(data) == NVIDIA:  # a report beside --rim is compared with the manifests
                found = NVIDIA
            extra = load_endorsements(endorsement)
            inputs = Inputs(
                data=data,
                kind=found,
                collateral=load_collateral(collateral).merged(extra),
                endorsements=extra,
                rims=load_rims(rim),
                trust_roots=tuple(trust_roots),
                policy=policy,
                now_ms=now_ms,
                report_data=report_data,
                nonces=tuple(nonces),
            )
        except VerificationError as error:
            if isinstance(policy, bytes):
                raise
            verdict = evidence_verdict(
                kind=kind, policy=policy, now_ms=now_ms, stages=(), vector=None, claims=None, failures=[error]
            )
        else:
            _check_asked(found, len(nonces), report_data is not None)
            if rim and found not in _COMPARED:
                raise click.UsageError(f"--rim: {_NAMES[found]} is not compared with manifests.")
            if found == COMPOSITE and any(one.use is None for one in trust_roots):
                raise click.UsageError("--trust-root: say what for, as spdm=FILE: a host has evidence of many kinds.")
            verdict = _JUDGES[found](inputs)
    show_verdict(verdict, as_json)
    sys.exit(EXIT_REFUSED if verdict["errors"] else 0)


def _values(paths: Sequence[Path]) -> list[bytes]:
    """Values of the collateral topic, one per file, of files and directories."""
    files = [one for path in paths for one in (sorted(path.rglob("*")) if path.is_dir() else [path]) if one.is_file()]
    if sum(one.stat().st_size for one in files) > MAX_COLLATERAL_BYTES:
        raise click.UsageError(f"--collateral: more than {MAX_COLLATERAL_BYTES >> 20} MiB.")
    return [one.read_bytes() for one in files]


def _judge_record(
    kind: str,
    data: bytes,
    policy: QuotePolicy | bytes,
    signers: tuple[bytes, ...],
    collateral: Sequence[Path],
    output: IO[bytes] | None,
    as_json: bool,
) -> NoReturn:
    """Judge an output or a manifest, show the verdict and end."""
    if not isinstance(policy, bytes):
        raise click.UsageError("--policy: give the signed policy that the record names, as the policy topic holds it.")
    if not signers:
        raise click.UsageError("--policy-signer: say whose policies are trusted.")
    if (output is None) == (kind == MANIFEST):
        raise click.UsageError("--output: a manifest is judged with the output that it stands beside, nothing else is.")
    items = _values(collateral)
    if output is None:
        verdict = judge_output(data, policy=policy, signers=signers, collateral=items)
    else:
        beside = read_evidence(output)
        verdict = judge_manifest(data, output=beside, policy=policy, signers=signers, collateral=items)
    if as_json:
        say(verdict)
    else:
        show_screen(record_screen(verdict))
    sys.exit(0 if verdict["accepted"] else EXIT_REFUSED)


def _check_asked(kind: str, nonces: int, report_data: bool) -> None:
    """What the evidence was made for is asked in the form that this kind of it carries. `UsageError`."""
    name = _NAMES.get(kind, "")
    if nonces > _CHALLENGED.get(kind, 0):
        if kind in _CHALLENGED:
            raise click.UsageError(f"--nonce: {name} carries one nonce.")
        raise click.UsageError(f"--nonce: {(_NO_NONCE if kind in _QUOTED else _NEITHER).format(name)}")
    if report_data and kind not in _QUOTED:
        reason = _NO_REPORT_DATA if kind in _CHALLENGED else _NEITHER
        raise click.UsageError(f"--report-data: {reason.format(name)}")
