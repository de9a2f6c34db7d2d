"""The API's port, taken before anything else happens. Knows no web framework, so that a broker starts fast."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import Any

from storage.errors import Invalid

BACKLOG = 128


def listen(host: str, port: int, *, token: str | None) -> socket.socket:
    """A listening socket; port 0 takes any free one. Whoever connects waits until a server accepts. Raises what `check_address` raises."""
    family, kind, protocol, address = check_address(host, port, token=token)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _unusable(host, port, error) from error
    return listener


def check_address(host: str, port: int, *, token: str | None) -> tuple[int, int, int, Any]:
    """The family, kind, protocol and address of a socket for it.

    Raises Invalid where there is no such address, or where it is not loopback and there is no token.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise _unusable(host, port, error) from error
    if token is None and not is_loopback(str(address[0])):
        raise Invalid(field="--listen", value=host, reason="only loopback may be listened on without a token; add --token-file FILE")
    return family, kind, protocol, address


def _unusable(host: str, port: int, error: OSError) -> Invalid:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = "something listens there already, such as another broker; take another port, or 0 for any free one"
    return Invalid(field="--listen", value=f"{host}:{port}", reason=reason)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, reachable from nowhere else."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
