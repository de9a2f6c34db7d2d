"""What the kernel refuses, in Polly's words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from storage.errors import PlatformError, PoolFull
from storage.platforms.verbs import verbs

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def filling(platform: str, pool: str, size_mib: int) -> Iterator[None]:
    """A filesystem without room is a full pool."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise PoolFull(platform=platform, pool=pool, free_mib=0, size_mib=size_mib) from error


def words(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    advice = "; run as root, or as the owner of the folder" if isinstance(error, PermissionError) else ""
    return f"{where}{error.strerror or error}{advice}"


def _as_error(error: OSError, platform: str, action: str) -> PlatformError:
    return PlatformError(platform=platform, action=action, reason=words(error))


verb = verbs(OSError, _as_error)
