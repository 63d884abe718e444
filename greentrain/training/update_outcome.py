"""The outcome of an update of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pytorch_lightning import LightningModule

from greentrain.control import Decision, UpdateMode
from greentrain.energy import EnergyTotal, energy_html
from greentrain.texts import masked
from greentrain.training.given_model import return_like
from greentrain.training.result import UpdateResult, outcome_line
from greentrain.training.runner import StreamRunner


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModelUpdate(EnergyTotal):
    """The outcome of :func:`update`.

    Args:
        model: The better model: the updated one, or the given instance if nothing was kept.
        update_mode: The update mode of the decision; ``SKIP`` if nothing was trained.
        kept: Whether ``model`` is the updated one.
        reason: The decision and its outcome in one or two sentences.
        monitor: Name of the metric that the two models were compared by.
        metric_before: The metric of the given model on ``val``; ``None`` if unknown.
        metric_after: The metric of the returned model on it; ``None`` if unknown.
        total_j: Joules that the update used, with its calibration and its probe.
        emissions_g: Grams of CO2 equivalent; ``None`` without a zone or an intensity.
        left_j: Joules left of the budget.
        overrun_j: Joules used beyond what was reserved.
        steps: Batches that were trained.
        logged_steps: The next step of the loggers: ``first_step`` of the next update.
        not_offered: The update modes that were not possible, each with its reason.
        decision: The decision, with its alternatives.
        ledger: Path of the ledger that recorded everything, or its URL if it is on a server: the
            URL as it was given, with its user and password. ``print`` shows it without them.
        run_id: Id of the run in the ledger.
    """

    model: LightningModule
    update_mode: UpdateMode
    kept: bool
    reason: str
    monitor: str
    metric_before: float | None
    metric_after: float | None
    total_j: float
    emissions_g: float | None
    left_j: float
    overrun_j: float
    steps: int
    logged_steps: int
    not_offered: Mapping[UpdateMode, str]
    decision: Decision
    ledger: str
    run_id: str

    def __repr__(self) -> str:
        """Return the outcome in one line."""
        return f"<ModelUpdate {self._outcome}>"

    def __str__(self) -> str:
        """Return the outcome, its reason and the ledger, each in a line."""
        lines = [self._outcome, f"reason: {self.reason}"]
        lines += [f"not offered: {mode}, as {why}" for mode, why in self.not_offered.items()]
        return "\n".join([*lines, f"ledger: {masked(self.ledger)}"])

    def _repr_html_(self) -> str:
        title = f"{self._outcome}. {self.reason}"
        return energy_html(title, {"update": self.total_j}, grams=self.emissions_g)

    @property
    def _outcome(self) -> str:
        return outcome_line(
            self.update_mode,
            kept=self.kept,
            monitor=self.monitor,
            before=self.metric_before,
            after=self.metric_after,
            steps=self.steps,
            energy_j=self.total_j,
        )


def outcome_of(
    given: LightningModule,
    runner: StreamRunner,
    result: UpdateResult,
    *,
    monitor: str,
    ledger: str,
    not_offered: Mapping[UpdateMode, str],
    logged_steps: int,
) -> ModelUpdate:
    """Return the outcome of the one update of a runner.

    Args:
        given: The given model.
        runner: The runner, whose run is closed.
        result: Its result.
        monitor: As for :class:`ModelUpdate`.
        ledger: As for :class:`ModelUpdate`.
        not_offered: As for :class:`ModelUpdate`.
        logged_steps: As for :class:`ModelUpdate`.
    """
    run = runner.run
    if run is None:
        raise ValueError("the update opened no run")
    trained = result.update_mode is not UpdateMode.SKIP
    kept = result.kept and trained
    before, after = _without_rounding(result.metric_before, result.metric_after)
    reason = result.reason
    if trained and not kept:
        reason += f". The updated model is not kept: it is worse in {monitor}, or not finite"
    return ModelUpdate(
        model=return_like(runner.state.model.module, given) if kept else given,
        update_mode=result.update_mode,
        kept=kept,
        reason=reason,
        monitor=monitor,
        metric_before=before,
        metric_after=after,
        total_j=result.energy_j,
        emissions_g=run.emissions_g,
        left_j=result.left_j,
        overrun_j=result.overrun_j,
        steps=result.steps,
        logged_steps=logged_steps,
        not_offered=not_offered,
        decision=result.decision,
        ledger=ledger,
        run_id=run.run.run_id,
    )


def modes_not_offered(buffer: object, past: int, make_model: object) -> dict[UpdateMode, str]:
    """Return the update modes that were not possible, each with its reason.

    Args:
        buffer: The given buffer; ``None`` without one.
        past: Samples in it before the update.
        make_model: The given function; ``None`` without one.
    """
    why: dict[UpdateMode, str] = {}
    if not past:
        missing = "no buffer was given" if buffer is None else "the buffer holds no past data"
        why = {UpdateMode.REPLAY: missing, UpdateMode.FULL_RETRAIN: missing}
    if make_model is None:
        why[UpdateMode.FULL_RETRAIN] = (
            "make_model was not given, and an instance has no fresh weights"
        )
    return why


def _without_rounding(*metrics: float | None) -> list[float | None]:
    """Return metrics to seven digits of the largest: one is computed as a difference."""
    largest = max((abs(each) for each in metrics if each is not None), default=0.0)
    digits = 6 - math.floor(math.log10(largest)) if largest else 0
    return [None if each is None else round(each, digits) for each in metrics]
