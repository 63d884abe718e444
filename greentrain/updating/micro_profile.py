"""A short trial of two update modes on a part of the data, before one of them is trained."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from greentrain.control import (
    BudgetController,
    Candidate,
    CostModel,
    Decision,
    Estimate,
    Option,
    State,
    UpdateMode,
)
from greentrain.control.profiling import PROFILE_SHARE, worth_profiling
from greentrain.errors import BudgetExceeded
from greentrain.memory import size
from greentrain.payments import paying
from greentrain.units import format_energy
from greentrain.updating.material import Batch
from greentrain.updating.probe import FEWEST, Look, Probe
from greentrain.updating.progress import Progress
from greentrain.updating.trial import POINTS, SURE_SD, Foretold, Plan, Trials
from greentrain.updating.turn import Turn
from greentrain.updating.updater import Updater

DATA_SHARE = 0.07
"""Share of the data that a trial trains on: Ekya takes 5 to 10 %."""
PASSES_SHARE = 0.2
"""Share of an option's passes over its data that a trial makes over its part of them.

With all of them it would draw 7 % of each of the two options: never less than 5 % of their
difference.
"""
LEAST_STEPS = 20
"""Steps of a trial at least: a few for each point of its curve."""
READING_SHARE = 0.5
"""Share of what the steps of both trials leave of their reservation that readings may take."""

_READINGS = 2 * POINTS + 1  # of both trials, and of the model as it is

_log = logging.getLogger(__name__)


def reconsidered(
    turn: Turn,
    state: State,
    decision: Decision,
    *,
    updater: Updater,
    controller: BudgetController,
    probe: Probe,
    progress: Progress,
) -> tuple[State, Decision]:
    """Try the two best update modes where that is worth it, and decide once more.

    Each is trained for a short while on a uniform 7 % of its data, and thrown away; a learning
    curve says where it would have ended (micro-profiling: Bhardwaj et al. 2022, "Ekya", section 4).
    What that says and what the utility model says are weighted by their inverse variances, for all
    efforts of the two update modes alike, as they lie on one curve.

    Args:
        turn: The experience's turn; its ``beside`` takes up what the trials drew.
        state: What was known when it was decided.
        decision: The decision, for which nothing is reserved yet.
        updater: Trains, and measures.
        controller: Decides again; its cost model says what trials draw.
        probe: Knows what looking at samples draws.
        progress: Orients the metric.

    Returns:
        The state with what is left now, and the decision; both as given where nothing is tried.
    """
    plan = planned(state, decision, look=turn.look, cost=controller.cost, probe=probe)
    ceiling = progress.ceiling()
    if plan is None or ceiling is None:
        return state, decision
    try:
        reservation = turn.account.reserve(plan.reserved_j, f"profile of {turn.experience.id}")
    except BudgetExceeded:  # another run was faster; the update itself may still be had
        return state, decision
    recorder = turn.session.recorder
    part = part_of(turn.batch, updater.modes.batch_size, seed=turn.position)
    with (
        paying(
            turn.account, recorder, reserved_j=plan.reserved_j, reservation=reservation
        ) as payment,
        recorder.phase("profile"),
    ):
        trials = Trials(updater, recorder, payment, progress, ceiling=ceiling, plan=plan)
        gains = trials.gains(part, turn.position)
    turn.paid(payment)
    left_j = max(0.0, (state.left_j or 0.0) - payment.actual_j)
    state = dataclasses.replace(state, left_j=left_j)
    again = controller.reconsider(state, decision, told(decision, gains))
    _log.info("%s", _sentence(plan, payment.actual_j, gains, decision, again))
    return state, again


def planned(
    state: State, decision: Decision, *, look: Look | None, cost: CostModel, probe: Probe
) -> Plan | None:
    """Plan two trials, or return ``None`` where they are not worth it or cannot be paid.

    Args:
        state: What was known when it was decided.
        decision: The decision.
        look: What a look at the model found.
        cost: Predicts joules.
        probe: Knows what looking at samples draws.
    """
    options = rivals(state, decision)
    if options is None or look is None:
        return None
    reserved_j = PROFILE_SHARE * abs(options[0].cost_j.mean - options[1].cost_j.mean)
    dearest_j = max(option.cost_j.upper for option in options)
    if not 0 < reserved_j <= (state.left_j or 0.0) - dearest_j:
        return None
    steps = trial_steps(options[0]), trial_steps(options[1])
    steps_j = [
        cost.predict(option.action.mode, its_steps).mean
        for option, its_steps in zip(options, steps, strict=True)
    ]
    sample_j, there = probe.look_j(1), sum(size(each) for each in look.held)
    most_j = max(0.0, READING_SHARE * (reserved_j - sum(steps_j)) / _READINGS)
    samples = there if there * sample_j <= most_j else int(most_j / sample_j)
    reading_j = samples * sample_j
    first_j, second_j = (each + POINTS * reading_j for each in steps_j)
    if samples < FEWEST or not worth_profiling(*options, first_j + second_j + reading_j):
        return None
    return Plan(
        options=options,
        steps=steps,
        expected_j=(first_j, second_j),
        reading_j=reading_j,
        reserved_j=reserved_j,
        held=tuple(_first(each, samples / there) for each in look.held),
    )


def rivals(state: State, decision: Decision) -> tuple[Option, Option] | None:
    """Return the option that was decided for, and the best affordable one of another update mode.

    Best by ``gain - price * cost``. Other efforts of one update mode are no rivals: the same trial
    tells of all of them. ``None`` where no gains were weighed, nothing is to be trained, or no
    other update mode can be paid.
    """
    price, left_j = decision.price_per_j, state.left_j
    if price is None or left_j is None or decision.action.mode is UpdateMode.SKIP:
        return None
    options = [each.option for each in decision.alternatives]
    best = next((option for option in options if option.action == decision.action), None)
    others = [
        option
        for option in options
        if option.action.mode not in (UpdateMode.SKIP, decision.action.mode)
        and option.cost_j.upper <= left_j
    ]
    if best is None or not others:
        return None
    return best, max(others, key=lambda each: each.gain.mean - price * each.cost_j.mean)


def trial_steps(option: Option) -> int:
    """Return the steps of an option's trial: 1.4 % of its own, and 20 at least."""
    return max(LEAST_STEPS, round(DATA_SHARE * PASSES_SHARE * option.candidate.steps))


def part_of(batch: Batch, batch_size: int, *, seed: int) -> Batch:
    """Return a uniform 7 % of an experience's data, and of what is stored, a full batch at least.

    Args:
        batch: The data.
        batch_size: Samples of a batch, over all ranks.
        seed: Seed of the choice.
    """
    random = torch.Generator().manual_seed(seed)

    def some(dataset: Dataset[Any]) -> Dataset[Any]:
        count = max(batch_size, round(DATA_SHARE * size(dataset)))
        return Subset(dataset, torch.randperm(size(dataset), generator=random)[:count].tolist())

    return Batch(new=some(batch.new), stored=some(batch.stored), held=some(batch.held))


def told(decision: Decision, gains: Mapping[UpdateMode, Foretold]) -> dict[Candidate, Estimate]:
    """Return the gain of each option of the update modes that were tried, with what that told."""
    options = [each.option for each in decision.alternatives]
    return {
        option.candidate: combined(option.gain, gains[option.action.mode](option))
        for option in options
        if option.action.mode in gains
    }


def combined(model: Estimate, trial: Estimate) -> Estimate:
    """Return what two estimates say together, weighted by their inverse variances.

    Example:
        >>> model = Estimate(mean=0.2, sd=0.1, upper=0.4)
        >>> both = combined(model, Estimate(mean=0.1, sd=0.1, upper=0.3))
        >>> round(both.mean, 3), round(both.sd, 3)  # half way, and 0.1 over the root of 2
        (0.15, 0.071)
        >>> combined(model, Estimate(mean=0.1, sd=0.0, upper=0.1)).mean
        0.1
    """
    if model.sd == 0 or trial.sd == 0:
        return model if model.sd == 0 else trial
    variances = model.sd**2, trial.sd**2
    share = variances[1] / sum(variances)
    mean = share * model.mean + (1 - share) * trial.mean
    sd = math.sqrt(variances[0] * share)
    return Estimate(mean=mean, sd=sd, upper=mean + SURE_SD * sd)


def _first(dataset: Dataset[Any], share: float) -> Dataset[Any]:
    """Return the first samples of a look, which are in no order: a uniform part of it."""
    return dataset if share >= 1 else Subset(dataset, range(math.ceil(share * size(dataset))))


def _sentence(
    plan: Plan,
    drawn_j: float,
    gains: Mapping[UpdateMode, Foretold],
    decision: Decision,
    again: Decision,
) -> str:
    """Say what two trials told, and what became of the decision."""
    tried = " and ".join(
        f"{option.action} ({option.gain.mean:+.3f} expected"
        + (f", {gains[option.action.mode](option).mean:+.3f} by its trial)" if gains else ")")
        for option in plan.options
    )
    stays = again.action == decision.action
    end = f"{again.action} stays" if stays else f"{again.action} in place of {decision.action}"
    nothing = "" if gains else ", which told nothing"
    return f"trials of {tried} drew {format_energy(drawn_j)}{nothing}: {end}"
