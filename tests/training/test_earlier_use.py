"""The tracker's cumulative figures follow the ledger, also after a kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback

from greentrain.carbon import Emissions
from greentrain.ledger import Ledger, with_recovered
from greentrain.tracking import names
from greentrain.training.earlier_use import EarlierUse, earlier_use
from tests.models import Clock, Tick, experience
from tests.prepared import CONTEXT
from tests.report.ledgers import heartbeat, window
from tests.training.streaming import ledger_url, open_stream
from tests.training.test_shadow import Noted


class Kill(Callback):
    """Kill the process after some batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, *_args: object) -> None:
        self.batches -= 1
        if self.batches == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _killed(folder: str, batches: int, baseline_every: int | None) -> None:
    torch.set_num_threads(1)
    clock = Clock()
    callbacks = [Tick(clock), Kill(batches)]
    trainer = {"max_epochs": 4, "accelerator": "cpu", "callbacks": callbacks}
    options = {"trainer": trainer, "baseline_every": baseline_every, "state_dir": f"{folder}/s"}
    with open_stream(Path(folder), clock=clock, **options) as stream:
        stream.run(experience(f"{n}", (n % 4,), seed=n) for n in range(4))


def used_j(folder: Path) -> float:
    """Return the joules of all windows in the ledger, those of killed runs included."""
    ledger = Ledger(ledger_url(folder), create=False)
    rows = with_recovered(*(ledger.rows(kind) for kind in ("window", "heartbeat", "closing")))
    ledger.close()
    return sum(row["energy_j"] or 0.0 for row in rows)


@pytest.mark.parametrize(
    ("kills", "baseline_every"),
    [((5,), None), ((30,), None), ((30, 7), None), ((75,), 1)],
    ids=["in the first update", "in a later one", "twice", "with baseline retrainings"],
)
def test_cumulative_energy_is_that_of_the_ledger_after_a_kill(tmp_path, kills, baseline_every):
    for batches in kills:
        worker = CONTEXT.Process(target=_killed, args=(str(tmp_path), batches, baseline_every))
        worker.start()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    tracker = Noted()
    given = {"tracking_uri": tracker, "baseline_every": baseline_every}
    with open_stream(tmp_path, state_dir=tmp_path / "s", **given) as stream:
        stream.run(experience(f"{n}", (n % 4,), seed=n) for n in range(4))
    last = [metrics for metrics, _, _ in tracker.logged if names.ENERGY_CUMULATIVE in metrics][-1]
    assert last[names.ENERGY_CUMULATIVE] == pytest.approx(used_j(tmp_path) / 3600.0)


def test_windows_heartbeats_and_grams_of_earlier_runs_count_once(ledger):
    grams = Emissions(grams=2.0, intensity_g_per_kwh=400.0)
    first = ledger.open_run("stream", "a")
    window(first, 10.0, 5.0, emissions=grams)
    first.close()
    killed = ledger.open_run("stream", "a")
    window(killed, 100.0, None, emissions=grams)
    heartbeat(killed, 7.0, 0.0, phase="probe")
    other = ledger.open_run("stream", "b")
    window(other, 1000.0, 0.0)
    other.flush()  # its writer is a thread
    assert earlier_use(ledger, "a", None) == EarlierUse(energy_j=122.0, emissions_g=4.0)
    saved = {"earlier": {"energy_j": 15.0, "emissions_g": 2.0, "run_id": killed.run_id}}
    assert earlier_use(ledger, "a", saved) == EarlierUse(energy_j=122.0, emissions_g=4.0)
    assert earlier_use(ledger, "b", None) == EarlierUse(energy_j=1000.0)
    assert earlier_use(ledger, "c", None) == EarlierUse()
    other.close()
    killed.close()
