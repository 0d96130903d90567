"""`enclavescale policy revoke`: the newest policy with something revoked, ready to be signed."""

from __future__ import annotations

from pathlib import Path

import click

from enclavescale.cli.common import EXIT_CODES, Cluster, cluster_options, errors, json_option, say
from enclavescale.cli.policy_options import FILE, NEW_FILE, held_or_newest, points, signers_option
from enclavescale.policy.document import to_json, to_toml
from enclavescale.policy.errors import PolicyRefused
from enclavescale.policy.files import write_new
from enclavescale.policy.held import UNSIGNED
from enclavescale.policy.revoke import named, unknown_to, with_revoked
from schemas.errors import ConfigError
from verifier.policy.subjects import KINDS

HELP = {
    "host": "A host or worker, by its id.",
    "session": "A session, by its id (hexadecimal).",
    "measurement": "Measured code, by its label.",
    "platform": "A machine, by its platform id (hexadecimal).",
    "gpu": "A device, by the digest of its leaf key (hexadecimal).",
    "root": "A root of trust, by its label.",
}


@click.command("revoke", epilog=EXIT_CODES)
@click.argument("file", required=False, type=FILE)
@click.option("-o", "--out", required=True, type=NEW_FILE, help="The new document (TOML; JSON with the suffix .json).")
@click.option("--reason", required=True, help="For people; stands in the policy.")
@cluster_options
@signers_option(required=False)
@json_option
def revoke_command(
    file: Path | None,
    out: Path,
    reason: str,
    cluster: Cluster,
    signers: tuple[str, ...],
    as_json: bool,
    **given: tuple[str, ...],
) -> None:
    """Write the policy of FILE, or without it the newest on the policy topic, with something more revoked.

    It trusts nothing that its predecessor did not, and is to be signed and applied like every policy. What is revoked
    counts no longer from there on, and leaves every window that may still be revised.
    """
    with errors(as_json):
        subjects = [named(kind, one) for kind in KINDS for one in given[kind]]
        if not subjects:
            raise ConfigError(f"give what is revoked: --{', --'.join(KINDS)}", field="host")
        held = held_or_newest(file, cluster, points(signers))
        if not held.believed and held.signature != UNSIGNED:
            raise PolicyRefused(f"{held.origin}: its signature: {held.signature}", code="POLICY_UNTRUSTED")
        policy, new = with_revoked(held.policy, subjects, reason)
        strange = list(unknown_to(held.policy, new))
        if not new:
            raise ConfigError(
                f"{held.origin} revokes all of it already", field="host", remedy="There is nothing to do."
            )
        write_new(out, (to_json(policy) if out.suffix == ".json" else to_toml(policy)).encode())
        if as_json:
            pairs = [{"kind": kind, "id": one} for kind, one in new]
            unknown = [{"kind": kind, "id": one} for kind, one in strange]
            say({"file": str(out), "counter": held.policy.counter, "revoked": pairs, "unknown": unknown})
            return
        for kind, one in strange:
            click.echo(f"{kind} {one}: the policy names it nowhere else. Is it spelt right?", err=True)
        for kind, one in new:
            click.echo(f"revoked: {kind} {one}")
        click.echo(f"{out}: sign it (`enclavescale policy sign {out}`), then apply it")


for _kind in reversed(KINDS):
    revoke_command = click.option(f"--{_kind}", _kind, multiple=True, metavar="ID", help=HELP[_kind])(revoke_command)
