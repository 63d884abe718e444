"""Measure what is drawn under a reservation, from one call to another."""

from __future__ import annotations

from greentrain.energy import NOTHING, Reading, Window, WindowRecorder

LEAST_J = 1e-6
"""The smallest amount that is reserved: nothing cannot be."""


class Payment:
    """What is drawn under a reservation: all windows between :meth:`begin` and :meth:`end`.

    Args:
        recorder: Records the windows, which carry the reservation.
        reservation: The reservation's name.
        reserved_j: Joules set aside.
        phase: What the windows outside all others are called.
    """

    def __init__(
        self, recorder: WindowRecorder, reservation: str, *, reserved_j: float, phase: str
    ) -> None:
        self._recorder = recorder
        self._reservation = reservation
        self._reserved_j = reserved_j
        self._phase = phase
        self._depth = 0
        self._closed: Reading = NOTHING
        self._open = False

    @property
    def drawn(self) -> Reading:
        """Seconds and joules by source, up to now."""
        return self._closed + self._recorder.drawn(self._depth) if self._open else self._closed

    def begin(self) -> None:
        """Begin to measure."""
        self._depth, self._open = self._recorder.depth, True
        self._recorder.reservation_id = self._reservation
        self._recorder.sinks.append(self._take)
        self._recorder.enter(self._phase)

    def end(self) -> float:
        """Stop measuring, and return the joules to settle.

        That is what was measured; where some is unknown, the reservation at least.
        """
        self._recorder.leave_to(self._depth)
        self._recorder.sinks.remove(self._take)
        self._recorder.reservation_id = None
        self._open = False
        known_j = self._closed.total_j or 0.0
        return known_j if self._closed.complete else max(known_j, self._reserved_j)

    def _take(self, window: Window) -> None:
        self._closed += window.reading
