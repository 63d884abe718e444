"""The interface of policies, and the outcome that a policy may learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from greentrain.budget import Balance
from greentrain.control.action import Option
from greentrain.control.decision import Decision
from greentrain.control.forecast import OptionForecast
from greentrain.control.state import State


class Policy(Protocol):
    """Choose the update of each experience.

    The life of a decision is:

    1. An experience arrives, and the stream probes the model on the new data.
    2. :class:`~greentrain.control.controller.BudgetController` predicts cost and gain of each
       feasible update. It forecasts the options of later experiences, and calls :meth:`decide`
       once. Until the cost of a step is measured, it decides on the first training itself.
    3. State, options, forecast and decision are recorded in the ledger. The upper bound of the
       chosen option is reserved, and the update is trained within it. ``SKIP`` trains nothing.
       In shadow mode the decision is only recorded, and another job trains.
    4. The actual joules are settled, and the controller's cost and utility models learn from them.
       The controller then calls ``observe(outcome)`` with a :class:`DecisionOutcome`, if the policy
       has that method: after each ``SKIP``, and after each update, kept or not. In shadow mode it
       is the outcome of the job's training.

    ``decide`` is pure: the same arguments give the same decision. So the ledger can show that a
    recorded decision follows from its inputs: see
    :func:`~greentrain.control.decision.inputs_of`.

    A policy that observes outcomes has a state. Add ``state_dict() -> dict`` of plain values and
    ``load_state_dict(state)``: the controller saves the policy with the stream and restores it
    before the next decision. With :func:`~greentrain.decisions.open_controller` all outcomes of the
    ledger are observed again at the start. All calls come from one thread.

    Example:
        >>> from greentrain.control import BudgetController, Reason, decided
        >>> class SkipAfterFailure:
        ...     kept = True
        ...     def decide(self, state, options, balance, forecast):
        ...         best = max(options, key=lambda option: option.gain.mean if self.kept else 0.0)
        ...         return decided(best, Reason.LARGEST_GAIN, "Last update kept" * self.kept)
        ...     def observe(self, outcome):
        ...         self.kept = outcome.kept
        ...     def state_dict(self):
        ...         return {"kept": self.kept}
        ...     def load_state_dict(self, state):
        ...         self.kept = state["kept"]
        >>> saved = BudgetController(policy=SkipAfterFailure()).state_dict()
        >>> saved["policy"]
        {'kept': True}
    """

    def decide(
        self,
        state: State,
        options: Sequence[Option],
        balance: Balance,
        forecast: OptionForecast,
    ) -> Decision:
        """Choose one of the options.

        Args:
            state: The state when the experience has arrived.
            options: The feasible options; ``SKIP`` is always one of them.
            balance: The budget, without the joules that later probes need.
            forecast: Options expected at later experiences. Most policies ignore it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOutcome:
    """The outcome of a decision that was carried out. Metrics are oriented.

    Args:
        decision: The decision.
        state: The state in which it was decided.
        steps: Steps that were trained; 0 for ``SKIP``.
        energy_j: Joules that the update used.
        metric_after: The metric of the trained model; ``None`` if unknown.
        gain: Its measured gain; ``None`` if unknown.
        gain_sd: Standard error of the gain.
        kept: Whether the trained model is in use from now on.
    """

    decision: Decision
    state: State
    steps: int
    energy_j: float
    metric_after: float | None
    gain: float | None
    gain_sd: float
    kept: bool
