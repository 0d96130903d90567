"""The command line. Results on stdout, logs on stderr; exit codes 0 ok, 1 failure, 2 usage, 3 refused."""

from __future__ import annotations

import click

from enclavescale.cli.access import access
from enclavescale.cli.audit import audit_group
from enclavescale.cli.bench import bench_group
from enclavescale.cli.collateral import collateral
from enclavescale.cli.common import EXIT_CODES
from enclavescale.cli.doctor import doctor
from enclavescale.cli.export import export
from enclavescale.cli.policy import policy_group
from enclavescale.cli.read import show, tail
from enclavescale.cli.replay import replay
from enclavescale.cli.run import demo, produce_command
from enclavescale.cli.schemas import schemas
from enclavescale.cli.serve import serve
from enclavescale.cli.spdm import spdm
from enclavescale.cli.synthesize import synthesize_command
from enclavescale.cli.top import top
from enclavescale.cli.topics import topics
from enclavescale.cli.verify import verify
from enclavescale.cli.worker import worker
from enclavescale.logs import set_up


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="enclavescale")
@click.option("-v", "--verbose", is_flag=True, help="Log more, the client library's own messages included.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of logs on stderr."
)
@click.pass_context
def main(context: click.Context, verbose: bool, log_format: str) -> None:
    """Attested, differentially private GPU power telemetry on Apache Kafka."""
    context.obj = verbose
    set_up(verbose, log_format == "json")


for _command in (
    demo,
    produce_command,
    worker,
    serve,
    top,
    tail,
    show,
    export,
    replay,
    topics,
    schemas,
    access,
    verify,
    collateral,
    spdm,
    doctor,
    synthesize_command,
):
    main.add_command(_command)
main.add_command(audit_group, "audit")
main.add_command(bench_group, "bench")
main.add_command(policy_group, "policy")

__all__ = ["main"]
