"""Share one meter and one stream of windows between the callbacks of a Trainer."""

from __future__ import annotations

import signal
import threading
import weakref
from dataclasses import replace
from functools import partial
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from greentrain.callbacks.base import Callback
from greentrain.callbacks.ranks import (
    AssignedMeter,
    ProcessDevices,
    assign_devices,
    gather,
    host_id,
)
from greentrain.energy import (
    NOTHING,
    Meter,
    Source,
    UnknownMeter,
    Window,
    WindowRecorder,
    close_meter,
    detect,
    start_meter,
)
from greentrain.units import utc_now

_shared: WeakKeyDictionary[Any, _SharedMeter] = WeakKeyDictionary()


class _SharedMeter:
    """A running meter, first of this process alone and then of its part among all processes."""

    def __init__(self, trainer: Any, given: Meter | WindowRecorder | None) -> None:
        self.given = _meter_of(given)
        self.borrowed = isinstance(given, WindowRecorder)
        self.others: tuple[Source, ...] = ()
        if isinstance(given, WindowRecorder):
            self.recorder = given
        else:
            self.recorder = WindowRecorder(_started(trainer, given))
        self.users = 0
        self.setup: Window | None = None
        # A phase of the caller around the set-up already counts it.
        self.within = self.recorder.depth > 0
        self._began, self._first = utc_now(), self.recorder.read()

    def connect(self, trainer: Any) -> None:
        """Assign the devices to the processes, each of which has to call this."""
        if not self.borrowed and len(hosts := gather(host_id())) > 1:
            meter, self.others = _assigned(self.recorder.meter, trainer.global_rank, hosts)
            self.recorder = WindowRecorder(meter)
            self._first = (
                meter.part_of(self._first) if isinstance(meter, AssignedMeter) else NOTHING
            )

    def end_setup(self) -> None:
        """Close the window from the start of the meter, after waiting for late joules."""
        ended, last = utc_now(), self.recorder.read()
        if last.late:
            _ = self.recorder.sources
            known = self.recorder.read()
            energy_j = {**known.energy_j, **dict.fromkeys(known.late)}  # it did not come
            known = replace(known, energy_j=energy_j, late=frozenset())
            last, self._first = last.spread(known), self._first.spread(known)
        reading = last - self._first
        self.setup = Window(phase="setup", started=self._began, ended=ended, reading=reading)


class MeterLease:
    """A recorder shared by the callbacks of one Trainer; the last lease to end closes the meter.

    Among several processes, each device of each host is measured by the first process that can
    measure it. Every process has to create its leases in the same order.

    Args:
        trainer: The Trainer.
        given: A meter, which is started; or the caller's recorder, which stays open. ``None``
            selects the meter of the Trainer's other callbacks. Without one, it selects the best
            meter available for the GPU that the Trainer's strategy uses, and for CPU and RAM.

    Attributes:
        recorder: Records the windows of this process.
        several: Whether there are several processes.
        others: Sources that the other processes measure, as known at the start.
        setup: Energy that this process used between :func:`start_early` and the first lease;
            ``None`` if that was not called.
        within: Whether a phase of the caller's recorder counts the energy of ``setup``, too.

    Raises:
        ConfigurationError: If the meter needs a device that is missing.
        MisconfigurationException: If two callbacks of one Trainer were given different meters.
    """

    def __init__(self, trainer: Any, given: Meter | WindowRecorder | None) -> None:
        shared = _shared.get(trainer)
        early = shared is not None
        if shared is None:
            shared = _shared[trainer] = _SharedMeter(trainer, _other_meter(trainer, given))
        elif given is not None and _meter_of(given) is not shared.given:
            raise MisconfigurationException(
                "two callbacks of one Trainer were given different meters; give both the same "
                "meter, or omit it for one of them"
            )
        if shared.users == 0:
            shared.connect(trainer)
            _close_at_exit(trainer)
            if early:
                shared.end_setup()
        shared.users += 1
        self.recorder = shared.recorder
        self.several = trainer.world_size > 1
        self.others = shared.others
        self.setup = shared.setup
        self.within = shared.within
        self._trainer = trainer
        self._open = True

    def sources(self) -> tuple[Source, ...]:
        """Return the sources of all processes, after waiting for a meter that is being set up."""
        return (*self.recorder.sources, *self.others)

    def release(self) -> None:
        """End the lease; harmless if repeated."""
        if not self._open:
            return
        self._open = False
        shared = _shared[self._trainer]
        shared.users -= 1
        if shared.users == 0:
            del _shared[self._trainer]
            if not shared.borrowed:
                close_meter(shared.recorder.meter)


def start_early(trainer: Any, given: Meter | WindowRecorder | None) -> None:
    """Start the meter of a Trainer before its data are prepared; its first lease takes it over.

    Raises:
        ConfigurationError: If the meter needs a device that is missing.
    """
    if trainer not in _shared:
        _shared[trainer] = _SharedMeter(trainer, _other_meter(trainer, given))


def abandon_early(trainer: Any) -> None:
    """Close a meter that was started early, if no lease has taken it over."""
    shared = _shared.get(trainer)
    if shared is not None and shared.users == 0:
        del _shared[trainer]
        if not shared.borrowed:
            close_meter(shared.recorder.meter)


def _close_at_exit(trainer: Any) -> None:
    """Close the callbacks of a Trainer when a process that was started for it ends.

    Lightning calls ``on_exception`` in the process that started the others, and in no other.
    """
    if parent_process() is not None:
        Finalize(None, _close_callbacks, (weakref.ref(trainer),), exitpriority=0)


def _close_callbacks(trainer: weakref.ref[Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        # Sent as soon as another process has failed, and Lightning's handler would wait for that.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if (ended := trainer()) is None:
        return
    for callback in ended.callbacks:
        if isinstance(callback, Callback):
            callback.on_exception(ended, ended.lightning_module, SystemExit())


def _meter_of(given: Meter | WindowRecorder | None) -> Meter | None:
    return given.meter if isinstance(given, WindowRecorder) else given


def _other_meter(trainer: Any, given: Any) -> Any:
    # A callback later in the list may have the meter that all callbacks share.
    if given is not None:
        return given
    others = (getattr(callback, "meter", None) for callback in trainer.callbacks)
    return next((meter for meter in others if isinstance(meter, (Meter, WindowRecorder))), None)


def _assigned(meter: Meter, rank: int, hosts: list[str]) -> tuple[Meter, tuple[Source, ...]]:
    """Return this process's part of a meter, and the sources of the other processes."""
    devices = {source.name: source.uuid or source.name for source in meter.sources}
    names = assign_devices(gather(ProcessDevices(host=hosts[rank], devices=devices)))[rank]
    own: Meter = AssignedMeter(meter, names)
    if not names:
        close_meter(meter)
        own = UnknownMeter()
    sources = gather(own.sources)
    return own, tuple(each for other in (*sources[:rank], *sources[rank + 1 :]) for each in other)


def _started(trainer: Any, given: Meter | None) -> Meter:
    gpus, first = gpu_indices(trainer.strategy.root_device), trainer.local_rank == 0
    if given is None and not gpus and not first:
        return UnknownMeter()  # another process measures the host
    return start_meter(given, partial(detect, gpus, cpu=first))


def gpu_indices(device: torch.device) -> tuple[int, ...]:
    """Return the GPUs that a process on a device uses, by their index in CUDA or ROCm.

    Example:
        >>> gpu_indices(torch.device("cuda", 1)), gpu_indices(torch.device("cpu"))
        ((1,), ())
    """
    if device.type != "cuda":  # also the name of ROCm devices
        return ()
    return (device.index if device.index is not None else torch.cuda.current_device(),)
