"""Every number the log adapter and Faust run with, each with its unit and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How the worker reads its log. Times in seconds, sizes in bytes."""

    # --- the group -------------------------------------------------------------------------------------------
    session_timeout_s: float = 10.0
    """A killed worker's partitions stand still this long. Faust's 60 s would be six windows of 10 s; below about
    6 s a full garbage collection or a stopped virtual machine looks like a death."""
    heartbeat_interval_s: float = 3.0
    """A third of the session: two may be lost."""
    rebalance_timeout_s: float = 30.0
    """How long the group waits for a member to give its partitions up; ours takes at most `revoke_wait_s` twice."""
    request_timeout_s: float = 30.0
    """One request to a broker; must exceed the session (Faust checks) and a leader election (a few seconds)."""
    max_poll_interval_s: float = 300.0
    """aiokafka leaves the group when nothing was fetched for so long: a last resort behind `stall_timeout_s`."""
    revoke_wait_s: float = 1.0
    """At a revocation: bound for the record in hand to finish, and again for the last commit. Others wait for us."""
    start_timeout_s: float = 60.0
    """For reading the committed offsets and bounds at an assignment; as long as a leader election may take."""

    # --- commits and watch -----------------------------------------------------------------------------------
    commit_interval_s: float = 1.0
    """At most one commit per so long: a restart reads at most a second again on top of the resume offset."""
    commit_timeout_s: float = 5.0
    """One try; the coordinator answers in milliseconds or is being elected."""
    commit_deadline_s: float = 60.0
    """Retriable failures in a row for so long stop the worker: its resume offset is no longer kept anywhere."""
    tick_interval_s: float = 1.0
    """Jobs are ticked, ends asked for and metrics set so often: the panes' second."""
    nudge_s: float = 3.0
    """Input is there, nothing arrives and nothing is pending for so long: seek again. Above the fetch's 1.5 s wait."""
    stall_timeout_s: float = 60.0
    """Input is there and nothing was processed for so long: exit 1. Longer than any publish timeout of a job."""
    unreachable_timeout_s: float = 300.0
    """No broker told us the end of our partitions for so long: exit 1 (the client itself may be what is stuck)."""
    stop_timeout_s: float = 5.0
    """From SIGTERM to the end of the process, by force if need be; Kubernetes' default grace is 30."""

    # --- memory ----------------------------------------------------------------------------------------------
    max_record_bytes: int = 512 * 1024
    """`max.message.bytes` of the reports topic: the largest evidence bundle."""
    buffer_bytes: int = 512 * 1024 * 1024
    """Worst case in Faust's buffer, which counts messages: 1024 of the largest. Usual records are 2 KB: 2 MB."""
    pending_bytes: int = 8 * 1024 * 1024
    """Taken from Faust and not yet processed; the event loop stops taking beyond it."""
    batch_records: int = 256
    """Records per hop to the job's thread; a revocation waits for one record of them only."""
    linger_s: float = 0.005
    """Wait so long for more records before a hop: without it two or three records share one, which costs a third of
    the rate; nothing downstream is quicker than a window."""
    fetch_bytes: int = 1024 * 1024
    """Per partition and fetch; one largest record always passes (Kafka's own rule)."""

    # --- bypasses --------------------------------------------------------------------------------------------
    unsafe_allow_create_time: bool = False
    """Accept records without the broker's append time (the demo's mock cluster makes none). CLOCK_SKEW then rests
    on the producers' word."""
    hard_exit: bool = True
    """End the process by force when `stop_timeout_s` has passed; False only where several workers share a process."""


def faust_settings(log: LogSettings, *, group: str, brokers: list[str], datadir: Path) -> dict[str, Any]:
    """Return the settings of `faust.App`, all that matter, spelled out; the rest is never reached."""
    return {
        "id": group,  # also the consumer group's name; Faust appends no version while `version` is 1
        "broker": brokers,
        "datadir": str(datadir),  # its own for each process: two workers sharing one corrupt each other
        "autodiscover": False,
        "origin": None,
        # Nothing listens: metrics and health are ours, on an address somebody chose.
        "web_enabled": False,
        "topic_allow_declare": False,  # topics are declared by us, never as a side effect of reading
        "topic_disable_leader": True,  # no internal leader topic
        # Faust tracks and commits nothing (acks=False on the topic); these would be its ways to wait and to commit.
        "stream_wait_empty": False,
        "broker_commit_interval": 3600.0,
        "broker_commit_every": None,
        "broker_commit_livelock_soft_timeout": 1e9,  # it would complain that Faust never commits: that is the point
        "stream_processing_timeout": 1e9,  # ditto about idle partitions; `stall_timeout_s` watches lag instead
        "processing_guarantee": "at_least_once",
        "stream_recovery_delay": 0.0,
        "stream_buffer_maxsize": max(16, log.buffer_bytes // log.max_record_bytes),
        "broker_session_timeout": log.session_timeout_s,
        "broker_heartbeat_interval": log.heartbeat_interval_s,
        "broker_rebalance_timeout": log.rebalance_timeout_s,
        "broker_request_timeout": max(log.request_timeout_s, log.session_timeout_s),
        "broker_max_poll_interval": log.max_poll_interval_s,
        "broker_max_poll_records": 512,  # what one pass moves: bounds how long a rebalance waits for the loop
        "broker_check_crcs": True,
        "consumer_max_fetch_size": log.fetch_bytes,
        # For a partition without a commit, until ours is made; a position out of range shows as a gap and is then
        # INPUT_LOST, never a silent jump.
        "consumer_auto_offset_reset": "earliest",
        "worker_redirect_stdouts": False,
        "key_serializer": "raw",
        "value_serializer": "raw",  # Faust decodes nothing: one bad value would restart the agent
        "table_standby_replicas": 0,  # and no tables at all: aiokafka's round-robin assignor is used
    }
