"""What a tracker is told, from what came of an experience: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from greentrain.control import Action, Decision
from greentrain.energy import Window
from greentrain.memory import size
from greentrain.streams import Experience
from greentrain.tracking import DatasetUsed, names
from greentrain.training.result import UpdateResult
from greentrain.units import format_energy, wh

_LONGEST_NOTE = 4500
"""Characters: MLflow takes 8,000 bytes."""
_LONGEST_CELL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a stream's experiences came to, all together.

    Args:
        experiences: How many there were.
        energy_j: Joules drawn for them.
        measured: How many of them there is a metric after.
        metric: The sum of these metrics.
    """

    experiences: int = 0
    energy_j: float = 0.0
    measured: int = 0
    metric: float = 0.0

    def with_control(self, result: UpdateResult) -> Totals:
        """Return the totals with what a control drew: it is no experience of its own."""
        return replace(self, energy_j=self.energy_j + result.energy_j)

    def plus(self, result: UpdateResult) -> Totals:
        """Return the totals with one more experience."""
        known = result.metric_after is not None
        return Totals(
            experiences=self.experiences + 1,
            energy_j=self.energy_j + result.energy_j,
            measured=self.measured + known,
            metric=self.metric + (result.metric_after or 0.0),
        )


def update_metrics(result: UpdateResult) -> dict[str, float]:
    """Return the figures of an update, for its own run; of advice, those of the other job's."""
    update_j: float | None = result.update_j
    predicted_j: float | None = result.decision.cost_j.mean
    if result.advice:
        update_j = None if result.told is None else result.told.energy_j
        predicted_j = predicted_of(result.decision, result.done)
    metrics = {
        names.ENERGY_UPDATE: None if update_j is None else wh(update_j),
        names.ENERGY_PREDICTED: None if predicted_j is None else wh(predicted_j),
        names.BUDGET_OVERRUN: wh(result.overrun_j),
        names.METRIC_BEFORE: result.metric_before,
        names.METRIC_AFTER: result.metric_after,
    }
    return {name: value for name, value in metrics.items() if value is not None}


def control_metrics(result: UpdateResult, totals: Totals) -> dict[str, float]:
    """Return what a control came to, for the stream's run."""
    metrics = {
        names.ENERGY_CONTROL: wh(result.energy_j),
        names.METRIC_CONTROL: result.metric_after,
        names.ENERGY_CUMULATIVE: wh(totals.energy_j),
        names.BUDGET_LEFT: wh(result.left_j),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def predicted_of(decision: Decision, action: Action) -> float | None:
    """Return the joules that were predicted of an action when it was weighed; ``None`` if not."""
    options = [one.option for one in decision.alternatives if one.action == action]
    return options[0].cost_j.mean if options else None


def stream_metrics(result: UpdateResult, totals: Totals) -> dict[str, float]:
    """Return where the stream stands after an experience, for its run."""
    price = result.decision.price_per_j
    metrics = {
        names.ENERGY_CUMULATIVE: wh(totals.energy_j),
        names.BUDGET_LEFT: wh(result.left_j),
        names.BUDGET_PRICE: None if price is None else price / wh(1.0),
        names.METRIC_AFTER: result.metric_after,
        names.ANYTIME: totals.metric / totals.measured if totals.measured else None,
        names.UPDATE_MODE_STEP: float(names.UPDATE_MODE_STEPS[result.done.mode]),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def decision(result: UpdateResult) -> dict[str, Any]:
    """Return a decision with every alternative, as plain values."""
    decided = result.decision
    return {
        "experience": result.experience_id,
        "position": result.position,
        "update_mode": str(result.update_mode),
        "step_fraction": decided.action.step_fraction,
        "reason": str(decided.reason),
        "sentence": decided.sentence,
        "price_per_j": decided.price_per_j,
        "alternatives": decided.alternatives_as_dicts(),
        **({"advice": True, "done": str(result.done)} if result.advice else {}),
    }


def datasets(experience: Experience) -> list[DatasetUsed]:
    """Return what an experience brings to an update, without its samples."""
    sizes = {"training": size(experience.train), "validation": size(experience.val)}
    return [
        DatasetUsed(name=experience.id, samples=samples, context=context)
        for context, samples in sizes.items()
    ]


def powers(window: Window) -> dict[str, float]:
    """Return the mean power of each source over a window, in watts, as far as it is known.

    Example:
        >>> from greentrain.energy import Reading
        >>> from greentrain.units import utc_now
        >>> reading = Reading(duration_s=36.0, energy_j={"cpu": 3600.0, "gpu:0": None})
        >>> now = utc_now()
        >>> powers(Window(phase="probe", started=now, ended=now, reading=reading))
        {'cpu': 100.0}
    """
    duration_s = window.reading.duration_s
    if duration_s <= 0:
        return {}
    known = window.reading.energy_j.items()
    return {source: energy_j / duration_s for source, energy_j in known if energy_j is not None}


def note(stream: str, results: Sequence[UpdateResult], totals: Totals) -> str:
    """Return a summary in Markdown, with as many of the last experiences as there is room for."""
    rows = [_row(result) for result in results]
    drawn = format_energy(totals.energy_j)
    title = f"**{_cell(stream)}**: {totals.experiences} experiences, {drawn} drawn."
    table = ["| experience | update mode | drawn | metric | reason |", "|---|---|---|---|---|"]
    while True:
        few = totals.experiences > len(rows)
        told = [f"The last {len(rows)} of them:", ""] if few else []
        text = "\n".join([title, "", *told, *table, *rows])
        if len(text) <= _LONGEST_NOTE or not rows:
            return text
        rows = rows[1:]


def _row(result: UpdateResult) -> str:
    after = "unknown" if result.metric_after is None else f"{result.metric_after:.3f}"
    advised = f", advised {result.decision.action}" if result.advice else ""
    return (
        f"| {_cell(result.experience_id)} | {result.done}{advised} | "
        f"{format_energy(result.energy_j)} | {after} | {_cell(result.reason)} |"
    )


def _cell(text: str) -> str:
    """Return a text that stays in its cell, and is text."""
    plain = " ".join(text.split())
    if len(plain) > _LONGEST_CELL:
        plain = f"{plain[:_LONGEST_CELL]}…"
    for found, instead in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        plain = plain.replace(found, instead)
    return plain
