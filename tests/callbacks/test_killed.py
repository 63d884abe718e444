"""A training process that is really killed leaves the energy used until then on disk."""

from __future__ import annotations

import time
from itertools import islice

import pytest

from greentrain.ledger import Ledger, verify
from greentrain.report import build
from tests import prepared

HEARTBEAT_S = 0.2
SCRIPT = f"""
import time
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from greentrain.callbacks import EnergyMonitor, run_record
from greentrain.energy import ConstantMeter
run_record.HEARTBEAT_S = {HEARTBEAT_S}

class Slow(Callback):
    def on_train_batch_start(self, trainer, *arguments):
        time.sleep(0.02)
        print(time.monotonic(), flush=True)

Trainer(accelerator="cpu", max_epochs=1000, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, limit_train_batches=50,
        callbacks=[EnergyMonitor(ConstantMeter(100.0), ledger="sqlite:///run.db"), Slow()],
).fit(BoringModel())
"""


@pytest.mark.parametrize("after_batches", [30, 80])  # within the first epoch, within the second
def test_kill_9_loses_a_heartbeat_at_most(tmp_path, after_batches):
    with prepared.running("-c", SCRIPT, cwd=tmp_path) as (process, lines):
        times = [float(line) for line in islice(filter(_is_time, lines), after_batches)]
        time.sleep(1.5 * HEARTBEAT_S)  # the beat in which the last of these batches lies
        process.kill()
        process.join()
    used_j = 100.0 * (times[-1] - times[0])
    ledger = Ledger(str(tmp_path / "run.db"), create=False)
    checked = verify(ledger)
    report = build(ledger)
    ledger.close()
    assert checked.ok
    (run,) = report["runs"]
    assert run["status"] != "completed"
    assert run["energy_wh"] * 3600 >= used_j


def _is_time(line: str) -> bool:
    return line[0].isdigit()
