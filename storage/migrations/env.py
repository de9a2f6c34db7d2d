"""Alembic's entry: runs the migrations in the transaction that is handed over, so that all of them happen or none."""

from alembic import context

from storage.schema import VERSION_TABLE, metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
