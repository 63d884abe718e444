"""Bind outcomes to weights, data and configuration, and add tags of runs and hours of windows."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

COLUMNS: dict[str, dict[str, sa.types.TypeEngine[Any]]] = {
    "runs": {
        "slurm_job_id": sa.Text(),
        "slurm_account": sa.Text(),
        "team": sa.Text(),
        "project": sa.Text(),
    },
    "windows": {"intensity_by_hour": sa.Text()},
    "heartbeats": {"intensity_by_hour": sa.Text()},
    "outcomes": {
        "gain": sa.Float(),
        "gain_sd": sa.Float(),
        "weights_sha256": sa.String(length=64),
        "data_sha256": sa.String(length=64),
        "data_samples": sa.Integer(),
        "data_hashed": sa.Integer(),
        "config_sha256": sa.String(length=64),
        "flops": sa.Float(),
        "flops_note": sa.Text(),
    },
}


def upgrade() -> None:
    """Add the columns."""
    for table, columns in COLUMNS.items():
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=True))
