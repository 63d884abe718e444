"""Processes on one host, really forked: each device is measured once, and all ranks agree."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pytorch_lightning import Callback
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.callbacks.handover import Origin
from greentrain.callbacks.stop_reason import StopReason
from greentrain.energy import NvmlMeter
from greentrain.ledger import Ledger
from tests.callbacks.forks import FORKS, SaveView, fit, free_port
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer
from tests.nvml.simulation import Node

__all__ = ["free_port"]  # a fixture


def run(folder: Path, cap_j: float) -> list[dict]:
    clock = Clock()
    meter = constant_meter(clock)
    guard = BudgetGuard(f"{cap_j} J", meter=meter)
    monitor = EnergyMonitor(meter, ledger=f"sqlite:///{folder / 'greentrain.db'}")
    return fit(folder, 2, monitor, guard, Tick(clock), SaveView(folder, guard))


@FORKS
def test_joules_are_counted_once_and_every_rank_logs_the_same(tmp_path):
    first, second = run(tmp_path, cap_j=1e6)
    assert first == second
    assert first["steps"] == 30  # each rank has half of the 20 batches, three times
    assert first["epoch_wh"] == pytest.approx(10 / 3600)  # ten steps of 1 J, not twenty
    ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)
    assert len(ledger.rows("run")) == 1
    assert sum(row["energy_j"] for row in ledger.rows("window")) == pytest.approx(30.0)
    ledger.close()


@FORKS
def test_every_rank_stops_at_the_same_step(tmp_path):
    first, second = run(tmp_path, cap_j=25.0)
    assert first == second
    assert first["stopped"]
    assert 5 <= first["steps"] <= 25


class Cards(Callback):
    """Let each rank see one card as its first, as SLURM does with ``--gpus-per-task=1``.

    Args:
        node: The simulated node.
        folder: Folder in which each rank saves its totals.
    """

    def __init__(self, node: Node, folder: Path, *, one_each: bool) -> None:
        self.node = node
        self.folder = folder
        self.one_each = one_each

    def setup(self, trainer, pl_module, stage):
        if self.one_each:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(trainer.local_rank)

    def on_train_batch_start(self, trainer, *args, **kwargs):
        if trainer.local_rank == 0:
            self.node.advance(0.1)
        trainer.strategy.barrier()  # the ranks share one clock

    def on_train_end(self, trainer, pl_module):
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(seen))


@FORKS
@pytest.mark.parametrize("one_each", [True, False])
@pytest.mark.parametrize("ranks", [2, 4])
def test_each_card_of_a_node_is_counted_once(nvml_node, tmp_path, ranks, one_each):
    nvml_node.resize(ranks)
    for index in range(ranks):
        nvml_node.cards[index].constant(100.0 * (index + 1))
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    meter = NvmlMeter(clock=nvml_node.clock, synchronize=lambda index: None)
    monitor = EnergyMonitor(meter, ledger=url)
    cards = Cards(nvml_node, tmp_path, one_each=one_each)
    views = fit(tmp_path, ranks, cards, monitor, epochs=1)
    seconds = 0.1 * 20 / ranks  # 20 batches, shared by the ranks
    truths_j = {f"gpu:{index}": 100.0 * (index + 1) * seconds for index in range(ranks)}
    for figures in views:
        assert figures == views[0]
        assert figures["energy/epoch_wh"] * 3600 == pytest.approx(sum(truths_j.values()), rel=0.15)
        for index in range(ranks):
            joules = figures[f"energy/gpu_{index}_epoch_wh"] * 3600
            assert joules == pytest.approx(truths_j[f"gpu:{index}"], abs=20 * (index + 1))
    ledger = Ledger(url, create=False)
    assert len(ledger.rows("run")) == 1
    sources = {row["name"]: row["uuid"] for row in ledger.rows("source")}
    ledger.close()
    assert sources == {f"gpu:{index}": nvml_node.uuid(index) for index in range(ranks)}


class Failing(Callback):
    """Let the second rank fail in its fourth batch, while the first waits for its gradients."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and batch_idx == 3:
            raise ValueError("a bad batch")


@FORKS
def test_a_rank_that_fails_waits_for_no_other(tmp_path):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=f"sqlite:///{tmp_path / 'greentrain.db'}")
    with pytest.raises(Exception, match="a bad batch"):
        fit(tmp_path, 2, monitor, Tick(clock), Failing())


class FailingEpoch(Callback):
    """Let some ranks fail after their first epoch.

    Args:
        ranks: The ranks.
    """

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.ranks = ranks

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.global_rank in self.ranks:
            raise ValueError("a bad epoch")


@FORKS
@pytest.mark.parametrize("ranks", [(0, 1), (1,)])
def test_a_fit_that_fails_in_its_processes_is_settled_and_closed(tmp_path, ranks):
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    clock = Clock()
    meter = constant_meter(clock)
    monitor = EnergyMonitor(meter, ledger=url)
    guard = BudgetGuard("500 J", meter=meter, ledger=url, budget="kfold")
    # That of the rank that failed first, or the other one's, which lost its connection.
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        fit(tmp_path, 2, monitor, guard, Tick(clock), FailingEpoch(ranks))
    assert 10.0 <= monitor.total.total_j <= 20.0  # 1 J a step, in the first epoch
    assert 0.0 < guard.used_j <= monitor.total.total_j
    ledger = Ledger(url, create=False)
    assert [row["status"] for row in ledger.rows("closing")] == ["failed"]
    (settled,) = ledger.rows("settlement")
    balance = ledger.balance(ledger.find_budget("kfold")["budget_id"])
    ledger.close()
    assert (balance.reserved_j, balance.spent_j) == (0.0, settled["sum_spent"])


@FORKS
@pytest.mark.parametrize(
    "strategy", ["ddp_fork", pytest.param("ddp_spawn", marks=pytest.mark.slow)]
)
def test_the_results_come_back_to_the_process_that_started_the_others(tmp_path, strategy):
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    clock = Clock()
    meter = constant_meter(clock)
    monitor, guard = EnergyMonitor(meter, ledger=url), BudgetGuard("25 J", meter=meter)
    for _ in range(2):
        options = {"max_epochs": 3, "devices": 2, "strategy": strategy}
        stopped = trainer(monitor, guard, Tick(clock), **options)
        stopped.fit(Classifier(), loader())
        os.environ.pop("MASTER_PORT")
    assert guard.stopped
    assert guard.stop_reason is StopReason.NO_ROOM
    assert "of its cap of 25 J" in guard.reason
    assert 5.0 <= guard.used_j <= 25.0
    assert guard.used_j == pytest.approx(guard.steps)  # 1 J a step
    ledger = Ledger(url, create=False)
    rows = ledger.rows("window")
    runs = [row["run_id"] for row in ledger.rows("run")]
    ledger.close()
    assert len(runs) == 2  # one of each fit
    assert monitor.run_id == runs[-1]
    assert monitor.ledger_url == url
    assert monitor.total.total_j == pytest.approx(sum(row["energy_j"] for row in rows))
    assert len(monitor.windows) == len(rows)
    assert [source.name for source in monitor.sources] == ["constant"]
    assert not any(one.origin._folder().exists() for one in (monitor, guard))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:the results of a callback")
def test_results_that_cannot_be_written_lose_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(Origin, "_folder", lambda self: tmp_path / "missing" / self.token)
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=False)
    guard = BudgetGuard("1e6 J")
    first, _ = fit(tmp_path, 2, monitor, guard, Tick(clock), SaveView(tmp_path, guard), epochs=1)
    assert first["steps"] == 10
    assert monitor.total.total_j is None
