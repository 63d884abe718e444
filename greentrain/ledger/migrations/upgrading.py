"""Run Alembic on a given connection."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from greentrain.ledger.schema import versions

FOLDER = Path(__file__).parent
LOCATIONS = (FOLDER / "versions",)
"""Folders of the revisions."""


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade a ledger's tables to a revision, in the given transaction."""
    command.upgrade(config(connection), revision)


def config(connection: Connection | None = None) -> Config:
    """Return the configuration of Alembic; there is no ``alembic.ini``."""
    made = Config()
    made.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    made.set_main_option("path_separator", "newline")
    places = "\n".join(str(place) for place in LOCATIONS)
    made.set_main_option("version_locations", places.replace("%", "%%"))
    made.set_main_option("file_template", "%%(rev)s")
    made.attributes["connection"] = connection
    made.attributes["version_table"] = versions.name
    return made
