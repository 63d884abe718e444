"""Kill the MLflow server of a fit for a minute, and measure lost points and waiting times."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _results import Row

OUTAGE_S, AROUND_S = 60.0, 10.0
QUICK_OUTAGE_S, QUICK_AROUND_S = 3.0, 2.0


def outage(folder: Path, *, quick: bool) -> list[Row]:
    """Return the rows ``spool``: lost or duplicated points, and the slowest epoch."""
    from pytorch_lightning import Trainer

    from greentrain.callbacks import EnergyMonitor
    from greentrain.energy import ConstantMeter
    from greentrain.tracking import MlflowTracker
    from greentrain.tracking.lightning_logger import QueueLogger
    from tests.models import Classifier, loader
    from tests.tracking.conftest import Server

    outage_s, around_s = (QUICK_OUTAGE_S, QUICK_AROUND_S) if quick else (OUTAGE_S, AROUND_S)
    server = Server(f"sqlite:///{folder / 'mlflow.db'}", folder)
    server.start()
    tracker = MlflowTracker(server.uri, queue_folder=folder / "queue")
    tracker.start("outage", {}, {})
    given: Counter[tuple[str, int]] = Counter()
    epochs_ms: defaultdict[int, float] = defaultdict(float)

    class Timed(QueueLogger):
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            begun_s = time.perf_counter()
            super().log_metrics(metrics, step)
            epochs_ms[trainer.current_epoch] += 1000 * (time.perf_counter() - begun_s)
            given.update((name, step or 0) for name in metrics)

    timed = Timed(tracker._queue, tracker.begin_update("fit", []).version)
    trainer = Trainer(
        max_epochs=-1,
        max_time={"seconds": 2 * around_s + outage_s},
        accelerator="cpu",
        logger=timed,
        callbacks=[EnergyMonitor(ConstantMeter(100.0), ledger=False, summary=False)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1000,
    )
    timers = [
        threading.Timer(around_s, server.kill),
        threading.Timer(around_s + outage_s, server.start),
    ]
    for timer in timers:
        timer.start()
    trainer.fit(Classifier(), loader())
    for timer in timers:
        timer.join()
    tracker.end_update({}, {}, {})
    tracker.finish("", {})
    if any((folder / "queue").iterdir()):  # it died in the request: the next process resumes
        later = MlflowTracker(server.uri, queue_folder=folder / "queue")
        later.start("later", {}, {})
        later.finish("", {})
    found = _found(server.uri)
    server.kill()
    wrong = sum(abs(given[key] - found[key]) for key in {*given, *found})
    times_ms = sorted(epochs_ms.values())
    slow = sum(each_ms > 5 for each_ms in times_ms)
    what = f"of a fit of {len(times_ms)} epochs whose MLflow server was killed for {outage_s:g} s"
    return [
        Row(
            id="spool",
            what=f"points lost or doubled {what}",
            value=float(wrong),
            unit="points",
            reach=0.0,
            better="equal",
            note=f"of {given.total()}, as the server's own histories have them",
        ),
        Row(
            id="spool",
            what=f"longest wait of the training thread in one epoch {what}",
            value=times_ms[-1],
            unit="ms",
            reach=5.0,
            note=(
                f"median {statistics.median(times_ms):.3g} ms, "
                f"99 % under {times_ms[int(0.99 * len(times_ms))]:.3g} ms, {slow} epochs over 5 ms"
            ),
        ),
    ]


def _found(uri: str) -> Counter[tuple[str, int]]:
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("greentrain")
    (run,) = (
        run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "fit"
    )
    return Counter(
        (name, point.step)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    )
