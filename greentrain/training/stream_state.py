"""Hold everything that a checkpoint of a stream saves: model, data and everything learned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn.parameter import is_lazy

from greentrain.control import UPDATE_MODES, Action, BudgetController, State
from greentrain.errors import ConfigurationError
from greentrain.evaluation.comparison import MetricHistory
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.per_experience import PerExperienceMetrics
from greentrain.evaluation.probe import Look, Probe, ProbeResult
from greentrain.training.data import StreamData, UpdateData
from greentrain.training.fit import TrainedModel, Weights
from greentrain.training.fit_callbacks import LoggerSteps
from greentrain.training.given_model import same_weights
from greentrain.training.offered_methods import OfferedMethods
from greentrain.training.start_by import WaitHistory
from greentrain.training.weights import load_weights

_REMEMBERED = 3


class _Saved(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class CurrentModel:
    """The current model of a stream, and the updates that led to it.

    Args:
        make: Returns the model, called at the first use.
        given: Whether its weights were given as trained ones: they are the start, instead of fresh
            weights or those of a saved state.
        renewable: Whether there are fresh weights for a full retraining.

    Attributes:
        given: As given.
        renewable: As given.
        trained: Whether it was given, or an update has been kept yet.
        warm_starts: Updates that were kept since the last full retraining.
        weight_growth: Growth of the norm of the weights since then, as a share; ``None`` before.
    """

    def __init__(
        self, make: Callable[[], LightningModule], *, given: bool = False, renewable: bool = True
    ) -> None:
        self.given = given
        self.renewable = renewable
        self.trained = given
        self.warm_starts = 0
        self.weight_growth: float | None = None
        self._make = make
        self._module: LightningModule | None = None
        self._last: Weights | None = None
        self._full_norm: float | None = None

    @property
    def module(self) -> LightningModule:
        """The module: saved or updated, or with fresh weights before the first update."""
        if self._module is None:
            self._module = self._make()
        return self._module

    @property
    def last(self) -> Weights | None:
        """The weights that the next update continues from; ``None`` if they are the module's."""
        return self._last

    @property
    def weights(self) -> Weights:
        """The weights that the next update continues from.

        If weights are averaged, these are the last ones of the last update, not their mean: the
        mean is in use, and learning continues from the last weights.
        """
        return self.module.state_dict() if self._last is None else self._last

    def keep(self, model: TrainedModel, action: Action) -> None:
        """Replace the current model by a trained one."""
        self._module, self._last = model.module, model.last
        self.trained = True
        full = not UPDATE_MODES[action.mode].keeps_weights
        norm = weight_norm(model.module)
        self._full_norm = norm if full else self._full_norm
        self.weight_growth = weight_growth(norm, self._full_norm)
        self.warm_starts = 0 if full else self.warm_starts + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, and the history of updates, as plain values and tensors."""
        return {
            "model": dict(self.module.state_dict()),
            "last": None if self._last is None else dict(self._last),
            "trained": self.trained,
            "warm_starts": self.warm_starts,
            "full_norm": self._full_norm,
            "weight_growth": self.weight_growth,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`.

        A given model keeps its weights. If they are other ones than the saved, the history of
        updates does not belong to it, and is left out.

        Raises:
            ConfigurationError: If the saved weights do not fit the model.
        """
        own = copy.deepcopy(dict(self.module.state_dict())) if self.given else state["model"]
        try:
            load_weights(self.module, state["model"])
        except RuntimeError as error:
            model = "given model" if self.given else "model that make_model returns"
            raise ConfigurationError(
                f"the saved weights do not fit the {model}: {error}"
            ) from error
        if not same_weights(own, state["model"]):
            load_weights(self.module, own)
            return
        self._last, self._full_norm = state["last"], state["full_norm"]
        self.weight_growth = state["weight_growth"]
        self.trained, self.warm_starts = state["trained"], state["warm_starts"]


class ClosingEnergy:
    """Bound the energy after the last step of an update: end of the fit, validation, comparison.

    The bound is the largest value of the last updates.

    Example:
        >>> closing = ClosingEnergy()
        >>> closing.upper_bound_j(2.0, unknown_j=1.0)
        3.0
        >>> closing.learn(2.5, validation_j=2.0), closing.learn(5.0, validation_j=4.0)
        (None, None)
        >>> closing.upper_bound_j(6.0, unknown_j=1.0)  # at most 1 J besides the validation
        7.0
    """

    def __init__(self) -> None:
        self._other_j: list[float] = []

    def upper_bound_j(self, validation_j: float, *, unknown_j: float) -> float:
        """Return joules to keep for the end of an update.

        Args:
            validation_j: Expected joules of its validation.
            unknown_j: Joules for the rest, while none were measured.
        """
        return validation_j + max(self._other_j, default=unknown_j)

    def learn(self, energy_j: float, *, validation_j: float) -> None:
        """Learn from the joules after the last step of an update, its validation included."""
        other_j = max(0.0, energy_j - validation_j)
        self._other_j = [*self._other_j, other_j][-_REMEMBERED:]

    def state_dict(self) -> dict[str, Any]:
        """Return the joules of the last updates."""
        return {"other_j": list(self._other_j)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._other_j = list(state["other_j"])


class StreamState:
    """Everything that a checkpoint of a stream saves.

    Args:
        model: The current model.
        data: New, pending and stored data.
        held_out: Held-out data.
        probe: Probes of the current model.
        history: The metric of past updates.
        controller: Policy, and the cost and utility models.
        per_experience: The metric on each experience; ``None`` if it is not evaluated.
        loggers: The steps of the user's loggers; ``None`` if each fit begins at 0.
        methods: Methods that warm starts are offered with; none unless given.

    Attributes:
        closing: Energy after the last step of an update.
        waits: Power of updates and of waits for cleaner electricity.
        slope: Slope of the last update's training loss at its end; ``None`` if unknown.
    """

    def __init__(
        self,
        *,
        model: CurrentModel,
        data: StreamData,
        held_out: HeldOut,
        probe: Probe,
        history: MetricHistory,
        controller: BudgetController,
        per_experience: PerExperienceMetrics | None = None,
        loggers: LoggerSteps | None = None,
        methods: OfferedMethods | None = None,
    ) -> None:
        self.model = model
        self.data = data
        self.held_out = held_out
        self.probe = probe
        self.history = history
        self.controller = controller
        self.per_experience = per_experience
        self.loggers = loggers
        self.methods = methods or OfferedMethods()
        self.closing = ClosingEnergy()
        self.waits = WaitHistory()
        self.slope: float | None = None

    def build_state(
        self, look: Look, probe: ProbeResult | None, data: UpdateData, *, position: int, left: int
    ) -> State:
        """Return the state in which the controller decides.

        Args:
            look: What the new data show without a model.
            probe: The probe of the current model; ``None`` without one.
            data: The data that an update may train on.
            position: Number of the experience.
            left: Experiences that the budget has to last for, this one included.
        """
        oriented = self.history.oriented
        probed: dict[str, Any] = {"metric_before": None}
        if probe is not None:
            past = probe.past
            probed = {
                "metric_before": oriented(probe.metric),
                "metric_new": oriented(probe.new.value),
                "metric_new_sd": probe.new.standard_error
                if probe.estimated is None
                else probe.estimated.sd,
                "estimated_by": probe.estimated_by,
                "metric_past": None if past is None else oriented(past.value),
                "loss_new": probe.new.loss,
                "loss_past": None if past is None else past.loss,
                "shift": None if probe.drift is None else probe.drift.value,
                "shift_by": "" if probe.drift is None else probe.drift.measure,
            }
        return State(
            position=position,
            num_experiences=position + left,
            has_model=self.model.trained,
            metric_last=self.history.last,
            metric_best=self.history.best,
            metric_ceiling=self.history.ceiling(),
            n_new=data.n_new,
            n_stored=data.n_stored,
            n_labels=data.n_labels,
            n_pending=data.n_pending,
            warm_starts=self.model.warm_starts,
            weight_growth=self.model.weight_growth,
            slope=self.slope,
            unseen=look.unseen,
            copies=look.copies,
            **probed,
        )

    def feasible(self, data: UpdateData) -> dict[str, bool]:
        """Return which kinds of updates are feasible, as :meth:`StepPlan.candidates` takes them.

        A given model is evaluated on its user's data, in which old data may matter.
        """
        return {
            "has_model": self.model.trained,
            "keeps_data": self._may_retrain(data),
            "forgets": self.held_out.forgets and not self.model.given,
        }

    def _may_retrain(self, data: UpdateData) -> bool:
        """Return whether a trained model may be retrained in full.

        That would forget everything without past data. A given model was trained on data that only
        the buffer can have, and has fresh weights only if they were given, too.
        """
        if not self.model.given:
            return self.data.buffer is not None
        return self.model.renewable and data.n_stored > 0

    def state_dict(self) -> dict[str, Any]:
        """Return all parts as plain values and tensors."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        found = {**parts, "slope": self.slope, "waits": self.waits.state_dict()}
        return {**found, "methods": self.methods.state_dict()} if self.methods.names else found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`.

        Raises:
            ConfigurationError: If it belongs to another model.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.slope = state["slope"]
        if "waits" in state:  # not in a state of an earlier release
            self.waits.load_state_dict(state["waits"])
        if "methods" in state:
            controller = self.controller
            self.methods.load_state_dict(state["methods"], controller.utility, controller.cost)

    def _parts(self) -> dict[str, _Saved]:
        names = ("model", "data", "held_out", "probe", "history", "closing", "controller")
        parts: dict[str, _Saved] = {name: getattr(self, name) for name in names}
        if self.per_experience is not None:
            parts["per_experience"] = self.per_experience
        if self.loggers is not None:
            parts["loggers"] = self.loggers
        return parts


def weight_norm(model: nn.Module) -> float:
    """Return the Euclidean norm of all parameters of a model taken together.

    A complex one counts with its absolute value, so 3 + 4j has norm 5. Whole numbers, such as those
    of quantised layers, are no part of it: no update trains them.

    It grows during continued training, and the ability to learn decreases with it (Dohare et al.
    2024, "Loss of plasticity in deep continual learning").

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(model.weight, 2.0), nn.init.constant_(model.bias, 1.0)
        >>> round(weight_norm(model), 6)  # the root of 4 + 4 + 1
        3.0
    """
    norms = [
        torch.linalg.vector_norm(_as_real(each.detach()), dtype=torch.float64)
        for each in model.parameters()
        if not is_lazy(each) and (each.is_floating_point() or each.is_complex())
    ]
    if not norms:
        return 0.0
    return float(
        torch.linalg.vector_norm(torch.stack([each.to(norms[0].device) for each in norms]))
    )


def weight_growth(norm: float, reference: float | None) -> float | None:
    """Return the growth of a norm since a reference, as a share of the reference.

    Args:
        norm: The norm now.
        reference: The norm then, such as after the last full retraining; ``None`` before any.

    Returns:
        The growth; ``None`` if the reference is unknown or 0, or a norm is not finite.

    Example:
        >>> weight_growth(12.0, 10.0)
        0.2
    """
    if reference is None or not reference > 0:
        return None
    growth = (norm - reference) / reference
    return growth if math.isfinite(growth) else None


def _as_real(weights: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(weights) if weights.is_complex() else weights
