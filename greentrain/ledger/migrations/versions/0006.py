"""Add the final metrics of a fit and its joules before a resume, and waits for cleaner hours."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table of events and the columns."""
    op.add_column("closings", sa.Column("metrics", sa.Text(), nullable=True))
    op.add_column("closings", sa.Column("resumed_j", sa.Float(), nullable=True))
    op.create_table(
        "events",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("topic", sa.String(length=16), nullable=False),
        sa.Column("experience_id", sa.Text(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_events_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_run_id"), "events", ["run_id"], unique=False)
    op.add_column("decisions", sa.Column("waiting", sa.Text(), nullable=True))
    op.add_column("outcomes", sa.Column("shifted_g", sa.Float(), nullable=True))
