"""Run the revisions on the given connection; Alembic executes this file."""

from alembic import context

from greentrain.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=metadata,
)
with context.begin_transaction():
    context.run_migrations()
