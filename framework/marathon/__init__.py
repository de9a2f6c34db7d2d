"""Marathon app definitions: what they are, how they are read, checked and written, and what a task is told.

Knows nothing of Mesos, offers or the ledger.
"""
