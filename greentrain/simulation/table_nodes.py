"""The nodes of a recorded table, and the files of the models that are reached there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.control import UPDATE_MODES, Action, UpdateMode
from greentrain.simulation.recorded_table import RecordedRow
from greentrain.streams import Experience


@dataclass(frozen=True, slots=True, kw_only=True)
class TableNode:
    """A model before an experience.

    Args:
        key: Key of the model.
        pending: Ids of the experiences that it was not trained on.
        weights: Name of the file of its weights.
    """

    key: str
    pending: tuple[str, ...]
    weights: str


def node_after(
    row: RecordedRow, node: TableNode, experience: Experience, *, exact: bool
) -> TableNode:
    """Return the node after an action.

    Args:
        row: The row of the action.
        node: The node before it.
        experience: The experience of the row.
        exact: As for :func:`~greentrain.simulation.recorded_table.key_after`.
    """
    if not (row.steps and row.kept):
        pending = (*node.pending, experience.id)
        return TableNode(key=row.after, pending=pending, weights=node.weights)
    weights = (
        weights_name(row.position, node.key, row.action)
        if exact or row.after.startswith("full-")
        else f"updated-{row.position}"
    )
    return TableNode(key=row.after, pending=(), weights=weights)


def weights_name(position: int, before: str, action: Action) -> str:
    """Return the file name of the model after an action.

    Args:
        position: Position of the experience.
        before: Key of the model before it.
        action: The action.
    """
    if action.mode is UpdateMode.FULL_RETRAIN:
        return f"full-{position}-{action.step_fraction:g}"
    key = f"{position} {before} {action.mode} {action.step_fraction:g}"
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def usual_action(node: TableNode, position: int, tried: Sequence[Action]) -> Action | None:
    """Return the action that trains the model of a merged key; ``None`` at other nodes.

    It is a full retraining first, then the largest warm start at each experience.

    Args:
        node: The node.
        position: Position of the experience.
        tried: The actions, without ``SKIP``.
    """
    if position and node.key != f"updated-{position - 1}":
        return None
    reusing = [mode for mode, traits in UPDATE_MODES.items() if traits.keeps_weights]
    order = [UpdateMode.WARM_START, *reusing, UpdateMode.FULL_RETRAIN]
    mode = next(
        mode
        for mode in (order if position else order[-1:])
        if any(action.mode is mode for action in tried)
    )
    step_fraction = max(action.step_fraction for action in tried if action.mode is mode)
    return Action(mode=mode, step_fraction=step_fraction)
