"""Learn a stream with a method of Avalanche 0.6.0: one process for each run.

    python avalanche_runs.py STREAM

It needs Avalanche and torch only. STREAM is a file that :mod:`_methods.pairs` writes: the
method, its strength, the steps of an experience, the seed, the initial weights, and images, labels
and active outputs of each experience. It prints accuracy and processor seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

BATCH_SIZE, STORED, CAPACITY, EXEMPLARS, CANDIDATES = 128, 200, 1000, 2000, 256
LEFT_OUT = -1e4


class Masked(nn.Module):
    """The protocol's perceptron; its state is that of the greentrain side."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, 400), nn.ReLU()),
            *(nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)),
        )
        self.register_buffer("mask", torch.zeros(10))

    def activate(self, outputs: Sequence[int]) -> None:
        """Leave out all other outputs."""
        self.mask.fill_(LEFT_OUT)
        self.mask[list(outputs)] = 0.0

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + self.mask  # type: ignore[no-any-return]


def learn(stream: dict[str, Any]) -> tuple[float, float]:
    """Return the mean accuracy at the end in percent, and the processor seconds of training."""
    _define_torchvision_operators()
    from avalanche.benchmarks.scenarios.deprecated.generators import nc_benchmark
    from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as dataset

    model = Masked()
    model.load_state_dict(stream["weights"])
    parts = [
        dataset(*(torch.cat(each) for each in zip(*stream[name], strict=True)))
        for name in ("train", "test")
    ]
    benchmark = nc_benchmark(
        *parts,
        n_experiences=len(stream["train"]),
        task_labels=False,
        fixed_class_order=[label for group in stream["groups"] for label in group],
    )
    torch.manual_seed(stream["seed"])
    strategy = _strategy(model, stream)
    train = {"reset_optimizer_state": True, "drop_last": True}
    began_s = time.process_time()
    for experience in benchmark.train_stream:
        strategy.train(experience, **train)
    cpu_s = time.process_time() - began_s
    strategy.model.eval()
    right = []
    for (images, labels), active in zip(stream["test"], stream["tested"], strict=True):
        model.activate(active)
        with torch.no_grad():
            right.append(float((strategy.model(images).argmax(1) == labels).float().mean()))
    return 100 * sum(right) / len(right), cpu_s


def _strategy(model: Masked, stream: dict[str, Any]) -> Any:
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin

    strength = stream["strength"]
    own: dict[str, tuple[str, dict[str, Any]]] = {
        "EWC": ("EWC", {"ewc_lambda": strength}),
        "SI": ("SynapticIntelligence", {"si_lambda": strength, "eps": 0.1}),
        "MAS": ("MAS", {"lambda_reg": strength}),
        # loss + (n - 1) * T ** 2 * KL in the n-th experience: n times greentrain's
        "LwF": ("LwF", {"alpha": [4.0 * past for past in range(5)], "temperature": 2.0}),
        "A-GEM": ("AGEM", {"patterns_per_exp": STORED, "sample_size": BATCH_SIZE}),
        "GEM": ("GEM", {"patterns_per_exp": STORED, "memory_strength": 0.0}),
        "iCaRL": ("ICaRL", {"memory_size": EXEMPLARS, "buffer_transform": None}),
        "ER-MIR": ("MIR", {"mem_size": CAPACITY, "subsample": CANDIDATES}),
        "DER": ("DER", {"mem_size": CAPACITY, "alpha": 0.5, "beta": 0.0}),
    }
    name, arguments = own[stream["method"]]
    if name == "ICaRL":
        layers = list(model.net)
        arguments["feature_extractor"] = nn.Sequential(*layers[:-1])
        arguments["classifier"] = layers[-1]
        arguments["fixed_memory"] = True
    else:
        arguments["model"] = model
    if name not in ("ICaRL", "DER"):
        arguments["criterion"] = nn.CrossEntropyLoss()
    if name in ("MIR", "DER"):
        arguments["batch_size_mem"] = BATCH_SIZE
    return getattr(supervised, name)(
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3, fused=True),
        train_mb_size=BATCH_SIZE,
        eval_mb_size=BATCH_SIZE,
        train_epochs=1_000_000,
        plugins=[_protocol(model, stream)()],
        evaluator=EvaluationPlugin(),
        **arguments,
    )


def _protocol(model: Masked, stream: dict[str, Any]) -> Callable[[], Any]:
    """Return a plugin that sets the active outputs, and ends an experience after its steps."""
    from avalanche.core import SupervisedPlugin

    class Protocol(SupervisedPlugin):  # type: ignore[misc]
        def before_training_exp(self, strategy: Any, **rest: Any) -> None:
            model.activate(stream["trained"][strategy.clock.train_exp_counter])
            self.left = stream["steps"]

        def after_training_iteration(self, strategy: Any, **rest: Any) -> None:
            self.left -= 1
            if self.left == 0:
                strategy.stop_training()

        def after_training_exp(self, strategy: Any, **rest: Any) -> None:
            if stream["method"] == "MAS":  # the sensitivity of the logits, without the mask
                model.activate(range(10))

    return Protocol


def _define_torchvision_operators() -> None:
    """Define what torchvision expects of its library, which needs a build of torch with CUDA."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


_kept: list[Any] = []
"""The operators, which are removed with their library."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    accuracy, cpu_s = learn(torch.load(sys.argv[1]))
    print(json.dumps({"accuracy": accuracy, "cpu_s": cpu_s}))
