"""Measure all hosts of a stream over several ranks, each device of each host once.

The first process of each host measures the host. Another one measures its cards if only it can see
them, as with ``srun --gpus-per-task``. Rank 0 reads its own meter directly. The others publish
their joules every fifth of a second, and rank 0 adds the last ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from greentrain.callbacks.meter_lease import gpu_indices
from greentrain.callbacks.ranks import (
    AssignedMeter,
    ProcessDevices,
    assign_devices,
    gather,
    host_id,
    merge_readings,
)
from greentrain.energy import Meter, Reading, Source, UnknownMeter, close_meter, detect, start_meter
from greentrain.texts import get_logger
from greentrain.training.stream_ranks import Ranks

PERIOD_S = 0.2
"""Seconds between two readings of another rank's meter."""
_log = get_logger(__name__)


class Store(Protocol):
    """The part of a ``torch.distributed.Store`` that is used here."""

    def set(self, key: str, value: str) -> None:
        """Set a value."""

    def get(self, key: str) -> bytes:
        """Return a value, after waiting for it."""


class JoulePublisher:
    """Publish the joules of a meter until it is closed.

    Args:
        meter: The meter; started.
        store: Takes the joules.
        key: Their name there.
    """

    def __init__(self, meter: Meter, store: Store, key: str) -> None:
        self._meter = meter
        self._store = store
        self._key = key
        self._ended = threading.Event()
        self.publish()
        self._thread = threading.Thread(target=self._run, name="greentrain-meter", daemon=True)
        self._thread.start()

    def publish(self) -> None:
        """Publish a reading now."""
        try:
            reading = self._meter.read()
        except Exception as error:  # a failing meter never stops training
            _log.debug("the meter of this rank failed: %s", error)
            return
        self._store.set(self._key, json.dumps([reading.duration_s, dict(reading.energy_j)]))

    def close(self) -> None:
        """Stop, and close the meter; calling it again is harmless."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            close_meter(self._meter)

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            try:
                self.publish()
            except Exception as error:  # rank 0 has gone, and its store with it
                _log.debug("the joules of this rank cannot be published: %s", error)
                return


class RanksMeter:
    """The meter of rank 0: its own devices, and the last published joules of the others.

    Args:
        own: The meter of this rank; started.
        store: Has the joules of the others.
        others: The sources of the other ranks, by their key in the store.
    """

    def __init__(self, own: Meter, store: Store | None, others: dict[str, tuple[Source, ...]]):
        self._own = own
        self._store = store
        self._others = others
        self._last = {key: _unknown(sources) for key, sources in others.items()}

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of all ranks; those of others lag behind by the period."""
        late = [
            dataclasses.replace(source, lag_s=source.lag_s + PERIOD_S)
            for sources in self._others.values()
            for source in sources
        ]
        return (*self._own.sources, *late)

    def start(self) -> None:
        """Do nothing: all meters are started."""

    def read(self) -> Reading:
        """Return the sum over all ranks."""
        for key in self._others:
            try:
                assert self._store is not None
                duration_s, energy_j = json.loads(self._store.get(key))
                self._last[key] = Reading(duration_s=duration_s, energy_j=energy_j)
            except Exception as error:  # the last joules of a lost rank stay counted
                _log.debug("no joules came from %s: %s", key, error)
        return merge_readings([self._own.read(), *self._last.values()])

    def close(self) -> None:
        """Close the meter of this rank."""
        self._own.close()


def open_meter(given: Meter | None, ranks: Ranks, device: torch.device, local_rank: int) -> Meter:
    """Start the meters of all ranks; every rank has to call this.

    Args:
        given: The user's meter; ``None`` for the best one of each host.
        ranks: The ranks.
        device: The device of this rank.
        local_rank: Number of this process on its host.

    Returns:
        On rank 0 the meter of the stream. On the others a meter without joules; closing it stops
        what they publish.

    Raises:
        ConfigurationError: If the meter cannot be used.
    """
    meter = _started(given, device, local_rank)
    devices = {source.name: source.uuid or source.name for source in meter.sources}
    everyone = gather(ProcessDevices(host=host_id(), devices=devices))
    names = assign_devices(everyone)
    own: Meter = AssignedMeter(meter, names[ranks.rank])
    if not names[ranks.rank]:
        close_meter(meter)
        own = UnknownMeter()
    sources = gather(own.sources)
    keys = {rank: f"rank{rank}" for rank in range(1, ranks.size) if sources[rank]}
    if not keys:
        return RanksMeter(own, None, {}) if ranks.leads else UnknownMeter()
    store = _open_store(ranks)
    if ranks.rank in keys:
        return _Published(JoulePublisher(own, store, keys[ranks.rank]))
    others = {key: tuple(sources[rank]) for rank, key in keys.items()}
    return RanksMeter(own, store, others) if ranks.leads else UnknownMeter()


class _Published(UnknownMeter):
    """The meter of a rank whose joules rank 0 reads."""

    def __init__(self, publisher: JoulePublisher) -> None:
        super().__init__()
        self._publisher = publisher

    def close(self) -> None:
        """Stop publishing."""
        self._publisher.close()


def _started(given: Meter | None, device: torch.device, local_rank: int) -> Meter:
    gpus, first = gpu_indices(device), local_rank == 0
    if given is None and not gpus and not first:
        return UnknownMeter()  # another process measures the host
    if first:  # the cards of all processes of this host that this one sees
        seen = torch.cuda.device_count() if gpus else 0
        gpus = tuple(range(min(seen, int(os.environ.get("LOCAL_WORLD_SIZE", seen)))))
    return start_meter(given, partial(detect, gpus, cpu=first))


def _open_store(ranks: Ranks) -> Store:
    """Open a store on rank 0 at a free port, and connect the other ranks to it."""
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    led = TCPStore(host, 0, is_master=True, wait_for_workers=False) if ranks.leads else None
    port = gather(None if led is None else led.port)[0]
    store: Store = led or TCPStore(host, port, is_master=False)
    return store


def _unknown(sources: Sequence[Source]) -> Reading:
    return Reading(duration_s=0.0, energy_j=dict.fromkeys(source.name for source in sources))
