"""Alembic's entry: runs the migrations in the transaction that is handed over, so that all of them happen or none."""

from alembic import context

from storage.schema import VERSION_TABLE, complete_for_postgresql, metadata

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    complete_for_postgresql()
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
