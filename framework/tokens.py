"""The bearer token of the API, from its file. Imported by the command line, so it knows no web framework."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from storage.errors import Invalid


def read_token(path: Path) -> str:
    """The bearer token in a file. Raises Invalid if there is none, or if every user of the machine can read it."""
    try:
        token = path.read_text("utf-8").strip()
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(field="--token-file", value=str(path), reason=getattr(error, "strerror", None) or str(error)) from error
    if mode & stat.S_IROTH:
        raise Invalid(field="--token-file", value=str(path), reason=f"every user can read it; chmod 600 {path}")
    if not token or any(not 33 <= ord(char) <= 126 for char in token):
        raise Invalid(field="--token-file", value=str(path), reason="it must hold one word of printable ASCII")
    return token
