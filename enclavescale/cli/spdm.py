"""`enclavescale spdm`: ask a device for a signed measurement set, keep the transcript, and judge it."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from attester.spdm.emulator import EMULATED, Emulated, EmulatorTransport
from attester.spdm.errors import SpdmUnreachable
from attester.spdm.limits import Limits
from attester.spdm.recording import Recording
from attester.spdm.requester import DEFAULT_VERSIONS, Wish, record_evidence
from attester.spdm.tcp import DEFAULT_PORT, Length, TcpTransport
from attester.spdm.transport import Transport
from enclavescale.cli.common import EXIT_CODES, EXIT_REFUSED, FiniteRange, errors, json_option
from enclavescale.cli.evidence import (
    at_option,
    nonce_option,
    policy_of,
    report_data_of,
    show_verdict,
    trust_root_option,
)
from enclavescale.judging.inputs import SPDM, Inputs, NamedRoot
from enclavescale.judging.spdm import judge_spdm
from schemas.errors import ConfigError
from verifier.abi.spdm_fields import MAX_SLOT, NONCE_BYTES, VERSIONS
from verifier.nonces import CHALLENGE_INDEX, MEASUREMENTS_INDEX, device_nonce
from verifier.nonces import SPDM as SPDM_DEVICE
from verifier.policy.quote_policy import QuotePolicy
from verifier.trust.load import load_collateral

_VERSION_NAMES = {f"{one >> 4}.{one & 15}": one for one in VERSIONS}
Framing = Literal["dsp0287"] | Emulated
"""What stands around messages on the connection: the specification's TCP binding, or spdm-emu's own protocol."""

_NAMES = {version: name for name, version in _VERSION_NAMES.items()}


class Endpoint(click.ParamType):
    """HOST, HOST:PORT or [IPV6]:PORT; the port is SPDM's own unless given."""

    name = "HOST[:PORT]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """(host, port) of a text; a pair stays one."""
        if isinstance(value, tuple):
            return value
        text = str(value)
        host, separator, port = text.rpartition(":")
        if not separator or text.endswith("]"):
            host, port = text, str(DEFAULT_PORT)
        elif ":" in host and not host.startswith("["):
            self.fail(f"{text}: write an IPv6 address as [ADDRESS]:PORT", param, ctx)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            self.fail(f"{text!r} is not HOST:PORT", param, ctx)
        return host, int(port)


def _chosen_nonces(
    given: Sequence[bytes], report_data: bytes | None, subject: str | None, endpoint: tuple[str, int]
) -> tuple[bytes, bytes]:
    """Those given (CHALLENGE's, then GET_MEASUREMENTS'), those of a session, else fresh ones."""
    if given and (len(given) != 2 or given[0] == given[1]):
        raise click.UsageError("--nonce: give two that differ, for CHALLENGE and for GET_MEASUREMENTS.")
    if report_data is not None:
        if given:
            raise click.UsageError("--nonce and --report-data both say which nonces to send: give one of them.")
        named = subject if subject is not None else f"{endpoint[0]}:{endpoint[1]}"
        first, second = (
            device_nonce(report_data, SPDM_DEVICE, named, index) for index in (CHALLENGE_INDEX, MEASUREMENTS_INDEX)
        )
        return first, second
    if subject is not None:
        raise click.UsageError("--subject goes with --report-data.")
    return (given[0], given[1]) if given else (secrets.token_bytes(NONCE_BYTES), secrets.token_bytes(NONCE_BYTES))


@click.command(epilog=EXIT_CODES)
@click.argument("endpoint", type=Endpoint())
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the transcript here; `verify` reads it. It is written before it is judged.",
)
@trust_root_option
@click.option(
    "--policy",
    default="authentic",
    show_default=True,
    callback=policy_of,
    metavar="strict|authentic|FILE",
    help="As for `verify`.",
)
@at_option
@nonce_option
@click.option(
    "--report-data",
    metavar="HEX",
    callback=report_data_of,
    help="Derive both nonces from a session's report data, 64 bytes, and --subject.",
)
@click.option("--subject", metavar="TEXT", help="Name of the device in the session; HOST:PORT by default.")
@click.option(
    "--slot", type=click.IntRange(0, MAX_SLOT), default=0, show_default=True, help="Of the certificate chain."
)
@click.option(
    "--spdm-version",
    "versions",
    multiple=True,
    type=click.Choice(list(_VERSION_NAMES)),
    default=[_NAMES[one] for one in DEFAULT_VERSIONS],
    show_default=True,
    help="Version to offer; the highest that the device speaks, too, is taken.",
)
@click.option(
    "--framing",
    type=click.Choice(["dsp0287", *EMULATED]),
    default="dsp0287",
    show_default=True,
    help="SPDM over TCP, or the socket protocol of DMTF's spdm-emu by the transport that it emulates (its --trans).",
)
@click.option(
    "--length",
    type=click.Choice(["remainder", "message"]),
    default="remainder",
    show_default=True,
    help="What the payload length of a frame counts: all behind it, as DMTF's library, or the SPDM message alone.",
)
@click.option("--listen", is_flag=True, help="Wait at ENDPOINT for a device that calls and inquires for a requester.")
@click.option(
    "--timeout",
    type=FiniteRange(0.1, 3600.0),
    default=Limits().total_s,
    show_default=True,
    help="For the whole exchange, s.",
)
@click.option(
    "--round-trip",
    type=FiniteRange(0.01, 600.0),
    default=Limits().round_trip_s,
    show_default=True,
    help="For the network, per message, beside the time the device says it needs, s.",
)
@json_option
def spdm(
    endpoint: tuple[str, int],
    out: Path | None,
    trust_roots: Sequence[NamedRoot],
    policy: QuotePolicy,
    now_ms: int,
    nonces: Sequence[bytes],
    report_data: bytes | None,
    subject: str | None,
    slot: int,
    versions: Sequence[str],
    framing: Framing,
    length: Length,
    listen: bool,
    timeout: float,
    round_trip: float,
    as_json: bool,
) -> None:
    """Ask the device at ENDPOINT (HOST or HOST:PORT) over SPDM for its certificates and signed measurements.

    SPDM over TCP (DSP0287) unless --framing says otherwise. Nothing the device says is trusted until the transcript is
    verified, under the roots that --trust-root names. Exit 0 if the policy accepts the transcript, 3 if it is refused,
    1 if there is none.
    """
    if framing != "dsp0287" and (listen or length != "remainder"):
        raise click.UsageError("--listen and --length go with --framing dsp0287.")
    wish = Wish(
        nonces=_chosen_nonces(nonces, report_data, subject, endpoint),
        slot=slot,
        versions=[_VERSION_NAMES[one] for one in versions],
        limits=Limits(total_s=timeout, round_trip_s=round_trip),
    )
    with errors(as_json):
        recording = _record(_transport(endpoint, wish.limits, framing, length, listen), wish)
        transcript = recording.to_json()
        if out is not None:
            _write(out, transcript)
            click.echo(f"wrote {out}: {len(recording.messages)} messages, SPDM {_NAMES[recording.version]}", err=True)
        nothing = load_collateral(())
        verdict = judge_spdm(
            Inputs(
                data=transcript,
                kind=SPDM,
                collateral=nothing,
                endorsements=nothing,
                rims=(),
                trust_roots=tuple(trust_roots),
                policy=policy,
                now_ms=now_ms,
                report_data=None,
                nonces=wish.nonces,
            )
        )
    show_verdict(verdict, as_json)
    sys.exit(EXIT_REFUSED if verdict["errors"] else 0)


def _record(transport: Transport, wish: Wish) -> Recording:
    """One connection, one exchange."""
    with contextlib.closing(transport):
        return record_evidence(transport, wish)


def _transport(endpoint: tuple[str, int], limits: Limits, framing: Framing, length: Length, listen: bool) -> Transport:
    """A connection to the responder, called or waited for."""
    connect_s = min(limits.connect_s, limits.total_s)
    if framing != "dsp0287":
        return EmulatorTransport.connect(*endpoint, connect_s, framing=framing)
    if not listen:
        return TcpTransport.connect(*endpoint, connect_s, length=length)
    try:
        listener = socket.create_server(endpoint, family=socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET)
    except OSError as error:
        raise SpdmUnreachable(f"{endpoint[0]} port {endpoint[1]}: {error}", field="endpoint") from error
    with listener:
        return TcpTransport.accept(listener, limits.total_s, length=length)


def _write(out: Path, transcript: bytes) -> None:
    try:
        out.write_bytes(transcript)
    except OSError as error:
        raise ConfigError(
            f"{out}: {error.strerror}", field="--out", remedy="Name a file that can be written."
        ) from error
