"""Run one task of one tool in a separate process, from JSON in the argument to a line of JSON.

``measurement.py`` starts it with its own Python for greentrain, and with the peers' for the peers.
The tasks are the functions ``window``, ``fit``, ``memory`` and ``ranks``.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

MARK = "benchmark-result "


class Tool(Protocol):
    """Windows of energy between a start and a stop; the constructor imports the tool."""

    def start(self) -> None:
        """Begin to measure."""

    def begin(self) -> None:
        """Begin a window."""

    def end(self) -> float | None:
        """End it and return its joules on GPUs."""

    def stop(self) -> None:
        """End measuring."""


class Nothing:
    """No tool: bare training."""

    def start(self) -> None:
        """Do nothing."""

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> float | None:
        """Return no joules."""
        return None

    def stop(self) -> None:
        """Do nothing."""


class Greentrain(Nothing):
    """greentrain's NVML meter."""

    def __init__(self) -> None:
        from greentrain.energy import NvmlMeter

        self._meter = NvmlMeter()

    def start(self) -> None:
        """Start the meter."""
        self._meter.start()

    def begin(self) -> None:
        """Read it."""
        self._begin = self._meter.read()

    def end(self) -> float | None:
        """Read it again."""
        window = self._meter.read() - self._begin
        return window.total_j if window.complete else None

    def stop(self) -> None:
        """Close it."""
        self._meter.close()


class CodeCarbon(Nothing):
    """CodeCarbon's tracker, with a task for each window."""

    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        self._make = OfflineEmissionsTracker

    def start(self) -> None:
        """Make a tracker that writes no file and uses no network."""
        self._tracker = self._make(
            country_iso_code="DEU", output_methods=[], log_level="error", allow_multiple_runs=True
        )

    def begin(self) -> None:
        """Start a task."""
        self._tracker.start_task()

    def end(self) -> float | None:
        """Stop it."""
        return float(self._tracker.stop_task().gpu_energy) * 3.6e6

    def stop(self) -> None:
        """Stop the tracker."""
        self._tracker.stop()


class CodeCarbonRun(CodeCarbon):
    """CodeCarbon's tracker, with the whole run as its one window."""

    def begin(self) -> None:
        """Start the tracker."""
        self._tracker.start()

    def end(self) -> float | None:
        """Stop it."""
        self._tracker.stop()
        return float(self._tracker.final_emissions_data.gpu_energy) * 3.6e6

    def stop(self) -> None:
        """Do nothing more."""


class Carbontracker(Nothing):
    """Carbontracker, with an epoch for each window, and without its PUE."""

    def __init__(self) -> None:
        self._make = importlib.import_module("carbontracker.tracker").CarbonTracker

    def start(self) -> None:
        """Make a tracker that predicts nothing."""
        self._tracker = self._make(epochs=10**6, epochs_before_pred=0, verbose=0)

    def begin(self) -> None:
        """Start an epoch."""
        self._tracker.epoch_start()

    def end(self) -> float | None:
        """End it."""
        self._tracker.epoch_end()
        thread = self._tracker.tracker
        joules = [
            float(component.energy_usage(thread.epoch_times)[-1]) * 3.6e6
            for component in thread.components
            if component.name == "gpu"
        ]
        return joules[0] if joules else None


class Zeus(Nothing):
    """Zeus' monitor, with a window for each window."""

    def __init__(self) -> None:
        self._make = importlib.import_module("zeus.monitor").ZeusMonitor

    def start(self) -> None:
        """Make a monitor."""
        self._monitor = self._make()

    def begin(self) -> None:
        """Begin a window without waiting for CUDA, which simulated cards do not have."""
        self._monitor.begin_window("window", sync_execution=False)

    def end(self) -> float | None:
        """End it."""
        return float(self._monitor.end_window("window", sync_execution=False).total_energy)


TOOLS: dict[str, Callable[[], Tool]] = {
    "bare": Nothing,
    "greentrain": Greentrain,
    "codecarbon": CodeCarbon,
    "codecarbon-run": CodeCarbonRun,
    "carbontracker": Carbontracker,
    "zeus": Zeus,
}


def window(task: dict[str, Any]) -> dict[str, Any]:
    """Measure idle seconds from ``begin_at_s`` on, in ``windows`` parts."""
    tool = TOOLS[task["tool"]]()
    try:
        tool.start()
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    # By then, a tool's thread has most likely found its devices.
    time.sleep(max(1.0, task["begin_at_s"] - time.monotonic()))
    parts: list[float | None] = []
    began_s = ended_s = 0.0
    for _ in range(task["windows"]):
        tool.begin()
        began_s = began_s or time.monotonic()
        time.sleep(task["seconds"] / task["windows"])
        ended_s = time.monotonic()
        parts.append(tool.end())
    tool.stop()
    known = [joules for joules in parts if joules is not None]
    joules = sum(known) if len(known) == len(parts) else None
    return {"joules": joules, "began_s": began_s, "ended_s": ended_s}


def fit(task: dict[str, Any]) -> dict[str, Any]:
    """Train with a tool's callback, and return the milliseconds that its hooks take."""
    callback = _callback(task)
    clock = _HookClock(callback)
    trainer, module, data = _training(task, callback)
    began_s = time.perf_counter()
    trainer.fit(module, data)
    calls, batch_s = clock.calls, clock.first_batch_s
    starts = [i for i, call in enumerate(calls) if call[0] == "on_train_epoch_start"]
    epochs = [
        sum(seconds for _, _, seconds in calls[here:there])
        for here, there in itertools.pairwise(starts)
    ]
    return {
        "setup_ms": 1e3 * sum(seconds for _, at_s, seconds in calls if at_s < batch_s),
        "to_first_batch_ms": 1e3 * (batch_s - began_s),
        "epoch_ms": 1e3 * statistics.median(epochs) if epochs else 0.0,
        "batch_hooks": sorted({name for name, _, _ in calls if "batch" in name}),
    }


def memory(task: dict[str, Any]) -> dict[str, Any]:
    """Train for many epochs, and return the growth of the process in MB at some of them.

    Growth is counted from a process that has imported Lightning and trained for 100 bare epochs.
    """
    import psutil
    from pytorch_lightning import Callback

    process = psutil.Process()
    at_mb: dict[int, float] = {}

    class Sizes(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch + 1 in task["at"]:
                at_mb[trainer.current_epoch + 1] = process.memory_info().rss / 1e6

    trainer, module, data = _training({**task, "epochs": 100})
    trainer.fit(module, data)
    before_mb = process.memory_info().rss / 1e6
    trainer, module, data = _training(task, _callback(task), Sizes())
    trainer.fit(module, data)
    return {"grown_mb": [at_mb[epoch] - before_mb for epoch in task["at"]]}


def ranks(task: dict[str, Any]) -> dict[str, Any]:
    """Train in forked processes on simulated hosts, and return the joules that each reports."""
    from pytorch_lightning import Callback

    recording: Any = importlib.import_module("greentrain.callbacks.meter_lease")

    class Place(Callback):
        """Assign a rank to its host, with one visible card or all."""

        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            host, local = divmod(trainer.global_rank, task["ranks"] // task["hosts"])
            recording.host_id = lambda: f"host{host}"
            if task["one_card_each"]:
                os.environ["CUDA_VISIBLE_DEVICES"] = str(local)

        def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(0.05)

    class Count(Callback):
        def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
            total = monitor.total
            uuids = {source.name: source.uuid for source in monitor.sources}
            counted = {
                "seconds": total.duration_s,
                "cards": [[name, uuids[name], joules] for name, joules in total.energy_j.items()],
            }
            Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(counted))

    monitor = _callback(task)
    trainer, module, data = _training(
        {"batches": 60 * task["ranks"], "epochs": 1},
        *(Place(), monitor, Count()),
        devices=task["ranks"],
        strategy="ddp_fork",
    )
    trainer.fit(module, data)
    counted = [json.loads(Path(f"rank{rank}.json").read_text()) for rank in range(task["ranks"])]
    return {"ranks": counted}


def _training(task: dict[str, Any], *callbacks: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Return a Trainer on the CPU, a small module and its data."""
    import torch
    from pytorch_lightning import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    class Small(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    torch.set_num_threads(1)
    data = DataLoader(TensorDataset(torch.randn(32 * task["batches"], 8)), batch_size=32)
    trainer = Trainer(
        max_epochs=task["epochs"],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    return trainer, Small(), data


def _callback(task: dict[str, Any]) -> Any:
    """Return greentrain's callback, or one that calls a peer as its users do."""
    if task["tool"] == "greentrain":
        from greentrain.callbacks import EnergyMonitor
        from greentrain.energy import CodeCarbonMeter, CompositeMeter, NvmlMeter

        url = f"sqlite:///{tempfile.mkdtemp()}/ledger.db" if task["ledger"] else False
        # The default of greentrain if training runs on an NVIDIA card.
        gpu, host = NvmlMeter(), () if task["gpu_only"] else (CodeCarbonMeter(),)
        return EnergyMonitor(CompositeMeter(gpu, *host), ledger=url, summary=False)

    from pytorch_lightning import Callback

    tool = TOOLS[task["tool"]]()

    class Around(Callback):
        """A window for each epoch."""

        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            tool.start()

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            tool.begin()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            tool.end()

        def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
            tool.stop()

    return Around()


class _HookClock:
    """Measures the time of every hook that a callback overrides, and of the first batch."""

    def __init__(self, callback: Any) -> None:
        from pytorch_lightning import Callback

        self.calls: list[tuple[str, float, float]] = []  # hook, when, seconds
        self.first_batch_s = float("inf")
        for name in vars(Callback):
            own = getattr(type(callback), name) is not getattr(Callback, name)
            hook = name.startswith(("on_", "setup", "teardown", "state_dict"))
            if hook and (own or name == "on_train_batch_start"):
                setattr(callback, name, self._timed(name, getattr(callback, name), own))

    def _timed(self, name: str, hook: Callable[..., Any], own: bool) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began_s = time.perf_counter()
            if name == "on_train_batch_start":
                self.first_batch_s = min(self.first_batch_s, began_s)
            try:
                return hook(*args, **kwargs)
            finally:
                if own:
                    self.calls.append((name, began_s, time.perf_counter() - began_s))

        return timed


def main() -> None:
    """Run the task, and exit at once: a peer's threads may be waiting for the network."""
    task = json.loads(sys.argv[1])
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    do = {"window": window, "fit": fit, "memory": memory, "ranks": ranks}[task["task"]]
    with contextlib.redirect_stdout(sys.stderr):
        result = do(task)
    print(MARK + json.dumps(result), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
