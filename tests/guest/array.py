"""An array around one guest: its volumes are LUNs of an iSCSI target, shown to the guest's kernel and taken away again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from msgspec.structs import replace

from storage.errors import VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import Attachment, VolumeReport
from tests.guest import inside, lio, multipathing
from tests.guest.cloud import Cloud
from tests.peers.guest import Call, Guest

ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class Array(Cloud):
    """Masking views of one initiator. What it shows is the lowest LUN that is free, as arrays do, so numbers are used again."""

    portals: Sequence[str] = lio.PORTALS[:1]
    """What nodes are told to log in to."""
    listens: Sequence[str] = lio.PORTALS[:1]

    def __init__(self, guest: Guest, folder: Path, *, kind: str = "virtio") -> None:
        super().__init__(guest, folder, kind=kind)
        self.lowest = 1
        """The first number that it gives."""

    def __enter__(self) -> Self:
        for module in lio.MODULES:
            self.guest.load(module)
        self.guest.call(lio.start, self.listens)
        self._daemon = self.guest.begin(inside.program, ["iscsid", "--foreground"], ENVIRONMENT, "/run/iscsid.log")
        self._daemon.until("started")
        return self

    def __exit__(self, *_: object) -> None:
        self.guest.call(lio.stop)
        self._daemon.stop()

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return replace(super().inspect(external_id), serial=lio.serial_of(external_id))

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        found = super().attach(external_id, node, epoch=epoch, read_only=read_only)
        portals = " ".join(f"{portal},{lio.TARGET}" for portal in self.portals)
        serial = lio.serial_of(external_id)
        link = f"/dev/disk/by-id/wwn-0x{serial.removeprefix('naa.')}"
        return replace(found, device=link, serial=serial, transport="iscsi", context={"portals": portals})

    def plug(self, external_id: str) -> None:
        under = f"under-{external_id[-12:]}"
        self.guest.plug(external_id, self.image(external_id), under, kind="virtio")
        self.guest.call(lio.map_to, external_id, self.guest.call(inside.device_of, under), self.lowest)

    def detach(self, external_id: ExternalId, node: str) -> None:
        if self.guest.call(inside.disks_of, lio.serial_of(external_id)):
            raise VolumeInUse(volume=external_id, holder="a disk that the kernel of the node still has")
        self.unplug(external_id)

    def unplug(self, external_id: str) -> None:
        self.guest.call(lio.unmap, external_id)
        super().unplug(external_id)


class TwoPortals(Array):
    """Each LUN is there twice, and no multipathd makes one of two."""

    portals: Sequence[str] = lio.PORTALS
    listens: Sequence[str] = lio.PORTALS


class Relayed(TwoPortals):
    """Two portals, one of them behind a relay that may fail."""

    listens = lio.PORTALS[:1]

    def __enter__(self) -> Self:
        super().__enter__()
        self.relay = self.connected()
        return self

    def connected(self) -> Call[None]:
        """The second portal is reached until what is returned is stopped."""
        far, near = (tuple(portal.split(":")) for portal in lio.PORTALS)
        relay = self.guest.begin(inside.relay, (near[0], int(near[1])), (far[0], int(far[1])))
        relay.until("relaying")
        return relay

    def cut(self) -> None:
        """The second portal is lost, and the kernel has given up to wait for it."""
        self.guest.call(lio.give_up_soon)
        self.relay.stop()
        self.guest.call(lio.await_loss)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.relay.stop()


class FarAway(Relayed):
    """One portal, which may be lost, and no multipathd."""

    portals = lio.PORTALS[1:]

    def restore(self) -> None:
        """The portal can be reached, and the initiator has seen it."""
        self.relay = self.connected()
        self.guest.call(lio.await_session)


class Mapped(Relayed):
    """A node with a real udevd and a real multipathd."""

    configuration = ""

    def __enter__(self) -> Self:
        for module in multipathing.MODULES:
            self.guest.load(module)
        self._begin(*multipathing.UDEVD)
        self.guest.call(multipathing.configure, self.configuration)
        self.start_daemon()
        return super().__enter__()

    def start_daemon(self) -> None:
        self._begin(*multipathing.MULTIPATHD)
        self.guest.call(multipathing.await_daemon)

    def _begin(self, command: Sequence[str], environment: Mapping[str, str], log: str) -> None:
        self.guest.begin(multipathing.daemon, command, environment, log).until("started")

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.guest.call(multipathing.end_daemons)
        self.guest.run("multipath", "-F")


class Fabric(Array):
    """As Fibre Channel has it: the guest is logged in before, and the node has no transport to ask."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.guest.run("iscsiadm", "--mode", "discovery", "--type", "sendtargets", "--portal", self.portals[0])
        self.guest.run("iscsiadm", "--mode", "node", "--login")
        return self

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return replace(super().attach(external_id, node, epoch=epoch, read_only=read_only), transport="", context={})
