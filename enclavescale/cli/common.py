"""What the commands share: exit codes, errors as messages, options that name a cluster and its topics."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from confluent_kafka import KafkaError, KafkaException

from enclavescale.access.cluster import require
from enclavescale.access.roles import grants_of, role_of
from enclavescale.errors import ClusterUnreachable
from enclavescale.reach import check
from enclavescale.settings import kafka_properties, load_file
from schemas.errors import ConfigError, EnclaveScaleError, SchemaError
from schemas.topics import TopicNames
from stream_jobs.kafka_errors import access_error, access_error_behind
from verifier.errors import VerificationError

EXIT_FAILURE, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3
EXIT_CODES = "Exit codes: 0 ok, 1 failure, 2 usage, 3 refused."

F = TypeVar("F", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A number between two bounds. click's own range lets NaN through, because no comparison with NaN holds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail for what is none, is NaN or lies outside."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


_UNREACHABLE = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)


def exit_code(error: EnclaveScaleError) -> int:
    """3 where evidence or a record was refused, 2 for what the user must correct, 1 otherwise."""
    if isinstance(error, VerificationError | SchemaError):
        return EXIT_REFUSED
    return EXIT_USAGE if isinstance(error, ConfigError) and error.code == "CONFIG_INVALID" else EXIT_FAILURE


def our_error(error: KafkaException) -> EnclaveScaleError:
    """The client library's error as one of ours; never shows a property's value."""
    refusal = access_error(error)
    if refusal is not None:
        return refusal
    cause = error.args[0] if error.args else None
    if not isinstance(cause, KafkaError):
        return ClusterUnreachable(str(error))
    if cause.code() in (KafkaError._INVALID_ARG, KafkaError._CONFLICT):
        text = re.sub(r'value "[^"]*"', "value", cause.str())
        return ConfigError(f"Kafka client: {text}", field="kafka")
    if cause.code() in _UNREACHABLE:
        return ClusterUnreachable(f"no broker answers: {cause.str()}")
    return ClusterUnreachable(cause.str())


def fail(error: EnclaveScaleError, as_json: bool) -> NoReturn:
    """Say what is wrong and what to do, on stderr and with --json also on stdout, and exit."""
    if as_json:
        click.echo(
            json.dumps({"error": error.code, "message": str(error), "field": error.field, "remedy": error.remedy})
        )
    click.echo(f"{error.code}: {error}\n{error.remedy}".rstrip(), err=True)
    sys.exit(exit_code(error))


@contextlib.contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turn errors into a message with a remedy, or a JSON object, and an exit code."""
    try:
        yield
    except EnclaveScaleError as error:
        fail(access_error_behind(error) or error, as_json)
    except KafkaException as error:
        fail(our_error(error), as_json)


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that the options name, and its topics."""

    names: TopicNames
    bootstrap: str | None
    config: Path | None
    pairs: tuple[str, ...]

    def properties(self) -> dict[str, str]:
        """librdkafka properties from options, file and environment. Raises ConfigError."""
        return kafka_properties(self.bootstrap, self.pairs, load_file(self.config) if self.config else None)

    def quiet_properties(self, role: str | None = None, group: str | None = None) -> dict[str, str]:
        """The same for a command that asks once: the client library keeps silent, what it says is in our message.

        The cluster has answered and, where `role` is given, allows what that role needs. Raises ConfigError,
        ClusterUnreachable, AuthenticationFailed, TlsFailed, NotAuthorized.
        """
        properties = self.silent_properties()
        admin = check(properties)
        if role is not None:
            require(admin, grants_of(role_of(role), self.names, group), role)
        return properties

    def silent_properties(self) -> dict[str, str]:
        """The same without asking a broker; with -v the client library says what it meets. Raises ConfigError."""
        verbose = bool(click.get_current_context().obj)
        return self.properties() if verbose else {"log_level": "0", **self.properties()}


def _names(prefix: str, pairs: tuple[str, ...]) -> TopicNames:
    given = dict(pair.partition("=")[::2] for pair in pairs)
    roles = [one.name for one in dataclasses.fields(TopicNames)]
    for role, name in given.items():
        if role not in roles or not name:
            raise click.BadParameter(
                f"{role!r}: give ROLE=NAME, with one of {', '.join(roles)}", param_hint="--topic-name"
            )
    return dataclasses.replace(TopicNames.with_prefix(prefix), **given)


def topic_options(function: F) -> F:
    """Options that name the topics; the command gets `names`."""

    @functools.wraps(function)
    def wrapped(*args: Any, topic_prefix: str, topic_name: tuple[str, ...], **kwargs: Any) -> Any:
        return function(*args, names=_names(topic_prefix, topic_name), **kwargs)

    for option in (
        click.option(
            "--topic-name",
            multiple=True,
            metavar="ROLE=NAME",
            help="Name of one topic: reports, output, manifests, rejections, policy, collateral, beacons.",
        ),
        click.option("--topic-prefix", default="enclavescale", show_default=True, help="First part of topic names."),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def cluster_options(function: F) -> F:
    """Options that name a cluster and its topics; the command gets `cluster`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any,
        bootstrap: str | None,
        kafka_config: Path | None,
        kafka: tuple[str, ...],
        names: TopicNames,
        **kwargs: Any,
    ) -> Any:
        return function(*args, cluster=Cluster(names, bootstrap, kafka_config, kafka), **kwargs)

    result = topic_options(wrapped)
    for option in (
        click.option(
            "-K",
            "--kafka",
            multiple=True,
            metavar="NAME=VALUE",
            help="Any librdkafka property; secrets come from files (sasl.password.file=PATH) or the environment.",
        ),
        click.option(
            "--kafka-config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="TOML or JSON file with a table `kafka`.",
        ),
        click.option("--bootstrap", metavar="HOST:PORT", help="Brokers; there is no default."),
    ):
        result = option(result)
    return result  # type: ignore[return-value]


def json_option(function: F) -> F:
    """The option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(function)


def say(value: object) -> None:
    """One JSON value on one line of stdout."""
    click.echo(json.dumps(value))
