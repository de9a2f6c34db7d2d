"""What the adapter asks of a VirtualBox, however it is called: a protocol that the web service and the command line fulfil.

Media are named by their UUIDs, VMs by theirs. Every refusal is a Fault, every silence Unreachable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from msgspec import Struct

STOPPED: Final[Mapping[str, str]] = {"poweredoff": "powered off", "aborted": "aborted"}
"""States in which nothing of a VM runs or will run on. A saved one wakes up with its filesystems mounted, and one that was teleported
away runs on elsewhere."""
RESTING: Final = frozenset({*STOPPED, "teleported", "saved", "abortedsaved"})
"""States without a process: the VM's settings can be changed, and no disk is plugged into anything."""
WRITETHROUGH: Final = "writethrough"
"""The type of a medium that a VM's own snapshots leave alone, so that the VM goes on with the medium itself and not with a copy's child."""


class Known(Struct, frozen=True, kw_only=True):
    """A medium that VirtualBox has in its list."""

    uuid: str
    location: str


class Medium(Struct, frozen=True, kw_only=True):
    """A medium as it is now."""

    uuid: str
    location: str
    size_mib: int
    on_disk_mib: int = 0
    """What its file takes; 0 over the web service, where nobody needs to know."""
    kind: str
    """Its type in small letters, such as `normal` or `writethrough`."""
    machines: tuple[str, ...] = ()
    """The VMs that have it, running or not, itself or through a differencing medium of a snapshot that stands on it. One that had it when
    a snapshot of the VM was taken, and has not now, is none of them."""
    has_heirs: bool = False
    """Differencing media stand on it; whoever has one of those does not have the medium itself."""
    fault: str = ""
    """Why VirtualBox cannot read it; empty where it can."""


class Vm(Struct, frozen=True, kw_only=True):
    uuid: str
    name: str
    state: str
    """In small letters without anything between: `poweredoff`, `running`, `abortedsaved`."""
    accessible: bool = True

    @property
    def runs(self) -> bool:
        return self.state not in RESTING


class Controller(Struct, frozen=True, kw_only=True):
    name: str
    bus: str
    """In small letters: `sata`, `ide`, `virtioscsi`."""
    ports: int
    taken: frozenset[int] = frozenset()
    media: frozenset[str] = frozenset()
    """The ids of the media in its ports; a port may be taken without one."""

    def free_port(self) -> int | None:
        """The highest one: the low ones are where people and installers put system disks."""
        return next((port for port in reversed(range(self.ports)) if port not in self.taken), None)


class Disk(Struct, frozen=True, kw_only=True):
    """A filesystem of the VM host."""

    name: str
    """Of no other one that is mounted."""
    size_mib: int
    free_mib: int


class Plug(Struct, frozen=True, kw_only=True):
    """Where a medium is in a VM."""

    controller: str
    port: int
    device: int = 0


class Editing(Protocol):
    """A VM whose settings this client may change; leaving it ends that."""

    def controllers(self) -> Sequence[Controller]: ...

    def plug_of(self, uuid: str) -> Plug | None:
        """Where a medium is in this VM."""

    def plug(self, uuid: str, plug: Plug, *, hot: bool) -> None: ...

    def unplug(self, uuid: str, plug: Plug) -> None: ...


class Host(Protocol):
    def version(self) -> str: ...

    def media(self) -> Sequence[Known]:
        """The base media in VirtualBox's list."""

    def look(self, uuids: Iterable[str]) -> Mapping[str, Medium]:
        """The media with these ids, as they are now; those that are not in the list are left out."""

    def sizes(self, uuids: Iterable[str]) -> Mapping[str, int]:
        """Their sizes in MiB; may be those of an earlier look."""

    def open(self, location: str) -> Medium | None:
        """The medium with this file, which is put into the list if it was not; None if there is no such file."""

    def create(self, location: str, *, format: str, variant: str, size_mib: int) -> str:  # noqa: A002 - VirtualBox's word
        """Makes a medium of the type WRITETHROUGH and returns its id."""

    def clone(self, uuid: str, location: str, *, format: str, variant: str) -> str:  # noqa: A002 - VirtualBox's word
        """A full copy, of the type WRITETHROUGH."""

    def resize(self, uuid: str, size_mib: int) -> None: ...

    def move(self, uuid: str, location: str) -> None:
        """Gives the medium's file another name in the same folder. A Fault where that name is taken."""

    def write_through(self, uuid: str) -> None:
        """Makes the medium one of the type WRITETHROUGH; it must not be attached."""

    def delete(self, uuid: str) -> None:
        """The medium and its file."""

    def forget(self, uuid: str) -> None:
        """Takes the medium from the list; its file stays."""

    def find_vm(self, name_or_uuid: str) -> Vm | None: ...

    def vms(self) -> Sequence[Vm]: ...

    def controllers(self, vm: Vm) -> Sequence[Controller]:
        """Its storage controllers, read past whoever has locked it."""

    def hardware(self, vm: Vm, *, cards: bool) -> frozenset[str]:
        """What the VM's guest sees of it, in small letters: the UUID of its firmware, or with `cards` its MAC addresses as 12 digits."""

    def edit(self, vm: Vm) -> AbstractContextManager[Editing]: ...

    def records(self, keys: Iterable[str]) -> Mapping[str, str]:
        """The texts under these keys; those that are not there are left out."""

    def record_keys(self) -> Sequence[str]: ...

    def write_record(self, key: str, text: str) -> None:
        """An empty text takes the record away."""

    def locked(self) -> AbstractContextManager[None]:
        """While it lasts no other client of this platform is inside. Unreachable if another does not leave it in time."""

    def disk(self, folder: str) -> Disk | None:
        """The folder's filesystem; None where it cannot be seen from here."""

    def has_folder(self, folder: str) -> bool: ...

    def close(self) -> None: ...
