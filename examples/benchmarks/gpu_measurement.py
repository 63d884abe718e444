"""Compare greentrain's NVIDIA meter with the card's own energy counter, over real loads.

    python examples/benchmarks/gpu_measurement.py

needs an otherwise idle NVIDIA GPU, and takes about two minutes. It writes
``docs/benchmarks/gpu_measurement.json`` and, for ``ReplayMeter``, ``gpu_trace.csv`` next to it.
Without a GPU it writes rows without values. ``--simulated`` instead measures scripted loads with
known truth on the driver of ``tests/nvml``, and writes only to the file given by ``--out``.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from _results import FOLDER, ROOT, Row, document, table, write

sys.path.insert(0, str(ROOT))

from greentrain.energy import NvmlMeter
from greentrain.energy.replay import record
from greentrain.errors import MeterError

_BURST_S, _PAUSE_S = 0.04, 0.05
_TRACE_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The work of a card for some seconds.

    Args:
        name: Name of the work.
        card: Index of the card in CUDA.
        run: Does the work for a number of seconds.
    """

    name: str
    card: int
    run: Callable[[float], None]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each load")
    parser.add_argument("--simulated", action="store_true", help="on the simulated driver")
    parser.add_argument("--out", type=Path, help="write the JSON to this file instead of docs/")
    given = parser.parse_args()
    trace = (given.out or FOLDER / "any").with_name("gpu_trace.csv")
    if given.simulated:
        with tempfile.TemporaryDirectory() as folder, simulated_loads(Path(folder)) as loads:
            rows = measure(loads, given.seconds, trace if given.out else None)
    else:
        reason = why_not()
        rows = not_run(reason) if reason else measure(cuda_loads(), given.seconds, trace)
    content = document(rows)
    print(table(rows))
    if given.out is not None:
        given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    elif not given.simulated:
        print(f"\nwritten: {write('gpu_measurement', content)}")


def why_not() -> str:
    """Return the reason why no GPU can be measured here; empty if one can."""
    import torch

    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    meter = NvmlMeter([0])
    try:
        meter.start()
    except MeterError as error:
        return str(error)
    meter.close()
    return "" if meter.sources[0].method == "counter" else "the card has no energy counter"


def rows_for(*names: str) -> list[Row]:
    """Return the rows of some loads, without values yet."""
    errors = [
        ("gpu_counter_error", "counter, against the card's own", 2.0),
        ("gpu_sampled_error", "power sampled and integrated, against the card's own counter", None),
    ]
    rows = [
        Row(id=id, what=f"{what}: {name}", value=None, unit="%", reach=reach)
        for id, what, reach in errors
        for name in names
    ]
    others = [
        ("gpu_suspect", "loads under which counter and power contradict each other", "loads"),
        ("gpu_tick_ms", "time between two steps of the counter", "ms"),
        ("gpu_read_ms", "one reading of one card", "ms"),
        ("gpu_sampling_share", "share of a core that sampling takes", "%"),
    ]
    return rows + [Row(id=id, what=what, value=None, unit=unit) for id, what, unit in others]


def not_run(reason: str) -> list[Row]:
    """Return rows without values, whose note says that this has not been run on a GPU."""
    rows = rows_for("idle", "matrix products", "ResNet-like training", "bursts")
    note = f"this has not been run on a GPU: {reason}"
    return [replace(row, seeds=0, note=note) for row in rows]


def measure(loads: list[Load], seconds: float, trace: Path | None) -> list[Row]:
    """Measure loads by the counter, by sampled power and by the card's own counter at once.

    Args:
        loads: Work of the cards; the first load is none.
        seconds: Seconds to measure each.
        trace: File for a recording of the first load's card over all loads.

    Returns:
        A row for each figure.
    """
    nvml: Any = importlib.import_module("pynvml")
    figures: dict[str, tuple[float | None, str]] = {}
    doubts: list[str] = []
    with _recording(loads[0].card, trace):
        for load in loads:
            counter, sampled = NvmlMeter([load.card]), NvmlMeter([load.card])
            counter.start()
            handle = nvml.nvmlDeviceGetHandleByUUID(counter.sources[0].uuid)
            _start_without_counter(sampled, nvml)
            load.run(max(1.0, seconds / 10))  # earlier work has ended
            cpu_s, begin = time.process_time(), _read(nvml, handle, counter, sampled)
            load.run(seconds)
            end = _read(nvml, handle, counter, sampled)
            share = 100.0 * (time.process_time() - cpu_s) / seconds
            own_j, counter_j, sampled_j = (b - a for a, b in zip(begin, end, strict=True))
            (source,) = counter.sources
            note = f"{own_j:.0f} J in {seconds:.0f} s on {source.device.partition(' (')[0]}"
            figures[f"gpu_counter_error {load.name}"] = _percent(counter_j, own_j), note
            figures[f"gpu_sampled_error {load.name}"] = _percent(sampled_j, own_j), note
            doubts += [f"{load.name}: {source.note}"] * ("suspect" in source.note)
            if load is loads[0]:
                tick_s = _tick_s(nvml, handle)
                figures["gpu_tick_ms"] = None if tick_s is None else 1e3 * tick_s, "while idle"
                figures["gpu_read_ms"] = 1e3 * _cost_s(counter.read), "the median of 100"
                figures["gpu_sampling_share"] = (
                    share,
                    f"while {load.name}, with 10 readings a second",
                )
            counter.close()
            sampled.close()
    figures["gpu_suspect"] = float(len(doubts)), "; ".join(doubts) or "they agree"
    rows = []
    for row in rows_for(*(load.name for load in loads)):
        key = row.id if row.id in figures else f"{row.id} {row.what.rpartition(': ')[2]}"
        rows.append(replace(row, value=figures[key][0], note=figures[key][1]))
    return rows


def _percent(measured_j: float, own_j: float) -> float | None:
    """Return the difference in per cent; ``None`` if one was not measured."""
    return 100.0 * abs(measured_j / own_j - 1.0) if own_j > 0 and measured_j >= 0 else None


def _start_without_counter(meter: NvmlMeter, nvml: Any) -> None:
    """Start a meter without the card's counter, so that it samples power."""
    refusal = nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
    with mock.patch.object(nvml, "nvmlDeviceGetTotalEnergyConsumption", side_effect=refusal):
        meter.start()


def _read(nvml: Any, handle: Any, counter: NvmlMeter, sampled: NvmlMeter) -> list[float]:
    """Return the joules of the card's own counter and of both meters."""
    readings = counter.read(), sampled.read()  # which wait for the work that is queued
    own_j = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    unknown = float("nan")
    return [own_j, *(unknown if each.total_j is None else each.total_j for each in readings)]


def _tick_s(nvml: Any, handle: Any) -> float | None:
    """Return the median time between two changes of a counter, over two seconds."""
    changes, last, end_s = [], None, time.monotonic() + 2.0
    while (now_s := time.monotonic()) < end_s:
        value = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        if value != last:
            changes.append(now_s)
        last = value
        time.sleep(0.001)
    changes = changes[1:]  # the first is only the first reading
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(changes)]
    return statistics.median(gaps_s) if gaps_s else None


def _cost_s(read: Callable[[], object]) -> float:
    costs_s = []
    for _ in range(100):
        began_s = time.perf_counter()
        read()
        costs_s.append(time.perf_counter() - began_s)
    return statistics.median(costs_s)


@contextmanager
def _recording(card: int, path: Path | None) -> Iterator[None]:
    """Record a card for ``ReplayMeter`` during a block."""
    if path is None:
        yield
        return
    stop, meter = threading.Event(), NvmlMeter([card])
    meter.start()
    path.parent.mkdir(parents=True, exist_ok=True)
    ticks = itertools.chain([True], iter(lambda: not stop.wait(_TRACE_EVERY_S), False))
    recorder = threading.Thread(target=record, args=(meter, path, lambda: next(ticks, False)))
    recorder.start()
    try:
        yield
    finally:
        stop.set()
        recorder.join()
        meter.close()


def cuda_loads(device: str = "cuda", size: int = 4096) -> list[Load]:
    """Return loads of the first CUDA device.

    Args:
        device: Name of the device in torch.
        size: Rows and columns of the multiplied matrices.
    """
    import torch

    one, other = (torch.randn(size, size, device=device) for _ in range(2))
    # Streams of kernels are queued; without waiting for some the queue would outlive its load.
    wait: Callable[[], None] = torch.cuda.synchronize if device != "cpu" else _nothing

    def products(seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            torch.mm(one, other)
            wait()

    def bursts(seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            products(_BURST_S)
            time.sleep(_PAUSE_S)

    return [
        Load(name="idle", card=0, run=time.sleep),
        Load(name="matrix products", card=0, run=products),
        Load(name="ResNet-like training", card=0, run=_training(device, wait)),
        Load(name="bursts", card=0, run=bursts),
    ]


def _nothing() -> None:
    pass


def _training(device: str, wait: Callable[[], None]) -> Callable[[float], None]:
    """Return a loop that trains residual blocks of convolutions on images from the CPU."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            layers = (nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            again = (nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
            self.layers = nn.Sequential(*layers, *again)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.layers(x))

    blocks = [nn.Conv2d(3, 64, 7, stride=2), *(Block(64) for _ in range(4))]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    network = nn.Sequential(*blocks, *head).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(32, 3, 96, 96), torch.randint(10, (32,))

    def train(seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            optimizer.zero_grad()
            logits = network(images.to(device))
            loss = nn.functional.cross_entropy(logits, labels.to(device))
            torch.autograd.backward(loss)
            optimizer.step()
            wait()

    return train


@contextmanager
def simulated_loads(folder: Path) -> Iterator[list[Load]]:
    """Script the loads on four cards of the simulated driver, in real time.

    Args:
        folder: Folder in which the driver is built.

    Raises:
        MeterError: If this process has loaded another driver already.
    """
    import ctypes
    import os

    from tests.nvml.simulation import Node, build

    driver = ctypes.CDLL(str(build(folder)))
    node = Node(folder / "node", count=4)
    idle, busy, training, bursts = node.shown
    idle.constant(60.0)
    busy.constant(350.0)
    training.square(180.0, 330.0, period_s=0.31, duty=0.8)
    bursts.square(60.0, 340.0, period_s=_BURST_S + _PAUSE_S, duty=_BURST_S / 0.09)
    node.run_in_real_time()
    names = ("idle", "matrix products", "ResNet-like training", "bursts")
    with mock.patch.dict(os.environ, {**node.environment, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}):
        yield [Load(name=name, card=index, run=time.sleep) for index, name in enumerate(names)]
    del driver


if __name__ == "__main__":
    main()
