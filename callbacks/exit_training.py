"""Train early exits in a user's module, and validate with them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch

from greentrain.callbacks.base import Callback
from greentrain.callbacks.exit_record import record_exits
from greentrain.callbacks.step_layers import loss_of, with_loss, wrap_training_step
from greentrain.errors import ConfigurationError
from greentrain.methods import ExitHeads

Training = Literal["joint", "heads"]
NAME = "early_exits"
"""Name of the heads in the user's module."""


class EarlyExit(Callback):
    """Add early exits to layers of a module, and train them.

    The heads become the part ``early_exits`` of the module, before its optimizer is made. So they
    are in its checkpoints. ``training_step`` is wrapped: its loss is joined by the exits'.

    - ``train="joint"`` adds ``weight`` times the sum of the exits' cross-entropies.
    - ``train="heads"`` trains the heads alone. All else is frozen for the fit, in evaluation mode.

    A training step has to run the layers once, on all samples of its batch. Afterwards
    :attr:`heads` predicts, see :class:`greentrain.methods.ExitHeads`.

    Args:
        layers: Names of layers, as in ``model.named_modules()``.
        classes: Number of classes.
        train: Whether to train all weights or the heads only.
        weight: Weight of the exits' loss, above 0; for ``"joint"``.
        example: A batch of inputs of any size. The module's ``example_input_array`` unless given.
        labels: Returns the classes of a batch, ``(batch,)``. Its second item unless given.
        threshold: Confidence at which samples leave, from 0 to 1; none leaves unless given.
        validate: Whether validation uses the exits, too, so that it runs fewer operations. The
            module's ``validation_step`` has to call the module itself, as in ``self(images)``.
            Needs a threshold.
        table: Whether accuracy and joules by threshold are recorded at the end of a fit with an
            ``EnergyMonitor``, for its report. This takes one more pass over the validation data.

    Attributes:
        heads: The heads; ``None`` before the first fit.

    Raises:
        ConfigurationError: If an argument cannot be used. At the start of a fit, if a layer does
            not exist, the optimizer lacks the heads, or the module has manual optimization.

    Example:
        >>> callback = EarlyExit(["layers.1"], classes=10, example=torch.zeros(1, 64))
        >>> callback.heads is None
        True
    """

    def __init__(
        self,
        layers: Sequence[str],
        *,
        classes: int,
        train: Training = "joint",
        weight: float = 0.3,
        example: Any = None,
        labels: Callable[[Any], torch.Tensor] | None = None,
        threshold: float | None = None,
        validate: bool = False,
        table: bool = False,
    ) -> None:
        if isinstance(layers, str) or not layers:
            raise ConfigurationError(f"layers is {layers!r}; give a list of names, one or more")
        if train not in get_args(Training):
            raise ConfigurationError(
                f"train is {train!r}; it must be one of {', '.join(get_args(Training))}"
            )
        if not 0 < _number(weight, "weight") < math.inf:
            raise ConfigurationError(f"weight is {weight!r}; it must be above 0")
        if threshold is not None and not 0 <= _number(threshold, "threshold") <= 1:
            raise ConfigurationError(f"threshold is {threshold!r}; it must be from 0 to 1")
        if validate and threshold is None:
            raise ConfigurationError(
                "validate=True needs a threshold; choose one with greentrain.methods.exit_table"
            )
        self.layers, self.classes = list(layers), classes
        self.train, self.weight = train, float(weight)
        self.threshold, self.validate = threshold, validate
        self.table = bool(table)
        self.heads: ExitHeads | None = None
        self._example = example
        self._labels = labels or _second
        self._restore: list[Callable[[], None]] = []

    def attach(self, module: Any) -> ExitHeads:
        """Add the heads to a module that has none yet, such as before its checkpoint is loaded.

        Args:
            module: The module.

        Returns:
            Its heads.
        """
        heads = getattr(module, NAME, None)
        if heads is None:
            example = self._example
            if example is None:
                example = getattr(module, "example_input_array", None)
            if example is None:
                raise ConfigurationError(
                    "the sizes of the layers are unknown; give example=, a batch of inputs, or set "
                    "example_input_array in the module"
                )
            weights = next(module.parameters())
            if isinstance(example, torch.Tensor):
                example = example.to(weights.device)
            heads = ExitHeads.of(module, self.layers, classes=self.classes, example=example)
            setattr(module, NAME, heads.to(weights.device))
        elif set(getattr(heads, "layers", ())) != set(self.layers):
            raise ConfigurationError(
                f"the module has early exits at {', '.join(heads.layers)} already; give the same "
                f"layers, or delete its {NAME!r}"
            )
        if self.threshold is not None:
            heads.threshold.fill_(self.threshold)
        self.heads = heads
        return heads

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Add the heads, and wrap the training step."""
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise ConfigurationError(
                "the module has manual optimization, whose loss EarlyExit cannot join; add "
                "greentrain.methods.ExitHeads to the module, and their loss to its step"
            )
        heads = self.attach(pl_module)
        if self.train == "heads":
            self._freeze(pl_module, heads)
        self._restore.append(wrap_training_step(pl_module, partial(self._step, pl_module)))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that the optimizer has the heads."""
        optimizers = [group for each in trainer.optimizers for group in each.param_groups]
        trained = {id(each) for group in optimizers for each in group["params"]}
        if self.heads is None or any(id(each) not in trained for each in self.heads.parameters()):
            raise ConfigurationError(
                "the optimizer lacks the weights of the early exits; give it self.parameters() in "
                "configure_optimizers"
            )

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Keep frozen layers in evaluation mode: their normalisation must not change."""
        if self.train == "heads" and self.heads is not None:
            pl_module.eval()
            self.heads.train()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Let samples leave early in validation."""
        heads = self.heads
        if not self.validate or heads is None:
            return
        forward = pl_module.forward

        @functools.wraps(forward)
        def early(*inputs: Any, **named: Any) -> Any:
            if len(inputs) != 1 or named:
                raise ConfigurationError(
                    "validation calls the module with several inputs, and exits need one; give "
                    "validate=False"
                )
            whole: Any = _Forward(pl_module, forward)  # not this function again
            return heads.predict(whole, inputs[0]).logits

        self._replace(pl_module, "forward", early)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """End early leaving."""
        if self.validate and self._restore:
            self._restore.pop()()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record accuracy and joules by threshold, if requested."""
        if self.table and self.heads is not None:
            heads, labels = self.heads, self._labels
            record_exits(trainer, pl_module, heads, labels, leaves=self.validate)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Restore the module's own methods."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Restore the module's own methods."""
        self._close()

    def _close(self) -> None:
        while self._restore:
            self._restore.pop()()

    def _step(self, module: Any, step: Any, batch: Any, *rest: Any) -> Any:
        """Run a training step, and join the exits' loss to its loss."""
        heads: ExitHeads = module.early_exits
        with heads.capture(module) as outputs, torch.set_grad_enabled(self.train == "joint"):
            output = step(batch, *rest)
        if output is None:
            return None
        labels = self._labels(batch)
        missing = [name for name in heads.layers if name not in outputs]
        if missing or any(len(each) != len(labels) for each in outputs.values()):
            raise ConfigurationError(
                f"a training step does not run the layer {(missing or heads.layers)[0]!r} on the "
                f"{len(labels)} samples of its batch; choose layers that it runs once"
            )
        exits = heads.loss(outputs, labels)
        if self.train == "heads":
            return with_loss(output, exits)
        return with_loss(output, loss_of(output) + self.weight * exits)

    def _freeze(self, module: Any, heads: ExitHeads) -> None:
        own = {id(each) for each in heads.parameters()}
        frozen = [
            each for each in module.parameters() if each.requires_grad and id(each) not in own
        ]
        modes = [each for each in module.modules() if each.training]
        for each in frozen:
            each.requires_grad = False

        def restore() -> None:
            for each in frozen:
                each.requires_grad = True
            for each in modes:
                each.training = True

        self._restore.append(restore)

    def _replace(self, module: Any, name: str, function: Any) -> None:
        own = vars(module).get(name)
        setattr(module, name, function)

        def restore() -> None:
            delattr(module, name)
            if own is not None:
                setattr(module, name, own)

        self._restore.append(restore)


class _Forward:
    """A module that is called by its own ``forward``.

    Args:
        module: The module, whose layers have the names.
        forward: Its own ``forward``.
    """

    def __init__(self, module: Any, forward: Any) -> None:
        self._module = module
        self._forward = forward

    def named_modules(self) -> Any:
        return self._module.named_modules()

    def __call__(self, inputs: Any) -> Any:
        return self._forward(inputs)


def _second(batch: Any) -> torch.Tensor:
    if isinstance(batch, list | tuple) and len(batch) > 1 and isinstance(batch[1], torch.Tensor):
        return batch[1]
    raise ConfigurationError(
        f"the batch is a {type(batch).__name__} without a second tensor; give labels=, which "
        "returns the classes of a batch"
    )


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name} is {value!r}; it must be a number")
    return float(value)
