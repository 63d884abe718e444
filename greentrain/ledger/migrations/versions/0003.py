"""Add the caps of a run to its closing row."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("closings", sa.Column("caps", sa.Text(), nullable=True))
