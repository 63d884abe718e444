"""Measure how much each parameter matters to what a model has learned.

Each function takes single samples, because the square of a mean gradient is not the mean of the
squared gradients. The gradients go through ``torch.autograd.grad``: ``.grad`` stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from greentrain.errors import ConfigurationError
from greentrain.methods.anchors import Tensors

Likelihood = Literal["categorical", "gaussian"]
Outcomes = Literal["sampled", "all", "given"]
Outputs = Callable[[Tensor], Tensor]


def squared_gradients(
    model: Callable[[object], Tensor],
    parameters: Mapping[str, Tensor],
    samples: Iterable[tuple[object, Tensor]],
    *,
    likelihood: Likelihood = "categorical",
    outcomes: Outcomes = "sampled",
    generator: torch.Generator | None = None,
) -> tuple[Tensors, int]:
    """Return the sum over samples of the squared gradients of the log-likelihood.

    Divided by the number of samples, it is the diagonal of the Fisher information (Kirkpatrick et
    al. 2017). The Fisher information is an expectation over outcomes that the model predicts:
    ``"all"`` takes each class with its probability, which is exact and needs a backward pass for
    each class. ``"sampled"`` samples one outcome. ``"given"`` takes the label, which is the
    *empirical* Fisher information, another quantity (Martens 2020, "New insights", section 11).

    Args:
        model: Returns the outputs of a batch: logits ``(1, classes)`` for ``"categorical"``, means
            of Gaussians with variance 1 for ``"gaussian"``.
        parameters: The parameters, by name.
        samples: Batches of one sample each, with its target.
        likelihood: What the outputs are.
        outcomes: The outcomes that the gradients are of.
        generator: Random source of the outcomes.

    Returns:
        The sum for each parameter, and the number of samples.

    Raises:
        ConfigurationError: If an argument is unknown, a Gaussian is to take all outcomes, or the
            labels of ``"categorical"`` are no whole numbers.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1, 2))
        >>> sums, count = squared_gradients(lambda x: x @ weight, {"w": weight},
        ...     [(torch.tensor([[2.0]]), torch.tensor([0]))], outcomes="all")
        >>> sums["w"], count  # both classes have p = 1/2, and (2 * 1/2) ** 2 = 1
        (tensor([[1., 1.]]), 1)
    """
    check_choice(likelihood, Likelihood, "likelihood")
    check_choice(outcomes, Outcomes, "outcomes")
    if likelihood == "gaussian" and outcomes == "all":
        raise ConfigurationError(
            "a Gaussian has more outcomes than can be listed; give outcomes='sampled'"
        )
    sums = {name: torch.zeros_like(each) for name, each in parameters.items()}
    count = 0
    for sample, target in samples:
        outputs = model(sample).float()
        for negative, weight in _negatives(outputs, target, likelihood, outcomes, generator):
            _add(sums, negative, parameters, partial(_weighted_square, weight))
        count += 1
    return sums, count


def output_sensitivity(
    model: Callable[[object], Tensor],
    parameters: Mapping[str, Tensor],
    samples: Iterable[tuple[object, object]],
) -> tuple[Tensors, int]:
    """Return the sum over samples of ``|d ||f(x)||^2 / d theta|``; targets are not used.

    Aljundi et al. 2018, "Memory Aware Synapses", equation 2 and section 4.1 with the squared norm.

    Args:
        model: Returns the outputs of a batch.
        parameters: The parameters, by name.
        samples: Batches of one sample each, and anything.

    Returns:
        The sum for each parameter, and the number of samples.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0]]))
        >>> sums, count = output_sensitivity(lambda x: x @ weight, {"w": weight},
        ...     [(torch.tensor([[2.0]]), None)])
        >>> sums["w"]  # d (2 w) ** 2 / d w = 8 w
        tensor([[24.]])
    """
    sums = {name: torch.zeros_like(each) for name, each in parameters.items()}
    count = 0
    for sample, _ in samples:
        _add(sums, model(sample).float().square().sum(), parameters, torch.abs)
        count += 1
    return sums, count


@torch.no_grad()
def add_contributions(
    path: Tensors, gradients: Mapping[str, Tensor], changes: Mapping[str, Tensor]
) -> None:
    """Add ``-gradient * change`` of one step to a path integral, in place.

    Zenke et al. 2017, "Continual Learning Through Synaptic Intelligence", equation 3. A gradient
    that is not finite counts as 0: a ``GradScaler`` leaves such a step out.

    Args:
        path: The integral so far, by the names of the parameters.
        gradients: The gradients of the loss.
        changes: The changes of the parameters.

    Example:
        >>> path = {"w": torch.zeros(2)}
        >>> add_contributions(path, {"w": torch.tensor([2.0, float("inf")])},
        ...     {"w": torch.tensor([-0.5, 0.0])})
        >>> path["w"]
        tensor([1., 0.])
    """
    for name, gradient in gradients.items():
        product = (gradient * changes[name]).neg_()
        path[name].add_(torch.where(gradient.isfinite(), product, 0.0).to(path[name]))


@torch.no_grad()
def path_importance(
    path: Mapping[str, Tensor], moved: Mapping[str, Tensor], *, damping: float
) -> Tensors:
    """Return ``max(0, path / (moved ** 2 + damping))``.

    Zenke et al. 2017, equation 5. Parts that raised the loss count as 0, as the importance of an
    anchor must not be negative.

    Args:
        path: The path integral over the experience.
        moved: The change of each parameter over the experience.
        damping: Bounds the importance of parameters that hardly moved; above 0.

    Example:
        >>> path, moved = {"w": torch.tensor([1.0])}, {"w": torch.tensor([0.5])}
        >>> path_importance(path, moved, damping=0.25)
        {'w': tensor([2.])}
    """
    return {
        name: (each / (moved[name].to(each) ** 2 + damping)).clamp_(min=0.0)
        for name, each in path.items()
    }


def check_choice(value: object, choices: object, name: str) -> None:
    """Refuse a value that is none of a ``Literal``.

    Raises:
        ConfigurationError: If it is none of them.
    """
    known = get_args(choices)
    if value not in known:
        raise ConfigurationError(f"{name} is {value!r}; it must be one of {', '.join(known)}")


def _negatives(
    outputs: Tensor,
    target: Tensor,
    likelihood: Likelihood,
    outcomes: Outcomes,
    generator: torch.Generator | None,
) -> Iterable[tuple[Tensor, float]]:
    """Yield negative log-likelihoods of outcomes, with their probabilities."""
    if likelihood == "gaussian":
        if outcomes == "given":
            drawn = target.to(outputs)
        else:
            noise = torch.randn(outputs.shape, generator=generator).to(outputs)
            drawn = outputs.detach() + noise
        yield 0.5 * (outputs - drawn).square().sum(), 1.0
        return
    if target.is_floating_point() or outputs.ndim != 2:
        raise ConfigurationError(
            f"the targets are {str(target.dtype).removeprefix('torch.')} and the outputs have "
            f"{outputs.ndim} dimensions; classes need whole numbers and logits of "
            "(batch, classes). Give likelihood='gaussian' for a regression"
        )
    probabilities = outputs.detach().softmax(dim=1)[0].cpu()
    if outcomes == "given":
        yield cross_entropy(outputs, target.reshape(1)), 1.0
    elif outcomes == "sampled":
        drawn = torch.multinomial(probabilities, 1, generator=generator)
        yield cross_entropy(outputs, drawn.to(outputs.device)), 1.0
    else:
        for label, probability in enumerate(probabilities.tolist()):
            if probability > 0:
                outcome = torch.tensor([label], device=outputs.device)
                yield cross_entropy(outputs, outcome), probability


def _weighted_square(weight: float, gradient: Tensor) -> Tensor:
    return weight * gradient**2


def _add(
    sums: Tensors,
    value: Tensor,
    parameters: Mapping[str, Tensor],
    weigh: Callable[[Tensor], Tensor],
) -> None:
    if not value.requires_grad:
        return
    gradients = torch.autograd.grad(
        value, list(parameters.values()), retain_graph=True, allow_unused=True
    )
    for total, gradient in zip(sums.values(), gradients, strict=True):
        if gradient is not None:
            total += weigh(gradient.to_dense() if gradient.is_sparse else gradient)
