"""Split MNIST and Split Fashion-MNIST by van de Ven & Tolias, and GDumb's protocol."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import torch
from _results import Better, Row

from _continual.learning import learn, retrain
from _continual.models import GDumb, Perceptron
from greentrain.memory import Buffer, ClassBalancedBuffer, FullBuffer
from greentrain.metrics import anytime_accuracy, average_accuracy, forgetting
from greentrain.streams import (
    Stream,
    class_incremental,
    domain_incremental,
    fashion_mnist,
    mnist,
)

CONTEXTS = 5
BATCH_SIZE = 128
PUBLISHED_FINETUNE = 19.9
_HELD_OUT = 0.01
_PROTOCOL = (
    "van de Ven & Tolias 2019. 5 experiences of 2 classes, 2x400 ReLU, batches of 128, {steps} "
    "steps each. Adam 1e-3, without moments at the start of each. All training data but "
    "{held:.0%}. Classes in order for the first seed, shuffled for others"
)
_REPLAYED = (
    "128 stored samples with the 128 new ones, the new half with weight 1/n at the n-th experience"
)


def finetune(*, quick: bool) -> list[Row]:
    """Train on one experience after another, without a buffer."""
    steps, seeds = _size(quick)
    matrices = [
        learn(_split(seed), None, _plain, steps=steps, batch_size=BATCH_SIZE, seed=seed)
        for seed in seeds
    ]
    accuracy = _row("finetune_cil", "Split MNIST class-incremental, fine-tuning", matrices, steps)
    off = abs(float(accuracy.value or 0) - PUBLISHED_FINETUNE)
    return [
        accuracy,
        Row(
            id="finetune_cil",
            what=f"distance of fine-tuning from the published {PUBLISHED_FINETUNE} %",
            value=off,
            unit="points",
            reach=0.3,
            seeds=len(seeds),
            note="the model remembers only the last experience at the end: a fifth of all, nearly "
            "without error",
        ),
    ]


def joint(*, quick: bool) -> list[Row]:
    """Train once on all data."""
    steps, seeds = _size(quick)
    matrices = [
        retrain(
            _split(seed), FullBuffer(), Perceptron, steps=steps, batch_size=BATCH_SIZE, seed=seed
        )
        for seed in seeds
    ]
    what = "Split MNIST class-incremental, everything at once"
    return [_row("joint_cil", what, matrices, steps, reach=97.5)]


def replay_class(*, quick: bool) -> list[Row]:
    """Replay 100 samples of each class, class-incremental."""
    return [
        _replay(
            "er_cil",
            "Split MNIST class-incremental, replay of 100 samples per class",
            _split,
            lambda seed: ClassBalancedBuffer(1000, per_class=100, seed=seed),
            reach=88.0,
            quick=quick,
        )
    ]


def replay_domain(*, quick: bool) -> list[Row]:
    """Replay 100 samples of each class of each experience, domain-incremental."""
    return [
        _replay(
            "er_dil",
            "Split MNIST domain-incremental, replay of 100 samples per class and experience",
            lambda seed: _split(seed, build=domain_incremental),
            lambda seed: ClassBalancedBuffer(1000, per_class=100, per_experience=True, seed=seed),
            reach=93.0,
            quick=quick,
            classes=2,
        )
    ]


def replay_fashion(*, quick: bool) -> list[Row]:
    """Replay from buffers of two sizes on Fashion-MNIST, as a reference for others."""
    return [
        _replay(
            "er_fmnist",
            f"Split Fashion-MNIST class-incremental, replay from {held:,} samples",
            lambda seed: _split(seed, data=fashion_mnist),
            lambda seed, held=held: ClassBalancedBuffer(held, seed=seed),
            reach=70.2,
            quick=quick,
            more="the buffer is divided among the classes seen so far",
        )
        for held in ((500,) if quick else (500, 2000))
    ]


def gdumb(*, quick: bool) -> list[Row]:
    """Train on 500 greedily balanced samples only, at the end of the stream."""
    passes, seeds = (16, range(1)) if quick else (128, range(5))
    matrices = [
        retrain(
            _split(seed),
            ClassBalancedBuffer(500, seed=seed),
            GDumb,
            passes=passes,
            batch_size=16,
            seed=seed,
            gradient_clip_val=10.0,
        )
        for seed in seeds
    ]
    note = (
        "Prabhu et al. 2020. MLP-400 with BatchNorm, SGD 0.05 with momentum 0.9 and warm restarts, "
        f"batches of 16, clipped at 10, random crops, {passes} passes. The last epoch, in single "
        "precision"
    )
    what = "Split MNIST class-incremental, GDumb with 500 samples"
    return [_row("gdumb_500", what, matrices, reach=89.5, note=note)]


def _replay(
    id: str,
    what: str,
    stream: Callable[[int], Stream],
    buffer: Callable[[int], Buffer],
    *,
    reach: float,
    quick: bool,
    classes: int = 10,
    more: str = "",
) -> Row:
    steps, seeds = _size(quick)
    matrices = [
        learn(
            stream(seed),
            buffer(seed),
            lambda position: Perceptron(classes, new_share=_share(position)),
            steps=steps,
            batch_size=BATCH_SIZE,
            seed=seed,
        )
        for seed in seeds
    ]
    notes = "; ".join(part for part in (_REPLAYED, more, _further_metrics(matrices)) if part)
    return _row(id, what, matrices, steps, reach=reach, more=notes)


def _share(position: int) -> float | None:
    return 1 / (position + 1) if position else None


def _plain(position: int) -> Perceptron:
    return Perceptron()


def _size(quick: bool) -> tuple[int, Sequence[int]]:
    """Return the steps on each experience, and the seeds."""
    return (200, range(1)) if quick else (2000, range(5))


def _split(
    seed: int,
    *,
    build: Callable[..., Stream] = class_incremental,
    data: Callable[[], tuple[torch.utils.data.TensorDataset, ...]] = mnist,
) -> Stream:
    train, test = data()
    order = "random" if seed else None
    return build(
        train, n_experiences=CONTEXTS, test=test, val_share=_HELD_OUT, order=order, seed=seed
    )


def _row(
    id: str,
    what: str,
    matrices: Sequence[torch.Tensor],
    steps: int = 0,
    *,
    reach: float | None = None,
    more: str = "",
    note: str = "",
) -> Row:
    values = [100 * average_accuracy(matrix) for matrix in matrices]
    better: Better = "higher"
    note = note or _PROTOCOL.format(steps=f"{steps:,}", held=_HELD_OUT)
    spread = f"; standard deviation {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return Row(
        id=id,
        what=what,
        value=statistics.fmean(values),
        unit="%",
        reach=reach,
        better=better,
        seeds=len(values),
        interval=(min(values), max(values)),
        note=f"{note}{f'; {more}' if more else ''}; mean, lowest and highest seed{spread}",
    )


def _further_metrics(matrices: Sequence[torch.Tensor]) -> str:
    anytime = statistics.fmean(100 * anytime_accuracy(matrix) for matrix in matrices)
    forgot = statistics.fmean(100 * forgetting(matrix) for matrix in matrices)
    if math.isnan(forgot):
        return ""
    return f"anytime accuracy {anytime:.1f} %, forgetting {forgot:.1f} points"
