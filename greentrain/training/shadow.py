"""Advice: what would have been done and drawn, while a job of the team's own trains.

Nothing is reserved or drawn for an advised update, so the ledger's budget pays for looks alone. A
policy that saw only that budget would think itself rich, and advise what nobody could have paid
for. So it is shown a balance from which the joules of everything that was advised before are taken,
as predicted: on paper. What the team's job draws is charged to neither of the two.
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
from greentrain.control import (
    SKIP,
    Action,
    BudgetController,
    Decision,
    Estimate,
    Reason,
    State,
    UpdateMode,
)
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.evaluation.measured import Measured, together
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.evaluation.probe import Probe
from greentrain.evaluation.probe_size import LOOK_SHARE
from greentrain.ledger import Ledger, LedgerAccount
from greentrain.memory import size
from greentrain.money import period
from greentrain.payments import MIN_RESERVATION_J, paying
from greentrain.training.data import UpdateData
from greentrain.training.modes import ModeConfig
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.training.update_context import UpdateContext
from greentrain.training.updater import Updater

FIRST_LOOKED_AT = 512
"""Held-out samples that the first model is measured on: nothing says yet what they cost."""
_FIXED_SHARE = 0.1
"""Share of the first training that is taken for its fixed part: no training is steps alone."""
_NOTHING = Estimate(mean=0.0, sd=0.0, upper=0.0)


class ShadowAccount:
    """An account whose balance also lacks what was advised and never drawn.

    What is reserved and settled through it, as looks are, is real.

    Args:
        account: The account.
        paper_j: Joules that were advised.
    """

    def __init__(self, account: LedgerAccount, paper_j: float) -> None:
        self.budget_id = account.budget_id
        self._account = account
        self._paper_j = paper_j

    def balance(self) -> Balance:
        """Return where the budget would stand if advice had been followed."""
        balance = self._account.balance()
        return dataclasses.replace(balance, spent_j=balance.spent_j + self._paper_j)

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Set joules aside, as the account does."""
        return self._account.reserve(upper_bound_j, purpose)

    def settle(self, reservation: str, actual_j: float) -> float:
        """Record what was measured, as the account does."""
        return self._account.settle(reservation, actual_j)


class ShadowBudget:
    """What was advised of a budget so far, and when.

    Args:
        budget: The budget: one that is renewed without carry-over forgets earlier periods.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._advised: list[tuple[datetime, float]] = []

    def add(self, moment: datetime, energy_j: float) -> None:
        """Take up one more advice."""
        self._advised.append((moment, energy_j))

    def took(self, moment: datetime, result: UpdateResult) -> None:
        """Take up what came of one more advice."""
        decision = result.decision
        told_j = None if result.told is None else result.told.energy_j
        self.add(moment, advised_j(decision.reason, decision.cost_j.mean, told_j))

    def drawn_j(self, now: datetime) -> float:
        """Return what advice would have drawn of what the budget has at hand now."""
        here = period(self._budget, now)
        return math.fsum(j for moment, j in self._advised if period(self._budget, moment) == here)


def advised_j(reason: str, predicted_j: float, told_j: float | None) -> float:
    """Return what an advised update would have drawn.

    That is what was predicted. The first training is an exception: nothing was predicted of it but
    where it would have been stopped, and if the job's own training drew less, so had it.

    Args:
        reason: The reason of the decision.
        predicted_j: The joules predicted of what was decided; 0 of ``SKIP``.
        told_j: What the job said that its training drew; ``None`` if unknown, or if there was none.

    Example:
        >>> advised_j("BEST_NET_GAIN", 50.0, 20.0)
        50.0
        >>> advised_j("NO_MODEL", 50.0, 20.0), advised_j("NO_MODEL", 50.0, None)
        (20.0, 50.0)
    """
    first = reason == Reason.NO_MODEL and told_j is not None
    return min(predicted_j, told_j or 0.0) if first else predicted_j


def paper_of(
    ledger: Ledger, stream: str, budget: Budget, known: Collection[str] | None = None
) -> ShadowBudget:
    """Read from the ledger what was advised so far.

    Args:
        ledger: The ledger.
        stream: Name of the stream, and of its budget.
        budget: The budget.
        known: Experiences that a saved state knows: no others count, and each counts once; ``None``
            without a state, where each decision does.

    Raises:
        ConfigurationError: If the budget is a share that nothing has been measured for yet.
    """
    found = ledger.find_budget(stream)
    if found is None:
        raise ConfigurationError(
            f"the budget is {budget}, and what that is in joules says a calibration, which trains; "
            "shadow=True trains nothing, so give an energy such as '20 Wh'"
        )
    rows = ledger.rows("decision", budget_id=found["budget_id"])
    rows = [row for row in rows if row["reservation_id"] is None]  # what was carried out is not
    if known is not None:
        last = {row["experience_id"]: row for row in rows}
        rows = [last[name] for name in known if name in last]
    runs = dict.fromkeys(row["run_id"] for row in rows)
    outcomes = [row for run_id in runs for row in ledger.rows("outcome", run_id=run_id)]
    told = {(row["run_id"], row["position"]): row for row in outcomes}
    paper = ShadowBudget(budget)
    for row in rows:
        outcome = told.get((row["run_id"], row["position"]))
        told_j = outcome["energy_j"] if outcome is not None and outcome["steps"] else None
        predicted_j = advised_j(row["reason"], row["predicted_j"] or 0.0, told_j)
        paper.add(datetime.fromisoformat(row["recorded_utc"]), predicted_j)
    return paper


def as_advice(decision: Decision, state: State, *, calibrated: bool) -> Decision:
    """Return what can be advised: nothing, while nobody said what a training draws.

    Args:
        decision: What was decided.
        state: In what state.
        calibrated: Whether it is known what a step costs.
    """
    if calibrated or not state.has_model:
        return decision
    return Decision(
        action=SKIP,
        reason=Reason.NOT_FEASIBLE,
        sentence=(
            "no advice: nothing says what a step costs until the energy of one training is told"
        ),
        cost_j=_NOTHING,
        gain=_NOTHING,
    )


def check_advising(
    *, baseline_every: int | None, separately: bool, shared_budget: str | None
) -> None:
    """Refuse what needs trainings of the stream's own, or others to know what is on paper alone.

    Raises:
        ConfigurationError: If it was asked for.
    """
    if baseline_every is not None:
        raise ConfigurationError(
            f"shadow is True and baseline_every is {baseline_every!r}; advice trains nothing, and a "
            "control is a training, so give one of the two"
        )
    if separately:
        raise ConfigurationError(
            "shadow is True and separately is True; the metric on each experience is read in an "
            "update, and advice has none, so give one of the two"
        )
    if shared_budget is not None:
        raise ConfigurationError(
            f"shadow is True and shared_budget is {shared_budget!r}; what is advised is on the paper of "
            "one stream alone, so give it a budget of its own"
        )


def check_told(
    modes: ModeConfig,
    batch: UpdateData,
    update_mode: str,
    steps: int | None,
    energy_j: float | None,
) -> ReportedTraining:
    """Check what is told of a training.

    Args:
        modes: What the update modes mean.
        batch: The data that were at hand.
        update_mode: What was done.
        steps: Optimizer steps, of batches as the stream's loader makes them; the mode's usual ones
            if ``None``.
        energy_j: Joules; ``None`` if unknown.

    Raises:
        ConfigurationError: If one of them cannot be.
    """
    trains = [str(mode) for mode in UpdateMode if mode is not UpdateMode.SKIP]
    if update_mode not in trains:
        raise ConfigurationError(
            f"update_mode is {update_mode!r}; allowed are {', '.join(trains)}, and where nothing "
            "was trained, trained() is not called"
        )
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ConfigurationError(f"steps is {steps!r}; it is a whole number, 1 or more, or None")
    if energy_j is not None and not (
        isinstance(energy_j, int | float) and math.isfinite(energy_j) and energy_j >= 0
    ):
        raise ConfigurationError(
            f"energy_j is {energy_j!r}; it is joules, finite, 0 or more, or None if unknown"
        )
    mode = UpdateMode(update_mode)
    usual = modes.steps(
        Action(mode=mode), n_new=batch.n_new, n_stored=batch.n_stored, n_held=batch.n_held
    )
    taken = usual if steps is None else steps
    step_fraction = min(1.0, taken / usual) if usual else 1.0
    return ReportedTraining(
        action=Action(mode=mode, step_fraction=step_fraction), steps=taken, energy_j=energy_j
    )


def check_model(updater: Updater, model: object) -> LightningModule:
    """Refuse a model whose weights are not those of what ``make_model`` returns.

    Raises:
        ConfigurationError: If it is no LightningModule, or one of its weights is missing, is one
            too many or has another shape.
    """
    if not isinstance(model, LightningModule):
        raise ConfigurationError(
            f"trained got a {type(model).__name__}; it takes the LightningModule that was trained"
        )
    given, own = _shapes(model), _shapes(updater.model)
    wrong = [name for name in {**own, **given} if given.get(name) != own.get(name)]
    if wrong:
        raise ConfigurationError(
            f"the weights of {type(model).__name__} do not fit what make_model returns: "
            f"{wrong[0]!r} is {given.get(wrong[0], 'missing')} and has to be "
            f"{own.get(wrong[0], 'missing')}"
        )
    return model


def take_over(
    turn: UpdateContext,
    model: LightningModule | None,
    told: ReportedTraining | None,
    *,
    updater: Updater,
    controller: BudgetController,
    probe: Probe,
    progress: MetricHistory,
) -> float | None:
    """Make what a job trained the current model, measure it, and learn from it.

    Args:
        turn: The turn of the experience, with the advice.
        model: What was trained, of which only the weights are taken; ``None`` if nothing was.
        told: What was told of it; ``None`` if nothing was trained.
        updater: Has the current model.
        controller: Learns what such a training costs and gains.
        probe: Knows what looking at samples draws.
        progress: What was reached so far.

    Returns:
        The metric after; ``None`` if it could not be paid for.
    """
    if model is None or told is None:
        _nothing_done(turn, controller)
        return None
    first = not updater.trained
    updater.model.load_state_dict(model.state_dict())
    updater.keep(updater.model, told.action)
    after = _measured(turn, updater, probe, first=first)
    metric = None if after is None or not math.isfinite(after.value) else after.value
    if told.energy_j and not controller.cost.calibrated:
        fixed_j = _FIXED_SHARE * told.energy_j
        step_j = (told.energy_j - fixed_j) / told.steps
        controller.cost.calibrate(fixed_j=fixed_j, step_j=step_j)
    decision, state = turn.advice or (None, None)
    if decision is not None and state is not None:
        gain, gain_sd = None, 0.0
        if turn.look is not None and after is not None:
            gain, gain_sd = progress.gain(turn.look.measured, after)
        controller.learn(
            dataclasses.replace(decision, action=told.action, steps=told.steps),
            state,
            steps=told.steps,
            actual_j=told.energy_j or 0.0,  # which the cost model takes for unknown
            metric_after=progress.oriented(metric),
            gain=gain,
            gain_sd=gain_sd,
        )
    if metric is not None:
        progress.take(metric)
    return metric


def _nothing_done(turn: UpdateContext, controller: BudgetController) -> None:
    """Take up that the job trained nothing, whatever was advised."""
    decision, state = turn.advice or (None, None)
    if decision is not None and state is not None:
        controller.learn(
            dataclasses.replace(decision, action=SKIP, steps=0),
            state,
            steps=0,
            actual_j=0.0,
            metric_after=state.metric_before,
        )


def _measured(
    turn: UpdateContext, updater: Updater, probe: Probe, *, first: bool
) -> Measured | None:
    """Measure the current model on what was looked at before, and pay for it."""
    if turn.look is not None:
        parts: tuple[Dataset[Any], ...] = turn.look.held
    elif first and turn.judged_on is not None and size(turn.judged_on):
        count = size(turn.judged_on)
        parts = (Subset(turn.judged_on, range(0, count, -(-count // FIRST_LOOKED_AT))),)
    else:
        return None
    samples = sum(size(part) for part in parts)
    share_j = LOOK_SHARE * turn.account.balance().left_j
    reserved_j = max(probe.bound_j(samples) or share_j, MIN_RESERVATION_J)
    try:
        reservation = turn.account.reserve(reserved_j, f"look after {turn.experience.id}")
    except BudgetExceeded:
        return None
    recorder = turn.session.recorder
    with (
        paying(turn.account, recorder, reserved_j=reserved_j, reservation=reservation) as payment,
        recorder.phase("probe"),
    ):
        found = together(updater.measured(parts))
        if first:
            probe.drew(samples, recorder.drawn(recorder.depth - 1).total_j or 0.0)
    turn.paid(payment)
    return found


def _shapes(model: LightningModule) -> dict[str, tuple[int, ...] | str]:
    return {
        name: "lazy" if is_lazy(value) else tuple(value.shape)
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, torch.Tensor)
    }
