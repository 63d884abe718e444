"""Upgrade the tables of a ledger from revision to revision, with Alembic."""

from greentrain.ledger.migrations.upgrading import FOLDER, LOCATIONS, config, upgrade

__all__ = ["FOLDER", "LOCATIONS", "config", "upgrade"]
