"""Create the tables of greentrain 0.1."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = None

_Type = sa.types.TypeEngine[Any]
_BOOLEAN: _Type = sa.Boolean()
_INTEGER: _Type = sa.Integer()
_REAL: _Type = sa.Float()
_TEXT: _Type = sa.Text()
_WORD: _Type = sa.String(length=16)
_ID: _Type = sa.String(length=36)
_TIME: _Type = sa.String(length=32)
_HOST: _Type = sa.String(length=12)
_PER: _Type = sa.String(length=8)


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "entries",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("chain", sa.String(length=80), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("recorded_utc", sa.String(length=32), nullable=False),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint("chain", "seq", name=op.f("uq_entries_chain")),
    )
    _create(
        "runs",
        {"run_id": _ID, "kind": _WORD, "name": _TEXT, "environment": _TEXT}
        | {"host": _HOST, "heads": _TEXT},
        unique=("run_id",),
    )
    _create("closings", {"run_id": _ID, "status": _WORD}, unique=("run_id",))
    _create(
        "sources",
        {"run_id": _ID, "name": _TEXT, "method": _TEXT, "relative_uncertainty": _REAL}
        | {"device": _TEXT, "uuid": _TEXT, "power_limit_w": _REAL}
        | {"note": _TEXT, "reference": _TEXT},
        nullable=(
            *("relative_uncertainty", "device", "uuid"),
            *("power_limit_w", "note", "reference"),
        ),
        indexes=("run_id",),
    )
    for table in ("windows", "heartbeats"):
        _create(
            table,
            {"run_id": _ID, "reservation_id": _ID, "phase": _TEXT, "epoch": _INTEGER}
            | {"started_utc": _TIME, "duration_s": _REAL, "energy_j": _REAL, "by_source": _TEXT}
            | {"complete": _BOOLEAN, "emissions_g": _REAL, "intensity_g_per_kwh": _REAL},
            nullable=(
                *("reservation_id", "epoch", "energy_j"),
                *("emissions_g", "intensity_g_per_kwh"),
            ),
            indexes=("reservation_id", "run_id"),
        )
    _create(
        "replays",
        {"run_id": _ID, "spool_id": _ID, "line": _INTEGER},
        indexes=("run_id", "spool_id"),
    )
    _create(
        "calibrations",
        {"run_id": _ID, "factor": _REAL, "low": _REAL, "high": _REAL, "spans": _INTEGER}
        | {"software_j": _REAL, "wall_j": _REAL, "boundary": _TEXT, "wall": _TEXT},
        nullable=("low", "high", "boundary"),
        indexes=("run_id",),
    )
    _create(
        "budgets",
        {"budget_id": _ID, "name": _TEXT, "parent_id": _ID, "energy_j": _REAL, "carbon_g": _REAL}
        | {"num_experiences": _INTEGER, "until_utc": _TIME, "per": _PER}
        | {"carry_over": _BOOLEAN, "given_as": _TEXT, "heads": _TEXT},
        nullable=("parent_id", "energy_j", "carbon_g", "until_utc", "per"),
        unique=("budget_id", "name"),
        indexes=("parent_id",),
    )
    payment = {"reservation_id": _ID, "budget_id": _ID, "period": _TIME, "run_id": _ID}
    totals = {"sum_open": _INTEGER, "sum_reserved": _REAL, "sum_spent": _REAL, "sum_overrun": _REAL}
    _create(
        "reservations",
        payment | {"amount_j": _REAL, "amount_g": _REAL, "purpose": _TEXT} | totals,
        nullable=("amount_g",),
        unique=("reservation_id",),
        indexes=("run_id",),
    )
    _create(
        "settlements",
        payment
        | {"actual_j": _REAL, "actual_g": _REAL, "overrun_j": _REAL, "overrun_g": _REAL}
        | {"released": _WORD}
        | totals,
        nullable=("actual_j", "actual_g", "overrun_j", "overrun_g", "released"),
        unique=("reservation_id",),
        indexes=("run_id",),
    )
    for table in ("reservations", "settlements"):
        op.create_index(f"ix_{table}_period", table, ["budget_id", "period", "entry_id"])
    _create(
        "decisions",
        {"run_id": _ID, "budget_id": _ID, "experience_id": _TEXT, "position": _INTEGER}
        | {"reservation_id": _ID, "update_mode": _TEXT, "step_fraction": _REAL, "reason": _TEXT}
        | {"sentence": _TEXT, "predicted_j": _REAL, "upper_bound_j": _REAL}
        | {"min_gain_per_j": _REAL, "state": _TEXT, "alternatives": _TEXT},
        nullable=("reservation_id", "predicted_j", "upper_bound_j", "min_gain_per_j"),
        indexes=("budget_id", "run_id"),
    )
    _create(
        "outcomes",
        {"run_id": _ID, "experience_id": _TEXT, "position": _INTEGER, "reservation_id": _ID}
        | {"metric": _TEXT, "metric_before": _REAL, "metric_after": _REAL, "steps": _INTEGER}
        | {"planned_steps": _INTEGER, "energy_j": _REAL, "kept": _BOOLEAN},
        nullable=("reservation_id", "metric_before", "metric_after", "energy_j"),
        indexes=("run_id",),
    )


def _create(
    table: str,
    columns: dict[str, _Type],
    *,
    nullable: tuple[str, ...] = (),
    unique: tuple[str, ...] = (),
    indexes: tuple[str, ...] = (),
) -> None:
    op.create_table(
        table,
        sa.Column("entry_id", sa.Integer(), nullable=False),
        *(sa.Column(name, kind, nullable=name in nullable) for name, kind in columns.items()),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f(f"fk_{table}_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f(f"pk_{table}")),
        *(sa.UniqueConstraint(name, name=op.f(f"uq_{table}_{name}")) for name in unique),
    )
    for name in indexes:
        op.create_index(op.f(f"ix_{table}_{name}"), table, [name])
