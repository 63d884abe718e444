"""Run experience replay in Avalanche, in an interpreter that has it and not greentrain.

    python avalanche_worker.py '{"data": "mnist.pt", "scenario": "class", "experiences": 5, ...}'

prints one line of JSON: the accuracy on each experience at the end, and the end time of each step
of each experience in seconds.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib import metadata

import torch
from torch import nn
from torch.utils.data import TensorDataset

warnings.filterwarnings("ignore")

from avalanche.benchmarks import (  # noqa: E402 (warns at import)
    class_incremental_benchmark,
    new_instances_benchmark,
)
from avalanche.benchmarks.utils.classification_dataset import (  # noqa: E402
    _as_taskaware_supervised_classification_dataset as _as_taskaware_supervised,
)
from avalanche.evaluation.metrics import accuracy_metrics  # noqa: E402
from avalanche.training import Naive  # noqa: E402
from avalanche.training.plugins import (  # noqa: E402
    EvaluationPlugin,
    ReplayPlugin,
    SupervisedPlugin,
)
from avalanche.training.storage_policy import ClassBalancedBuffer  # noqa: E402


class StopAfter(SupervisedPlugin):
    """End an experience after a number of steps, and record the end time of each step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.ends_s: list[list[float]] = []

    def before_training_exp(self, strategy, **kwargs) -> None:
        self.ends_s.append([])

    def after_training_iteration(self, strategy, **kwargs) -> None:
        self.ends_s[-1].append(time.perf_counter())
        if len(self.ends_s[-1]) >= self.steps:
            strategy.stop_training()


def main() -> None:
    """Train on one stream."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(given["seed"])
    tensors = torch.load(given["data"])
    train, test = (_dataset(*tensors[name]) for name in ("train", "test"))
    if given["scenario"] == "class":
        benchmark = class_incremental_benchmark(
            {"train": train, "test": test},
            num_experiences=given["experiences"],
            class_order=list(range(10)),
        )
    else:  # class_incremental_benchmark converts the datasets itself
        train, test = _as_taskaware_supervised(train), _as_taskaware_supervised(test)
        benchmark = new_instances_benchmark(
            train, test, num_experiences=given["experiences"], seed=given["seed"], shuffle=True
        )
    model = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 400), nn.ReLU()),
        *(nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)),
    )
    watch = StopAfter(given["steps"])
    buffer = ClassBalancedBuffer(given["held"], adaptive_size=False, total_num_classes=10)
    replay = ReplayPlugin(
        mem_size=given["held"], batch_size_mem=given["batch_size"], storage_policy=buffer
    )
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3, fused=True),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=given["batch_size"],
        train_epochs=given["steps"],  # StopAfter ends training earlier
        eval_mb_size=1000,
        device="cpu",
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
        plugins=[replay, watch],
    )
    for experience in benchmark.train_stream:
        if not given["keeps_moments"]:  # as in greentrain: each update starts without them
            strategy.optimizer.state.clear()
        strategy.train(experience, num_workers=0)
    results = strategy.eval(benchmark.test_stream)
    accuracies = [value for name, value in results.items() if name.startswith("Top1_Acc_Exp")]
    version = metadata.version("avalanche-lib")
    print(json.dumps({"accuracies": accuracies, "ends_s": watch.ends_s, "version": version}))


def _dataset(images: torch.Tensor, labels: torch.Tensor) -> TensorDataset:
    dataset = TensorDataset(images, labels)
    dataset.targets = labels.tolist()  # read by Avalanche to split by class
    return dataset


if __name__ == "__main__":
    main()
