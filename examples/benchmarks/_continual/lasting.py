"""Long streams: bytes and seconds per step over a stream, and streams that are killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from _results import Row

from _continual.models import Perceptron
from _continual.steps import StepTimes, growth
from greentrain import StreamTrainer
from greentrain.control import Always, PricedPolicy, UpdateMode, inputs_of
from greentrain.energy import ConstantMeter
from greentrain.ledger import Ledger, verify
from greentrain.memory import ClassBalancedBuffer
from greentrain.streams import Experience, data_incremental, digits, mnist

_ARRIVALS = 50
_BEFORE = 10  # experiences until buffers are full and allocators have reserved their memory
_LONGEST_S = 0.4  # from an update's start until its process is killed


def memory_flat(folder: Path, *, quick: bool) -> list[Row]:
    """Process a long stream with a bounded buffer, and measure what grows."""
    before, arrivals = (2, 4) if quick else (_BEFORE, _ARRIVALS)
    buffer, times = ClassBalancedBuffer(1000), StepTimes(clock=time.thread_time)
    stream = data_incremental(mnist()[0], n_experiences=_BEFORE + _ARRIVALS)[: before + arrivals]
    held, resident, bare_s = [], [], []
    with StreamTrainer(
        Perceptron,
        budget="1 kWh",
        num_experiences=len(stream),
        monitor="val_acc",
        buffer=buffer,
        ledger=f"sqlite:///{folder / 'flat.db'}",
        trainer={"max_epochs": 10, "accelerator": "cpu", "callbacks": [times]},
        loader={"batch_size": 64},
        meter=ConstantMeter(10.0),
        policy=Always(mode=UpdateMode.REPLAY),
        state_dir=folder / "flat",
    ) as trainer:
        for experience in stream:
            trainer.update(experience)
            held.append(float(buffer.nbytes or 0))
            resident.append(_resident_bytes())
            bare_s.append(_bare_step_s())
    note = f"{arrivals} experiences of 900 new MNIST samples, after {before} others; 1,000 stored"
    relative = [
        None if median_s is None else median_s / bare
        for median_s, bare in zip(times.medians_s[-arrivals:], bare_s[-arrivals:], strict=True)
    ]
    rows = [
        ("bytes in the buffer", held, True),
        ("processor time per step of replay, over that of a bare step", relative, True),
        ("resident memory of the process, with what allocators keep", resident, False),
    ]
    return [
        growth("memory_flat", f"growth of {what}", each[-arrivals:], held_to=held_to, note=note)
        for what, each, held_to in rows
    ]


def resume(folder: Path, *, quick: bool) -> list[Row]:
    """Kill a stream at random moments, let it finish, and count its faults."""
    kills, arrivals = (1, 6) if quick else (20, 40)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    chance, sign, killed, counted_j, faults = random.Random(0), folder / "at-work", 0, 0.0, 0
    for _ in range(kills):
        worker = context.Process(target=_work, args=(str(folder), arrivals))
        worker.start()
        for _ in range(chance.randint(1, 3)):  # number of updates until the kill
            sign.unlink(missing_ok=True)
            while not sign.exists() and worker.is_alive():
                time.sleep(0.002)
        time.sleep(chance.uniform(0.0, _LONGEST_S))
        worker.kill()
        worker.join()
        killed += worker.exitcode == -signal.SIGKILL
        paid_j, wrong = _paid_j(folder)
        faults += wrong + (paid_j < counted_j)
        counted_j = paid_j
    _work(str(folder), arrivals)
    ledger = _ledger(folder)
    decisions = ledger.rows("decision")
    faults += sum(_faults(ledger, arrivals))
    ledger.close()
    return [
        Row(
            id="resume",
            what="experiences lost or repeated, joules spent twice or over the budget, and "
            "decisions that cannot be reproduced from the recorded state",
            value=float(faults),
            unit="cases",
            reach=0.0,
            seeds=killed,
            note=f"{killed} kills at random moments, {len(decisions)} decisions for "
            f"{arrivals} experiences",
        )
    ]


def _work(folder: str, arrivals: int) -> None:
    """Process the stream of the processes that are killed, and signal each update."""
    torch.set_num_threads(1)
    with StreamTrainer(
        partial(Perceptron, pixels=64),
        budget="5000 J",
        num_experiences=arrivals,
        monitor="val_acc",
        buffer=ClassBalancedBuffer(200),
        ledger=f"sqlite:///{folder}/killed.db",
        trainer={"max_epochs": 40, "accelerator": "cpu"},
        meter=ConstantMeter(10.0),
        state_dir=f"{folder}/killed",
        name="killed",
    ) as trainer:
        for experience in _arrivals(arrivals):
            if experience.id not in trainer.known:
                Path(folder, "at-work").touch()
                trainer.update(experience)


def _arrivals(count: int) -> Iterator[Experience]:
    yield from data_incremental(digits()[0], n_experiences=count)


def _ledger(folder: Path) -> Ledger:
    return Ledger(f"sqlite:///{folder / 'killed.db'}", create=False)


def _paid_j(folder: Path) -> tuple[float, bool]:
    """Return the joules that count as spent, and whether they or the ledger are wrong."""
    ledger = _ledger(folder)
    budgets = ledger.rows("budget")
    found = verify(ledger)
    if not budgets:  # killed before the budget was recorded
        return 0.0, not found.ok
    balance = ledger.balance(budgets[0]["budget_id"])
    ledger.close()
    return balance.spent_j + balance.reserved_j, not (found.ok and balance.within)


def _faults(ledger: Ledger, arrivals: int) -> Iterator[int]:
    """Yield the numbers of faults of a finished stream, by kind."""
    had = Counter(row["experience_id"] for row in ledger.rows("outcome"))
    expected = [experience.id for experience in _arrivals(arrivals)]
    yield sum(had[id] != 1 for id in expected) + len(had.keys() - set(expected))
    positions = [row["position"] for row in ledger.rows("outcome")]
    yield sum(later <= sooner for sooner, later in pairwise(positions))
    settled = Counter(row["reservation_id"] for row in ledger.rows("settlement"))
    yield sum(count > 1 for count in settled.values())
    yield sum(not _is_reproducible(row) for row in ledger.rows("decision"))


def _is_reproducible(row: dict[str, object]) -> bool:
    state = json.loads(str(row["state"]))
    if state is None:  # the budget did not allow a probe
        return row["update_mode"] == str(UpdateMode.SKIP)
    inputs = inputs_of(state, json.loads(str(row["alternatives"])))
    action = PricedPolicy().decide(*inputs).action
    return (str(action.mode), action.step_fraction) == (row["update_mode"], row["step_fraction"])


def _bare_step_s(steps: int = 60) -> float:
    """Time the same training step without the framework: the current speed of the machine."""
    model = Perceptron()
    optimizer = model.configure_optimizers()
    images, labels = torch.rand(64, 1, 28, 28), torch.arange(64) % 10
    ends_s = []
    for _ in range(steps):
        optimizer.zero_grad()
        model.training_step((images, labels), 0).backward()
        optimizer.step()
        ends_s.append(time.thread_time())
    return statistics.median(later - sooner for sooner, later in pairwise(ends_s))


def _resident_bytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
