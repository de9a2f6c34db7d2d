"""NFS exports of a real Ganesha outside, which the guest mounts as if their server ran on it: NFS has one port, which is taken out here."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.model import ExternalId, VolumePlan
from storage.node.staged import Staged
from storage.platforms.base import Attachment
from tests.guest import inside
from tests.nodes import LoopPlatform
from tests.peers.ganesha import Client, Export, Ganesha
from tests.peers.guest import HOST, Call, Guest

SERVER = "127.0.0.1"
"""The relay in the guest, and Ganesha as that reaches it."""
NFS = 2049
OPTIONS = ("vers=4.1", "timeo=10", "retrans=1", "nosharecache")
"""A client that waits no longer than a test likes, and has a connection for each mount."""


class Exports(LoopPlatform):
    """Volumes that are folders with an export each, made when they are attached."""

    def __init__(self, guest: Guest, ganesha: Ganesha, folder: Path) -> None:
        super().__init__(folder, device="nfs")
        self.guest, self.ganesha = guest, ganesha
        self.pid = 0
        self.may_write, self.address = True, SERVER
        """What the export lets the guest do, and whom it is for."""
        self._exported: dict[str, Export] = {}

    def create(self, request: Any) -> Any:
        self.folder_of(request.token).mkdir(exist_ok=True)
        return self.inspect(ExternalId(request.token))

    def find(self, token: str) -> Any:
        return self.inspect(ExternalId(token)) if self.folder_of(token).is_dir() else None

    def folder_of(self, external_id: str) -> Path:
        return self.folder / external_id

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        path = f"/ifs/polly/{external_id}"
        clients = (Client(address=self.address, may_write=self.may_write),)
        number = len(self._exported) + 1
        self._exported.setdefault(external_id, Export(number=number, folder=self.folder_of(external_id), path=path, clients=clients))
        self.ganesha.serve(list(self._exported.values()))
        return Attachment(external_id=external_id, device=f"{SERVER}:{path}", serial=external_id, read_only=read_only)

    def detach(self, external_id: ExternalId, node: str) -> None:
        self._exported.pop(external_id, None)
        self.ganesha.serve(list(self._exported.values()))

    def stage(self, plan: VolumePlan, **options: Any) -> Staged:
        return self.guest.call(inside.stage, plan, self.capabilities, answering=self, **options)

    def unstage(self, plan: VolumePlan, **options: Any) -> Mapping[str, float]:
        return self.guest.call(inside.unstage, plan, self.capabilities, answering=self, **options)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """While it lasts the server is there and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def relayed(guest: Guest, port: int, here: int = NFS) -> Call[None]:
    """Has a port of the guest's loopback interface lead to this port out here, until the call is killed."""
    call: Call[None] = guest.begin(inside.relay, (SERVER, here), (HOST, port))
    call.until("relaying")
    return call
