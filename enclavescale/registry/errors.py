"""What can go wrong between us and a Schema Registry."""

from __future__ import annotations

from schemas.errors import EnclaveScaleError


class RegistryUnreachable(EnclaveScaleError):
    """No registry answered, or it said that it cannot just now."""

    code = "REGISTRY_UNREACHABLE"
    remedy = (
        "Check the registry's URL, the network and its certificate; what runs goes on without it. To start without it, "
        "name a file of ids with --schema-ids."
    )


class RegistryRefused(EnclaveScaleError):
    """The registry answered, and not with what was asked for."""

    code = "REGISTRY_REFUSED"
    remedy = "Check user and password, this client's rights, and that the URL is that of a Confluent-compatible API."


class SchemaNotRegistered(EnclaveScaleError):
    """A topic's schema is not in the registry; nothing registers at run time."""

    code = "SCHEMA_NOT_REGISTERED"
    remedy = "Run `enclavescale schemas register` with an account that may write, then start again."
