"""`enclavescale verify`: judge one quote, offline, as of a point in time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console

from enclavescale.cli.common import EXIT_CODES, EXIT_REFUSED, errors, json_option, say
from enclavescale.cli.evidence import at_option, trust_root_option
from enclavescale.quote_input import read_quote
from enclavescale.settings import load_file
from enclavescale.verdict_screen import PLAIN_SIGNS, verdict_screen
from schemas.errors import ConfigError
from verifier.claims import Claims
from verifier.errors import PolicyInvalid, VerificationError
from verifier.formats.dcap import VerifiedQuote, verify_quote
from verifier.policy.quote import BUILT_IN, QuotePolicy, parse_quote_policy, quote_rules, quote_warnings
from verifier.policy.quote_file import read_report_data
from verifier.quote_verdict import quote_verdict
from verifier.trust.load import load_collateral, load_endorsements
from verifier.trust.roots import INTEL_SGX_ROOT, TrustAnchor

_PATH = click.Path(exists=True, path_type=Path)
_NO_NONCE = (
    "An Intel quote carries no nonce of its own: what it was made for is its report data, so give --report-data."
)


def _policy(context: click.Context, parameter: click.Parameter, value: str) -> QuotePolicy:
    """The policy of --policy: one that is built in, else a file's."""
    if value in BUILT_IN:
        return BUILT_IN[value]
    path = Path(value)
    if not path.is_file():
        raise click.BadParameter(f"{value!r} is neither {' nor '.join(BUILT_IN)} nor a file")
    try:
        return parse_quote_policy(load_file(path), path.name)
    except (PolicyInvalid, ConfigError) as error:
        raise click.BadParameter(f"{error}. {error.remedy}") from error


def _report_data(context: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    try:
        return None if value is None else read_report_data(value, "report data")
    except PolicyInvalid as error:
        raise click.BadParameter(str(error)) from error


def _nonce(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.BadParameter(_NO_NONCE)


def _template(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the shipped policy file and end."""
    if value and not context.resilient_parsing:
        click.echo(resources.files("verifier.policy").joinpath("fleet.toml").read_text(encoding="utf-8"), nl=False)
        context.exit()


@click.command(epilog=EXIT_CODES)
@click.argument("evidence", type=click.File("rb"))
@click.option("--kind", type=click.Choice(["auto", "sgx", "tdx"]), default="auto", show_default=True, help="Of TEE.")
@click.option(
    "--collateral", multiple=True, type=_PATH, help="What a PCCS answered: files or directories, told by content."
)
@click.option(
    "--endorsement",
    multiple=True,
    type=_PATH,
    help="Certificates and CRLs: PEM, DER or hex of DER. PCK certificates in --collateral count, too.",
)
@trust_root_option
@click.option(
    "--policy",
    default="strict",
    show_default=True,
    callback=_policy,
    metavar="strict|authentic|FILE",
    help="strict: UpToDate, no debug. authentic: genuine, current, not revoked. Else a TOML or JSON file.",
)
@at_option
@click.option(
    "--report-data",
    metavar="HEX",
    callback=_report_data,
    help="What the quote must be made for, at most 64 bytes; padded with zeros on the right, all 64 are compared.",
)
@click.option("--nonce", metavar="HEX", callback=_nonce, expose_value=False, help="Not for Intel quotes.")
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
    trust_roots: Sequence[TrustAnchor],
    policy: QuotePolicy,
    now_ms: int,
    report_data: bytes | None,
    as_json: bool,
) -> None:
    """Verify an SGX or TDX quote: EVIDENCE is its bytes, or their hex or base64 text (- for stdin).

    Nothing is fetched: collateral is what you give. Exit 0 if the policy accepts the quote, 3 if it is refused.
    """
    quote: VerifiedQuote | None = None
    failures: list[VerificationError] = []
    warnings: list[str] = []
    with errors(as_json):  # what is left is no evidence: a file that cannot be opened
        try:
            extra = load_endorsements(endorsement)
            quote = verify_quote(
                quote=read_quote(evidence),
                collateral=load_collateral(collateral).merged(extra),
                trust_roots=[INTEL_SGX_ROOT, *trust_roots],
                now_ms=now_ms,
                tee=None if kind == "auto" else kind,
                endorsements=extra.certificates,
            )
        except VerificationError as error:
            failures.append(error)
        if quote is not None:
            claims = Claims(quote=quote, now_ms=now_ms)
            failures += quote_rules(policy, report_data=report_data).failures(claims)
            warnings += quote_warnings(policy, claims, report_data)
            if quote.root_label != INTEL_SGX_ROOT.label:
                warnings.append(f"genuine only under a root that --trust-root names: {quote.root_label}")
    verdict = quote_verdict(policy=policy, now_ms=now_ms, quote=quote, failures=failures, warnings=warnings)
    _show(verdict, as_json)
    sys.exit(EXIT_REFUSED if failures else 0)


def _show(verdict: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(verdict)
    else:
        console = Console(highlight=False)
        with console.capture() as shown:
            console.print(verdict_screen(verdict, console.width))
        text, encoding = shown.get(), console.encoding
        if not console.is_terminal:
            text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        if not encoding.startswith("utf"):  # a verdict must not end in a traceback for its signs
            text = text.translate(PLAIN_SIGNS).encode(encoding, "replace").decode(encoding)
        sys.stdout.write(text)
