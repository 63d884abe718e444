"""Add the origins of a window's carbon intensity, and its market-based grams."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

COLUMNS: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "intensity_origins": sa.Text,
    "market_emissions_g": sa.Float,
    "market_intensity_g_per_kwh": sa.Float,
}


def upgrade() -> None:
    """Add the columns."""
    for table in ("windows", "heartbeats"):
        for name, kind in COLUMNS.items():
            op.add_column(table, sa.Column(name, kind(), nullable=True))
