"""Callbacks of an update's fit: refuse, stop, measure the steps, and average the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import get_ema_multi_avg_fn

from greentrain.callbacks.base import Callback
from greentrain.errors import ConfigurationError
from greentrain.texts import get_logger
from greentrain.units import format_energy

CHECK_EVERY = 25
"""Batches between two checks for finite numbers: each makes the processor wait for the GPU."""
WARM_UP_STEPS = 2
"""Steps that are not measured: the first ones allocate and compile."""
PROJECTED_AFTER = 20
"""Measured steps after which an update's total joules are projected."""
POINTS = 256
"""Largest number of points of a learning curve."""
TENTHS = 10
"""Smallest number of values of a curve whose last tenth is not empty."""
_NO_OPTIMIZER = "_MockOptimizer"

_log = get_logger(__name__)


class BeginFit(Callback):
    """Begin a fit: refuse one that would train nothing, load late weights, and count batches.

    Args:
        batches: Batches to train on.
        load: Loads the weights into layers that are made in ``setup`` or ``configure_model``;
            ``None`` if they are loaded already.
    """

    def __init__(self, batches: int, load: Callable[[], None] | None = None) -> None:
        self._batches = batches
        self._load = load
        self._trained = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the optimizers, and load the weights.

        Raises:
            ConfigurationError: If there is no optimizer.
        """
        optimizers = trainer.optimizers
        if all(type(each).__name__ == _NO_OPTIMIZER for each in optimizers):
            raise ConfigurationError(
                f"configure_optimizers of {type(pl_module).__name__} returned no optimizer, so "
                "nothing would be trained; return one from it"
            )
        if self._load is not None:
            self._load()
        if not pl_module.automatic_optimization:
            # Lightning counts optimizer steps, and a batch may take any number of them.
            trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """End a fit with manual optimization after its last batch."""
        self._trained += 1
        if not pl_module.automatic_optimization and self._trained >= self._batches:
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


class StopOnNan(Callback):
    """Stop a fit whose loss is not finite, or whose weights are not if it returns no loss.

    Every 25th batch is checked, on all ranks alike. After a loss that is not finite, neither the
    weights nor later losses are. For a fit of fewer batches, call :func:`has_finite_weights` at the
    end.

    Attributes:
        stopped: Whether it stopped the fit.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._batches = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Check the loss at every 25th batch."""
        self._batches += 1
        if self._batches % CHECK_EVERY:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            bad = not bool(torch.isfinite(loss.detach()).all())
        else:
            bad = not has_finite_weights(pl_module)
        if trainer.strategy.reduce_boolean_decision(bad, all=False):
            self.stopped = True
            trainer.should_stop = True


class StepEnergy(Callback):
    """Measure the energy of a step, from the first steps and from all steps of a fit.

    Args:
        recorder: Reads the meter by ``read()``.
        planned: Number of planned steps.
        other_j: Expected joules of the update besides its steps; ``None`` if unknown.

    Attributes:
        ended_j: The recorder's joules after the last step; ``None`` before.
    """

    def __init__(self, recorder: Any, *, planned: int = 0, other_j: float | None = None) -> None:
        self.ended_j: float | None = None
        self._recorder = recorder
        self._planned = planned
        self._other_j = other_j
        self._steps = 0
        self._readings: dict[int, float] = {}

    @property
    def step_j(self) -> float | None:
        """Joules per step, from the third step to the last; ``None`` for fewer steps."""
        return self._between(max(self._readings, default=0))

    @property
    def projected_j(self) -> float | None:
        """Projected joules of the whole update, from its first steps; ``None`` if it is shorter."""
        step_j = self._between(WARM_UP_STEPS + PROJECTED_AFTER)
        if step_j is None or self._other_j is None:
            return None
        return self._other_j + self._planned * step_j

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Read the meter after the warm-up, and log the projection."""
        self._steps += 1
        if self._steps in (WARM_UP_STEPS, WARM_UP_STEPS + PROJECTED_AFTER):
            self._read()
        if self._steps == WARM_UP_STEPS + PROJECTED_AFTER and self.projected_j is not None:
            _log.info(
                "after %d of %d steps the update is projected to use %s",
                *(self._steps, self._planned, format_energy(self.projected_j)),
            )

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Read the meter after the last step."""
        self.ended_j = self._read()

    def _read(self) -> float:
        return self._readings.setdefault(self._steps, self._recorder.read().total_j or 0.0)

    def _between(self, last: int) -> float | None:
        if last <= WARM_UP_STEPS or not {WARM_UP_STEPS, last} <= self._readings.keys():
            return None
        used_j = self._readings[last] - self._readings[WARM_UP_STEPS]
        return used_j / (last - WARM_UP_STEPS) if used_j >= 0 else None  # a counter was reset


class LossCurve(Callback):
    """Record the training loss of all batches of a fit in little memory.

    Losses stay on their device, so training does not wait for a GPU before the curve is read. With
    more than :data:`POINTS`, neighbours are averaged, so a point is the mean of 1, 2, 4, ...
    batches. An incomplete last point is left out. With several ranks the curve is that of one rank,
    and processes of ``ddp_spawn`` do not return theirs.

    A ``training_step`` that returns no loss leaves the curve empty.
    """

    def __init__(self) -> None:
        self._points: list[torch.Tensor] = []
        self._sum: torch.Tensor | None = None
        self._summed = 0
        self._each = 1

    @property
    def values(self) -> list[float]:
        """The mean losses of equally many batches each, in order; reading waits for a GPU."""
        return torch.stack(self._points).tolist() if self._points else []

    @property
    def slope(self) -> float | None:
        """See :func:`learning_slope`."""
        return learning_slope(self.values)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Add the loss of a batch to the curve."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            return
        # Lightning has divided it by the batches that gradients are accumulated over.
        factor = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        loss = loss.detach().reshape(()).float() * factor
        self._sum = loss if self._sum is None else self._sum + loss
        self._summed += 1
        if self._summed < self._each:
            return
        self._points.append(self._sum / self._each)
        self._sum, self._summed = None, 0
        if len(self._points) == 2 * POINTS:
            self._points = list(torch.stack(self._points).reshape(POINTS, 2).mean(1))
            self._each *= 2


class WeightAveraging(Callback):
    """Replace a module's weights by their mean over the fit, at the end of the fit.

    After optimizer step ``t`` the mean moves towards the weights,
    ``mean += (theta - mean) / (1 + share * (t - 1))``: the polynomial-decay averaging of Shamir &
    Zhang 2013 with ``eta = 1 / share - 1``. It needs no planned end, so a fit that a cap ends early
    is averaged alike. Buffers of real or complex numbers, such as the running statistics of batch
    normalisation, are averaged, too, as they describe the activations under the averaged weights.
    Counters, sparse buffers and those with an infinity, such as a causal mask, keep their last
    values. So do buffers that appear, or change their shape or type, such as a queue of samples.

    Args:
        share: Share of the steps that the mean is over, about; 1 for the plain mean of all.

    Attributes:
        last: The module's state at the end of the fit, before the mean replaced it. The next update
            continues from it. ``None`` before.
    """

    def __init__(self, share: float) -> None:
        self.last: dict[str, torch.Tensor] | None = None
        self._share = share
        self._mean: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._global_step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Add the weights to the mean after an optimizer step."""
        if trainer.global_step == self._global_step:
            return  # gradients are being accumulated
        self._global_step = trainer.global_step
        self._steps += 1
        if self._steps == 1:
            self._mean = {name: each.clone() for name, each in _averaged(pl_module).items()}
            return
        weights = self._unchanged(pl_module)
        decay = 1.0 - 1.0 / (1.0 + self._share * (self._steps - 1))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self._mean.values()), weights, self._steps)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the last weights by the mean."""
        if self._mean:
            self.last = copy.deepcopy(dict(pl_module.state_dict()))
            weights = self._unchanged(pl_module)
            for last, mean in zip(weights, self._mean.values(), strict=True):
                if torch.isfinite(mean).all():  # the mean of two infinities is NaN
                    last.copy_(mean)

    def _unchanged(self, module: LightningModule) -> list[torch.Tensor]:
        """Return what is averaged, and leave out what changed its shape, type or device."""
        now = _averaged(module)
        self._mean = {
            name: mean
            for name, mean in self._mean.items()
            if name in now and _form(now[name]) == _form(mean)
        }
        return [now[name] for name in self._mean]


class LoggerSteps(Callback):
    """Continue the steps of the loggers where an earlier fit ended.

    Lightning counts them from 0 in each Trainer, so the points of a second fit would overwrite
    those of the first. Its global step begins at 0: schedules that use it are fresh ones. A fit
    whose loggers record nothing does not count.

    Args:
        steps: Steps that the loggers have recorded.

    Attributes:
        steps: The same, after the last fit.
    """

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.steps = state_dict["steps"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the first step."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = self.steps

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the last step."""
        if any(not isinstance(each, DummyLogger) for each in trainer.loggers):
            self.steps = trainer.fit_loop.epoch_loop._batches_that_stepped

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Note the last step of a fit that raised."""
        self.on_train_end(trainer, pl_module)


def learning_slope(values: Sequence[float]) -> float | None:
    """Return the slope of a learning curve at its end.

    It is the mean of the last tenth of the values less the mean of the tenth before, so no single
    batch decides it. The slope of a loss is negative during learning, and about 0 at its end.

    Args:
        values: A value for each batch, or for equally many batches, in order. Values that are not
            finite are left out.

    Returns:
        The change per tenth of the curve, in the unit of the values; ``None`` for fewer than ten.

    Example:
        >>> learning_slope([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5])
        -0.5
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if len(finite) < TENTHS:
        return None
    tenth = len(finite) // TENTHS
    slope = _mean(finite[-tenth:]) - _mean(finite[-2 * tenth : -tenth])
    return slope if math.isfinite(slope) else None


def has_finite_weights(model: nn.Module) -> bool:
    """Return whether all parameters are finite.

    Buffers are not checked: an attention mask may hold an infinity.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> has_finite_weights(model)
        True
        >>> _ = nn.init.constant_(model.bias, float("inf"))
        >>> has_finite_weights(model)
        False
    """
    finite = [
        torch.isfinite(each.detach()).all() for each in model.parameters() if not is_lazy(each)
    ]
    return not finite or bool(torch.stack([each.to(finite[0].device) for each in finite]).all())


def nan_buffers(model: nn.Module) -> set[str]:
    """Return the names of the buffers that hold a NaN.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> nan_buffers(model)
        set()
        >>> _ = model.running_mean.fill_(float("nan"))
        >>> nan_buffers(model)
        {'running_mean'}
    """
    return {
        name
        for name, each in model.named_buffers()
        if _is_dense(each) and bool(torch.isnan(each).any())
    }


def _averaged(module: LightningModule) -> dict[str, torch.Tensor]:
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: each.detach() for name, each in named if _is_dense(each)}


def _form(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor holds real or complex numbers that torch can compute with."""
    numbers = tensor.is_floating_point() or tensor.is_complex()
    return numbers and tensor.layout is torch.strided and tensor.dtype.itemsize > 1  # no float8


def _mean(values: Sequence[float]) -> float:
    return math.fsum(value / len(values) for value in values)  # the sum of huge ones is infinite
