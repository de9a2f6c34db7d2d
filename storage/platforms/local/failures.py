"""What the kernel refuses, in Polly's words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from storage.errors import PlatformError, PoolFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
P = ParamSpec("P")
R = TypeVar("R")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def verb(action: str) -> Callable[[Callable[Concatenate[N, P], R]], Callable[Concatenate[N, P], R]]:
    """An OSError that leaves the method becomes a PlatformError that says what could not be done, and to which file."""

    def around(method: Callable[Concatenate[N, P], R]) -> Callable[Concatenate[N, P], R]:
        @wraps(method)
        def run(platform: N, /, *args: P.args, **options: P.kwargs) -> R:
            try:
                return method(platform, *args, **options)
            except OSError as error:
                raise PlatformError(platform=platform.name, action=action, reason=words(error)) from error

        return run

    return around


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
