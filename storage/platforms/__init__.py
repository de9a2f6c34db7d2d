"""Storage platforms, one adapter each."""
