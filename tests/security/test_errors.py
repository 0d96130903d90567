"""Errors of both client libraries as ours, by what they are; causes are found behind our own."""

from __future__ import annotations

import aiokafka.errors
import pytest
from confluent_kafka import KafkaError, KafkaException

from enclavescale.errors import TopicFailed
from stream_jobs import kafka_errors
from stream_jobs.kafka_errors import access_error, access_error_behind, read_refusal

ALERT = "ssl://a:1/bootstrap: Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed", "NOT_AUTHORIZED"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "Group authorization failed", "NOT_AUTHORIZED"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed", "NOT_AUTHORIZED"),
        (KafkaError._AUTHENTICATION, "SASL authentication error", "AUTHENTICATION_FAILED"),
        (KafkaError._SSL, "SSL handshake failed", "TLS_FAILED"),
        (KafkaError._TRANSPORT, ALERT, "TLS_FAILED"),
        (KafkaError._TRANSPORT, "Connection refused", None),
        (KafkaError._TRANSPORT, "SSL handshake failed: Disconnected: connecting to a broker that restarts?", None),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "Unknown topic", None),
    ],
)
def test_librdkafkas_errors(code: int, text: str, expected: str | None) -> None:
    found = access_error(KafkaException(KafkaError(code, f"{text} (after 312ms in state AUTH_REQ)")))
    assert (found.code if found else None) == expected
    assert found is None or str(found) == text


@pytest.mark.parametrize("name", [*kafka_errors._AIO_DENIED, *kafka_errors._AIO_NOT_BELIEVED])
def test_aiokafkas_errors_exist_under_these_names(name: str) -> None:
    found = access_error(getattr(aiokafka.errors, name)("topic"))
    assert found is not None
    assert found.code == ("NOT_AUTHORIZED" if name in kafka_errors._AIO_DENIED else "AUTHENTICATION_FAILED")
    assert "topic" in str(found)


def test_other_errors_are_none_of_them() -> None:
    assert access_error(aiokafka.errors.KafkaTimeoutError()) is None
    assert access_error(ValueError("TopicAuthorizationFailedError")) is None
    assert access_error(None) is None


def test_a_cause_is_found_and_the_place_kept() -> None:
    try:
        try:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        except KafkaException as cause:
            raise TopicFailed("fleet: denied", field="fleet") from cause
    except TopicFailed as error:
        found = access_error_behind(error)
    assert found is not None
    assert (found.code, str(found), found.field) == ("NOT_AUTHORIZED", "fleet: denied", "fleet")
    assert access_error_behind(TopicFailed("missing")) is None


def test_a_group_that_nobody_uses_is_no_refusal_to_a_reader() -> None:
    assert read_refusal(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)) is None
    assert read_refusal(KafkaError(KafkaError._ALL_BROKERS_DOWN)) is None
    assert read_refusal(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)) is not None
