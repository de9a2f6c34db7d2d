"""How the Polly that runs was built."""

from __future__ import annotations

from importlib.util import find_spec


def is_compiled() -> bool:
    """Whether its hot modules are machine code, as in a wheel that was built where there is a C compiler. See packaging/compiling.py."""
    spec = find_spec("offers.matching")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
