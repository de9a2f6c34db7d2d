"""What the tests of the PowerScale adapter share: a cluster, and adapters on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.model import ExternalId
from storage.platforms.base import CreateRequest
from storage.platforms.faulting import Faults
from storage.platforms.options import read_options
from storage.platforms.powerscale.options import PowerScaleOptions
from storage.platforms.powerscale.platform import PowerScalePlatform
from tests.peers.powerscale_cluster import Cluster
from tests.peers.powerscale_onefs import LATEST, PASSWORD, USER, OneFs
from tests.peers.powerscale_shapes import PRIVILEGES

BASE = "/ifs/data/polly"
NODES = ("10.20.0.1", "node-b.example")
SIZE_MIB = 8
FASTER = 100
Meet = Callable[[Callable[[], object]], None]


def renewed(front: OneFs) -> OneFs:
    """The same front before a cluster where nothing was ever done."""
    ifs = front.cluster.ifs
    ifs.clear()
    front.cluster = Cluster(ifs=ifs, hosts={NODES[1]})
    ifs.make(BASE, recursive=True)
    front.user, front.password, front.page_size, front.latest, front.lose = USER, PASSWORD, 1000, LATEST, None
    front.faults, front.privileges = Faults(), dict(PRIVILEGES)
    for kept in (
        front.meet,
        front.sessions,
        front.refuse,
        front.calls,
        front.resumes,
        front.aliases,
        front.shares,
        front.schedule,
        front.workloads,
    ):
        kept.clear()
    return front


def settings(front: OneFs, /, **more: Any) -> dict[str, Any]:
    """A block of polly.toml for it."""
    file = Path(front.ca_file).with_suffix(".password")
    if not file.exists():
        file.touch(0o600)
        file.write_text(f"{PASSWORD}\n")
    given = {"endpoint": front.url, "username": USER, "password_file": str(file), "ca_file": front.ca_file, "base_path": BASE}
    return {**given, "nfs_host": "nas.example", **more}


def platform_on(front: OneFs, /, **more: Any) -> PowerScalePlatform:
    """Time goes a hundred times as fast: waits are short, and long enough for whoever is met to go on."""
    options = read_options(PowerScaleOptions, "platforms.nas", settings(front, **more))

    def brief(seconds: float) -> None:
        threading.Event().wait(seconds / FASTER)

    return PowerScalePlatform("nas", options, now=lambda: time.monotonic() * FASTER, wait=brief)


def request(label: str = "t1", **more: Any) -> CreateRequest:
    return CreateRequest(**{"pool": "System", "size_mib": SIZE_MIB, "token": label, **more})


def foreign(front: OneFs, name: str) -> None:
    """A folder with a quota that somebody else has made."""
    front.cluster.ifs.make(f"{BASE}/{name}", recursive=True)
    front.cluster.make_quota({"path": f"{BASE}/{name}", "type": "directory", "enforced": True, "thresholds": {"hard": SIZE_MIB << 20}})


def folder(front: OneFs, path: str, files: dict[str, str] | None = None) -> None:
    front.cluster.ifs.make(path, recursive=True)
    for name, text in (files or {}).items():
        front.cluster.ifs.write(f"{path}/{name}", text.encode(), overwrite=True)


def files(front: OneFs, path: str) -> dict[str, str]:
    place = front.cluster.ifs.real(path)
    return {str(one.relative_to(place)): one.read_text() for one in sorted(place.rglob("*")) if one.is_file()}


def names(front: OneFs, path: str = BASE) -> list[str]:
    """What is in a folder; nothing where there is none."""
    return [one["name"] for one in front.cluster.ifs.children(path)] if front.cluster.ifs.is_folder(path) else []


def in_every_gap(front: OneFs, platform: PowerScalePlatform, rule: Callable[[ExternalId, Meet], None]) -> None:
    """The rule on a new volume for each call of its verb, with what it has happen right before that call, until there is no such call."""
    for number in range(30):

        def meet(happens: Callable[[], object], number: int = number) -> None:
            front.meet = [("*", "", lambda: None)] * number + [("*", "", happens)]

        rule(platform.create(request(f"meeting-{number}")).external_id, meet)
        if front.meet:
            front.meet.clear()
            assert number >= 2, "the verb makes hardly a call"
            return
    raise AssertionError("the verb makes calls without end")
