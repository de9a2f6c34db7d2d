"""Marathon app definitions."""
