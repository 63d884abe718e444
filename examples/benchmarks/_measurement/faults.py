"""Faults during a fit: a counter restarts, a card is lost, a meter raises."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _results import Row
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from _measurement.processes import Workers
from _measurement.truth import on
from greentrain.callbacks import EnergyMonitor
from greentrain.energy import NvmlMeter, Reading, Source
from tests.nvml.simulation import Node

EPOCHS, BATCHES = 4, 5


class Raising:
    """A meter of 1 W whose reading fails once, or from then on.

    Args:
        at: Number of the reading that fails, counted from 1.
        forever: Whether all later ones fail too.
        error: The error to raise.
    """

    def __init__(self, at: int, *, forever: bool, error: Exception) -> None:
        self.at, self.forever, self.error = at, forever, error
        self.reads = 0
        self.sources = (Source(name="gpu:0", method="given", relative_uncertainty=None),)

    def start(self) -> None:
        """Do nothing."""

    def read(self) -> Reading:
        """Return 1 J and 1 s for each reading, or fail."""
        self.reads += 1
        if self.reads == self.at or (self.forever and self.reads > self.at):
            raise self.error
        return Reading(duration_s=float(self.reads), energy_j={"gpu:0": float(self.reads)})

    def close(self) -> None:
        """Do nothing."""


class Network(LightningModule):
    """Two layers with dropout: random numbers sampled by other code change the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1)
        )

    def training_step(self, batch: Any, index: int) -> Any:
        """Return the mean of squares."""
        return self.layers(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Passing(Callback):
    """Advance the clock by a second with each batch."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Advance the clock."""
        self.node.advance(1.0)


def weights(*callbacks: Callback) -> bytes:
    """Train from a fixed seed and return every bit of the weights; nothing if training failed."""
    torch.manual_seed(0)
    network = Network()
    data = DataLoader(TensorDataset(torch.randn(8 * BATCHES, 8)), batch_size=8, shuffle=True)
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    try:
        trainer.fit(network, data)
    except Exception:  # training was stopped, which counts as a fault
        return b""
    written = io.BytesIO()
    torch.save(network.state_dict(), written)
    return written.getvalue()


def faults(workers: Workers, *, quick: bool) -> Row:
    """Count the faults that change the training or give a wrong figure."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = weights()
        cases = [*_of_cards(workers, bare), *_of_meters(bare, every=5 if quick else 1)]
    logging.disable(logging.NOTSET)
    failed = [name for name, holds in cases if not holds]
    failures = f"; failed: {', '.join(failed)}" if failed else ""
    return Row(
        id="faults",
        what="greentrain: faults that change the weights, go below zero or leave no trace",
        value=float(len(failed)),
        unit="faults",
        reach=0.0,
        better="equal",
        seeds=len(cases),
        note=(
            "in a fit of 4 epochs: counter restarting, falling, lost card, a meter that raises at "
            "any of its readings, once or for good; weights bit-identical to bare training"
            f"{failures}"
        ),
    )


def _of_cards(workers: Workers, bare: bytes) -> list[tuple[str, bool]]:
    def restarts(node: Node) -> None:
        node.cards[0].restart_s = 7.5

    def is_lost(node: Node) -> None:
        node.cards[0].lost_s = 7.5

    def nothing(node: Node) -> None:
        pass

    cases: Sequence[tuple[str, Callable[[Node], None], str, bool]] = (
        ("counter restarts", restarts, "restarted", True),
        ("card is lost", is_lost, "unknown from here on", False),
        ("nothing", nothing, "", True),
    )
    return [
        (name, _card_holds(workers, bare, fault, trace, known))
        for name, fault, trace, known in cases
    ]


def _card_holds(
    workers: Workers, bare: bytes, fault: Callable[[Node], None], trace: str, known: bool
) -> bool:
    node = workers.node()
    fault(node)
    with on(node, workers):
        meter = NvmlMeter(clock=node.clock, wait=_until_closed, synchronize=lambda index: None)
        monitor = EnergyMonitor(meter, ledger=False, summary=False)
        learned = weights(Passing(node), monitor)
    joules = [window.reading.energy_j["gpu:0"] for window in monitor.windows]
    truth_j = node.cards[0].energy_j(0.0, node.now_s)
    counted_j = sum(each for each in joules if each is not None)
    return (
        learned == bare
        and trace in meter.sources[0].note
        and all(each is None or each >= 0 for each in joules)
        and (None not in joules) == known
        and (monitor.total.energy_j["gpu:0"] is not None) == known
        and 0 < counted_j <= truth_j + 1.0
    )


def _of_meters(bare: bytes, every: int) -> list[tuple[str, bool]]:
    whole = Raising(at=10**9, forever=True, error=OSError())
    holds = weights(EnergyMonitor(whole, ledger=False, summary=False)) == bare
    cases = [("a meter without faults", holds)]
    for error in (OSError("gone"), ValueError("odd")):
        for forever in (False, True):
            for at in range(1, whole.reads + 1, every):
                meter = Raising(at=at, forever=forever, error=error)
                monitor = EnergyMonitor(meter, ledger=False, summary=False)
                learned, total = weights(monitor), monitor.total
                # A failing reading that ends no window loses nothing.
                total_j = total.energy_j.get("gpu:0")
                as_expected = total_j is None or (not forever and total_j == total.duration_s)
                holds = learned == bare and as_expected
                cases.append((f"{error!r} at reading {at}{' and after' * forever}", holds))
    return cases


def _until_closed(stop: threading.Event, seconds: float) -> bool:
    return stop.wait()
