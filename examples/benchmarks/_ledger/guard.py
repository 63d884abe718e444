"""Measure the guard's time per batch, and count the caps that are exceeded."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from _results import Row

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard
from greentrain.callbacks.anneal import RateScaler
from greentrain.energy import CodeCarbonMeter, Meter, NvmlMeter
from tests.callbacks import overshoot
from tests.models import Classifier, Clock, Tick, constant_meter, loader
from tests.nvml.simulation import Node, build

_HOOKS = ("on_train_batch_start", "on_train_batch_end")
_CAP_J = 5000.0


def overshot(folder: Path, *, quick: bool) -> list[Row]:
    """Count random fits that used more than their cap, and return the shares that were used."""
    fits = 10 if quick else 100
    outcomes: list[overshoot.Outcome] = []
    for simulated in (False, True):
        for seed in range(fits):
            node = _node(folder / f"nvml-node-{seed}") if simulated else None
            outcomes.append(overshoot.run(overshoot.case(seed, simulated=simulated), folder, node))
    large = [each for each in outcomes if each.case.enough and each.validations > 1]
    small_end = [each for each in large if each.case.end == overshoot.SMALL_END]
    other_end = [each for each in large if each.case.end != overshoot.SMALL_END]
    over = sum(each.share > 1 for each in outcomes)
    reads = sum(each.reads for each in outcomes) / sum(each.steps for each in outcomes)
    return [
        _used(
            "fits that used more than their cap",
            outcomes,
            over,
            reach=0.0,
            note="Half of them have a constant power on a fake clock, half a simulated card whose "
            "counter ticks every 0.1 s. The costs of their steps are described in "
            f"tests/callbacks/overshoot.py. The meter was read {reads:.2f} times a step. With a "
            "cap below a card's energy in 0.1 s, no step is taken",
        ),
        _used(
            "fits that used less than 97 % of a cap worth 200 steps and 60 s or more",
            small_end,
            sum(each.share < 0.97 for each in small_end),
            reach=0.0,
            note="a validation was measured before, and one with its saving uses up to 1 % of "
            "the cap",
        ),
        _used(
            "the same where a validation with its saving uses up to 10 % of the cap",
            other_end,
            sum(each.share < 0.97 for each in other_end),
            reach=None,
            note="after a validation there may be too little left for a step and another one, "
            "and the fit ends there",
        ),
    ]


def batch(folder: Path, *, quick: bool) -> list[Row]:
    """Return the guard's own time per batch, and the time to read a meter."""
    batches = 1_000 if quick else 5_000
    node = _node(folder / "nvml-node-guard")
    card = NvmlMeter(synchronize=lambda index: None)
    note = "a fit up to just below its cap, its hooks timed directly"
    rows = [
        _guarded(batches, anneal=anneal, what=what, note=note)
        for anneal, what in ((False, "the guard"), (True, "the guard with annealing"))
    ]
    node.run_in_real_time()
    meters: dict[str, Meter] = {"one simulated card": card, "CPU and RAM": CodeCarbonMeter()}
    for name, meter in meters.items():
        read_us = _read_us(meter, 200 if quick else 2_000)
        rows.append(
            Row(
                id="guard_us",
                what=f"reading the meter once: {name}",
                value=statistics.mean(read_us),
                unit="us",
                seeds=len(read_us),
                interval=(min(read_us), max(read_us)),
                note="left out of the guard's own time; the mean, the lowest and the highest",
            )
        )
    return rows


def _used(
    what: str,
    outcomes: Sequence[overshoot.Outcome],
    failures: int,
    *,
    reach: float | None,
    note: str,
) -> Row:
    shares = sorted(100.0 * each.share for each in outcomes)
    if not shares:
        return Row(
            id="overshoot", what=what, value=None, unit="fits", note="no such fit was sampled"
        )
    tenth, half = shares[len(shares) // 10], shares[len(shares) // 2]
    return Row(
        id="overshoot",
        what=what,
        value=float(failures),
        unit="fits",
        reach=reach,
        seeds=len(shares),
        note=f"used of the cap: {shares[0]:.1f} % at least, {tenth:.1f} % by nine in ten, "
        f"{half:.1f} % in the middle, {shares[-1]:.2f} % at most; {note}",
    )


def _guarded(batches: int, *, anneal: bool, what: str, note: str) -> Row:
    clock, watch = Clock(), _Stopwatch()
    meter = constant_meter(clock)
    guard = BudgetGuard(Budget(energy_j=_CAP_J), meter=meter, anneal=anneal)
    meter.read = watch.apart(meter.read)  # type: ignore[method-assign]
    for hook in _HOOKS:
        setattr(guard, hook, watch.timed(getattr(guard, hook)))
    scaling = {name: watch.timed(getattr(RateScaler, name)) for name in ("_before", "_after")}
    with mock.patch.multiple(RateScaler, **scaling):
        _fit(guard, clock, step_s=0.98 * _CAP_J / 100.0 / batches, epochs=batches // 100)
    calls_s = sorted(watch.each_s)
    typical_s = sum(calls_s[: int(0.99 * len(calls_s))]) / guard.steps
    return Row(
        id="guard_us",
        what=f"{what}, a batch",
        value=1e6 * sum(watch.each_s) / guard.steps,
        unit="us",
        reach=20.0,
        seeds=guard.steps,
        note=f"{note}; the mean, and {1e6 * typical_s:.3g} us without the slowest hundredth of the "
        f"calls; readings of the meter, at {watch.reads} of {guard.steps} batches, are left out",
    )


class _Stopwatch:
    """Adds up the time of some calls, without the time of other calls inside them."""

    def __init__(self) -> None:
        self.each_s: list[float] = []
        self.reads = 0
        self._apart_s = 0.0
        self._inside = False

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts."""

        def counted(*arguments: Any) -> Any:
            self._inside, self._apart_s = True, 0.0
            began_s = time.perf_counter()
            result = call(*arguments)
            self.each_s.append(time.perf_counter() - began_s - self._apart_s)
            self._inside = False
            return result

        return counted

    def apart(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time does not count inside one whose time does."""

        def left_out() -> Any:
            began_s = time.perf_counter()
            result = call()
            if self._inside:
                self.reads += 1
                self._apart_s += time.perf_counter() - began_s
            return result

        return left_out


def _fit(guard: BudgetGuard, clock: Clock, *, step_s: float, epochs: int) -> None:
    from pytorch_lightning import Trainer

    Trainer(
        callbacks=[guard, Tick(clock, step_s)],
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Classifier(), loader(count=25, batch_size=1))


def _read_us(meter: Meter, times: int) -> list[float]:
    meter.start()
    _ = meter.sources  # known once it is set up
    values = []
    for _ in range(times):
        began_s = time.perf_counter()
        meter.read()
        values.append(1e6 * (time.perf_counter() - began_s))
    meter.close()
    return values


def _node(path: Path) -> Node:
    """Return a simulated node, and make it visible to this process."""
    node = Node(path)
    os.environ.update(node.environment)
    return node


def load_driver(folder: Path) -> None:
    """Build the simulated driver, and load it under the name of the real one."""
    import ctypes

    _LOADED.append(ctypes.CDLL(str(build(folder))))


_LOADED: list[Any] = []
