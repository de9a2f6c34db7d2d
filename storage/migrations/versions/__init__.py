"""The migrations in their order; the first makes everything. Revisions are numbers and grow by one."""
