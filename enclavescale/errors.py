"""What can go wrong at the front door, beside what the rooms behind it raise."""

from __future__ import annotations

from schemas.errors import EnclaveScaleError


class ClusterUnreachable(EnclaveScaleError):
    """No broker answered in time."""

    code = "CLUSTER_UNREACHABLE"
    remedy = "Check bootstrap.servers, the network and security.protocol; -v shows what the client library says."


class TopicFailed(EnclaveScaleError):
    """A topic is missing, or the cluster refused an operation on it."""

    code = "TOPIC_FAILED"
    remedy = "Check the topic's name and this client's rights; on a small cluster create with a lower --replication."


class NotDelivered(EnclaveScaleError):
    """A bounded run of the host agent ended with reports that no broker has acknowledged."""

    code = "NOT_DELIVERED"
    remedy = "The reports are safe in the spool: start again with the same configuration when the brokers answer."


class DemoFailed(EnclaveScaleError):
    """The demo could not start one of its processes, or one of them ended."""

    code = "DEMO_FAILED"
    remedy = "The last log lines of the process are above; run the demo with fewer hosts if memory is short."
