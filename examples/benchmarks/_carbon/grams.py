"""Train within budgets in grams while the intensity moves, and count those that were exceeded."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from _results import Row
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from greentrain import Budget
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.carbon import CarbonAccount, Interval, Provenance
from greentrain.energy import ConstantMeter, Reading, Window
from greentrain.errors import BudgetExceeded
from greentrain.ledger import Ledger
from greentrain.units import utc_now

TICK = timedelta(milliseconds=5)
"""Time after which the intensity moves."""
POWER_W = 100.0
STEP_S = 0.01
"""Metered time of a step: a busy machine would change the joules of a step, too."""


class Moving:
    """An intensity that moves every 5 ms, of which only the past is known, with a forecast.

    Args:
        seed: Seed of the values.
        predicted: What the forecast gives for the mean of the coming values; its upper bound is the
            highest possible value.
    """

    MOST = 900.0
    provenance = Provenance(source="a moving grid", zone="DE", data_year=None)

    def __init__(self, seed: int, predicted: Callable[[float], float]) -> None:
        rng = np.random.default_rng(seed)
        # Some seconds of calm, and jumps of up to the highest value.
        self._values = rng.choice([rng.uniform(20, 100), rng.uniform(100, 400), self.MOST], 512)
        self._predicted = predicted

    def history(self, start: datetime, end: datetime) -> list[Interval]:
        """Return the values up to the present."""
        first, last = int(start.timestamp() / TICK.total_seconds()), 0
        last = int(min(end, utc_now()).timestamp() / TICK.total_seconds())
        zero = datetime.fromtimestamp(0, start.tzinfo)
        return [
            Interval(
                start=zero + n * TICK,
                end=zero + (n + 1) * TICK,
                g_per_kwh=float(self._values[n % len(self._values)]),
            )
            for n in range(first, max(first, last) + 1)
        ]

    def forecast(self, as_of: datetime, horizon: timedelta) -> Sequence[Interval]:
        """Return one interval, whose upper bound is always right."""
        value = min(self.MOST, max(0.0, self._predicted(float(self._values.mean()))))
        return [
            Interval(
                start=as_of,
                end=as_of + horizon,
                g_per_kwh=value,
                high_g_per_kwh=self.MOST,
            )
        ]


FORECASTS: dict[str, Callable[[float], float]] = {
    "right": lambda mean: mean,
    "a tenth": lambda mean: mean / 10,
    "inverted": lambda mean: Moving.MOST - mean,
    "zero": lambda mean: 0.0,
}


class Steps(Callback):
    """Advance the meter's clock by the same time in each step."""

    seconds = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """Advance the clock."""
        self.seconds += STEP_S


class Model(LightningModule):
    """A line."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss: torch.Tensor = self.layer(batch[0]).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), 0.01)


def gram_budget(folder: Path, *, quick: bool) -> list[Row]:
    """Return the rows of caps of fits, and of a ledger's budgets."""
    seeds = 1 if quick else 10
    over = fits = 0
    spent = []
    for seed in range(seeds):
        for predicted in FORECASTS.values():
            share = _fit(Moving(seed, predicted), cap_g=0.01 * (1 + seed % 3))
            over += share > 1.0
            spent.append(100 * share)
            fits += 1
    exceeded, budgets = _ledger(folder, seeds)
    return [
        Row(
            id="gram_budget",
            what="fits that exceeded their cap in grams under a moving intensity",
            value=over,
            unit="",
            reach=0,
            seeds=fits,
            interval=(min(spent), max(spent)),
            note="the intensity moves every 5 ms between 20 and 900 g/kWh; forecasts are right, a "
            "tenth, inverted or zero, with a true upper bound; in brackets the percent spent",
        ),
        Row(
            id="gram_budget",
            what="budgets in grams of a ledger that were exceeded, likewise",
            value=exceeded,
            unit="",
            reach=0,
            seeds=budgets,
            note="works reserve by the forecast's upper bound, and settle the grams that came",
        ),
    ]


def _fit(intensity: Moving, cap_g: float) -> float:
    """Return the share of a cap that a fit used."""
    steps = Steps()
    meter = ConstantMeter(POWER_W, clock=lambda: steps.seconds)
    monitor = EnergyMonitor(meter, intensity=intensity, summary=False, ledger=False)
    guard = BudgetGuard(f"{cap_g} gCO2e")
    loader = DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            max_epochs=1000,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[steps, monitor, guard],
        ).fit(Model(), loader)
    assert guard.used_g is not None
    return guard.used_g / cap_g


def _window(energy_j: float, began: datetime, reservation: str) -> Window:
    reading = Reading(duration_s=0.005, energy_j={"cpu": energy_j})
    return Window(
        phase="update",
        started=began,
        ended=utc_now(),
        reading=reading,
        reservation_id=reservation,
    )


def _ledger(folder: Path, seeds: int) -> tuple[int, int]:
    """Return the budgets that were exceeded, and all of them."""
    ledger = Ledger(f"sqlite:///{folder / 'grams.db'}")
    exceeded = budgets = 0
    for seed in range(seeds):
        for predicted in FORECASTS.values():
            rng = np.random.default_rng(seed)
            carbon = CarbonAccount(intensity=Moving(seed, predicted))
            budget = ledger.open_budget(f"grams-{budgets}", Budget.parse("2 gCO2e"))
            with ledger.open_run("stream", f"run-{budgets}") as run:
                account = ledger.account(budget, run, carbon=carbon)
                while True:
                    joules = float(rng.uniform(100, 2000))
                    began = utc_now()
                    try:
                        reservation = account.reserve(joules, "an update")
                    except BudgetExceeded:
                        break
                    used_j = joules * float(rng.uniform(0.5, 1.0))
                    time.sleep(0.005)
                    window = _window(used_j, began, reservation)
                    run.record(window, carbon.of(window))
                    account.settle(reservation, used_j)
            exceeded += not ledger.status(budget).within
            budgets += 1
    ledger.close()
    return exceeded, budgets
