"""A node of simulated NVIDIA cards, seen through the real ``nvidia-ml-py`` bindings.

``libnvml.c`` answers as ``libnvidia-ml.so.1``; this module builds it, loads it under that name and
writes its script. In a test, take the fixture ``nvml_node``: it has one card of 300 W, and a clock
that moves only by ``nvml_node.advance``. Another process sees the same node with the environment of
:meth:`Node.environment`.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CARDS = 8
NEVER = -1.0

NOT_SUPPORTED = 3
NO_PERMISSION = 4

_SOURCE = Path(__file__).with_name("libnvml.c")
_SONAME = "libnvidia-ml.so.1"
_LIBRARIES: list[ctypes.CDLL] = []


class Card(ctypes.Structure):
    """One card's script: ``struct card`` of ``libnvml.c``."""

    _fields_ = (
        ("name", ctypes.c_char * 64),
        ("uuid", ctypes.c_char * 64),
        *(
            (name, ctypes.c_double)
            for name in (
                *("low_w", "high_w", "period_s", "duty", "phase_s"),
                *("tick_s", "tick_phase_s", "base_j", "gain", "restart_s", "lost_s"),
                *("cpu_w", "average_s", "limit_w"),
            )
        ),
        *(
            (name, ctypes.c_int64)
            for name in (
                *("handle_result", "counter_result", "power_result", "instant_result"),
                *("module_power_result", "module_energy_result", "counter_is_module"),
                *("mig", "mig_old_names", "pid_count"),
            )
        ),
        ("pids", ctypes.c_int64 * 8),
        ("share_result", ctypes.c_int64),
        ("sm_util", ctypes.c_int64 * 8),
    )

    def constant(self, power_w: float) -> None:
        """Draw ``power_w`` watts at all times."""
        self.low_w = self.high_w = power_w
        self.period_s = 0.0

    def square(
        self, low_w: float, high_w: float, period_s: float, duty: float = 0.5, phase_s: float = 0.0
    ) -> None:
        """Draw ``high_w`` for the first ``duty`` of each period, ``low_w`` for the rest."""
        self.low_w, self.high_w, self.period_s = low_w, high_w, period_s
        self.duty, self.phase_s = duty, phase_s

    def processes(self, *pids: int) -> None:
        """Let these processes run on the card."""
        self.pids[: len(pids)] = pids
        self.pid_count = len(pids)

    def busy(self, percent: dict[int, int]) -> None:
        """Let processes keep the multiprocessors busy for these shares of each second."""
        self.processes(*percent)
        self.sm_util[: len(percent)] = list(percent.values())

    def energy_j(self, from_s: float, to_s: float) -> float:
        """Return the exact joules drawn between two times, without ``cpu_w``."""

        def since_phase_zero(x: float) -> float:
            if self.period_s <= 0:
                return self.high_w * x
            periods, high_s = math.floor(x / self.period_s), self.duty * self.period_s
            rest_s = x - periods * self.period_s
            seconds_high = periods * high_s + min(rest_s, high_s)
            return self.high_w * seconds_high + self.low_w * (x - seconds_high)

        return since_phase_zero(to_s + self.phase_s) - since_phase_zero(from_s + self.phase_s)


class _State(ctypes.Structure):
    _fields_ = (
        ("now_s", ctypes.c_double),
        ("origin_s", ctypes.c_double),
        ("real_clock", ctypes.c_int64),
        ("init_result", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("reads", ctypes.c_int64),
        ("cards", Card * CARDS),
    )


class Node:
    """The script of one node, in a file that the library maps too.

    Args:
        path: The file; made anew.
        count: How many cards, 1 to 8; each a constant 300 W, its counter ticking every 0.1 s.
    """

    def __init__(self, path: Path, count: int = 1) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.write_bytes(bytes(ctypes.sizeof(_State)))
        with path.open("r+b") as file:
            self._state = _State.from_buffer(mmap.mmap(file.fileno(), 0))
        self.cards = self._state.cards
        self.resize(count)
        for index, card in enumerate(self.cards):
            card.name = b"NVIDIA A100-SXM4-80GB"
            digit = format(index + 1, "x")
            card.uuid = f"GPU-{digit * 8}-0000-4000-8000-00000000000{digit}".encode()
            card.constant(300.0)
            card.duty, card.gain, card.limit_w = 0.5, 1.0, 400.0
            card.tick_s, card.average_s, card.base_j = 0.1, 1.0, 1e6
            card.restart_s = card.lost_s = NEVER
            card.module_power_result = card.module_energy_result = NOT_SUPPORTED

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which another process finds this node, where the library is found."""
        return {"NVML_SIMULATION": str(self.path)}

    @property
    def now_s(self) -> float:
        """The simulated time in seconds; a meter's ``clock=lambda: node.now_s``."""
        return float(self._state.now_s)

    @property
    def origin_s(self) -> float:
        """The real clock's time at which the simulated time was 0."""
        return float(self._state.origin_s)

    @property
    def shown(self) -> list[Card]:
        """The scripts of the cards that the node has."""
        return list(self.cards[: self._state.count])

    @property
    def reads(self) -> int:
        """How often an energy or a power was read."""
        return int(self._state.reads)

    def clock(self) -> float:
        """Return the simulated time in seconds."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Move the clock; from any thread."""
        with self._lock:
            self._state.now_s += seconds

    def run_in_real_time(self) -> None:
        """Follow the real clock from now on, for whole programs in other processes."""
        if not self._state.real_clock:
            self._state.origin_s = time.monotonic() - self.now_s
            self._state.real_clock = 1

    def resize(self, count: int) -> None:
        """Have ``count`` cards."""
        self._state.count = count

    def refuse(self, result: int) -> None:
        """Let the library's initialisation return this code."""
        self._state.init_result = result

    def uuid(self, index: int) -> str:
        """Return the UUID of a card."""
        return str(self.cards[index].uuid.decode())

    def mig_uuid(self, index: int, instance: int) -> str:
        """Return the UUID of a MIG instance, counted from 0."""
        if self.cards[index].mig_old_names:
            return f"MIG-{self.uuid(index)}/{instance + 1}/0"
        return f"MIG-{index}{instance + 1}000000-0000-5000-8000-000000000000"


class Pacer:
    """A meter's ``wait`` that moves the node's clock instead of waiting, up to a time.

    Args:
        node: The node.
        until_s: When to stop and set ``arrived``.
    """

    def __init__(self, node: Node, until_s: float) -> None:
        self.node = node
        self.until_s = until_s
        self.arrived = threading.Event()
        self.waits_s: list[float] = []

    def __call__(self, stop: threading.Event, seconds: float) -> bool:
        """Move the clock on, or wait for good where that would lead past the end."""
        left_s = self.until_s - self.node.now_s
        if left_s <= seconds:
            self.node.advance(left_s)
            self.arrived.set()
            return stop.wait()
        self.node.advance(seconds)
        self.waits_s.append(seconds)
        return stop.is_set()


def bursts(seed: int, count: int) -> list[tuple[float, float, float]]:
    """Draw burst shapes: periods of 20 ms to 10 s, duties of 0.1 to 0.9.

    Half of the periods are round, as timers make them and as evenly spaced samples miss them; the
    others are drawn evenly in their logarithm.

    Args:
        seed: Of the generator; 1 to 99 were used to choose how power is sampled, so a judgement of
            it takes others.
        count: How many.

    Returns:
        Period in s, duty and phase in s of each.
    """
    chance = random.Random(seed)
    rounded_s = [0.02, *(n * unit for unit in (0.01, 0.1, 1.0) for n in (4, 5, 8, 10, 20))][:-1]
    shapes = []
    for index in range(count):
        any_s = math.exp(chance.uniform(math.log(0.02), math.log(10.0)))
        period_s = any_s if index % 2 else chance.choice(rounded_s)
        shapes.append((period_s, chance.uniform(0.1, 0.9), chance.random() * period_s))
    return shapes


def build(folder: Path) -> Path:
    """Compile the library.

    Args:
        folder: Where to; put on ``LD_LIBRARY_PATH`` it serves other processes.

    Returns:
        The path of ``libnvidia-ml.so.1``.

    Raises:
        FileNotFoundError: If there is no C compiler.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("no C compiler `cc` on the PATH")
    library = folder / _SONAME
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += [f"-Wl,-soname,{_SONAME}", "-o", str(library), str(_SOURCE), "-lm"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated library, built once, and loaded so that ``pynvml`` finds it by its name.

    The loader gives a library that is loaded already to whoever asks for the same soname. Outside
    the tests that take ``nvml_node`` it says that the driver is not loaded.
    """
    try:
        library = build(tmp_path_factory.mktemp("nvml"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    _LIBRARIES.append(ctypes.CDLL(str(library)))
    by_name = ctypes.CDLL(_SONAME)
    if not hasattr(by_name, "simulation_size"):
        pytest.skip(f"a real {_SONAME} was loaded first; run these tests in a process of their own")
    if by_name.simulation_size() != ctypes.sizeof(_State):
        raise RuntimeError("struct node of libnvml.c and _State of simulation.py differ")
    return library


@pytest.fixture
def nvml_node(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Node]:
    """A node with one card of 300 W and a clock that stands until it is moved."""
    node = Node(tmp_path / "nvml-node")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in node.environment.items():
        monkeypatch.setenv(name, value)
    yield node
