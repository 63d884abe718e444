"""Faults of meters and cards in mid-fit leave the weights as in training without a meter."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.energy import NvmlMeter, Reading, Source
from tests.nvml.simulation import NOT_SUPPORTED, Node

EPOCHS, BATCHES, BATCH_S = 3, 4, 1.0


class Network(LightningModule):
    """Dropout and shuffled data: an additional random number would change the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        return self.layers(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layers(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def learned(*callbacks: Callback) -> dict[str, torch.Tensor]:
    """Train from a fixed seed; return the weights."""
    torch.manual_seed(0)
    network = Network()
    data = TensorDataset(torch.randn(8 * BATCHES, 4))
    Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(network, DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=8))
    return network.state_dict()


def assert_same(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.fixture(scope="module")
def bare() -> dict[str, torch.Tensor]:
    """The weights of training that nothing measures."""
    return learned()


class Flaky:
    """A meter that counts 1 J between two readings, and fails at some of them."""

    sources = (Source(name="gpu:0", method="given", relative_uncertainty=None),)

    def __init__(self, fails: Callable[[int], bool], error: Exception) -> None:
        self.fails = fails
        self.error = error
        self.reads = 0

    def start(self) -> None:
        pass

    def read(self) -> Reading:
        self.reads += 1
        if self.fails(self.reads):
            raise self.error
        return Reading(duration_s=float(self.reads), energy_j={"gpu:0": float(self.reads)})

    def close(self) -> None:
        pass


def monitor_of(meter) -> EnergyMonitor:
    return EnergyMonitor(meter=meter, ledger=False, summary=False)


def count_reads() -> int:
    meter = Flaky(lambda read: False, OSError())
    learned(monitor_of(meter))
    return meter.reads


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("error", [OSError("gone"), ValueError("odd"), KeyError("cpu")])
def test_a_meter_that_raises_at_any_of_its_readings(bare, error, forever):
    last = count_reads()
    assert last > 4 * EPOCHS
    for at in range(1, last + 1, 1 if isinstance(error, OSError) else 5):
        meter = Flaky(lambda read, at=at: read >= at if forever else read == at, error)
        monitor = monitor_of(meter)
        assert_same(learned(monitor), bare)
        # One failure at a look that ends no window loses nothing: 1 J a reading, 1 s a reading.
        total_j = monitor.total.energy_j.get("gpu:0")
        assert total_j is None or (not forever and total_j == monitor.total.duration_s), at
        for window in monitor.windows:
            used_j = window.reading.energy_j.get("gpu:0")
            assert used_j is None or used_j >= 0


def test_a_meter_that_is_well_changes_no_weight(bare):
    monitor = monitor_of(Flaky(lambda read: False, OSError()))
    assert_same(learned(monitor), bare)
    assert monitor.total.complete


class Nameless(Flaky):
    """A meter that cannot name its sources."""

    @property
    def sources(self) -> tuple[Source, ...]:
        raise OSError("the driver does not answer")


def test_a_meter_that_cannot_name_its_sources_changes_no_weight(bare, caplog):
    meter = Nameless(lambda read: False, OSError())
    assert_same(learned(monitor_of(meter), BudgetGuard("1 Wh", meter=meter)), bare)
    assert "the meter's sources are unknown: the driver does not answer" in caplog.text


class Passing(Callback):
    """Let time pass on a node with each batch of training."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def on_train_batch_start(self, *args, **kwargs):
        self.node.advance(BATCH_S)


def restart(card) -> None:
    card.restart_s = 5.5


def loss(card) -> None:
    card.lost_s = 5.5


def loss_of_a_sampled_card(card) -> None:
    card.counter_result, card.lost_s = NOT_SUPPORTED, 5.5


def contradiction(card) -> None:
    card.gain = 3.0


@pytest.mark.parametrize(
    ("fault", "note", "known"),
    [
        (restart, "the counter restarted", True),
        (loss, "unknown from here on", False),
        (loss_of_a_sampled_card, "unknown from here on", False),
        (contradiction, "", True),
    ],
)
def test_a_card_with_a_fault(bare, nvml_node, fault, note, known):
    card = nvml_node.cards[0]
    fault(card)
    meter = NvmlMeter(clock=nvml_node.clock, wait=until_closed, synchronize=lambda index: None)
    monitor = monitor_of(meter)
    assert_same(learned(Passing(nvml_node), monitor), bare)
    assert note in monitor.sources[0].note
    assert (monitor.total.energy_j["gpu:0"] is not None) == known
    used_j = [window.reading.energy_j["gpu:0"] for window in monitor.windows]
    assert all(joules is None or joules >= 0 for joules in used_j)
    assert (None in used_j) != known


def until_closed(stop: threading.Event, seconds: float) -> bool:
    return stop.wait()
