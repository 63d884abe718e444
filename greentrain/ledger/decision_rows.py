"""What was decided from one budget, by all runs that pay from it, read as it grows."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from greentrain.ledger.schema import decisions, entries, runs
from greentrain.ledger.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision's row, without its long columns.

    Args:
        entry_id: Number of the row; later ones have larger numbers.
        stream: Name of the run that decided.
        experience_id: What was decided about.
        reason: Why it fell so.
        moment: When it was recorded.
    """

    entry_id: int
    stream: str
    experience_id: str
    reason: str
    moment: datetime


def decisions_since(store: Store, budget_id: str, after: int = 0) -> list[Decided]:
    """Return what was decided from a budget after a row, in order: from the first one for 0.

    Writers take turns, so no row with a smaller number comes later.
    """
    query = (
        select(
            decisions.c.entry_id,
            runs.c.name,
            decisions.c.experience_id,
            decisions.c.reason,
            entries.c.recorded_utc,
        )
        .join(runs, runs.c.run_id == decisions.c.run_id)
        .join(entries, entries.c.id == decisions.c.entry_id)
        .where(decisions.c.budget_id == budget_id, decisions.c.entry_id > after)
        .order_by(decisions.c.entry_id)
    )
    with store.read() as connection:
        return [
            Decided(
                entry_id=row.entry_id,
                stream=row.name,
                experience_id=row.experience_id,
                reason=row.reason,
                moment=datetime.fromisoformat(row.recorded_utc),
            )
            for row in connection.execute(query)
        ]


def alternatives_of(store: Store, entry_ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the alternatives of some decisions, as plain values, by the numbers of their rows."""
    query = select(decisions.c.entry_id, decisions.c.alternatives).where(
        decisions.c.entry_id.in_(entry_ids)
    )
    with store.read() as connection:
        found = connection.execute(query).all()
    return {row.entry_id: json.loads(row.alternatives) for row in found}
