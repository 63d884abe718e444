"""Show the experiences of a stream as lines of at most 80 characters, one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from greentrain.units import energy_in, energy_unit, format_energy

if TYPE_CHECKING:
    from greentrain.budget import Budget
    from greentrain.training import UpdateResult

_NAME, _ACTION, _ENERGY, _METRIC = 13, 17, 8, 14
"""Widths of columns in characters; longer names push the rest of their line."""


class ExperienceLines:
    """Write the lines of one stream, in one unit of energy.

    Args:
        metric: Name of the metric.
        budget: The stream's budget; its amount sets the unit of energy.
        percent: Whether the metric is a share, and shown in percent.

    Example:
        >>> from greentrain.budget import Budget
        >>> budget = Budget(energy_j=150.0, num_experiences=8)
        >>> ExperienceLines("val_acc", budget).header
        ' #  experience    action               pred.      used  val_acc             left'
    """

    def __init__(self, metric: str, budget: Budget, *, percent: bool = False) -> None:
        self._metric = metric
        self._unit = energy_unit([budget.energy_j])
        self._percent = percent

    @property
    def header(self) -> str:
        """The names of the columns."""
        return _columns("#", "experience", "action", "pred.", "used", self._metric, "left")

    def line(self, result: UpdateResult) -> str:
        """Return the line of one experience."""
        line = _columns(
            str(result.position),
            result.experience_id,
            action_label(result),
            self._energy(result.decision.cost_j.mean),
            self._energy(result.energy_j),
            self.metric(result.metric_before, result.metric_after),
            self._energy(result.left_j),
        )
        notes = []
        if not result.kept:
            notes.append("not kept")
        if result.overrun_j > 0:
            notes.append(f"{format_energy(result.overrun_j)} over its reservation")
        return "  ".join([line, *notes])

    def metric(self, before: float | None, after: float | None) -> str:
        """Return a metric before and after an update; ``-`` where it is unknown."""
        if self._percent:
            unit = "" if after is None else " %"
            return f"{_shown(before, 100, '.1f')} -> {_shown(after, 100, '.1f')}{unit}"
        return f"{_shown(before, 1, '.4g')} -> {_shown(after, 1, '.4g')}"

    def _energy(self, energy_j: float) -> str:
        if self._unit == "J":
            return format_energy(energy_j, self._unit)
        return f"{energy_in(energy_j, self._unit):.2f} {self._unit}"


def action_label(result: UpdateResult) -> str:
    """Return an action as words, such as ``warm start 50 %`` or ``warm start with cached``."""
    from greentrain.control import UPDATE_MODES

    action = result.decision.action
    part = "" if action.step_fraction in (0, 1) else f" {100 * action.step_fraction:.0f} %"
    method = f" with {action.method}" if action.method else ""
    return UPDATE_MODES[action.mode].label.lower() + method + part


def most_instructive(results: Sequence[UpdateResult]) -> UpdateResult:
    """Return the result whose explanation shows most: the update that changed the metric most."""
    changed = [
        result
        for result in results
        if result.metric_before is not None and result.metric_after is not None
    ]
    return max(
        changed or results[-1:],
        key=lambda result: abs((result.metric_after or 0.0) - (result.metric_before or 0.0)),
    )


def _columns(
    position: str, name: str, action: str, predicted: str, used: str, metric: str, left: str
) -> str:
    return (
        f"{position:>2}  {name:<{_NAME}} {action:<{_ACTION}} {predicted:>{_ENERGY}}  "
        f"{used:>{_ENERGY}}  {metric:<{_METRIC}}  {left:>{_ENERGY}}"
    )


def _shown(value: float | None, factor: float, form: str) -> str:
    return "-" if value is None else format(value * factor, form)
