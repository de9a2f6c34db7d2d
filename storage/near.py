"""The name that somebody may have meant who wrote one that is not there."""

from __future__ import annotations

from collections.abc import Iterable


def near(name: str, names: Iterable[str]) -> str:
    """The one of these that is most like it; empty where none is."""
    from difflib import get_close_matches  # only an error needs it

    return next(iter(get_close_matches(name, names, n=1, cutoff=0.7)), "")
