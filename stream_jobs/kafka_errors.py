"""Brokers that do not let a client in, or not at this: three errors, whichever of the two clients met them."""

from __future__ import annotations

import re

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import EnclaveScaleError


class TlsFailed(EnclaveScaleError):
    """No connection by TLS: a certificate is not believed, has ended or names another host, here or there."""

    code = "TLS_FAILED"
    remedy = (
        "Compare ssl.ca.location with the authority of the brokers' certificates, the name in bootstrap.servers with "
        "theirs, and the end of all certificates, this client's own included (docs/security.md)."
    )


class AuthenticationFailed(EnclaveScaleError):
    """The brokers do not believe who this client says it is."""

    code = "AUTHENTICATION_FAILED"
    remedy = (
        "Check sasl.mechanism, sasl.username and the password or token; after a password was changed, the file it is "
        "read from (docs/security.md)."
    )


class NotAuthorized(EnclaveScaleError):
    """The brokers know this client and do not allow it what it asks for."""

    code = "NOT_AUTHORIZED"
    remedy = "Grant its role to this principal: `enclavescale access apply --role ROLE --principal User:NAME`."


_DENIED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
_NOT_BELIEVED = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
)
_AIO_DENIED = (
    "TopicAuthorizationFailedError",
    "GroupAuthorizationFailedError",
    "ClusterAuthorizationFailedError",
    "TransactionalIdAuthorizationFailed",
)
_AIO_NOT_BELIEVED = (
    "AuthenticationFailedError",
    "SaslAuthenticationFailed",
    "UnsupportedSaslMechanismError",
    "IllegalSaslStateError",
)
"""aiokafka's errors by name: most commands have no need of that client and would wait for it to load."""

_ALERT = "ssl/tls alert"
"""In librdkafka's messages: an alert that comes after the handshake is to it a connection that ended."""


_DETAIL = re.compile(r" \(after \d+ms in state \w+[^)]*\)$")
"""The state machine's part of librdkafka's messages."""


def access_error(error: object) -> EnclaveScaleError | None:
    """A client library's error as one of the three; None where it is of another kind."""
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    if isinstance(error, KafkaError):
        return _of_librdkafka(error)
    if isinstance(error, BaseException) and type(error).__module__ == "aiokafka.errors":
        name = type(error).__name__
        if name in _AIO_DENIED:
            return NotAuthorized(str(error) or name)
        if name in _AIO_NOT_BELIEVED:
            return AuthenticationFailed(str(error) or name)
    return None


def _of_librdkafka(error: KafkaError) -> EnclaveScaleError | None:
    text = _DETAIL.sub("", error.str())
    if error.code() in _DENIED:
        return NotAuthorized(text)
    if error.code() in _NOT_BELIEVED:
        return AuthenticationFailed(text)
    if error.code() == KafkaError._SSL or _ALERT in text:
        return TlsFailed(text)
    return None


def read_refusal(error: KafkaError) -> NotAuthorized | None:
    """Of a message's error, for a reader outside of every group: that it may not read, which no waiting changes.

    librdkafka looks for a coordinator although nobody uses the group; that it may not is no refusal.
    """
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return NotAuthorized(error.str())
    return None


def access_error_behind(error: BaseException) -> EnclaveScaleError | None:
    """The first error of the three in a chain of causes, with what the outermost one says of the place."""
    at: BaseException | None = error
    while at is not None:
        found = access_error(at)
        if found is not None:
            field = error.field if isinstance(error, EnclaveScaleError) else None
            return found if at is error else type(found)(str(error), field=field)
        at = at.__cause__
    return None
