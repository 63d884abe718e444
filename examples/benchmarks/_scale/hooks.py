"""The cost of monitor, guard and ledger on several ranks, timed in their hooks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _results import Row
from torch import distributed

from _scale.forks import on_ranks
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from tests.models import Classifier, loader, trainer

STEP_MS = 50.0
_HOOKS = ("on_train_batch_start", "on_train_batch_end")
_COLLECTIVES = ("all_reduce", "all_gather", "all_gather_object", "broadcast", "barrier", "reduce",
                "broadcast_object_list", "gather_object")  # fmt: skip


def weak_scaling(folder: Path, *, quick: bool) -> list[Row]:
    """Fit with 1 to 8 ranks, and return the cost of a batch and the number of collectives."""
    rows = []
    epochs = 2 if quick else 20
    for ranks in (1, 2) if quick else (1, 2, 4, 8):

        def work(rank: int, ranks: int = ranks) -> dict[str, float]:
            return _fit(folder, ranks, epochs)

        found = on_ranks(folder / f"weak{ranks}", ranks, work)
        most = max(found, key=lambda each: each["batch_ms"])
        first = found[0]
        note = (
            f"CPU time of the training thread in the hooks of a batch, of the slowest rank; the "
            f"mean of {most['batches']:.0f} batches. Waiting for other ranks is not in it"
        )
        rows += [
            Row(id="weak_scaling", what=f"monitor, guard and ledger on {ranks} ranks",
                value=100 * most["batch_ms"] / STEP_MS, unit=f"% of {STEP_MS:.0f} ms", reach=1.0,
                seeds=ranks, note=note),
            Row(id="weak_scaling", what=f"collectives in a check of the guard on {ranks} ranks",
                value=first["collectives"] / max(1, first["checks"]), unit="", reach=1.0,
                seeds=int(first["checks"]),
                note=f"{first['checks']:.0f} checks in {first['batches']:.0f} batches; no "
                "collective in the hooks of other batches. It is a sum of 64 bytes"
                if not first["elsewhere"] else
                f"{first['elsewhere']:.0f} collectives in hooks of batches without a check"),
        ]  # fmt: skip
    return rows


class _Watch:
    """Adds up the CPU time of hooks, and counts the collectives inside them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.checks = self.collectives = self.elsewhere = 0
        self._inside = self._checked = False
        self._seen = 0
        self._nested = False

    def hook(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook whose time counts."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self._inside, self._checked, self._seen = True, False, 0
            began_s = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - began_s
                self._inside = False
                if self._checked:
                    self.collectives += self._seen
                else:
                    self.elsewhere += self._seen

        return timed

    def check(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a check of the guard that counts, inside a hook."""

        def counted(*arguments: Any) -> Any:
            if self._inside:
                self._checked = True
                self.checks += 1
            return call(*arguments)

        return counted

    def collective(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a collective that counts once, inside a hook."""

        def counted(*arguments: Any, **named: Any) -> Any:
            outermost, self._nested = not self._nested, True
            self._seen += outermost
            try:
                return call(*arguments, **named)
            finally:
                self._nested = not outermost

        return counted


def _fit(folder: Path, ranks: int, epochs: int) -> dict[str, float]:
    torch.set_num_threads(1)
    watch = _Watch()
    url = f"sqlite:///{folder / f'weak{ranks}.db'}"
    guard = BudgetGuard("1 kWh", ledger=url, budget="weak", num_fits=2)
    monitor = EnergyMonitor(ledger=url)
    guard._check = watch.check(guard._check)  # type: ignore[method-assign]
    for callback in (guard, monitor):
        for hook in _HOOKS:
            setattr(callback, hook, watch.hook(getattr(callback, hook)))
    for name in _COLLECTIVES:
        setattr(distributed, name, watch.collective(getattr(distributed, name)))
    options = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    fit = trainer(monitor, guard, max_epochs=epochs, default_root_dir=folder, **options)
    fit.fit(Classifier(), loader(count=40 * ranks))  # 20 batches for each rank
    return {
        "batch_ms": 1e3 * watch.seconds / guard.steps,
        "batches": guard.steps,
        "checks": watch.checks,
        "collectives": watch.collectives,
        "elsewhere": watch.elsewhere,
    }
