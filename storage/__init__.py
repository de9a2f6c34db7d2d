"""The storage service: what volumes are, who may use them, and how they reach a node."""
