"""What commands that judge evidence share: time, roots, policy, what was asked for, and how a verdict is shown."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from enclavescale.cli.common import say
from enclavescale.judging.inputs import USES, NamedRoot
from enclavescale.settings import load_file
from enclavescale.verdict_screen import PLAIN_SIGNS, verdict_screen
from schemas.errors import ConfigError, EnclaveScaleError
from verifier.errors import PolicyInvalid
from verifier.policy.quote import BUILT_IN, QuotePolicy, parse_quote_policy
from verifier.policy.quote_file import read_report_data
from verifier.trust.certificate import Certificate, key_kind
from verifier.trust.load import load_endorsements
from verifier.trust.roots import INTEL_ROLES, INTEL_SGX_ROOT, SIMULATED_ROLES, TrustAnchor
from verifier.trust.vendors import BUILT_IN_ROOTS

F = TypeVar("F", bound=Callable[..., Any])

SIMULATED = "EnclaveScale SIMULATED"
"""How the name of a root begins that stands for no hardware."""

NONCE_BYTES = 32
"""Of every nonce in SPDM, and in what NVIDIA's devices answer."""

_KEYS = ("secp256r1", "secp384r1", "secp521r1", "rsa2048", "rsa3072", "rsa4096")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX = re.compile(r"[0-9]{1,11}")
_MILLISECONDS = re.compile(r"[0-9]{12,14}")
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


class Moment(click.ParamType):
    """A point in time as UTC milliseconds: RFC 3339 with its zone, or Unix seconds. Never this machine's zone."""

    name = "RFC3339|UNIX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds of a text; a number stays one."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if _UNIX.fullmatch(text):
            return int(text) * 1000
        if _MILLISECONDS.fullmatch(text):
            self.fail(f"{text} looks like milliseconds; give Unix seconds", param, ctx)
        match = _RFC3339.fullmatch(text)
        if match is None:
            self.fail(f"{text!r} is neither RFC 3339, as 2026-01-31T12:00:00Z, nor Unix seconds", param, ctx)
        if match[2] is None:
            self.fail(f"{text} has no zone; write {text}Z for UTC, or its offset, as +01:00", param, ctx)
        try:
            moment = datetime.fromisoformat(text.upper()).astimezone(UTC)  # OverflowError: no year of UTC holds it
            return (moment - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError) as error:
            self.fail(f"{text}: {error}", param, ctx)


def _or_now(context: click.Context, parameter: click.Parameter, value: int | None) -> int:
    return time.time_ns() // 1_000_000 if value is None else value


def at_option(function: F) -> F:
    """The option --at; the command gets `now_ms`, UTC milliseconds."""
    return click.option(
        "--at",
        "now_ms",
        type=Moment(),
        callback=_or_now,
        help="Judge as of this time, not now: RFC 3339 with its zone.",
    )(function)


def nonce_option(function: F) -> F:
    """The option --nonce; the command gets `nonces`, 32 bytes each."""
    return click.option(
        "--nonce",
        "nonces",
        multiple=True,
        metavar="HEX",
        callback=_nonces,
        help="What the device was challenged with, 32 bytes. For SPDM repeatable: one for each challenge.",
    )(function)


def _nonces(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[bytes]:
    found = []
    for value in values:
        try:
            found.append(bytes.fromhex(value.removeprefix("0x")))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not hexadecimal") from None
        if len(found[-1]) != NONCE_BYTES:
            raise click.BadParameter(f"a nonce of {len(found[-1])} bytes; it has {NONCE_BYTES}")
    return found


def trust_root_option(function: F) -> F:
    """The option --trust-root; the command gets `trust_roots`, beside the vendors'. A warning goes to stderr."""
    return click.option(
        "--trust-root",
        "trust_roots",
        multiple=True,
        metavar="[USE=]FILE",
        callback=_roots,
        help="Trust this root too, beside the vendors' own: a certificate, PEM or DER. "
        f"USE: {', '.join(USES)}; without it, for what the kind of evidence hangs on.",
    )(function)


def _roots(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[NamedRoot]:
    found = []
    for value in values:
        use, separator, name = value.partition("=")
        if not separator or use not in USES:
            use, name = "", value
        path = Path(name)
        if not path.is_file():
            raise click.BadParameter(f"{name!r} is no file")
        try:
            held = load_endorsements([path])
        except EnclaveScaleError as error:
            raise click.BadParameter(str(error)) from error
        if len(held.certificates) != 1 or held.crls:
            raise click.BadParameter(f"{path}: not exactly one certificate")
        found.append(NamedRoot(use=use or None, anchor=_anchor(path, held.certificates[0])))
    return found


def _anchor(path: Path, root: Certificate) -> TrustAnchor:
    if root.is_ca is not True or root.subject != root.issuer or not root.signed_by(root):
        raise click.BadParameter(f"{path}: {root.common_name!r} is not a root: a CA that signs itself")
    if key_kind(root) not in _KEYS:
        raise click.BadParameter(f"{path}: a root with a key {key_kind(root)}; {', '.join(_KEYS)} are verified")
    digest = hashlib.sha256(root.spki).hexdigest()
    if root.spki == INTEL_SGX_ROOT.spki:
        return INTEL_SGX_ROOT
    built_in = next((one.label for one in BUILT_IN_ROOTS if one.spki == root.spki), None)
    if built_in is not None:  # trusted anyway, for what its vendor uses it for and nothing else
        return TrustAnchor(label=built_in, spki=root.spki, simulated=False, roles=INTEL_ROLES)
    simulated = root.common_name.startswith(SIMULATED)
    click.echo(
        f"WARNING: {path} is trusted as a root, because --trust-root names it: {root.common_name!r}, "
        f"SHA-256 of its key {digest}. Whoever holds that key can forge any verdict.",
        err=True,
    )
    return TrustAnchor(
        label=f"{path.name}:{digest[:16]}",
        spki=root.spki,
        simulated=simulated,
        roles=SIMULATED_ROLES if simulated else INTEL_ROLES,
    )


def policy_of(context: click.Context, parameter: click.Parameter, value: str) -> QuotePolicy:
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


def report_data_of(context: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    """The 64 bytes of --report-data, None without it."""
    try:
        return None if value is None else read_report_data(value, "report data")
    except PolicyInvalid as error:
        raise click.BadParameter(str(error)) from error


def show_verdict(verdict: dict[str, Any], as_json: bool) -> None:
    """Print a verdict: as JSON, or as a screen as wide as the terminal."""
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
