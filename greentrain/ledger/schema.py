"""The tables of a ledger.

``entries`` is the spine: one row for each event, in the order recorded, chained by hash. Each other
table holds the content of one kind of entry. Rows are written once and never changed.

To add a column: add it here as a nullable column without a default, add its field to ``rows.py``,
draft a revision with ``tests/ledger/draft.py``, and add the revision to :data:`REVISIONS`. The
hashes of older rows do not change, see :func:`greentrain.ledger.hashing.row_hash`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1
"""Version of the JSON texts in the rows."""
RUN_CHAIN = "runs"
"""Chain of the opening rows of all runs."""
BUDGET_CHAIN = "budgets"
"""Chain of the budget rows."""
RETIRED_REVISIONS = ("0001",)
"""Revisions of pre-releases whose tables cannot be upgraded."""
REVISIONS = ("0002", "0003", "0004", "0005", "0006")
"""Revisions of the tables, oldest first; each is a file in ``migrations/versions``."""


class Flag(Boolean):
    """Store true or false. SQLite's column holds any value, so another one is read unchanged.

    Read as true, a forged -1 would have the hash of the true that was written.
    """

    __visit_name__ = "boolean"

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return the function that converts what the database returns."""
        return None if dialect.supports_native_boolean else read_flag


def read_flag(stored: Any) -> Any:
    """Return true or false as SQLite stores them, and any other value unchanged."""
    return bool(stored) if stored in (0, 1) else stored


# Constraints have the same name on each engine, so that a migration can find them.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Separate metadata, because Alembic owns this table: it holds the revision of the others.
versions = Table(
    "greentrain_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="greentrain_version_pkc"),
)

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


def _content(name: str, *columns: Column[Any] | Index) -> Table:
    entry = Column("entry_id", Integer, ForeignKey("entries.id"), primary_key=True)
    return Table(name, metadata, entry, *columns)


def _windows(name: str) -> Table:
    return _content(
        name,
        Column("run_id", String(36), nullable=False, index=True),
        Column("reservation_id", String(36), index=True),
        Column("phase", Text, nullable=False),
        Column("epoch", Integer),
        Column("started_utc", String(32), nullable=False),
        Column("duration_s", Float, nullable=False),
        Column("energy_j", Float),
        Column("by_source", Text, nullable=False),
        Column("complete", Flag, nullable=False),
        Column("emissions_g", Float),
        Column("intensity_g_per_kwh", Float),
        Column("intensity_by_hour", Text),
        Column("intensity_origins", Text),
        Column("market_emissions_g", Float),
        Column("market_intensity_g_per_kwh", Float),
    )


def _money(name: str, *columns: Column[Any]) -> Table:
    """Return a table of payments with the sums of ``money.BudgetTotals`` after each."""
    return _content(
        name,
        Column("reservation_id", String(36), nullable=False, unique=True),
        Column("budget_id", String(36), nullable=False),
        Column("period", String(32), nullable=False),
        Column("run_id", String(36), nullable=False, index=True),
        *columns,
        Column("sum_open", Integer, nullable=False),
        Column("sum_reserved", Float, nullable=False),
        Column("sum_spent", Float, nullable=False),
        Column("sum_overrun", Float, nullable=False),
        Index(f"ix_{name}_period", "budget_id", "period", "entry_id"),
    )


runs = _content(
    "runs",
    Column("run_id", String(36), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("host", String(12), nullable=False),
    Column("heads", Text, nullable=False),
    Column("slurm_job_id", Text),
    Column("slurm_account", Text),
    Column("team", Text),
    Column("project", Text),
)
closings = _content(
    "closings",
    Column("run_id", String(36), nullable=False, unique=True),
    Column("status", String(16), nullable=False),
    Column("caps", Text),
    Column("metrics", Text),
    Column("resumed_j", Float),
)
sources = _content(
    "sources",
    Column("run_id", String(36), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("relative_uncertainty", Float),
    Column("device", Text),
    Column("uuid", Text),
    Column("power_limit_w", Float),
    Column("note", Text),
    Column("reference", Text),
)
windows = _windows("windows")
heartbeats = _windows("heartbeats")
replays = _content(
    "replays",
    Column("run_id", String(36), nullable=False, index=True),
    Column("spool_id", String(36), nullable=False, index=True),
    Column("line", Integer, nullable=False),
)
calibrations = _content(
    "calibrations",
    Column("run_id", String(36), nullable=False, index=True),
    Column("factor", Float, nullable=False),
    Column("low", Float),
    Column("high", Float),
    Column("spans", Integer, nullable=False),
    Column("software_j", Float, nullable=False),
    Column("wall_j", Float, nullable=False),
    Column("boundary", Text),
    Column("wall", Text, nullable=False),
)
budgets = _content(
    "budgets",
    Column("budget_id", String(36), nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    Column("parent_id", String(36), index=True),
    Column("energy_j", Float),
    Column("carbon_g", Float),
    Column("num_experiences", Integer, nullable=False),
    Column("until_utc", String(32)),
    Column("per", String(8)),
    Column("carry_over", Flag, nullable=False),
    Column("given_as", Text, nullable=False),
    Column("heads", Text, nullable=False),
)
reservations = _money(
    "reservations",
    Column("amount_j", Float, nullable=False),
    Column("amount_g", Float),
    Column("purpose", Text, nullable=False),
)
settlements = _money(
    "settlements",
    Column("actual_j", Float),
    Column("actual_g", Float),
    Column("overrun_j", Float),
    Column("overrun_g", Float),
    Column("released", String(16)),
)
decisions = _content(
    "decisions",
    Column("run_id", String(36), nullable=False, index=True),
    Column("budget_id", String(36), nullable=False, index=True),
    Column("experience_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("reservation_id", String(36)),
    Column("update_mode", Text, nullable=False),
    Column("step_fraction", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("predicted_j", Float),
    Column("upper_bound_j", Float),
    Column("min_gain_per_j", Float),
    Column("state", Text, nullable=False),
    Column("alternatives", Text, nullable=False),
    Column("waiting", Text),
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
    Column("kept", Flag, nullable=False),
    Column("gain", Float),
    Column("gain_sd", Float),
    Column("weights_sha256", String(64)),
    Column("data_sha256", String(64)),
    Column("data_samples", Integer),
    Column("data_hashed", Integer),
    Column("config_sha256", String(64)),
    Column("flops", Float),
    Column("flops_note", Text),
    Column("shifted_g", Float),
)
events = _content(
    "events",
    Column("run_id", String(36), nullable=False, index=True),
    Column("topic", String(16), nullable=False),
    Column("experience_id", Text),
    Column("content", Text, nullable=False),
)

CONTENT: Mapping[str, Table] = {
    "run": runs,
    "closing": closings,
    "source": sources,
    "window": windows,
    "heartbeat": heartbeats,
    "replay": replays,
    "calibration": calibrations,
    "budget": budgets,
    "reservation": reservations,
    "settlement": settlements,
    "decision": decisions,
    "outcome": outcomes,
    "event": events,
}
"""Table of each kind of entry."""


def run_chain(run_id: str) -> str:
    """Return the name of a run's chain, which continues from its opening row."""
    return f"run:{run_id}"
