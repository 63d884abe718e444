"""Callbacks that the controller may add to a warm start, each with the measured work of a step."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Checkpoint
from torch.utils.data import Subset

from greentrain.budget import Account, Budget
from greentrain.callbacks import (
    BudgetGuard,
    CompressOnce,
    EarlyExit,
    EnergyMonitor,
    InformativeSubset,
    SelectiveTraining,
)
from greentrain.control import Action, Candidate, CostModel, UpdateMode, UtilityModel
from greentrain.energy import WindowRecorder
from greentrain.errors import ConfigurationError
from greentrain.payments import MIN_RESERVATION_J, paying
from greentrain.texts import get_logger, short_repr
from greentrain.training.colliding_callbacks import collide
from greentrain.training.data import UpdateData
from greentrain.training.fit import ModelTrainer, as_list
from greentrain.training.step_flops import StepFlops
from greentrain.training.update_context import Spent

if TYPE_CHECKING:
    from greentrain.training.stream_state import StreamState

TRIED_STEPS = 4
"""Steps of a trial, all on one batch: the first may compute what the later ones look up."""
_LEAST_WORTH = 0.01
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_MODE = UpdateMode.WARM_START

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """The work of a method's step, in plain steps.

    Args:
        step: Work of a step.
        first: Further work of a step whose samples come for the first time.
    """

    step: float = 1.0
    first: float = 0.0


class OfferedMethods:
    """Offer each warm start with each of some methods, too.

    Before its first use, each method is tried on one batch: a discarded model trains four steps.
    Their operations, relative to those of a plain step, give the work of the method's step. The
    trial is paid from the budget.

    Args:
        methods: Callbacks by name.

    Attributes:
        works: Work of a step by name, once it was measured.
    """

    def __init__(self, methods: Mapping[str, Callback] | None = None) -> None:
        self._methods = dict(methods or {})
        self.works: dict[str, StepWork] = {}
        self._last = ""

    @property
    def names(self) -> list[str]:
        """Names of the methods, as they were given."""
        return list(self._methods)

    @property
    def settings(self) -> dict[str, str]:
        """The class of each method, for the recorded settings of a stream."""
        return {name: type(each).__name__ for name, each in self._methods.items()}

    def callbacks(self, action: Action) -> list[Callback]:
        """Return the callback of an action's method; none without a method."""
        return [self._methods[action.method]] if action.method else []

    def keep(self, action: Action) -> None:
        """Note the update that led to the current model: another one changes frozen layers."""
        self._last = action.method

    def offer(
        self, plain: Sequence[Candidate], data: UpdateData, batch_size: int
    ) -> list[Candidate]:
        """Return the plain candidates, and each warm start with each method that was tried.

        Args:
            plain: The candidates without a method.
            data: The data of the update.
            batch_size: Samples of a step.
        """
        n_all = data.n_new + data.n_stored
        per_epoch = math.ceil(n_all / batch_size) or 1
        found = list(plain)
        for name, work in self.works.items():
            first = work.first * (data.n_new if name == self._last else n_all) / batch_size
            found += [
                Candidate(
                    action=replace(each.action, method=name),
                    steps=each.steps,
                    work=work.step * each.steps + first * min(1, each.steps / per_epoch),
                )
                for each in plain
                if each.action.mode is _MODE
            ]
        return found

    def attempt(
        self,
        trainer: ModelTrainer,
        data: UpdateData,
        state: StreamState,
        recorder: WindowRecorder,
        account: Account,
    ) -> Spent:
        """Measure the work of a step of each method, if the budget affords it.

        Args:
            trainer: Trains.
            data: The data of the next update.
            state: The stream's state, with the current model, which is not changed.
            recorder: Records the windows.
            account: The account that pays.

        Returns:
            The energy used; none if every method was tried, or nothing was trained yet.

        Raises:
            ConfigurationError: If a method refuses the model or the data.
        """
        model, cost = state.model, state.controller.cost
        if len(self.works) == len(self._methods) or not (model.trained and cost.calibrated):
            return Spent()
        fits = 1 + len(self._methods)
        upper_j = fits * cost.predict(_MODE, 2 * TRIED_STEPS).upper
        reserved_j = max(upper_j, MIN_RESERVATION_J)
        if reserved_j > account.balance().left_j:
            return Spent()
        some = Subset(data.new, range(min(data.n_new, trainer.plan.batch_size)))
        batch = UpdateData(new=some, stored=Subset(data.new, []), held=some)
        reservation = account.reserve(reserved_j, "trial of methods")
        with (
            paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment,
            recorder.phase("calibration"),
        ):

            def counted(*callbacks: Callback) -> list[int] | None:
                guard = BudgetGuard(Budget(energy_j=reserved_j), meter=recorder, log=False)
                flops = StepFlops(TRIED_STEPS)
                trainer.train(
                    Candidate(action=Action(mode=_MODE), steps=TRIED_STEPS),
                    batch,
                    weights=model.weights,
                    position=-1,
                    callbacks=[guard, flops, *callbacks],
                    discarded=True,
                )
                return flops.each if len(flops.each) == TRIED_STEPS else None

            plain = counted()
            for name, callback in self._methods.items():
                try:
                    found = counted(copy.deepcopy(callback))
                except ConfigurationError as error:
                    raise ConfigurationError(f"the method {name!r} failed: {error}") from error
                self.works[name] = work = step_work(plain, found)
                state.controller.utility.worth[name] = _worth(work)
                _log.info("a step with %s has %.0f %% of the operations", name, 100 * work.step)
        return Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)

    def state_dict(self) -> dict[str, Any]:
        """Return the measured works, the classes, and the method of the current model."""
        works = {name: [work.step, work.first] for name, work in self.works.items()}
        return {"works": works, "classes": self.settings, "last": self._last}

    def load_state_dict(
        self, state: Mapping[str, Any], utility: UtilityModel, cost: CostModel | None = None
    ) -> None:
        """Restore the result of :meth:`state_dict`; methods that are not offered now are left out.

        What a callback kept in memory is gone, so the next use of any method is a first one. What
        was measured and learned with another class under the same name is forgotten.

        Args:
            state: The state.
            utility: The model of gains.
            cost: The model of joules; ``None`` without one.
        """
        classes = state.get("classes", {})  # not in a state of an earlier release
        other = [name for name, kind in self.settings.items() if classes.get(name, kind) != kind]
        self.works = {
            name: StepWork(step=step, first=first)
            for name, (step, first) in state["works"].items()
            if name in self._methods and name not in other
        }
        self._last = ""
        for name in other:
            utility.forget(name)
            if cost is not None:
                cost.forget(name)
        utility.worth = {name: _worth(work) for name, work in self.works.items()}


def step_work(plain: Sequence[int] | None, method: Sequence[int] | None) -> StepWork:
    """Return the work of a method's step from counted operations of steps on one batch.

    Args:
        plain: Operations of each plain step; ``None`` if they cannot be counted.
        method: Operations of each step with the method, the first one included, likewise.

    Returns:
        The work; that of a plain step if it is unknown.

    Example:
        >>> step_work([600, 600], [260, 60, 60])  # 200 operations once, and 60 in each step
        StepWork(step=0.1, first=0.3333333333333333)
    """
    if not plain or not method or len(method) < 2:
        return StepWork()
    later = sum(method[1:]) / (len(method) - 1)
    return StepWork(step=later / plain[-1], first=max(0.0, method[0] - later) / plain[-1])


def _worth(work: StepWork) -> float:
    """Return the plain steps that a step counts as before its gains are measured: as it costs."""
    return max(_LEAST_WORTH, work.step)


def check_methods(
    methods: object, *, ranks: int, shadow: bool, callbacks: object = None
) -> OfferedMethods:
    """Return the methods of a stream, or refuse them.

    Args:
        methods: Callbacks by name; ``None`` for none.
        ranks: Processes of a training.
        shadow: Whether the stream is in shadow mode.
        callbacks: The option ``callbacks`` of the Trainer, which run in each update.

    Raises:
        ConfigurationError: If they cannot be used.
    """
    if methods is None or methods == {}:
        return OfferedMethods()
    if not isinstance(methods, Mapping):
        raise ConfigurationError(
            f"methods is {short_repr(methods)}; it must be callbacks by name, such as "
            "{'cached': FeatureCache('backbone')}"
        )
    for name, callback in methods.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"methods has the name {short_repr(name)}; use up to 32 letters, digits, - and _, "
                "with a letter first"
            )
        if not isinstance(callback, Callback):
            raise ConfigurationError(
                f"the method {name!r} is {short_repr(callback)}; it must be a callback, such as "
                "FeatureCache('backbone')"
            )
        if isinstance(callback, BudgetGuard | EnergyMonitor | Checkpoint):
            raise ConfigurationError(
                f"the method {name!r} is a {type(callback).__name__}, which makes no step cheaper: "
                "a stream measures, caps and keeps each update itself; leave it out"
            )
        if isinstance(callback, InformativeSubset):
            raise ConfigurationError(
                f"the method {name!r} needs its sampler in each update; give it to trainer, as "
                "{'callbacks': [subset]}, and {'sampler': subset.sampler} to loader"
            )
        if any(collide(callback, each) for each in as_list(callbacks)):
            raise ConfigurationError(
                f"the method {name!r} is among the callbacks of trainer, or has the state_key of "
                "one of them, and both would run in one update; give it in one place"
            )
        if isinstance(callback, CompressOnce | EarlyExit):
            raise ConfigurationError(
                f"the method {name!r} changes the layers of the module, and each update begins "
                "with those of make_model; change them there"
            )
        if isinstance(callback, SelectiveTraining) and callback.method != "selective_backprop":
            raise ConfigurationError(
                f"the method {name!r} needs a sampler, and a stream has its own; give "
                "SelectiveTraining('selective_backprop')"
            )
    if shadow:
        raise ConfigurationError(
            "methods were given in shadow mode, where your own job trains; leave one of them out"
        )
    if ranks > 1:
        raise ConfigurationError(
            f"methods were given and {ranks} processes train, but their callbacks work in one; "
            "give devices=1, or leave methods out"
        )
    return OfferedMethods(methods)
