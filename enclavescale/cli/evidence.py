"""What commands that judge evidence share: the point in time, and roots that somebody names."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from schemas.errors import EnclaveScaleError
from verifier.errors import TrustRootInvalid
from verifier.trust.certificate import Certificate
from verifier.trust.load import load_endorsements
from verifier.trust.roots import INTEL_ROLES, INTEL_SGX_ROOT, SIMULATED_ROLES, TrustAnchor
from verifier.trust.selection import key_of

F = TypeVar("F", bound=Callable[..., Any])

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


def trust_root_option(function: F) -> F:
    """The option --trust-root; the command gets `trust_roots`, anchors beside Intel's. A warning goes to stderr."""
    return click.option(
        "--trust-root",
        "trust_roots",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_anchors,
        help="Trust this root too, beside Intel's: a certificate, PEM or DER.",
    )(function)


def _anchors(context: click.Context, parameter: click.Parameter, paths: Sequence[Path]) -> list[TrustAnchor]:
    found = []
    for path in paths:
        try:
            held = load_endorsements([path])
        except EnclaveScaleError as error:
            raise click.BadParameter(f"{path}: {error}") from error
        for _, wrong in held.unreadable_certificates:
            raise click.BadParameter(f"{path}: {wrong}")
        if len(held.certificates) != 1 or held.crls:
            raise click.BadParameter(f"{path}: not exactly one certificate")
        found.append(_anchor(path, held.certificates[0]))
    return found


def _anchor(path: Path, root: Certificate) -> TrustAnchor:
    if root.is_ca is not True or root.subject != root.issuer or not root.signed_by(root):
        raise click.BadParameter(f"{path}: {root.common_name!r} is not a root: a CA that signs itself")
    try:
        key_of(root.spki)
    except TrustRootInvalid as error:
        raise click.BadParameter(f"{path}: {error}") from error
    digest = hashlib.sha256(root.spki).hexdigest()
    if root.spki == INTEL_SGX_ROOT.spki:
        return INTEL_SGX_ROOT
    simulated = root.common_name == SIMULATED_ROLES.root
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
