"""Convert a decision to the content of its row in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greentrain.control import inputs_as_dict
from greentrain.ledger import canonical

if TYPE_CHECKING:
    from greentrain.decisions.core import PendingUpdate


def decision_content(pending: PendingUpdate, *, predicted: bool) -> dict[str, Any]:
    """Return the content of a decision's row, without the run.

    Args:
        pending: The decided update.
        predicted: Whether its cost was predicted.
    """
    decision, state = pending.decision, pending.state
    return {
        "budget_id": pending.account.budget_id,
        "experience_id": pending.experience_id,
        "position": pending.position,
        "reservation_id": pending.reservation_id,
        "update_mode": str(decision.action.mode),
        "step_fraction": decision.action.step_fraction,
        "reason": str(decision.reason),
        "sentence": decision.sentence,
        "predicted_j": decision.cost_j.mean if predicted else None,
        "upper_bound_j": decision.cost_j.upper,
        "min_gain_per_j": decision.min_gain_per_j,
        "state": canonical(None if state is None else inputs_as_dict(state, decision)),
        "alternatives": canonical(decision.alternatives_as_dicts()),
        "waiting": None if decision.waiting is None else canonical(decision.waiting),
    }
