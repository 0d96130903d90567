"""The worker's log metrics. Public by nature: offsets and counts of records, nothing of what is in them."""

from __future__ import annotations

import contextlib
from collections import Counter as Counted
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from stream_jobs.log_slots import HELD, Slot, SlotState, TopicPartition
from stream_jobs.metrics import Stages

_LABELS = ("topic", "partition")


class LogMetrics:
    """Gauges per assigned partition (removed when it is revoked) and counters that stay."""

    def __init__(self, registry: CollectorRegistry, stages: Stages | None = None) -> None:
        self.stages = stages or Stages(registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"enclavescale_log_{name}", text, _LABELS, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"enclavescale_log_{name}", text, labels, registry=registry)

        self._gauges = {
            "processing_lag": gauge("processing_lag_records", "High watermark minus the next offset to process"),
            "commit_lag": gauge("commit_lag_records", "Next offset to process minus the committed resume offset"),
            "processing_lag_s": gauge("processing_lag_seconds", "Age of what is to be processed next, at most"),
            "commit_lag_s": gauge("commit_lag_seconds", "Append time between the committed and the next offset"),
            "next": gauge("next_offset", "Next offset to process"),
            "committed": gauge("committed_offset", "Committed resume offset"),
            "high_watermark": gauge("high_watermark", "End of the partition as the broker said last"),
        }
        self.records = counter("records", "Records processed", *_LABELS)
        self.ignored = counter("ignored", "Deliveries dropped by offset or without a partition", *_LABELS)
        self.seeks = counter("seeks", "Positions set again, by reason", *_LABELS, "reason")
        self.gaps = counter("gaps", "Gaps in the offsets that persisted", *_LABELS)
        self.gap_records = counter("gap_offsets", "Offsets inside persistent gaps", *_LABELS)
        self.commits = counter("commits", "Commits by result (ok, lost, retry)", "result")
        self.assignments = counter("assignments", "Assignments received")
        self.partitions = Gauge(
            "enclavescale_log_partitions", "Partitions assigned by state", ["state"], registry=registry
        )
        self.failures = counter("failures", "What stopped this worker, by code", "code")

    def count_states(self, slots: Iterable[Slot]) -> None:
        """Say how many partitions are in which state."""
        states = Counted(slot.shown for slot in slots)
        for state in (*(one.value for one in SlotState), HELD):
            self.partitions.labels(state).set(states[state])

    def publish(self, slot: Slot, now_ms: int) -> None:
        """Set the gauges of one partition at a Unix time, ms."""
        if slot.state is not SlotState.READY:
            return
        slot.mark()
        values = {
            "processing_lag": slot.processing_lag,
            "commit_lag": slot.commit_lag,
            "processing_lag_s": slot.processing_lag_s(now_ms),
            "commit_lag_s": slot.commit_lag_s,
            "next": slot.done,
            "committed": slot.committed,
            "high_watermark": slot.high_watermark,
        }
        labels = slot.tp.topic, str(slot.tp.partition)
        for name, value in values.items():
            self._gauges[name].labels(*labels).set(value)
        for counter in (self.records, self.gaps, self.gap_records):
            counter.labels(*labels)  # from nought on: a counter that appears with its first gap shows no increase

    def remove(self, tp: TopicPartition) -> None:
        """Take a revoked partition's gauges away: a frozen lag on two workers helps nobody."""
        for gauge in self._gauges.values():
            with contextlib.suppress(KeyError):  # never published: revoked while starting
                gauge.remove(tp.topic, str(tp.partition))
