"""Convert results to the metrics, tags and notes that a tracker logs: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from greentrain.control import UPDATE_MODES, Action, Decision
from greentrain.energy import Window
from greentrain.memory import size
from greentrain.streams import Experience
from greentrain.texts import markdown
from greentrain.tracking import DatasetUsed, names
from greentrain.training.result import UpdateResult
from greentrain.training.update_context import StreamTotals
from greentrain.units import format_energy, format_number, wh

_LONGEST_NOTE = 4500
"""Characters of a note: MLflow accepts 8,000 bytes."""
_LONGEST_CELL = 200


def update_metrics(result: UpdateResult) -> dict[str, float]:
    """Return the metrics of an update's run; in shadow mode, those of the user's own job."""
    update_j: float | None = result.update_j
    predicted_j: float | None = result.decision.cost_j.mean
    if result.shadow:
        update_j = None if result.reported is None else result.reported.energy_j
        predicted_j = predicted_of(result.decision, result.done)
    metrics = {
        names.ENERGY_UPDATE: None if update_j is None else wh(update_j),
        names.ENERGY_PREDICTED: None if predicted_j is None else wh(predicted_j),
        names.ENERGY_EXPERIENCE: None if result.shadow else wh(result.energy_j),
        names.BUDGET_OVERRUN: wh(result.overrun_j),
        names.METRIC_BEFORE: result.metric_before,
        names.METRIC_AFTER: result.metric_after,
        names.LABELS_UPDATE: None if result.shadow else float(result.labels),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def baseline_metrics(result: UpdateResult, totals: StreamTotals) -> dict[str, float]:
    """Return the metrics of a baseline retraining, for the stream's run."""
    metrics = {
        names.ENERGY_BASELINE: wh(result.energy_j),
        names.METRIC_BASELINE: result.metric_after,
        names.ENERGY_CUMULATIVE: wh(totals.energy_j),
        names.BUDGET_LEFT: wh(result.left_j),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def predicted_of(decision: Decision, action: Action) -> float | None:
    """Return the joules predicted for an action among the alternatives; ``None`` if unknown."""
    options = [one.option for one in decision.alternatives if one.action == action]
    return options[0].cost_j.mean if options else None


def stream_metrics(result: UpdateResult, totals: StreamTotals) -> dict[str, float]:
    """Return the metrics of the stream's run after an experience."""
    min_gain_per_j = result.decision.min_gain_per_j
    metrics = {
        names.ENERGY_CUMULATIVE: wh(totals.energy_j),
        names.ENERGY_EXPERIENCE: None if result.shadow else wh(result.energy_j),
        names.BUDGET_LEFT: wh(result.left_j),
        names.BUDGET_OVERRUN: wh(result.overrun_j),
        names.BUDGET_MIN_GAIN: None if min_gain_per_j is None else min_gain_per_j / wh(1.0),
        names.METRIC_AFTER: result.metric_after,
        names.ANYTIME: totals.metric / totals.measured if totals.measured else None,
        names.UPDATE_MODE_STEP: float(UPDATE_MODES[result.done.mode].step),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def decision(result: UpdateResult) -> dict[str, Any]:
    """Return a decision with every alternative as plain values."""
    decided = result.decision
    return {
        "experience": result.experience_id,
        "position": result.position,
        "update_mode": str(result.update_mode),
        "step_fraction": decided.action.step_fraction,
        **({"method": decided.action.method} if decided.action.method else {}),
        "reason": str(decided.reason),
        "sentence": decided.sentence,
        "min_gain_per_j": decided.min_gain_per_j,
        "alternatives": decided.alternatives_as_dicts(),
        **({"shadow": True, "done": str(result.done)} if result.shadow else {}),
    }


def datasets(experience: Experience) -> list[DatasetUsed]:
    """Return the datasets of an experience, without their samples."""
    sizes = {"training": size(experience.train), "validation": size(experience.val)}
    return [
        DatasetUsed(name=experience.id, samples=samples, context=context)
        for context, samples in sizes.items()
    ]


def powers(window: Window) -> dict[str, float]:
    """Return the known mean power of each source over a window, in watts.

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


def note(stream: str, results: Sequence[UpdateResult], totals: StreamTotals) -> str:
    """Return a summary in Markdown, with as many of the last experiences as fit."""
    rows = [_row(result) for result in results]
    used = format_energy(totals.energy_j)
    title = f"**{_cell(stream)}**: {totals.experiences} experiences, {used} used."
    table = [
        "| experience | update mode | energy with probe | metric | reason |",
        "|---|---|---|---|---|",
    ]
    while True:
        few = totals.experiences > len(rows)
        intro = [f"The last {len(rows)} of them:", ""] if few else []
        text = "\n".join([title, "", *intro, *table, *rows])
        if len(text) <= _LONGEST_NOTE or not rows:
            return text
        rows = rows[1:]


def update_note(stream: str, result: UpdateResult) -> str:
    """Return the description of an update's run in Markdown, with its whole reason."""
    decided = result.decision
    before, after = (
        "not measured" if value is None else format_number(value, 4)
        for value in (result.metric_before, result.metric_after)
    )
    update_j = result.update_j
    if result.shadow:
        used = f"Shadow mode: greentrain recommended {decided.action}."
    else:
        used = (
            f"Energy: {format_energy(update_j)} for the update alone, "
            f"{format_energy(decided.cost_j.mean)} predicted; {format_energy(result.energy_j)} for "
            "the experience, its probe and calibration included."
        )
    state = "kept" if result.kept else "not kept: not better"
    parts = [
        f"**{result.done}** at the experience {_cell(result.experience_id)} of {_cell(stream)}.",
        f"Reason ({decided.reason}): {markdown(' '.join(result.reason.split()))}",
        f"Metric: {before} before, {after} after. The new model was {state}.",
        used,
    ]
    return "\n\n".join(parts)


def _row(result: UpdateResult) -> str:
    after = "not measured" if result.metric_after is None else f"{result.metric_after:.3f}"
    shadow = f", greentrain: {result.decision.action}" if result.shadow else ""
    return (
        f"| {_cell(result.experience_id)} | {result.done}{shadow} | "
        f"{format_energy(result.energy_j)} | {after} | {_cell(result.reason)} |"
    )


def _cell(text: str) -> str:
    """Return a text that fits in a table cell and contains no markup."""
    plain = " ".join(text.split())
    return markdown(plain if len(plain) <= _LONGEST_CELL else f"{plain[:_LONGEST_CELL]}…")
