"""Base of the callbacks that anchor parameters to what earlier experiences need."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from greentrain.callbacks.base import Callback
from greentrain.callbacks.batch_parts import Outputs, Unpack, call, len_of, one_of, pair
from greentrain.callbacks.messages import inform
from greentrain.errors import ConfigurationError
from greentrain.methods import Anchor, add_penalty_gradient
from greentrain.methods.anchors import Tensors, digest

_SHARDED = ("deepspeed", "fsdp", "model_parallel", "modelparallel")


class ParameterAnchor(Callback, abc.ABC):
    """Anchor parameters: one subclass for each measure of importance.

    One ``fit`` is one experience. During a fit, the gradient of the penalty is added to that of the
    loss before each optimizer step, so ``training_step`` stays as it is. At its end,
    :meth:`consolidate` returns the anchor of the next fit. Give each Trainer the same callback, or
    load its state from a checkpoint.

    A fit that starts from other weights than the last one ended with, such as fresh ones, has no
    anchor. If it starts where the fit before the last one started its anchor, as after an update
    that was rejected, it has that anchor again.

    Args:
        strength: Weight of the penalty, 0 or more: ``strength / 2 * sum(importance * (theta -
            reference) ** 2)``.
        unpack: Returns inputs and targets of a batch; batches are ``(inputs, targets)`` unless
            given.
        outputs: Returns the outputs of a module for inputs; ``module(inputs)`` unless given.

    Attributes:
        anchor: The anchor of the current or the next fit; ``None`` before the first one ended.

    Raises:
        ConfigurationError: If the strength is no number of 0 or more.
    """

    def __init__(
        self, strength: float, *, unpack: Unpack | None = None, outputs: Outputs | None = None
    ) -> None:
        self.strength = number_from(strength, "strength", lowest=0.0)
        self.unpack = unpack or pair
        self.outputs = outputs or call
        self.anchor: Anchor | None = None
        self._ends: list[dict[str, Any]] = []  # the anchors of the last two fits, and their digests
        self._names: dict[int, str] = {}
        self._in_fit = False
        self._stepped = False

    @abc.abstractmethod
    def consolidate(self, trainer: Any, pl_module: Any) -> Anchor:
        """Return the anchor after an experience, from the present weights and :attr:`anchor`."""

    @property
    def state_key(self) -> str:
        """The class and the strength."""
        return f"{type(self).__name__}(strength={self.strength!r})"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check the strategy."""
        if stage == "fit":
            check_whole_parameters(type(self).__name__, trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check the optimizers, and choose the anchor by the weights that the fit starts from."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, torch.optim.LBFGS):
                raise MisconfigurationException(
                    f"{type(self).__name__} adds its gradient once per step, and LBFGS computes "
                    "several in each; use another optimizer, such as Adam"
                )
        named = trainable(pl_module)
        self._names = {id(each): name for name, each in pl_module.named_parameters()}
        if not self._in_fit:
            self._choose_anchor(named)
            self.begin(named)
        elif self.anchor is not None:
            self.anchor = self.anchor.to(pl_module.device)
        self._in_fit, self._stepped = True, False

    def begin(self, parameters: Mapping[str, Tensor]) -> None:
        """Begin an experience with these parameters; a resumed fit does not begin again."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Add the gradient of the penalty to the parameters of one optimizer."""
        self._stepped = True
        if self.anchor is None or not self.strength:
            return
        add_penalty_gradient(
            self.parameters_of(optimizer),
            self.anchor,
            self.strength,
            scale=loss_scale(trainer, optimizer),
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Consolidate what the experience taught, and end it."""
        if self._stepped:
            self.anchor = self.consolidate(trainer, pl_module)
            named = trainable(pl_module)
            anchored = named.keys() & self.anchor.reference.keys()
            digests = {name: digest(named[name]) for name in anchored}
            self._ends = [*self._ends[-1:], {"anchor": self.anchor, "digests": digests}]
        self._in_fit = False
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the fit without a new anchor."""
        self._in_fit = False
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Release what the fit held."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the anchors, for a checkpoint."""
        return {
            "in_fit": self._in_fit,
            "anchor": _as_dict(self.anchor),
            "ends": [
                {"anchor": _as_dict(each["anchor"]), "digests": dict(each["digests"])}
                for each in self._ends
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint, also of the middle of a fit."""
        self._in_fit = state_dict["in_fit"]
        self.anchor = _as_anchor(state_dict["anchor"])
        self._ends = [
            {"anchor": _as_anchor(each["anchor"]), "digests": dict(each["digests"])}
            for each in state_dict["ends"]
        ]

    def parameters_of(self, optimizer: Any) -> dict[str, Tensor]:
        """Return the trainable parameters of one optimizer, by name."""
        return {
            self._names[id(each)]: each
            for group in optimizer.param_groups
            for each in group["params"]
            if id(each) in self._names and each.requires_grad and each.is_floating_point()
        }

    def samples(self, trainer: Any, pl_module: Any, most: int | None) -> Iterator[tuple[Any, Any]]:
        """Yield the training samples of this process, as batches of one sample and its target.

        Args:
            trainer: The Trainer.
            pl_module: The module.
            most: Most samples over all processes; ``None`` for all.
        """
        left = None if most is None else -(-most // trainer.world_size)
        for batch in trainer.train_dataloader:
            batch = trainer.precision_plugin.convert_input(batch)
            inputs, targets = self.unpack(trainer.strategy.batch_to_device(batch))
            for index in range(len_of(inputs)):
                if left == 0:
                    return
                yield one_of(inputs, index), one_of(targets, index)
                left = None if left is None else left - 1

    def _choose_anchor(self, named: Mapping[str, Tensor]) -> None:
        for end in reversed(self._ends):
            if _is_same(end["digests"], named):
                device = next(iter(named.values())).device
                self.anchor = end["anchor"].to(device)
                return
        if self._ends:
            inform(
                f"{type(self).__name__}: this fit starts from other weights than the last one "
                "ended with, so it has no anchor"
            )
        self.anchor = None

    def _close(self) -> None:
        """Release what a fit holds; harmless if repeated."""
        self._names = {}


def check_whole_parameters(callback: str, trainer: Any) -> None:
    """Refuse a strategy that divides parameters or gradients among the processes.

    Raises:
        MisconfigurationException: If it is such a strategy.
    """
    name = type(trainer.strategy).__name__
    if any(each in name.lower() for each in _SHARDED):
        raise MisconfigurationException(
            f"{callback} needs whole parameters and gradients on each process, and {name} shards "
            "them; use strategy='ddp', or leave the callback out"
        )


def trainable(module: Any) -> dict[str, Tensor]:
    """Return the parameters of a module that need a gradient, by name."""
    return {
        name: each
        for name, each in module.named_parameters()
        if each.requires_grad and each.is_floating_point()
    }


def detached(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return copies of tensors without their graphs."""
    return {name: each.detach().clone() for name, each in tensors.items()}


def loss_scale(trainer: Any, optimizer: Any) -> float:
    """Return the factor by which an optimizer's gradients are scaled just before its step.

    Lightning unscales them before its hooks, but not those of an optimizer that unscales them
    itself, such as fused Adam.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not scaler.is_enabled():
        return 1.0
    unscales_itself = getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if unscales_itself else 1.0


def mean_over_processes(trainer: Any, sums: Tensors, count: int) -> Tensors:
    """Return sums divided by a count, both over all processes.

    Raises:
        ConfigurationError: If there is no sample.
    """
    device = trainer.strategy.root_device
    whole = torch.tensor(float(count), device=device)
    if trainer.world_size > 1:
        whole = trainer.strategy.reduce(whole, reduce_op="sum")
        sums = {name: trainer.strategy.reduce(each, reduce_op="sum") for name, each in sums.items()}
    if not float(whole):
        raise ConfigurationError(
            "the training loader gave no sample at the end of the fit, so nothing can be "
            "measured; give a loader that can be read again"
        )
    return {name: each / float(whole) for name, each in sums.items()}


@contextmanager
def measuring(module: Any) -> Iterator[None]:
    """Evaluate with gradients but without dropout, and leave the global random state as it was."""
    training = [each for each in module.modules() if each.training]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            module.eval()
            yield
        finally:
            for each in training:
                each.training = True


def number_from(value: object, name: str, *, lowest: float, above: bool = False) -> float:
    """Return a finite number from a bound on, or above it.

    Raises:
        ConfigurationError: If it is anything else.
    """
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or number < lowest or (above and number == lowest):
        raise ConfigurationError(
            f"{name} is {value!r}; it must be a number {'above' if above else 'from'} {lowest:g}"
            f"{'' if above else ' on'}"
        )
    return float(number)


def _is_same(digests: Mapping[str, str], named: Mapping[str, Tensor]) -> bool:
    """Return whether more than half of the anchored values are those of an earlier end.

    A new head, or a backbone that is frozen later, does not make it another model.
    """
    known = {name: each for name, each in named.items() if name in digests}
    same = sum(each.numel() for name, each in known.items() if digest(each) == digests[name])
    return 2 * same > sum(each.numel() for each in known.values())


def _as_dict(anchor: Anchor | None) -> dict[str, Tensors] | None:
    if anchor is None:
        return None
    return {"reference": dict(anchor.reference), "importance": dict(anchor.importance)}


def _as_anchor(state: Mapping[str, Tensors] | None) -> Anchor | None:
    return None if state is None else Anchor(**state)
