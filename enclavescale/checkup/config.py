"""The configuration file: is it one, does it make sense, and are its secrets safe?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from enclavescale.agent.file import ProduceSpec, check_spec, load_spec
from enclavescale.checkup.finding import Finding, failed, ok, some, warn
from enclavescale.settings import kafka_properties, load_file
from schemas.errors import ConfigError

_SECRET = ("password", "secret", "key.pem", "oauthbearer.config")


@dataclass(slots=True)
class Loaded:
    """What the file says, each part None where it could not be read."""

    spec: ProduceSpec | None = None
    kafka: Mapping[str, str] | None = None


def check_config(path: Path, into: Loaded, environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Read the file into `into`."""
    try:
        table = load_file(path)
    except ConfigError as error:
        yield failed("config.file", error)
        return
    try:
        spec = load_spec(table)
        check_spec(spec)
        into.spec = spec
        hosts = ", ".join(f"{host.host_id} ({host.source})" for host in spec.hosts[:3])
        more = f" and {len(spec.hosts) - 3} more" if len(spec.hosts) > 3 else ""
        yield ok("config.file", f"{path}: {hosts}{more}")
    except ConfigError as error:
        yield failed("config.file", error)
    try:
        into.kafka = kafka_properties(None, (), table, environment)
        yield ok("config.kafka", f"{some(len(into.kafka), 'setting')} for {into.kafka['bootstrap.servers']}")
    except ConfigError as error:
        yield failed("config.kafka", error)
    yield from _secrets(path, table)


def _secrets(path: Path, table: Mapping[str, object]) -> Iterator[Finding]:
    """Secrets in a file that others may read. Their names are shown, their values never."""
    try:
        given = kafka_properties("none", (), table, {})
    except ConfigError:
        return
    names = sorted(name for name in given if any(word in name for word in _SECRET))
    registry = table.get("registry")
    if isinstance(registry, Mapping) and "@" in str(registry.get("url", "")):
        names.append("registry.url")
    if names and path.stat().st_mode & 0o007:
        remedy = f"chmod 0640 {path}, or put them into the environment: ENCLAVESCALE_KAFKA_SASL_PASSWORD and the like."
        yield warn("config.secrets", f"{', '.join(names)} in a file that others may read", remedy)
