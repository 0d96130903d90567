"""Is there a cluster, and has it the topic? Bounded waits, and the reason where the client library knows it."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaException

from enclavescale.errors import ClusterUnreachable, TopicFailed

REACH_S = 10.0
"""Longest wait for a first answer of a cluster, s."""


def metadata(client: Any, topic: str | None = None) -> Any:
    """Metadata of a cluster, from a consumer or an admin client. Raises ClusterUnreachable within `REACH_S`."""
    try:
        return client.list_topics(topic, timeout=REACH_S) if topic else client.list_topics(timeout=REACH_S)
    except KafkaException as error:
        cause = error.args[0].str() if error.args and hasattr(error.args[0], "str") else str(error)
        raise ClusterUnreachable(f"no broker answered within {REACH_S:.0f} s: {cause}") from error


def partitions_of_topic(client: Any, topic: str) -> list[int]:
    """Numbers of a topic's partitions. Raises TopicFailed if there is no such topic."""
    found = metadata(client, topic).topics[topic]
    if found.error is not None or not found.partitions:
        reason = found.error.str() if found.error is not None else "no partitions"
        raise TopicFailed(f"{topic}: {reason}", field=topic)
    return sorted(found.partitions)
