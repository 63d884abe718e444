"""How the callbacks of one Trainer come to share one meter and one stream of windows."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from greentrain.callbacks.ranks import OwnMeter, Place, gather, host_id, share
from greentrain.energy import NOTHING, Meter, Reading, Source, WindowRecorder, detect
from greentrain.errors import MeterError

_log = logging.getLogger(__name__)
_shared: WeakKeyDictionary[Any, _Shared] = WeakKeyDictionary()


class _Shared:
    def __init__(self, trainer: Any, given: Meter | WindowRecorder | None) -> None:
        self.given = _meter_of(given)
        self.borrowed = isinstance(given, WindowRecorder)
        self.others: tuple[Source, ...] = ()
        if isinstance(given, WindowRecorder):
            self.recorder = given
        else:
            meter, self.others = _open(trainer, given)
            self.recorder = WindowRecorder(meter)
        self.users = 0


class Lease:
    """A recorder shared by the callbacks of one Trainer; the last to let go closes its meter.

    Among several processes each device of each host is measured by one of them: the first that can
    measure it. Every process has to make its leases in the same order.

    Args:
        trainer: The Trainer.
        given: A recorder of the caller's, which stays open; a meter, which is started; or ``None``
            for what the other callbacks of this Trainer use, else for the best there is: the card
            that the Trainer's strategy uses, and CPU and RAM.

    Attributes:
        recorder: Cuts this process's windows.
        several: Whether there are several processes.
        others: What the other processes measure, as it was known at the start.

    Raises:
        ConfigurationError: If the meter asks for what is not there.
        MisconfigurationException: If two callbacks of one Trainer were given different meters.
    """

    def __init__(self, trainer: Any, given: Meter | WindowRecorder | None) -> None:
        shared = _shared.get(trainer)
        if shared is None:
            shared = _shared[trainer] = _Shared(trainer, _other_meter(trainer, given))
        elif given is not None and _meter_of(given) is not shared.given:
            raise MisconfigurationException(
                "two callbacks of one Trainer were given different meters; give both the same, or "
                "leave it out of one of them"
            )
        shared.users += 1
        self.recorder = shared.recorder
        self.several = trainer.world_size > 1
        self.others = shared.others
        self._trainer = trainer
        self._open = True

    def sources(self) -> tuple[Source, ...]:
        """Return what all processes measure; a meter that is still being set up is waited for."""
        return (*self.recorder.meter.sources, *self.others)

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


class _NoMeter:
    """Stands in for a meter that cannot be started, or in a process that has nothing to measure.

    Args:
        names: The sources that are unknown.
    """

    sources: tuple[Source, ...] = ()

    def __init__(self, *names: str) -> None:
        self._reading = Reading(duration_s=0.0, energy_j=dict.fromkeys(names)) if names else NOTHING

    def start(self) -> None:
        """Do nothing."""

    def read(self) -> Reading:
        """Return that nothing is known."""
        return self._reading

    def close(self) -> None:
        """Do nothing."""


def _meter_of(given: Meter | WindowRecorder | None) -> Meter | None:
    return given.meter if isinstance(given, WindowRecorder) else given


def _other_meter(trainer: Any, given: Any) -> Any:
    # A callback later in the list may have been given the meter that all are to share.
    if given is not None:
        return given
    others = (getattr(callback, "meter", None) for callback in trainer.callbacks)
    return next((meter for meter in others if isinstance(meter, (Meter, WindowRecorder))), None)


def _open(trainer: Any, given: Meter | None) -> tuple[Meter, tuple[Source, ...]]:
    """Start this process's part of the meter, and return it with what the others measure."""
    hosts = gather(host_id())
    rank = trainer.global_rank if len(hosts) > 1 else 0
    meter = _started(trainer, given, first=hosts.index(hosts[rank]) == rank)
    if len(hosts) == 1:
        return meter, ()
    devices = {source.name: source.uuid or source.name for source in meter.sources}
    names = share(gather(Place(host=hosts[rank], devices=devices)))[rank]
    mine: Meter = OwnMeter(meter, names)
    if not names:
        meter.close()
        mine = _NoMeter()
    others = [own for each, own in enumerate(gather(mine.sources)) if each != rank]
    return mine, tuple(source for own in others for source in own)


def _started(trainer: Any, given: Meter | None, *, first: bool) -> Meter:
    try:
        if given is not None:
            given.start()
            return given
        cards = cards_of(trainer.strategy.root_device)
        return detect(cards, cpu=first) if cards or first else _NoMeter()
    except MeterError as error:  # a failing meter never stops training
        _log.warning("nothing is measured: %s", error)
        return _NoMeter("unknown")


def cards_of(device: torch.device) -> tuple[int, ...]:
    """Return the cards that a process training on a device uses, as CUDA or ROCm counts them.

    Example:
        >>> cards_of(torch.device("cuda", 1)), cards_of(torch.device("cpu"))
        ((1,), ())
    """
    if device.type != "cuda":  # ROCm calls its cards so too
        return ()
    return (device.index if device.index is not None else torch.cuda.current_device(),)
