"""Read the decisions about one budget, made by all runs that share it, as they are added."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from greentrain.ledger.schema import decisions, entries, runs
from greentrain.ledger.store import LedgerStore


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSummary:
    """A decision without its long columns.

    Args:
        entry_id: Number of the row; later rows have larger numbers.
        stream: Name of the run that decided.
        experience_id: Experience that was decided about.
        reason: Short code of the reason.
        moment: Time at which it was recorded.
    """

    entry_id: int
    stream: str
    experience_id: str
    reason: str
    moment: datetime


def decisions_since(store: LedgerStore, budget_id: str, after: int = 0) -> list[DecisionSummary]:
    """Return the decisions about a budget after an entry: see ``Ledger.decisions_since``."""
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
            DecisionSummary(
                entry_id=row.entry_id,
                stream=row.name,
                experience_id=row.experience_id,
                reason=row.reason,
                moment=datetime.fromisoformat(row.recorded_utc),
            )
            for row in connection.execute(query)
        ]


def alternatives_of(
    store: LedgerStore, entry_ids: Collection[int]
) -> dict[int, list[dict[str, Any]]]:
    """Return the options that decisions compared, by ``entry_id`` of the decision."""
    query = select(decisions.c.entry_id, decisions.c.alternatives).where(
        decisions.c.entry_id.in_(entry_ids)
    )
    with store.read() as connection:
        found = connection.execute(query).all()
    return {row.entry_id: json.loads(row.alternatives) for row in found}
