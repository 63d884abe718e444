"""A machine of simulated drivers: cards, RAPL, load, RAM, a constant power and a recording."""

from __future__ import annotations

import math
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psutil
from codecarbon.core import cpu as codecarbon_cpu
from codecarbon.core import gpu_amd
from codecarbon.external.hardware import CPU, MODE_CPU_LOAD
from codecarbon.external.ram import RAM

from greentrain.energy import (
    CodeCarbonMeter,
    CompositeMeter,
    ConstantMeter,
    Meter,
    NvmlMeter,
    ReplayMeter,
    Window,
    WindowRecorder,
    host_hardware,
)
from greentrain.energy import _codecarbon_hardware as adapter
from greentrain.energy import codecarbon as metering
from greentrain.energy.amd import AmdMeter
from tests.energy.amdsmi_standin import RESOLUTION_UJ, Device, Machine, show_cards
from tests.nvml.simulation import NOT_SUPPORTED, Node

CARDS = ("counter", "sampled", "unlimited", "amd", "none")
CPUS = ("rapl", "load", "none")
TDP_W, PACKAGE_W, CARD_W, AMD_W, CONSTANT_W = 65.0, 120.0, 400.0, 560.0, 7.5
_JIFFY_S, _RAPL_TICK_S, _AMD_TICK_S = 0.01, 0.001, 0.1


class Load:
    """A power, or a busy share, that changes between two levels at random times.

    Args:
        chance: Random numbers.
        most: The upper level.
    """

    def __init__(self, chance: random.Random, most: float) -> None:
        self.low, self.high = most * chance.uniform(0.0, 0.5), most * chance.choice([0.7, 1.0])
        self.period_s = 10 ** chance.uniform(-2.0, 1.0)
        self.duty = chance.uniform(0.1, 0.9)

    def at(self, now_s: float) -> float:
        """Return the level at a time."""
        return self.high if now_s % self.period_s < self.duty * self.period_s else self.low

    def until(self, now_s: float) -> float:
        """Return the integral from 0 to a time."""
        periods = math.floor(now_s / self.period_s)
        rest_s, high_s = now_s - periods * self.period_s, self.duty * self.period_s
        seconds_high = periods * high_s + min(rest_s, high_s)
        return self.high * seconds_high + self.low * (now_s - seconds_high)


class SimulatedMachine:
    """One machine, its started meter, and a recorder on it.

    Args:
        folder: A folder for the files of the drivers.
        chance: Random numbers, which select the machine and the schedule.
        stack: Undoes every change of the process at its end.

    Attributes:
        ceilings_w: The right ceiling of each source.
        windows: The windows so far.
    """

    def __init__(self, folder: Path, chance: random.Random, stack: ExitStack) -> None:
        self.folder, self.chance, self._stack = folder, chance, stack
        self.node = Node(folder / "node")
        self.node.advance(5.0 + chance.random())
        self.ceilings_w: dict[str, float | None] = {}
        self.windows: list[Window] = []
        self._moved: list[Callable[[], None]] = []
        self._samplers: list[Callable[[], object]] = []
        self._counter: Path | None = None
        self._set_up = threading.Event()
        members: list[Meter] = [*self._cards(), *self._host(), *self._given()]
        self.meter = CompositeMeter(*members)
        stack.callback(self.meter.close)
        stack.callback(self._set_up.set)  # first: closing waits for the set-up
        self.meter.start()
        self.recorder = WindowRecorder(self.meter, self.windows.append)

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.node.advance(seconds)
        for moved in self._moved:
            moved()

    def run(self, steps: int) -> None:
        """Record a random schedule of windows, nested and in a row, short and long."""
        chance, recorder = self.chance, self.recorder
        if chance.random() < 0.3:
            self.finish_set_up()
        recorder.enter("fit")
        for phase in ("setup", "sanity_check"):
            recorder.enter(phase)
            self.advance(10 ** chance.uniform(-3.0, 0.5))
        self.finish_set_up()
        for _ in range(steps):
            step = chance.choice(["enter", "leave", "window", "window", "idle", "sample", "gap"])
            if step == "enter" and recorder.depth < 4:
                recorder.enter("nested")
            elif step == "leave" and recorder.depth > 1:
                recorder.leave()
            elif step == "gap" and self._counter is not None and chance.random() < 0.2:
                self._gap()
            elif step == "sample":
                for sample in self._samplers:
                    sample()
            elif step == "window":
                with recorder.phase("window"):
                    self.advance(10 ** chance.uniform(-3.5, 0.3))
            self.advance(chance.choice([0.0, 0.003, 0.5]) * chance.random())
        recorder.leave_to(0)

    def finish_set_up(self) -> None:
        """Let the thread that sets up CPU and RAM end."""
        self._set_up.set()
        _ = self.meter.sources

    def above(self) -> list[str]:
        """Return the windows with more power than their sources state, in words."""
        stated = {source.name: source.max_power_w for source in self.meter.sources}
        found = []
        for window in self.windows:
            seconds = window.reading.duration_s
            for name, joules in window.reading.energy_j.items():
                most_w = stated[name]
                if joules is not None and most_w is not None and joules > most_w * seconds + 1e-6:
                    found.append(f"{window.phase}, {name}: {joules:g} J in {seconds:g} s")
        return found

    def _cards(self) -> Iterator[Meter]:
        kind, chance = self.chance.choice(CARDS), self.chance
        if kind == "none":
            return
        if kind == "amd":
            yield self._amd()
            return
        card = self.node.cards[0]
        card.tick_s = chance.choice([0.02, 0.05, 0.1])
        card.tick_phase_s = chance.uniform(0.0, card.tick_s)
        load = Load(chance, CARD_W)
        card.square(load.low, load.high, load.period_s, duty=load.duty)
        card.instant_result = chance.choice([0, NOT_SUPPORTED])
        card.counter_result = NOT_SUPPORTED if kind == "sampled" else 0
        card.limit_w = -1.0 if kind == "unlimited" else CARD_W
        self._stack.enter_context(patch.dict(os.environ, self.node.environment))
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
            os.environ.pop(name, None)
        meter = NvmlMeter(clock=self.node.clock, synchronize=_at_once, wait=_until_stopped)
        self.ceilings_w["gpu:0"] = None if kind == "unlimited" else CARD_W
        self._samplers.append(meter._sample)
        yield meter

    def _amd(self) -> Meter:
        device, load = Device(0, "AMD Instinct MI210"), Load(self.chance, AMD_W)
        phase_s = self.chance.uniform(0.0, _AMD_TICK_S)

        def move() -> None:
            ticked_s = math.floor((self.node.now_s + phase_s) / _AMD_TICK_S) * _AMD_TICK_S - phase_s
            device.counter = 10**9 + int(load.until(ticked_s) * 1e6 / RESOLUTION_UJ)
            device.power_w = load.at(self.node.now_s)

        move()
        self._moved.append(move)
        machine = Machine(device)
        show_cards(self.folder, "0x1002")
        self._stack.enter_context(patch.dict(sys.modules, {"amdsmi": machine}))
        self._stack.enter_context(patch.object(gpu_amd, "amdsmi", machine))
        self._stack.enter_context(patch.object(gpu_amd, "AMDSMI_AVAILABLE", True))
        self._stack.enter_context(patch.object(host_hardware, "ROOT", self.folder))
        meter = AmdMeter(clock=self.node.clock, synchronize=_at_once, wait=_until_stopped)
        self.ceilings_w["gpu:0"] = AMD_W
        self._samplers.append(meter._sample)
        return meter

    def _host(self) -> Iterator[Meter]:
        kind = self.chance.choice(CPUS)
        if kind == "none":
            return
        ram = RAM(tracking_mode="machine")
        parts = {
            "cpu": self._rapl() if kind == "rapl" else self._load(),
            "ram": adapter._ram_part(ram),
        }
        for part in parts.values():
            self.ceilings_w[part.source.name] = part.source.max_power_w

        def set_up(root: Path) -> dict[str, adapter.HardwarePart]:
            self._set_up.wait()
            for part in parts.values():
                part.hardware.start()
            return parts

        for name, value in {"set_up": set_up, "_FIRST_S": 0.0, "_INTERVAL_S": 1e6}.items():
            self._stack.enter_context(patch.object(metering, name, value))
        meter = CodeCarbonMeter(clock=self.node.clock)

        def sample() -> None:  # as its thread does once a second
            with meter._lock:
                for name, part in meter._parts.items():
                    meter._advance(name, part, self.node.now_s)

        self._samplers.append(sample)
        yield meter

    def _rapl(self) -> adapter.HardwarePart:
        zone = self.folder / "powercap" / "intel-rapl" / "intel-rapl:0"
        zone.mkdir(parents=True)
        load = Load(self.chance, PACKAGE_W)
        limits = {"constraint_0_power_limit_uw": 65.0, "constraint_1_power_limit_uw": PACKAGE_W}
        for name, watts in limits.items():
            (zone / name).write_text(f"{watts * 1e6:.0f}\n")
        (zone / "enabled").write_text("1\n")
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
        self._counter = counter = zone / "energy_uj"

        def move() -> None:
            if zone.is_dir():
                ticked_s = math.floor(self.node.now_s / _RAPL_TICK_S) * _RAPL_TICK_S
                (zone / "next").write_text(f"{1e9 + load.until(ticked_s) * 1e6:.0f}\n")
                (zone / "next").replace(counter)

        move()
        self._moved.append(move)
        tree = str(self.folder / "powercap")
        bases = patch.object(codecarbon_cpu, "_get_candidate_bases", lambda rapl_dir: [rapl_dir])
        with adapter.quiet(), bases:
            cpu = CPU(str(self.folder), "intel_rapl", "a CPU", 65, rapl_dir=tree)
        return adapter._cpu_part(cpu, "RAPL", "a CPU", "")

    def _gap(self) -> None:
        """Let the counter be unreadable for some time."""
        if self._counter is None:
            return
        zone, away = self._counter.parent, self._counter.parent.with_name("away")
        zone.rename(away)
        for _ in range(self.chance.randint(1, 3)):
            with self.recorder.phase("gap"):
                self.advance(10 ** self.chance.uniform(-2.0, 1.0))
        away.rename(zone)
        self.advance(0.0)

    def _load(self) -> adapter.HardwarePart:
        load = Load(self.chance, 1.0)
        cpu = CPU(output_dir=str(self.folder), mode=MODE_CPU_LOAD, model="a CPU", tdp=int(TDP_W))
        real = psutil.cpu_times()

        def cpu_times() -> object:
            now_s = math.floor(self.node.now_s / _JIFFY_S) * _JIFFY_S
            busy_s = math.floor(load.until(now_s) / _JIFFY_S) * _JIFFY_S
            spent = {**dict.fromkeys(real._fields, 0.0), "user": busy_s, "idle": now_s - busy_s}
            return real._replace(**spent)

        self._stack.enter_context(patch.object(psutil, "cpu_times", cpu_times))
        return adapter._cpu_part(cpu, "cpu_load", "a CPU", "")

    def _given(self) -> Iterator[Meter]:
        self.ceilings_w["constant"] = CONSTANT_W
        yield ConstantMeter(CONSTANT_W, clock=self.node.clock)
        if self.chance.random() < 0.5:
            recording = self.folder / "recording.csv"
            recording.write_text("duration_s,replayed\n0,0\n1,300\n1000,400\n")
            self.ceilings_w["replayed"] = None
            yield ReplayMeter(recording, clock=self.node.clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one schedule.

    Args:
        windows: Number of windows.
        above: The windows with more power than their sources state, in words.
        stated_w: The ceiling that each source states at the end.
        right_w: The right one.
    """

    windows: int
    above: tuple[str, ...]
    stated_w: dict[str, float | None]
    right_w: dict[str, float | None]


def schedule(folder: Path, chance: random.Random, steps: int = 40) -> Outcome:
    """Run one random schedule on one random machine; the simulated NVML has to be loaded.

    Args:
        folder: A new folder for the files of the drivers.
        chance: Random numbers.
        steps: Number of random steps.
    """
    folder.mkdir()
    with ExitStack() as stack:
        machine = SimulatedMachine(folder, chance, stack)
        machine.run(steps)
        return Outcome(
            windows=len(machine.windows),
            above=tuple(machine.above()),
            stated_w={source.name: source.max_power_w for source in machine.meter.sources},
            right_w=machine.ceilings_w,
        )


def _at_once(index: int) -> None:
    pass  # no work is queued on a simulated card


def _until_stopped(stop: threading.Event, seconds: float) -> bool:
    return stop.wait()  # the thread takes no sample; the schedule does
