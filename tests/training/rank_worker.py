"""A stream in one process, or in one of several that ``torchrun`` or a test has started."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from pytorch_lightning import Callback
from torchmetrics.classification import MulticlassAccuracy

from greentrain.energy import ConstantMeter
from greentrain.memory import ReservoirBuffer
from greentrain.streams import Experience
from greentrain.training import EvaluationConfig
from greentrain.training.weights_digest import weights_sha256
from tests.models import Classifier, Clock, Tick, blobs
from tests.training.streaming import open_stream


class Counted(Classifier):
    """Logs a metric of torchmetrics, which adds up over all ranks where there are several."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(4, average="micro")

    def validation_step(self, batch, batch_idx):
        samples, labels = batch
        self.accuracy(self.layer(samples), labels)
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Dies(Callback):
    """Kill this process at a batch of an experience, if it is the given rank."""

    def __init__(self, rank: int, batch: int) -> None:
        self.rank, self.batch, self.seen = rank, batch, 0

    def on_train_batch_end(self, trainer, *args, **kwargs) -> None:
        self.seen += 1
        if self.rank == trainer.global_rank and self.seen == self.batch:
            os.kill(os.getpid(), 9)


class Part(ReservoirBuffer):
    """A part of a reservoir, whose process is killed while it sends a part to be saved."""

    dies_after = 0

    def state_dict(self):
        if self._table.adds == self.dies_after > 0:
            os.kill(os.getpid(), 9)
        return super().state_dict()


def experiences(count: int) -> list[Experience]:
    """Experiences that move on from two classes to all four."""
    found = []
    for number in range(count):
        classes = (0, 1) if number < 1 else (0, 1, 2, 3)
        train, val = blobs(classes, 32, number), blobs(classes, 16, 100 + number)
        found.append(Experience(f"day {number}", train, val))
    return found


def part(max_size: int, dies_after: int = 0, **ranks) -> Part:
    """A buffer that holds a part on each rank."""
    buffer = Part(max_size, **(ranks or {"rank": "auto"}))
    buffer.dies_after = dies_after
    return buffer


def content(buffer) -> list[float]:
    """What a buffer of this process holds: a number for each sample."""
    held = [] if isinstance(buffer, str) else buffer.select(lambda origin: True)
    return sorted(float(samples[0]) for samples, _ in held)


def run(folder: Path, *, batch_size: int, count: int, dies: Dies | None = None, **changes) -> dict:
    """Run a stream, and return what this process has seen."""
    clock = Clock()
    callbacks = [Tick(clock), *([] if dies is None else [dies])]
    with open_stream(
        folder,
        Counted,
        loader={"batch_size": batch_size},
        trainer={"max_epochs": 2, "accelerator": "cpu", "callbacks": callbacks},
        meter=ConstantMeter(100.0, clock=clock),
        state_dir=folder / "state",
        **changes,
    ) as stream:
        stream.run(experiences(count))
        return {
            "rank": stream.rank,
            "held": content(changes.get("buffer", "all")),
            "known": list(stream.known),
            "weights": weights_sha256(stream.model.state_dict()),
            "values": [float(each) for each in stream.model.layer.weight.detach().flatten()],
            "modes": [str(result.done.mode) for result in stream.results],
            "steps": [result.steps for result in stream.results],
            "energy_j": [result.energy_j for result in stream.results],
            "metrics": [result.metric_after for result in stream.results],
        }


def main() -> None:
    """Run with arguments in JSON, and write what was seen or the error."""
    folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    if given.pop("each", False):
        given["evaluation"] = EvaluationConfig(eval_each_experience=True)
    if "dies" in given:
        given["dies"] = Dies(*given["dies"])
    given |= given.pop("of_rank", {}).get(str(rank), {})
    if "part" in given:
        given["buffer"] = part(**given.pop("part"))
    try:
        found = run(folder, **given)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
