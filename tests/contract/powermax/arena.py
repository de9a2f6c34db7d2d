"""What the tests of the PowerMax adapter share: an array, and adapters on it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from storage.platforms.base import CreateRequest
from storage.platforms.faulting import Faults
from storage.platforms.options import read_options
from storage.platforms.powermax.options import PowerMaxOptions
from storage.platforms.powermax.platform import PowerMaxPlatform
from tests.peers.powermax_array import small_array
from tests.peers.powermax_objects import SERIAL
from tests.peers.powermax_unisphere import PASSWORD, USER, Unisphere

NODES = ("iqn.1993-08.org.debian:01:aaaaaaaaaaaa", "iqn.1993-08.org.debian:01:bbbbbbbbbbbb")
SIZE_MIB = 1035
"""69 granules of 15 MiB."""


def renewed(front: Unisphere) -> Unisphere:
    """The same Unisphere before an array where nothing was ever done."""
    front.array = small_array()
    front.version, front.closed, front.may_write, front.page_size, front.job_looks, front.lose = "V10.4.0.5", False, True, 1000, 1, None
    front.faults, front.says_nothing_is_missing = Faults(), False
    for kept in (front.refuse, front.fail_jobs, front.calls, front.jobs, front.iterators):
        kept.clear()
    return front


def settings(front: Unisphere, /, **more: Any) -> dict[str, Any]:
    """A block of polly.toml for it."""
    file = Path(front.ca_file).with_suffix(".password")
    if not file.exists():
        file.touch(0o600)
        file.write_text(f"{PASSWORD}\n")
    given = {"endpoint": front.url, "username": USER, "password_file": str(file), "ca_file": front.ca_file, "array": SERIAL}
    return {**given, "port_group": "polly-iscsi", **more}


def platform_on(front: Unisphere, /, **more: Any) -> PowerMaxPlatform:
    """Waits are not waited: only the order of things matters here."""
    options = read_options(PowerMaxOptions, "platforms.max", settings(front, **more))
    return PowerMaxPlatform("max", options, wait=lambda seconds: None)


def racer_on(front: Unisphere) -> PowerMaxPlatform:
    """One that gives way to others for as long as it says, with a hundredth of a second for each."""
    options = read_options(PowerMaxOptions, "platforms.max", settings(front))

    def brief(seconds: float) -> None:
        threading.Event().wait(seconds / 100)

    return PowerMaxPlatform("max", options, wait=brief)


def request(label: str = "t1", **more: Any) -> CreateRequest:
    return CreateRequest(**{"pool": "SRP_1", "size_mib": SIZE_MIB, "token": label, **more})


def foreign(front: Unisphere, name: str, *, gib: int = 1, group: str = "") -> str:
    """A volume that somebody else has made."""
    wanted = {"volumeIdentifier": {"identifier_name": name}, "volume_size": str(gib), "capacityUnit": "GB", "num_of_vols": 1}
    if group not in front.array.groups:
        front.array.make_group(group or "theirs", "SRP_1", "None", ())
    return front.array.add_new(group or "theirs", [wanted])[0].id
