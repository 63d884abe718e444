"""The tables of greentrain 0.1."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables what this revision has them to be."""
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
    op.create_table(
        "budgets",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("budget_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.String(length=36), nullable=True),
        sa.Column("energy_j", sa.Float(), nullable=True),
        sa.Column("carbon_g", sa.Float(), nullable=True),
        sa.Column("num_experiences", sa.Integer(), nullable=False),
        sa.Column("until_utc", sa.String(length=32), nullable=True),
        sa.Column("per", sa.String(length=8), nullable=True),
        sa.Column("carry_over", sa.Boolean(), nullable=False),
        sa.Column("given_as", sa.Text(), nullable=False),
        sa.Column("heads", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_budgets_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_budgets")),
        sa.UniqueConstraint("budget_id", name=op.f("uq_budgets_budget_id")),
        sa.UniqueConstraint("name", name=op.f("uq_budgets_name")),
    )
    op.create_index(op.f("ix_budgets_parent_id"), "budgets", ["parent_id"], unique=False)
    op.create_table(
        "calibrations",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("factor", sa.Float(), nullable=False),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("spans", sa.Integer(), nullable=False),
        sa.Column("software_j", sa.Float(), nullable=False),
        sa.Column("wall_j", sa.Float(), nullable=False),
        sa.Column("boundary", sa.Text(), nullable=True),
        sa.Column("wall", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_calibrations_entry_id")
        ),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_calibrations")),
    )
    op.create_index(op.f("ix_calibrations_run_id"), "calibrations", ["run_id"], unique=False)
    op.create_table(
        "closings",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_closings_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_closings")),
        sa.UniqueConstraint("run_id", name=op.f("uq_closings_run_id")),
    )
    op.create_table(
        "decisions",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("budget_id", sa.String(length=36), nullable=False),
        sa.Column("experience_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("reservation_id", sa.String(length=36), nullable=True),
        sa.Column("update_mode", sa.Text(), nullable=False),
        sa.Column("step_fraction", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("predicted_j", sa.Float(), nullable=True),
        sa.Column("upper_bound_j", sa.Float(), nullable=True),
        sa.Column("price_per_j", sa.Float(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("alternatives", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_decisions_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_budget_id"), "decisions", ["budget_id"], unique=False)
    op.create_index(op.f("ix_decisions_run_id"), "decisions", ["run_id"], unique=False)
    op.create_table(
        "heartbeats",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("reservation_id", sa.String(length=36), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("started_utc", sa.String(length=32), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("energy_j", sa.Float(), nullable=True),
        sa.Column("by_source", sa.Text(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("emissions_g", sa.Float(), nullable=True),
        sa.Column("intensity_g_per_kwh", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_heartbeats_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_heartbeats")),
    )
    op.create_index(
        op.f("ix_heartbeats_reservation_id"), "heartbeats", ["reservation_id"], unique=False
    )
    op.create_index(op.f("ix_heartbeats_run_id"), "heartbeats", ["run_id"], unique=False)
    op.create_table(
        "outcomes",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("experience_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("reservation_id", sa.String(length=36), nullable=True),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("metric_before", sa.Float(), nullable=True),
        sa.Column("metric_after", sa.Float(), nullable=True),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("planned_steps", sa.Integer(), nullable=False),
        sa.Column("energy_j", sa.Float(), nullable=True),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_outcomes_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_outcomes")),
    )
    op.create_index(op.f("ix_outcomes_run_id"), "outcomes", ["run_id"], unique=False)
    op.create_table(
        "replays",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("spool_id", sa.String(length=36), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_replays_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_replays")),
    )
    op.create_index(op.f("ix_replays_run_id"), "replays", ["run_id"], unique=False)
    op.create_index(op.f("ix_replays_spool_id"), "replays", ["spool_id"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("reservation_id", sa.String(length=36), nullable=False),
        sa.Column("budget_id", sa.String(length=36), nullable=False),
        sa.Column("period", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("amount_j", sa.Float(), nullable=False),
        sa.Column("amount_g", sa.Float(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("sum_open", sa.Integer(), nullable=False),
        sa.Column("sum_reserved", sa.Float(), nullable=False),
        sa.Column("sum_spent", sa.Float(), nullable=False),
        sa.Column("sum_overrun", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_reservations_entry_id")
        ),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_reservations")),
        sa.UniqueConstraint("reservation_id", name=op.f("uq_reservations_reservation_id")),
    )
    op.create_index(
        "ix_reservations_pot", "reservations", ["budget_id", "period", "entry_id"], unique=False
    )
    op.create_index(op.f("ix_reservations_run_id"), "reservations", ["run_id"], unique=False)
    op.create_table(
        "runs",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("host", sa.String(length=12), nullable=False),
        sa.Column("heads", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_runs_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_runs")),
        sa.UniqueConstraint("run_id", name=op.f("uq_runs_run_id")),
    )
    op.create_table(
        "settlements",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("reservation_id", sa.String(length=36), nullable=False),
        sa.Column("budget_id", sa.String(length=36), nullable=False),
        sa.Column("period", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("actual_j", sa.Float(), nullable=True),
        sa.Column("actual_g", sa.Float(), nullable=True),
        sa.Column("overrun_j", sa.Float(), nullable=True),
        sa.Column("overrun_g", sa.Float(), nullable=True),
        sa.Column("released", sa.String(length=16), nullable=True),
        sa.Column("sum_open", sa.Integer(), nullable=False),
        sa.Column("sum_reserved", sa.Float(), nullable=False),
        sa.Column("sum_spent", sa.Float(), nullable=False),
        sa.Column("sum_overrun", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_settlements_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_settlements")),
        sa.UniqueConstraint("reservation_id", name=op.f("uq_settlements_reservation_id")),
    )
    op.create_index(
        "ix_settlements_pot", "settlements", ["budget_id", "period", "entry_id"], unique=False
    )
    op.create_index(op.f("ix_settlements_run_id"), "settlements", ["run_id"], unique=False)
    op.create_table(
        "sources",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("relative_uncertainty", sa.Float(), nullable=True),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("uuid", sa.Text(), nullable=True),
        sa.Column("power_limit_w", sa.Float(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_sources_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_sources")),
    )
    op.create_index(op.f("ix_sources_run_id"), "sources", ["run_id"], unique=False)
    op.create_table(
        "windows",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("reservation_id", sa.String(length=36), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("started_utc", sa.String(length=32), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("energy_j", sa.Float(), nullable=True),
        sa.Column("by_source", sa.Text(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("emissions_g", sa.Float(), nullable=True),
        sa.Column("intensity_g_per_kwh", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_windows_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_windows")),
    )
    op.create_index(op.f("ix_windows_reservation_id"), "windows", ["reservation_id"], unique=False)
    op.create_index(op.f("ix_windows_run_id"), "windows", ["run_id"], unique=False)
