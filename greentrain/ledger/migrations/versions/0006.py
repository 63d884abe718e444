"""Add the final metrics of a fit, and its joules before a resume, to the closing row."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("closings", sa.Column("metrics", sa.Text(), nullable=True))
    op.add_column("closings", sa.Column("resumed_j", sa.Float(), nullable=True))
