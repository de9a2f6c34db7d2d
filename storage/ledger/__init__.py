"""The ledger's parts. Only storage.inventory imports them, and everybody else imports that."""
