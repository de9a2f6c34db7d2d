"""What the adapters' methods do with their vendors' errors: an exception of the adapter's own never leaves it, a named error does."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from storage.errors import PollyError


class _Named(Protocol):
    @property
    def name(self) -> str: ...


P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N", bound=_Named)
E = TypeVar("E", bound=Exception)


class Verb(Protocol):
    """A decorator for a method of a platform; `action` is what could not be done when it fails, such as `expand a volume`."""

    def __call__(self, action: str, /) -> Callable[[Callable[Concatenate[N, P], R]], Callable[Concatenate[N, P], R]]: ...


def verbs(kind: type[E], as_error: Callable[[E, str, str], PollyError], *, again: type[Exception] | tuple[()] = ()) -> Verb:
    """Makes that decorator for an adapter: what of `kind` leaves a method becomes `as_error(error, platform, action)`.

    After an error of kind `again` the method runs once more, as every verb may.
    """

    def verb(action: str, /) -> Callable[[Callable[Concatenate[N, P], R]], Callable[Concatenate[N, P], R]]:
        def around(method: Callable[Concatenate[N, P], R]) -> Callable[Concatenate[N, P], R]:
            @wraps(method)
            def run(platform: N, /, *args: P.args, **options: P.kwargs) -> R:
                try:
                    try:
                        return method(platform, *args, **options)
                    except again:
                        return method(platform, *args, **options)
                except kind as error:
                    raise as_error(error, platform.name, action) from error

            return run

        return around

    return verb
