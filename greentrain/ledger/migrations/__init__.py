"""How the ledger's tables came to be what they are, one revision after the other, with Alembic."""

from greentrain.ledger.migrations.upgrading import FOLDER, LOCATIONS, config, upgrade

__all__ = ["FOLDER", "LOCATIONS", "config", "upgrade"]
