"""Secrets from their files: the API's token, the principal's secret. Imported by the command line, so it knows no web framework."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from storage.errors import Invalid


def read_token(path: Path) -> str:
    """The bearer token in a file. Raises Invalid if there is none, or if every user of the machine can read it."""
    token = read_secret(path, "--token-file")
    if any(not 33 <= ord(char) <= 126 for char in token):
        raise Invalid(field="--token-file", value=str(path), reason="it must hold one word of printable ASCII")
    return token


def read_secret(path: Path, option: str) -> str:
    """What is in the file that an option names. Raises Invalid if that is nothing, or if every user of the machine can read it."""
    try:
        secret = path.read_text("utf-8").strip()
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(field=option, value=str(path), reason=getattr(error, "strerror", None) or str(error)) from error
    if mode & stat.S_IROTH:
        raise Invalid(field=option, value=str(path), reason=f"every user can read it; chmod 600 {path}")
    if not secret:
        raise Invalid(field=option, value=str(path), reason="it is empty")
    return secret
