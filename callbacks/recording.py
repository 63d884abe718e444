"""How the callbacks of one Trainer come to share one meter and one stream of windows."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from lightning_fabric.utilities.exceptions import MisconfigurationException

from greentrain.energy import NOTHING, Meter, Reading, Source, WindowRecorder, detect

_shared: WeakKeyDictionary[Any, _Shared] = WeakKeyDictionary()


class _Shared:
    def __init__(self, given: Meter | WindowRecorder | None, *, measures: bool) -> None:
        self.given = _meter_of(given)
        self.borrowed = isinstance(given, WindowRecorder)
        self.recorder = _open(given) if measures else WindowRecorder(_Nothing())
        self.users = 0


class _Nothing:
    """The meter of a process whose node another process measures: it has no source."""

    sources: tuple[Source, ...] = ()

    def start(self) -> None:
        """Do nothing."""

    def read(self) -> Reading:
        """Return that nothing was measured here."""
        return NOTHING

    def close(self) -> None:
        """Do nothing."""


class Lease:
    """A recorder shared by the callbacks of one Trainer; the last to let go closes its meter.

    Each node is measured by its first process; in the others nothing is opened, and what the
    recorder reads is nothing.

    Args:
        trainer: The Trainer.
        given: A recorder of the caller's, which stays open; a meter, which is started; or ``None``
            for what the other callbacks of this Trainer use, else for :func:`detect`.

    Raises:
        MisconfigurationException: If two callbacks of one Trainer were given different meters.
    """

    def __init__(self, trainer: Any, given: Meter | WindowRecorder | None) -> None:
        shared = _shared.get(trainer)
        if shared is None:
            measures = trainer.local_rank == 0
            shared = _Shared(_other_meter(trainer, given), measures=measures)
            _shared[trainer] = shared
        elif given is not None and _meter_of(given) is not shared.given:
            raise MisconfigurationException(
                "two callbacks of one Trainer were given different meters; give both the same, or "
                "leave it out of one of them"
            )
        shared.users += 1
        self.recorder = shared.recorder
        self._trainer = trainer
        self._open = True

    def release(self) -> None:
        """Let go; harmless the second time."""
        if not self._open:
            return
        self._open = False
        shared = _shared[self._trainer]
        shared.users -= 1
        if shared.users == 0:
            del _shared[self._trainer]
            if not shared.borrowed:
                shared.recorder.meter.close()


def _meter_of(given: Meter | WindowRecorder | None) -> Meter | None:
    return given.meter if isinstance(given, WindowRecorder) else given


def _other_meter(trainer: Any, given: Any) -> Any:
    # A callback later in the list may have been given the meter that all are to share.
    if given is not None:
        return given
    others = (getattr(callback, "meter", None) for callback in trainer.callbacks)
    return next((meter for meter in others if isinstance(meter, (Meter, WindowRecorder))), None)


def _open(given: Meter | WindowRecorder | None) -> WindowRecorder:
    if isinstance(given, WindowRecorder):
        return given
    meter = detect() if given is None else given
    meter.start()
    return WindowRecorder(meter)
