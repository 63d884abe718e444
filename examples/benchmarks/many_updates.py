"""Measure what an update costs after many others: processor time, files and the saved state.

    python examples/benchmarks/many_updates.py --experiences 2000

takes about five minutes and prints JSON. A stream gets tiny experiences, and each update has the
same work: the same number of batches on equally many samples. So what grows is bookkeeping. The
meter and its clock are simulated.

The slope is that of the processor time per experience, from the 200th experience on: before it,
held-out data are still collected. It is fitted to the medians of 40 equal parts, and its interval
has 95 %.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule
from torch import nn
from torch.utils.data import TensorDataset

from greentrain import Experience, StreamTrainer, UpdateMode
from greentrain.control import Always
from greentrain.energy import ConstantMeter

SETTLED = 200
"""Experiences until the kept held-out data have their full size."""
PARTS = 40
T_95 = 2.024
"""Quantile of Student's t for 95 %, with two degrees of freedom fewer than parts."""
SAMPLES = 12
BATCH = 64
"""Samples of a batch; the held-out data of past experiences, 2,000 samples, are then 32 batches."""
_POWER_W = 100.0
_BATCH_S = 0.01
_QUIET = ("pytorch_lightning", "lightning.pytorch", "greentrain")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyUpdates:
    """The cost of an update after many others.

    Args:
        experiences: Number of experiences.
        process_ms: Processor time of each experience, all threads together.
        files: Files in the state's folder at the end.
        state_kib: Size of the saved state and of the buffer's files, in KiB.
        early_ms: Median processor time of the first part after the 200th experience.
        late_ms: The same of the last part.
        slope_us: Growth of the processor time from one experience to the next, in microseconds.
        interval_us: The 95 % interval of the slope.
    """

    experiences: int
    process_ms: tuple[float, ...]
    files: int
    state_kib: float
    early_ms: float
    late_ms: float
    slope_us: float
    interval_us: tuple[float, float]


class _Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        samples, labels = batch
        return nn.functional.cross_entropy(self.layer(samples), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        samples, labels = batch
        self.log("val_acc", (self.layer(samples).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class _Tick(Callback):
    """Let the simulated time of a batch pass."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds

    def on_train_batch_start(self, *args: Any, **options: Any) -> None:
        self._seconds[0] += _BATCH_S


def tiny(number: int) -> TensorDataset:
    """Return a dozen samples around the corners of a square."""
    random = torch.Generator().manual_seed(number)
    labels = torch.arange(SAMPLES) % 4
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    return TensorDataset(corners[labels] + 0.3 * torch.randn(SAMPLES, 2, generator=random), labels)


def updates(folder: Path, experiences: int) -> Iterator[float]:
    """Update on one tiny experience after the other, and yield the processor time in seconds."""
    seconds = [0.0]
    with StreamTrainer(
        _Classifier,
        budget="1000 kWh",
        num_experiences=experiences,
        monitor="val_acc",
        policy=Always(mode=UpdateMode.REPLAY),
        ledger=f"sqlite:///{folder / 'greentrain.db'}",
        state_dir=folder / "state",
        trainer={"max_epochs": 4, "accelerator": "cpu", "callbacks": [_Tick(seconds)]},
        loader={"batch_size": BATCH},
        meter=ConstantMeter(_POWER_W, clock=lambda: seconds[0]),
    ) as trainer:
        for number in range(experiences):
            experience = Experience(f"{number:05d}", tiny(2 * number), tiny(2 * number + 1))
            began_s = time.process_time()
            trainer.update(experience)
            yield time.process_time() - began_s


def measure(folder: Path, experiences: int = 2000) -> ManyUpdates:
    """Run the stream, and return what its updates cost.

    Args:
        folder: An empty folder for the ledger and the state.
        experiences: Number of experiences, 60 or more.
    """
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process_ms = [1000.0 * each for each in updates(folder, experiences)]
    state = [path for path in (folder / "state").rglob("*") if path.is_file()]
    numbers, medians = parts(process_ms, min(SETTLED, experiences // 3))
    slope_ms, error_ms = line(numbers, medians)
    return ManyUpdates(
        experiences=experiences,
        process_ms=tuple(round(each, 3) for each in process_ms),
        files=len(state),
        state_kib=round(sum(path.stat().st_size for path in state) / 1024, 1),
        early_ms=medians[0],
        late_ms=medians[-1],
        slope_us=1000.0 * slope_ms,
        interval_us=(
            1000.0 * (slope_ms - T_95 * error_ms),
            1000.0 * (slope_ms + T_95 * error_ms),
        ),
    )


def parts(values: Sequence[float], first: int) -> tuple[list[float], list[float]]:
    """Divide the values from ``first`` on into equal parts: mean numbers, and medians."""
    places = np.array_split(np.arange(first, len(values)), PARTS)
    return (
        [float(each.mean()) for each in places],
        [statistics.median(values[place] for place in each) for each in places],
    )


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return the slope of the least-squares line, and its standard error."""
    across, up = np.asarray(x) - np.mean(x), np.asarray(y) - np.mean(y)
    spread = float(across @ across)
    slope = float(across @ up) / spread
    left = up - slope * across
    return slope, math.sqrt(float(left @ left) / (len(across) - 2) / spread)


def main() -> None:
    """Run the measurement, and print it as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--experiences", type=int, default=2000, help="60 or more")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    given = parser.parse_args()
    if given.experiences < 60:
        parser.error("--experiences must be 60 or more")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = asdict(measure(Path(folder), given.experiences))
    if given.out is not None:
        given.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(json.dumps({**found, "process_ms": "in the file" if given.out else found["process_ms"]}))


if __name__ == "__main__":
    main()
