"""How a ledger of an older Polly becomes one of this Polly. storage.ledger.migrate runs what is here."""
