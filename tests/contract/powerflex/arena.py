"""What the tests of the PowerFlex adapter share: gateways of both generations, and adapters on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.errors import PollyError
from storage.platforms.base import CreateRequest
from storage.platforms.faulting import Faults
from storage.platforms.powerflex.options import PowerFlexOptions
from storage.platforms.powerflex.platform import PowerFlexPlatform
from tests.peers.powerflex_array import Volume, small_array
from tests.peers.powerflex_gateway import PASSWORD, USER, Gateway

POOL = "domain1/fast"
POOL_ID = "6c6dc54500000000"
NODES = ("028888FA-502A-4FAC-A888-1FA3B2563581", "028888FA-502A-4FAC-A888-1FA3B2563582")
SDCS = ("01f7117d00000001", "01f7117d00000002")
GRANULE_MIB = 8192


def renewed(gateway: Gateway) -> Gateway:
    """The same gateway before an array where nothing was ever done."""
    gateway.array = small_array(gateway.array.version)
    gateway.password, gateway.may_write, gateway.closed, gateway.faults = PASSWORD, True, False, Faults()
    gateway.sessions.clear()
    gateway.calls.clear()
    gateway.refuse.clear()
    gateway.refuse_logins.clear()
    return gateway


def options(gateway: Gateway, /, **changed: Any) -> PowerFlexOptions:
    given = {"gateway": gateway.url, "username": USER, "password_file": str(password_file(gateway)), "ca_file": gateway.ca_file}
    return PowerFlexOptions(**{**given, **changed})


def password_file(gateway: Gateway) -> Path:
    file = Path(gateway.ca_file).with_suffix(".password")
    if not file.exists():
        file.touch(0o600)
        file.write_text(f"{PASSWORD}\n")
    return file


def platform(gateway: Gateway, /, **changed: Any) -> PowerFlexPlatform:
    """Waits take no time: how long they are is tested by itself."""
    return PowerFlexPlatform("array", options(gateway, **changed), now=gateway.array.clock, wait=lambda _: None)


def request(label: str = "volume", **more: Any) -> CreateRequest:
    return CreateRequest(**{"pool": POOL, "size_mib": GRANULE_MIB, "token": label, **more})


def foreign(gateway: Gateway, name: str = "theirs", **more: Any) -> Volume:
    """A volume that somebody else has made on the array."""
    wanted = {"storagePoolId": POOL_ID, "name": name, "volumeType": "ThinProvisioned", "volumeSizeInGb": "16", **more}
    return gateway.array.create(wanted)


def refused(call: Callable[[], object], kind: type[PollyError]) -> PollyError:
    """The error that the call must end in, which must be of just this class."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value
