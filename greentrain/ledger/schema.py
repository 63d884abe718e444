"""The ledger's tables, and what each row is hashed over.

``entries`` is the spine: one row for each thing recorded, in the order recorded, chained by hash.
Every other table holds the typed content of one kind of entry. All of it is written once and never
changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1
GENESIS = "0" * 64
"""What the first row of a chain names as the one before it."""
RUN_CHAIN = "runs"
"""The chain of the runs' opening rows."""
BUDGET_CHAIN = "budgets"
"""The chain of the budgets."""

metadata = MetaData()

entries = Table(
    "entries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("chain", String(80), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("recorded_utc", String(32), nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("chain", "seq"),
)


def _content(name: str, *columns: Column[Any]) -> Table:
    entry = Column("entry_id", Integer, ForeignKey("entries.id"), primary_key=True)
    return Table(name, metadata, entry, *columns)


runs = _content(
    "runs",
    Column("run_id", String(36), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("sources", Text, nullable=False),
)
closings = _content(
    "closings",
    Column("run_id", String(36), nullable=False, unique=True),
    Column("status", String(16), nullable=False),
)
windows = _content(
    "windows",
    Column("run_id", String(36), nullable=False, index=True),
    Column("reservation_id", String(36), index=True),
    Column("phase", String(32), nullable=False),
    Column("epoch", Integer),
    Column("started_utc", String(32), nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("energy_j", Float),
    Column("by_source", Text, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("emissions_g", Float),
    Column("intensity_g_per_kwh", Float),
)
budgets = _content(
    "budgets",
    Column("budget_id", String(36), nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    Column("energy_j", Float, nullable=False),
    Column("horizon", Integer, nullable=False),
    Column("given_as", Text, nullable=False),
)
reservations = _content(
    "reservations",
    Column("reservation_id", String(36), nullable=False, unique=True),
    Column("budget_id", String(36), nullable=False, index=True),
    Column("run_id", String(36), nullable=False, index=True),
    Column("amount_j", Float, nullable=False),
    Column("purpose", Text, nullable=False),
)
settlements = _content(
    "settlements",
    Column("reservation_id", String(36), nullable=False, unique=True),
    Column("budget_id", String(36), nullable=False, index=True),
    Column("run_id", String(36), nullable=False, index=True),
    Column("actual_j", Float, nullable=False),
    Column("overrun_j", Float, nullable=False),
)
decisions = _content(
    "decisions",
    Column("run_id", String(36), nullable=False, index=True),
    Column("budget_id", String(36), nullable=False, index=True),
    Column("experience_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("reservation_id", String(36)),
    Column("update_mode", String(16), nullable=False),
    Column("effort", Float, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("predicted_j", Float),
    Column("upper_bound_j", Float),
    Column("price_per_j", Float),
    Column("state", Text, nullable=False),
    Column("alternatives", Text, nullable=False),
)
outcomes = _content(
    "outcomes",
    Column("run_id", String(36), nullable=False, index=True),
    Column("experience_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("reservation_id", String(36)),
    Column("metric", Text, nullable=False),
    Column("metric_before", Float),
    Column("metric_after", Float),
    Column("steps", Integer, nullable=False),
    Column("planned_steps", Integer, nullable=False),
    Column("energy_j", Float),
    Column("kept", Boolean, nullable=False),
)

CONTENT: Mapping[str, Table] = {
    "run": runs,
    "closing": closings,
    "window": windows,
    "budget": budgets,
    "reservation": reservations,
    "settlement": settlements,
    "decision": decisions,
    "outcome": outcomes,
}
"""The table of each kind of entry."""


def run_chain(run_id: str) -> str:
    """Return the name of a run's own chain, which begins at its opening row."""
    return f"run:{run_id}"


def canonical(value: Any) -> str:
    """Write a value as JSON in one way only: sorted keys, no spaces, shortest floats.

    Example:
        >>> canonical({"b": 0.1, "a": None})
        '{"a":null,"b":0.1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def row_hash(entry: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Hash an entry with its content and the hash of the row before it (SHA-256, hexadecimal)."""
    spine = {key: entry[key] for key in ("kind", "chain", "seq", "recorded_utc", "prev_hash")}
    held = {key: value for key, value in content.items() if key != "entry_id"}
    return hashlib.sha256(canonical([spine, held]).encode()).hexdigest()
