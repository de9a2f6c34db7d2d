"""What the tests of the XtremIO adapter share: adapters on an XMS."""

from __future__ import annotations

from typing import Any

from storage.platforms.base import CreateRequest
from storage.platforms.options import read_options
from storage.platforms.xtremio.options import XtremioOptions
from storage.platforms.xtremio.platform import XtremioPlatform
from tests.peers.xtremio import XmsServer

NODES = ("iqn.1993-08.org.debian:01:aaaaaaaaaaaa", "iqn.1993-08.org.debian:01:bbbbbbbbbbbb")
PORTS = ("21000024ff57b236", "21000024ff57b237")


def platform_on(xms: XmsServer, /, **more: object) -> XtremioPlatform:
    """Waits are not waited: only the order of things matters here."""
    options = read_options(XtremioOptions, "platforms.xtremio", xms.settings(**more))
    return XtremioPlatform("xtremio", options, wait=lambda seconds: None)


def request(label: str = "t1", **more: Any) -> CreateRequest:
    return CreateRequest(**{"pool": "brick1", "size_mib": 1024, "token": label, **more})


def things(xms: XmsServer) -> list[str]:
    """All that there is on the array."""
    found: list[str] = xms.faults()["things"]
    return found
