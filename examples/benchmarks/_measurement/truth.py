"""Compare greentrain with the simulated driver's exact integral, on a fake clock."""

from __future__ import annotations

import ctypes
import os
import random
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from _results import Row

from _measurement.processes import Workers
from greentrain.energy import NvmlMeter, Reading
from greentrain.errors import MeterError
from tests.nvml.simulation import NOT_SUPPORTED, Node, Pacer, bursts

SEED = 101
"""Seeds of the bursts on which sampling is judged; its settings were chosen on those below 100."""

_LOADED: list[ctypes.CDLL] = []


@contextmanager
def on(node: Node, workers: Workers, **environment: str) -> Iterator[None]:
    """Make a node visible to this process's meters, under its environment alone."""
    if not _LOADED:  # later loads of libnvidia-ml.so.1 return this library
        _LOADED.append(ctypes.CDLL(str(workers.library)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "NVML_"))}
    with mock.patch.dict(os.environ, kept | node.environment | environment, clear=True):
        yield


def percent(measured_j: float | None, truth_j: float) -> float:
    """Return the error in per cent; an unknown figure is as wrong as 0 J."""
    return 100.0 * abs((measured_j or 0.0) / truth_j - 1.0)


def counter(workers: Workers, seconds: float, *, quick: bool) -> list[Row]:
    """Return the arithmetic errors of the energy counter over windows of some seconds."""
    reach = 20.0 / seconds
    row = f"counter_{seconds:.0f}s"
    note = (
        "per card, 1 to 8 cards, begun anywhere between two ticks of the counter (0.1 s), each fit "
        "cut into 5 windows whose sum is taken"
    )
    begins = 3 if quick else 25
    rows = []
    tick = "; a tick at 350 W is up to 4.4 times one at the mean power, and the last one is missing"
    for shape, duties, more in (
        ("constant", None, ""),
        ("bursts of 50 and 350 W, half and half", (0.5, 0.5), ""),
        ("bursts of 50 and 350 W, high for 0.1 to 0.9 of the time", (0.1, 0.9), tick),
    ):
        errors = [
            error
            for cards in range(1, 9)
            for begin in range(begins)
            for error in _counter_errors(workers, cards, seconds, duties, seed=SEED + begin)
        ]
        rows.append(_errors(row, f"greentrain: {shape}", errors, reach, note + more))
    return rows


def _counter_errors(
    workers: Workers, cards: int, seconds: float, duties: tuple[float, float] | None, seed: int
) -> list[float]:
    chance = random.Random(seed)
    node = workers.node(cards)
    for card, (period_s, _, phase_s) in zip(node.shown, bursts(seed, cards), strict=True):
        card.tick_phase_s = chance.uniform(0.0, 0.1)
        if duties is None:
            card.constant(chance.uniform(50.0, 700.0))
        else:
            card.square(50.0, 350.0, period_s, chance.uniform(*duties), phase_s)
    node.advance(chance.uniform(1.0, 20.0))
    begin_s = node.now_s
    with on(node, workers):
        meter = NvmlMeter(clock=node.clock, wait=_until_closed, synchronize=_nothing)
        meter.start()
        windows, before = [], meter.read()
        for _ in range(5):
            node.advance(seconds / 5)
            now = meter.read()
            windows.append(now - before)
            before = now
        meter.close()
    return [
        percent(_summed(windows, f"gpu:{index}"), card.energy_j(begin_s, begin_s + seconds))
        for index, card in enumerate(node.shown)
    ]


def _summed(windows: Sequence[Reading], name: str) -> float | None:
    joules = [window.energy_j[name] for window in windows]
    return None if None in joules else sum(each for each in joules if each is not None)


def sampled(workers: Workers, *, quick: bool) -> list[Row]:
    """Return the errors of sampled power over a minute, on held-out bursts."""
    count = 32 if quick else 320
    shapes = bursts(SEED, count)
    rows = []
    for driver, instant_result in (
        ("instant power", 0),
        ("power that the driver averages over 1 s", NOT_SUPPORTED),
    ):
        errors = [
            error
            for first in range(0, count, 8)
            for error in _sampled_errors(workers, shapes[first : first + 8], instant_result)
        ]
        note = (
            "held-out bursts of 50 and 350 W, periods of 20 ms to 10 s, half of them round, high "
            "for 0.1 to 0.9 of the time"
        )
        rows.append(_errors("sampled_60s", f"greentrain: bursts, {driver}", errors, 3.0, note))
    constant = _sampled_errors(workers, [(0.0, 0.5, 0.0)] * 8, 0)
    rows.append(_errors("sampled_60s", "greentrain: constant", constant, 3.0, "350 W"))
    return rows


def _sampled_errors(
    workers: Workers, shapes: Sequence[tuple[float, float, float]], instant_result: int
) -> list[float]:
    node = workers.node(len(shapes))
    for card, shape in zip(node.shown, shapes, strict=True):
        card.counter_result, card.instant_result = NOT_SUPPORTED, instant_result
        card.square(50.0, 350.0, *shape)
    node.advance(5.0)
    pacer = Pacer(node, until_s=65.0)
    with on(node, workers):
        meter = NvmlMeter(clock=node.clock, wait=pacer, synchronize=_nothing)
        meter.start()
        pacer.arrived.wait(timeout=300)
        reading = meter.read()
        meter.close()
    return [
        percent(joules, card.energy_j(5.0, 65.0))
        for card, joules in zip(node.shown, reading.energy_j.values(), strict=True)
    ]


def masks(workers: Workers) -> Row:
    """Count the masks of an eight-card node under which the wrong cards are measured."""
    cases = MASKS + [(mask, ()) for mask in ("", "-1", "8", "GPU-9", "MIG-9", "1,1", "nonsense")]
    failed = [repr(mask) for mask, cards in cases if not _mask_holds(workers, mask, cards)]
    failures = f"; wrong under {', '.join(failed)}" if failed else ""
    return Row(
        id="masks",
        what="greentrain: masks that give wrong cards, or none without saying why",
        value=float(len(failed)),
        unit="masks",
        reach=0.0,
        better="equal",
        seeds=len(cases),
        note="index, UUID and its beginning, MIG UUID of both forms, none, no card at all"
        + failures,
    )


MASKS: list[tuple[str | None, tuple[int, ...]]] = [
    (None, (0, 1, 2, 3, 4, 5, 6, 7)),
    ("3", (3,)),
    ("5,1", (5, 1)),
    ("0,2,-1,1", (0, 2)),
    ("GPU-33333333-0000-4000-8000-000000000003", (2,)),
    ("GPU-8,GPU-2222", (7, 1)),
    ("MIG-52000000-0000-5000-8000-000000000000", (5,)),
    ("MIG-51000000-0000-5000-8000-000000000000,MIG-52000000-0000-5000-8000-000000000000", (5,)),
    ("MIG-GPU-66666666-0000-4000-8000-000000000006/2/0", (5,)),
]
"""Masks, and the cards of :func:`eight_cards` that they make visible."""


def eight_cards(workers: Workers) -> Node:
    """Return a node of eight cards of 100, 200 and so on watts; MIG divides the sixth."""
    node = workers.node(8)
    for index, card in enumerate(node.cards):
        card.constant(100.0 * (index + 1))
    node.cards[5].mig = 3
    return node


def _mask_holds(workers: Workers, mask: str | None, cards: tuple[int, ...]) -> bool:
    node = eight_cards(workers)
    environment = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    with on(node, workers, **environment):
        meter = NvmlMeter(clock=node.clock, wait=_until_closed, synchronize=_nothing)
        try:
            meter.start()
        except MeterError as error:
            return not cards and "no NVIDIA card is visible" in str(error)
        node.advance(10.0)
        reading = meter.read()
        seen = {source.uuid: reading.energy_j[source.name] for source in meter.sources}
        meter.close()
    return seen == {node.uuid(index): 1000.0 * (index + 1) for index in cards}


def _errors(id: str, what: str, errors: Sequence[float], reach: float, note: str) -> Row:
    """Return the worst of some errors in per cent, with median and 95th percentile in the note."""
    ordered = sorted(errors)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return Row(
        id=id,
        what=f"{what}, worst error",
        value=ordered[-1],
        unit="%",
        reach=reach,
        seeds=len(ordered),
        interval=(ordered[0], ordered[-1]),
        note=f"median {statistics.median(ordered):.3f} %, 95th percentile {high:.3f} %; {note}",
    )


def _until_closed(stop: threading.Event, seconds: float) -> bool:
    return stop.wait()


def _nothing(index: int) -> None:
    pass
