"""How a node learns the address that NFS servers see it by."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from storage.errors import NodeError
from storage.node.identities import address, identify
from storage.node.steps import Machine


def of(v4: str, v6: str = "") -> Callable[[int, str], str]:
    """A kernel whose routes go from these addresses."""

    def source(family: int, elsewhere: str) -> str:
        found = v4 if family == socket.AF_INET else v6
        if not found:
            raise OSError("Network is unreachable")
        return found

    return source


@pytest.mark.parametrize(
    ("v4", "v6", "expected"),
    [
        ("10.0.0.7", "", "10.0.0.7"),
        ("10.0.0.7", "fd00::7", "10.0.0.7"),
        ("", "fd00::7", "fd00::7"),
        ("127.0.0.1", "fd00::7", "fd00::7"),
        ("169.254.3.4", "2001:db8:1::7", "2001:db8:1::7"),
    ],
)
def test_the_address_of_the_default_route_is_the_nodes(v4: str, v6: str, expected: str) -> None:
    assert address.identify(Machine(), source=of(v4, v6)) == expected


@pytest.mark.parametrize(("v4", "v6"), [("", ""), ("127.0.0.1", ""), ("0.0.0.0", "fe80::1%eth0")])  # noqa: S104 - it is refused
def test_a_machine_without_one_is_named_by_hand(v4: str, v6: str) -> None:
    with pytest.raises(NodeError, match=r"there is none; say it in /etc/polly/agent.toml: \[platforms.NAME\] node ="):
        address.identify(Machine(), source=of(v4, v6))


def test_the_kernel_is_asked_and_nothing_is_sent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        assert address.source_address(socket.AF_INET, "127.0.0.1") == "127.0.0.1"
        with pytest.raises(BlockingIOError):
            listening.recv(1)


def test_platforms_name_it_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "ELSEWHERE", ((socket.AF_INET, "127.0.0.1"),))
    with pytest.raises(NodeError, match="default route"):
        identify("address", Machine(), hostname="agent-1")
