"""Whoever asks for storage, and how Polly runs."""
