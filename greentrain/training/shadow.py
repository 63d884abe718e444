"""Run the controller in shadow mode: record its decisions while the user's own job trains.

Nothing is reserved or used for a decision in shadow mode, so the ledger's budget pays for probes
alone. With that balance, a policy would choose updates that the budget could never pay for. So the
policy gets the shadow budget: the balance less the predicted joules of all earlier decisions. The
energy of the user's own job is charged to neither of the two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from datetime import datetime
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset, Subset

from greentrain.budget import Balance, Budget
from greentrain.control import SKIP, Action, Decision, Estimate, Reason, State, StepPlan, UpdateMode
from greentrain.decisions.core import BudgetAccount
from greentrain.errors import ConfigurationError
from greentrain.evaluation.probe import ProbeResult
from greentrain.ledger import Ledger
from greentrain.memory import size
from greentrain.money import period_name
from greentrain.training.data import UpdateData
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.units import is_whole

FIRST_EVALUATED = 512
"""Held-out samples for the first model, whose evaluation has no known cost yet."""
_NOTHING = Estimate(mean=0.0, sd=0.0, upper=0.0)


class ShadowAccount:
    """An account whose balance excludes the joules of decisions in shadow mode.

    Reservations and settlements through it, those of probes, are real.

    Args:
        account: The account.
        shadow_j: Joules of the decisions in shadow mode.
    """

    def __init__(self, account: BudgetAccount, shadow_j: float) -> None:
        self.budget_id = account.budget_id
        self._account = account
        self._shadow_j = shadow_j

    def balance(self) -> Balance:
        """Return the balance as if all decisions had been carried out."""
        balance = self._account.balance()
        return dataclasses.replace(balance, spent_j=balance.spent_j + self._shadow_j)

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Reserve joules from the account."""
        return self._account.reserve(upper_bound_j, purpose)

    def settle(self, reservation: str, actual_j: float) -> float:
        """Settle a reservation of the account."""
        return self._account.settle(reservation, actual_j)


class ShadowBudget:
    """The joules of all decisions in shadow mode, with their times.

    Args:
        budget: The budget. If it is renewed without carry-over, earlier periods do not count.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._decided: list[tuple[datetime, float]] = []

    def add(self, moment: datetime, energy_j: float) -> None:
        """Add the joules of a decision."""
        self._decided.append((moment, energy_j))

    def add_result(self, moment: datetime, result: UpdateResult) -> None:
        """Add the joules of a result."""
        decision = result.decision
        reported_j = None if result.reported is None else result.reported.energy_j
        self.add(moment, shadow_j(decision.reason, decision.cost_j.mean, reported_j))

    def used_j(self, now: datetime) -> float:
        """Return the joules of the current period's budget that the decisions would have used."""
        present = period_name(self._budget, now)
        return math.fsum(
            energy_j
            for moment, energy_j in self._decided
            if period_name(self._budget, moment) == present
        )


def shadow_j(reason: str, predicted_j: float, reported_j: float | None) -> float:
    """Return the joules that a decision in shadow mode would have used.

    These are the predicted joules. The first training is an exception: its prediction is only the
    cap at which it would have stopped. If the job's own training used less, so would this one have.

    Args:
        reason: The reason of the decision.
        predicted_j: The predicted joules of the decision; 0 for ``SKIP``.
        reported_j: The reported joules of the job's training; ``None`` if unknown, or without one.

    Example:
        >>> shadow_j("BEST_NET_GAIN", 50.0, 20.0)
        50.0
        >>> shadow_j("NO_MODEL", 50.0, 20.0), shadow_j("NO_MODEL", 50.0, None)
        (20.0, 50.0)
    """
    first = reason == Reason.NO_MODEL and reported_j is not None
    return min(predicted_j, reported_j or 0.0) if first else predicted_j


def read_shadow_budget(
    ledger: Ledger, stream: str, budget: Budget, known: Collection[str] | None = None
) -> ShadowBudget:
    """Read the earlier decisions of shadow mode from the ledger.

    Args:
        ledger: The ledger.
        stream: Name of the stream, and of its budget.
        budget: The budget.
        known: Experiences in a saved state; only these count, each once. ``None`` without a state:
            then each decision counts.

    Raises:
        ConfigurationError: If the budget is a share whose joules are not known yet.
    """
    found = ledger.find_budget(stream)
    if found is None:
        raise ConfigurationError(
            f"the budget is {budget}, and only a calibration by training can convert it to joules. "
            "Shadow mode trains nothing: give an energy such as '20 Wh'"
        )
    rows = ledger.rows("decision", budget_id=found["budget_id"])
    rows = [row for row in rows if row["reservation_id"] is None]  # not carried out
    if known is not None:
        last = {row["experience_id"]: row for row in rows}
        rows = [last[name] for name in known if name in last]
    runs = dict.fromkeys(row["run_id"] for row in rows)
    outcomes = {
        (run_id, row["position"]): row
        for run_id in runs
        for row in ledger.rows("outcome", run_id=run_id)
    }
    shadow = ShadowBudget(budget)
    for row in rows:
        outcome = outcomes.get((row["run_id"], row["position"]))
        reported_j = outcome["energy_j"] if outcome is not None and outcome["steps"] else None
        shadow.add(
            datetime.fromisoformat(row["recorded_utc"]),
            shadow_j(row["reason"], row["predicted_j"] or 0.0, reported_j),
        )
    return shadow


def shadow_decision(decision: Decision, state: State, *, calibrated: bool) -> Decision:
    """Return the decision for shadow mode: ``SKIP`` while the cost of a step is unknown.

    Args:
        decision: The controller's decision.
        state: Its state.
        calibrated: Whether the cost of a step is known.
    """
    if calibrated or not state.has_model:
        return decision
    return Decision(
        action=SKIP,
        reason=Reason.NOT_FEASIBLE,
        sentence=(
            "no decision: the cost of a step is unknown until the energy of one training is "
            "reported"
        ),
        cost_j=_NOTHING,
        gain=_NOTHING,
    )


def check_shadow(
    *, baseline_every: int | None, eval_each_experience: bool, shared_budget: str | None
) -> None:
    """Refuse options that shadow mode cannot serve.

    Raises:
        ConfigurationError: If one of them is given.
    """
    refused = {
        "baseline_every": (
            baseline_every,
            "a baseline retraining trains, and shadow mode does not",
        ),
        "eval_each_experience": (
            eval_each_experience or None,
            "each experience is evaluated during an update, and shadow mode runs none",
        ),
        "shared_budget": (
            shared_budget,
            "other streams cannot take account of the decisions of shadow mode",
        ),
    }
    for name, (value, why) in refused.items():
        if value is not None:
            raise ConfigurationError(
                f"shadow is True and {name} is {value!r}; {why}, so give one of the two"
            )


def check_report(
    plan: StepPlan, data: UpdateData, update_mode: str, steps: int | None, energy_j: float | None
) -> ReportedTraining:
    """Validate the report of a training.

    Args:
        plan: The usual steps of each update mode.
        data: The data of the experience.
        update_mode: The update mode of the training.
        steps: Optimizer steps, in batches of the stream's loader; the mode's usual steps if
            ``None``.
        energy_j: Joules; ``None`` if unknown.

    Raises:
        ConfigurationError: If a value cannot be used.
    """
    trains = [str(mode) for mode in UpdateMode if mode is not UpdateMode.SKIP]
    if update_mode not in trains:
        raise ConfigurationError(
            f"update_mode is {update_mode!r}; allowed are {', '.join(trains)}. If nothing was "
            "trained, do not call report_training"
        )
    if steps is not None and not is_whole(steps, 1):
        raise ConfigurationError(
            f"steps is {steps!r}; it must be a whole number, 1 or more, or None"
        )
    if energy_j is not None and not (
        isinstance(energy_j, int | float) and math.isfinite(energy_j) and energy_j >= 0
    ):
        raise ConfigurationError(
            f"energy_j is {energy_j!r}; it must be joules, finite, 0 or more, or None if unknown"
        )
    mode = UpdateMode(update_mode)
    usual = plan.steps(Action(mode=mode), **data.counts)
    taken = usual if steps is None else int(steps)
    fraction = min(1.0, taken / usual) if usual else 1.0
    return ReportedTraining(
        action=Action(mode=mode, step_fraction=fraction), steps=taken, energy_j=energy_j
    )


def check_model(own: LightningModule, model: object) -> LightningModule:
    """Refuse a model whose weights do not fit the model of ``make_model``.

    Raises:
        ConfigurationError: If it is no LightningModule, or a weight is missing, unexpected or of
            another shape.
    """
    if not isinstance(model, LightningModule):
        raise ConfigurationError(
            f"report_training got a {type(model).__name__}; it takes the LightningModule that was "
            "trained"
        )
    given, expected = _shapes(model), _shapes(own)
    wrong = [name for name in {**expected, **given} if given.get(name) != expected.get(name)]
    if wrong:
        raise ConfigurationError(
            f"the weights of {type(model).__name__} do not fit the model that make_model returns: "
            f"{wrong[0]!r} is {given.get(wrong[0], 'missing')} and has to be "
            f"{expected.get(wrong[0], 'missing')}"
        )
    return model


def evaluated_after(
    probe: ProbeResult | None, held_out: Dataset[Any], *, first: bool
) -> tuple[Dataset[Any], ...] | None:
    """Return the samples that a reported model is evaluated on: the probe's, if there was one.

    Without a probe, these are a part of the held-out data for the first model, and ``None`` after.
    """
    if probe is not None:
        return probe.held_out
    count = size(held_out)
    if not first or not count:
        return None
    return (Subset(held_out, range(0, count, -(-count // FIRST_EVALUATED))),)


def _shapes(model: LightningModule) -> dict[str, tuple[int, ...] | str]:
    return {
        name: "lazy" if is_lazy(value) else tuple(value.shape)
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, torch.Tensor)
    }
