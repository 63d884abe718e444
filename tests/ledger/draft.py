"""Draft the next revision of the ledger's tables from what `schema.py` has and the last one lacks.

Run it as ``python -m tests.ledger.draft 0002 "What it is for"``, look at the file that it writes,
format it, and add its number to ``REVISIONS`` in ``schema.py``. A revision that was released stays
as it is; one that was not is drafted again under its number.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine

from greentrain.ledger import migrations

if __name__ == "__main__":
    number, message = sys.argv[1:]
    (migrations.FOLDER / "versions" / f"{number}.py").unlink(missing_ok=True)
    with create_engine("sqlite://").connect() as connection:
        migrations.upgrade(connection)
        script = command.revision(
            migrations.config(connection),
            message,
            autogenerate=True,
            rev_id=number,
            version_path=str(migrations.LOCATIONS[0]),
        )
    path = Path(script.path)  # type: ignore[union-attr]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "# ###" not in line))
