"""The base of policies that choose when to update, and their reading of the past."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import Option
from greentrain.control.decision import Decision, Reason
from greentrain.control.forecast import NO_FORECAST, OptionForecast
from greentrain.control.options import OptionSet
from greentrain.control.state import Past, State
from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError


class BasePolicy(ABC):
    """Base of policies: sort the options, and train the first model."""

    __slots__ = ()

    def decide(
        self,
        state: State,
        options: Sequence[Option],
        balance: Balance,
        forecast: OptionForecast = NO_FORECAST,
    ) -> Decision:
        """Choose one of the options: see :class:`~greentrain.control.policies.policy.Policy`."""
        offered = OptionSet.of(options, balance)
        return self.choose(state, offered, forecast) if state.has_model else self.first(offered)

    def first(self, offered: OptionSet) -> Decision:
        """Train the first model at the largest affordable step fraction."""
        return offered.first()

    @abstractmethod
    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose one of the options; there is a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer of a rule: update or not, the reason of an update, and the sentence."""

    update: bool
    reason: Reason
    sentence: str


class Rule(BasePolicy):
    """Base of policies that choose when to update; how is always :attr:`mode`.

    An update that is not affordable is skipped.
    """

    __slots__ = ()
    mode: UpdateMode

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose the largest affordable step fraction of the mode, or ``SKIP``."""
        option = offered.largest(self.mode)
        if option is None:
            return offered.without(self.mode)
        found = self.judge(state, option, offered.left_j)
        if found.update:
            return offered.update(option, found.reason, found.sentence)
        return offered.take(
            offered.skip,
            Reason.NOT_DUE,
            found.sentence,
            lambda lost: (
                "the rule requires no update"
                if lost.action.mode is self.mode
                else f"the rule uses only {self.mode} and SKIP"
            ),
        )

    @abstractmethod
    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Apply the rule.

        Args:
            state: The state; it has a model.
            option: The largest affordable step fraction of the mode.
            left_j: Joules that are left.
        """


def require(valid: bool, name: str, value: object, allowed: str) -> None:
    """Raise a ``ConfigurationError`` that names an argument and its allowed values, if invalid."""
    if not valid:
        raise ConfigurationError(f"{name} is {value!r}; set it to {allowed}")


def is_positive(value: float) -> bool:
    """Return whether a number is above 0 and finite."""
    return math.isfinite(value) and value > 0


def check_mode(mode: UpdateMode) -> None:
    """Refuse ``SKIP`` as the update of a rule."""
    if mode is UpdateMode.SKIP:
        raise ConfigurationError("mode is SKIP; set it to REPLAY, WARM_START or FULL_RETRAIN")


def known(value: float | None) -> float | None:
    """Return a finite value, and ``None`` for everything else."""
    return value if value is not None and math.isfinite(value) else None


def last_update(history: Sequence[Past]) -> int | None:
    """Return the index of the newest update in a history, including updates not kept."""
    found = [index for index, past in enumerate(history) if past.mode is not UpdateMode.SKIP]
    return found[-1] if found else None


def skipped(state: State) -> tuple[Past, ...]:
    """Return the experiences since the newest update, without the present one."""
    index = last_update(state.history)
    return state.history if index is None else state.history[index + 1 :]


def age(state: State) -> int:
    """Return the experiences since the newest update, the present one included.

    If the history has no update, all of it was skipped, and ``since_update`` may say more.
    """
    found = len(skipped(state)) + 1
    return found if last_update(state.history) is not None else max(found, state.since_update)


def staleness(state: State) -> list[float | None]:
    """Return the staleness at each experience since the newest update, the present one last.

    Staleness is the metric that the model has lost on new data since its training. It is 0 if the
    metric rose, and ``None`` if unknown. The metric on held-out data replaces an unknown one on new
    data.

    Example:
        >>> state = State(
        ...     position=1, num_experiences=4, has_model=True, metric_before=0.5, metric_last=0.75
        ... )
        >>> staleness(state)
        [0.25]
    """
    index, fresh = last_update(state.history), known(state.metric_last)
    if fresh is None and index is not None:
        fresh = known(state.history[index].metric_after)

    def lost(metric_new: float | None, metric_before: float | None) -> float | None:
        now = known(metric_new)
        now = known(metric_before) if now is None else now
        return None if now is None or fresh is None else max(0.0, fresh - now)

    since = [lost(past.metric_new, past.metric_before) for past in skipped(state)]
    return [*since, lost(state.metric_new, state.metric_before)]


def unknown_note(values: Sequence[float | None]) -> str:
    """Return a note on the values that are unknown and counted as 0; empty if there are none."""
    missing = sum(value is None for value in values)
    return f" (unknown at {missing} of {len(values)}, counted as 0)" if missing else ""
