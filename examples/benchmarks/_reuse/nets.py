"""Small nets on Fashion-MNIST, their training, and what the modules of routing have in common."""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from greentrain.methods import auxiliary_loss
from greentrain.streams import fashion_mnist

WITHIN = 0.003
"""Loss of accuracy allowed on validation data; the goal allows 0.005 on test data."""
_MOST_LOST = 0.5
"""The goal: points of accuracy on test data."""
_BATCH = 64
_CHANNELS = 16

Pair = tuple[torch.Tensor, torch.Tensor]
Found = dict[str, tuple[float, float]]
"""For each row of a seed, the share of the full net's operations, and the lost accuracy."""
Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Images and labels to train on, to choose on, and to report on."""

    train: Pair
    val: Pair
    test: Pair


@functools.lru_cache(maxsize=1)
def _loaded() -> tuple[Pair, Pair]:
    train, test = fashion_mnist()
    return train.tensors, test.tensors  # type: ignore[return-value]


def data(seed: int, *, quick: bool, samples: int = 12_000) -> Data:
    """Return disjoint parts of Fashion-MNIST: training and validation by the seed, all of test.

    Args:
        seed: Seed of the parts.
        quick: Whether to take some hundred samples of each.
        samples: Samples to train on.
    """
    (images, labels), (test_images, test_labels) = _loaded()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    for_training, for_choice, for_test = (1000, 500, 500) if quick else (samples, 5_000, 10_000)
    second, first = order[:for_choice], order[for_choice : for_choice + for_training]
    return Data(
        train=(images[first], labels[first]),
        val=(images[second], labels[second]),
        test=(test_images[:for_test], test_labels[:for_test]),
    )


class Residual(nn.Module):
    """A residual block around a chain of layers."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.body(inputs)  # type: ignore[no-any-return]


def body(channels: int = _CHANNELS) -> nn.Sequential:
    """Return the layers of a residual block."""
    return nn.Sequential(
        *(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)),
        nn.ReLU(),
        *(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)),
    )


def stem() -> nn.Sequential:
    """Return two convolutions from 28 x 28 pixels to 7 x 7."""
    return nn.Sequential(
        *(nn.Conv2d(1, _CHANNELS, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(_CHANNELS)),
        nn.ReLU(),
        nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride=2, padding=1, bias=False),
        *(nn.BatchNorm2d(_CHANNELS), nn.ReLU()),
    )


def head() -> nn.Sequential:
    """Return the classifier after the blocks."""
    return nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(49 * _CHANNELS, 10))


def dense_net() -> nn.Sequential:
    """Return the full net: a stem, four residual blocks and a classifier."""
    return nn.Sequential(stem(), *(Residual(body()) for _ in range(4)), head())


def plain_loss(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a batch, and the losses of gates and experts."""
    return cross_entropy(net(images), labels) + auxiliary_loss(net)


def train(
    net: nn.Module,
    pair: Pair,
    *,
    seed: int,
    epochs: float,
    rate: float = 3e-3,
    loss: Loss = plain_loss,
) -> None:
    """Train with Adam and half a cosine of the rate, in batches of 64 in the seed's order."""
    images, labels = pair
    steps = max(1, round(epochs * len(images) / _BATCH))
    optimizer = torch.optim.Adam([each for each in net.parameters() if each.requires_grad], rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    net.train()
    for _ in range(steps):
        if len(order) < _BATCH:
            order = torch.randperm(len(images), generator=random)
        rows, order = order[:_BATCH], order[_BATCH:]
        optimizer.zero_grad()
        loss(net, images[rows], labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    net.eval()


@functools.lru_cache(maxsize=8)
def _dense(seed: int, quick: bool) -> nn.Sequential:
    torch.manual_seed(seed)
    net = dense_net()
    train(net, data(seed, quick=quick).train, seed=seed, epochs=epochs(quick))
    return net


def trained_dense_net(seed: int, *, quick: bool) -> nn.Sequential:
    """Return a copy of the trained full net of a seed, which is trained once."""
    return copy.deepcopy(_dense(seed, quick))


def epochs(quick: bool) -> int:
    """Return the epochs of each training."""
    return 2 if quick else 5


def accuracy(net: nn.Module, pair: Pair) -> float:
    """Return the share of correct predictions."""
    return measured(net, pair)[0]


def measured(net: Callable[..., Any], pair: Pair) -> tuple[float, float]:
    """Return the accuracy on some data, and the operations that were run for each sample."""
    images, labels = pair
    right = 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for start in range(0, len(images), 500):
            found = net(images[start : start + 500]).argmax(1)
            right += int((found == labels[start : start + 500]).sum())
    return right / len(images), counter.get_total_flops() / len(images)


def cheapest(
    tries: Sequence[Any], measure: Callable[[Any], tuple[float, float]], target: float
) -> Any:
    """Return the setting with the fewest operations at an accuracy on validation data.

    If none reaches it, the setting with the highest accuracy is returned.

    Args:
        tries: Settings.
        measure: Returns accuracy and operations with a setting.
        target: Smallest accuracy.
    """
    found = [(each, *measure(each)) for each in tries]
    enough = [each for each in found if each[1] >= target]
    best = min(enough, key=lambda each: each[2]) if enough else max(found, key=lambda each: each[1])
    return best[0]


def step_operations(net: nn.Module) -> int:
    """Return the operations of a training step of one batch: forward and backward."""
    images, labels = torch.zeros(_BATCH, 1, 28, 28), torch.zeros(_BATCH, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        plain_loss(net, images, labels).backward()  # type: ignore[no-untyped-call]
    net.zero_grad()
    return int(counter.get_total_flops())


def pair_of_rows(
    id: str,
    what: str,
    found: Sequence[Found],
    *,
    reach: float | None,
    samples: int = 12_000,
    note: str = "",
) -> list[dict[str, Any]]:
    """Return two rows: the mean share of operations, and the accuracy that it costs on test data.

    A share counts only if the accuracy is within 0.5 points, so both have a goal.

    Args:
        id: Id of the rows.
        what: The way and the operations that were counted, with a colon between them.
        found: What was measured for each seed.
        reach: The goal of the share in percent; ``None`` for a peer.
        samples: Samples that were trained on in a full run.
        note: More about the counting.
    """
    shares = [100 * each[what][0] for each in found]
    points = [100 * each[what][1] for each in found]
    error = statistics.stdev(points) / len(points) ** 0.5 if len(points) > 1 else 0.0
    data = f"Fashion-MNIST, {samples:,} training samples; interval: lowest and highest seed."
    lost = f"Standard error {error:.2f}; each seed: {', '.join(f'{each:.2f}' for each in points)}."
    way = what.partition(":")[0]
    return [
        _row(id, what, shares, "% of the full net's", reach, f"{data} {note}".strip()),
        _row(
            *(id, f"{way}: test accuracy lost against the full net", points, "points"),
            reach=None if reach is None else _MOST_LOST,
            note=f"{lost} {data}",
        ),
    ]


def _row(
    id: str, what: str, values: Sequence[float], unit: str, reach: float | None, note: str
) -> dict[str, Any]:
    return {
        "id": id,
        "what": what,
        "value": statistics.fmean(values),
        "unit": unit,
        "reach": reach,
        "better": "lower",
        "seeds": len(values),
        "interval": (min(values), max(values)),
        "note": note,
    }
