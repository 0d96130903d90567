"""One reading of the sensor fills one tick at most, and which ticks stay empty never depends on a reading.

The privacy statement counts distinct readings of the sensor: replacing one changes at most four transitions and one
pane sum. A poll that returns the sensor's last reading again would let that reading count twice. To drop a poll because
its *value* is the last one would make the pattern of missing ticks, which is published, depend on values. So a poll is
judged by time alone, by the best clock that the probe has found for a GPU:

1. `sensor`: the field's timestamp is the time of the sensor's update: while the probe looked it moved with every change
   of the reading, stood still in between, and left no period out, as a time of the last *change* would. A poll counts
   if the timestamp is newer than the last. Value and timestamp come in one structure, so two polls that count are two
   readings.
2. `samples`: the value is an entry of the driver's ring buffer, again with its own timestamp; same rule.
3. `schedule`: no timestamp tells readings apart. Let U be an upper bound of the time between two updates of the sensor.
   A poll that begins at b returns a reading that was updated at b or before but, as another was due since, later than
   b - U; a poll that ended at e returns a reading that was updated at e or before. If b >= e + U, the second reading is
   later than the first: they are two. The rule reads clocks only. Where U is longer than a tick, some ticks stay empty
   by design, in a pattern that times of calls decide. At 10 Hz, and with calls of half a millisecond or less, these are
   3 to 4 in 100 for a sensor of 100 ms, on a host with one GPU as with eight; 6 to 8 for an A100's sensor, and where no
   GPU moved in the probe; none at 8 Hz. ADR 17 has the table.

What the argument assumes: in case 3 that the sensor is never later than U, which the probe measures and pads, or takes
from the slowest sensor known where all GPUs of a model were too idle to measure; in all cases that the time a call
takes does not depend on the power read. The probe's own readings choose the clock and U once, before the first window,
and are in no window: what they reveal is whether the sensor moved in those seconds at the start of the process.
"""

from __future__ import annotations


class TimestampFreshness:
    """Counts a reading if its timestamp, µs, is newer than the last one's (cases 1 and 2)."""

    def __init__(self) -> None:
        self._last_us: int | None = None

    def accept(self, stamp_us: int) -> bool:
        """Say whether a reading of this time counts, and remember it.

        A timestamp that went back (the host's clock was set, the driver reloaded) may be the last reading under a new
        name: it is left out, and the next change counts.
        """
        last, self._last_us = self._last_us, stamp_us
        return last is None or stamp_us > last


class ScheduleFreshness:
    """Counts a poll if it began `upper_ns` or more after the last that counted had ended (case 3)."""

    def __init__(self, upper_ns: int) -> None:
        self.upper_ns = upper_ns
        self._ended_ns: int | None = None

    @property
    def due_ns(self) -> int:
        """From when on a poll counts; 0 before the first."""
        return 0 if self._ended_ns is None else self._ended_ns + self.upper_ns

    def accept(self, began_ns: int, ended_ns: int) -> bool:
        """Say whether this poll counts, and remember it; monotonic times."""
        if began_ns < self.due_ns:
            return False
        self._ended_ns = ended_ns
        return True
