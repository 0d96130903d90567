"""`enclavescale serve`: the page that a person on call looks at."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import click

from enclavescale.cli.common import EXIT_CODES, Cluster, cluster_options, errors, json_option, say
from enclavescale.cli.policy_options import points
from enclavescale.cli.registry_options import OpenRegistry, registry_options
from enclavescale.endpoint import parse_address
from enclavescale.errors import ClusterUnreachable
from enclavescale.reach import partitions_of_topic
from enclavescale.registry.ids import open_framing
from enclavescale.watching import Watching
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.reading import open_reader

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog=EXIT_CODES)
@cluster_options
@registry_options
@click.option(
    "--policy-signer",
    "signers",
    multiple=True,
    metavar="HEX",
    help="Trusted policy signer: outputs are verified under its policies. Without one they are shown as not verified.",
)
@click.option("--min-policy-counter", default=0, show_default=True, help="Refuse older policies.")
@click.option("--listen", default="127.0.0.1:8480", show_default=True, metavar="HOST:PORT", help="Where.")
@click.option("--token-file", type=_FILE, help="Ask for this bearer token; also ENCLAVESCALE_PAGE_TOKEN.")
@click.option("--tls-cert", type=_FILE, help="Serve HTTPS with this certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, help="Its key (PEM, not encrypted).")
@click.option("--client-ca", type=_FILE, help="Ask every client for a certificate of these authorities (PEM).")
@click.option("--host-name", "host_names", multiple=True, metavar="NAME", help="Answer to this name, too.")
@click.option("--history", default=360, show_default=True, type=click.IntRange(1, 10_000), help="Windows per domain.")
@click.option("--max-readers", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Pages at a time.")
@click.option("--unsafe-public", is_flag=True, help="Listen beyond loopback without token or client certificates.")
@json_option
def serve(
    cluster: Cluster,
    registry: OpenRegistry,
    signers: tuple[str, ...],
    min_policy_counter: int,
    listen: str,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    host_names: tuple[str, ...],
    history: int,
    max_readers: int,
    unsafe_public: bool,
    as_json: bool,
) -> None:
    """Serve the page: live power, margin, refusals and what is wrong, from the output topic; until SIGTERM.

    Reads all partitions outside of every consumer group and commits nothing. Figures are shown as facts only where
    signature, evidence and policy of their output verify (--policy-signer). SIGHUP reads token and certificates again.
    """
    from enclavescale.page.app import Page  # noqa: PLC0415  aiohttp is slow to load
    from enclavescale.page.guard import Access, read_token  # noqa: PLC0415
    from enclavescale.page.serving import Serving, serve_page  # noqa: PLC0415

    with errors(as_json):
        host, port = parse_address(listen)
        access = Access(
            token_file=token_file,
            tls_cert=tls_cert,
            tls_key=tls_key,
            client_ca=client_ca,
            host_names=host_names,
            unsafe_public=unsafe_public,
        )
        access.check(host, read_token(token_file))  # before anything is asked of a broker
        trust = PolicyTrust(points(signers), min_policy_counter) if signers else None
        if trust is None:
            click.echo("No --policy-signer: outputs are shown without being verified.", err=True)
        framing = open_framing(registry(), cluster.names)
        kafka = _kafka(cluster)

        def started(url: str) -> None:
            if as_json:
                say({"url": url})
            else:
                click.echo(f"The page is at {url}")

        with Watching(kafka, cluster.names, trust, keep=history, framing=framing) as watching:
            page = Page(watching.board, max_readers=max_readers, reading=lambda: watching.alive)
            asyncio.run(serve_page(page, Serving(host=host, port=port, access=access, on_start=started)))


def _kafka(cluster: Cluster) -> dict[str, str]:
    """The client's properties. Raises what no waiting changes: no access, a right that is missing, no such topic.

    Brokers that are away are no reason not to start: that is when somebody looks at the page, and it says so.
    """
    try:
        kafka = cluster.quiet_properties("page")
        with contextlib.closing(open_reader(kafka)) as reader:
            partitions_of_topic(reader, cluster.names.output)
    except ClusterUnreachable as error:
        click.echo(f"{error.code}: {error}\nThe page starts, and says so until a broker answers.", err=True)
        return cluster.silent_properties()
    return kafka
