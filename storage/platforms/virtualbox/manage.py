"""A VirtualBox through its command line, on the VM host itself: each question is a run of VBoxManage."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from storage.platforms.virtualbox import output
from storage.platforms.virtualbox.failures import FILE_ERROR, INVALID_STATE, NOT_FOUND, Fault, Unreachable
from storage.platforms.virtualbox.host import WRITETHROUGH, Controller, Disk, Known, Medium, Plug, Vm
from storage.platforms.virtualbox.patience import Patience
from storage.platforms.virtualbox.ways import OneWay

LOCK: Final = "polly.lock"
LOCALE: Final = "C.UTF-8"
"""English, and with all letters: VBoxManage refuses arguments that its locale cannot write, and starts VBoxSVC with it."""
LOOKS: Final = ("list", "showmediuminfo", "showvminfo", "getextradata")


class ManageHost:
    def __init__(self, program: str, root: str, *, timeout_s: int, patience: Patience, way: OneWay) -> None:
        self._program, self._root, self._timeout_s, self._patience, self._way = program, Path(root), timeout_s, patience, way
        self._mine = threading.local()
        self._sizes: dict[str, int] = {}

    def version(self) -> str:
        return self._run("--version").strip()

    def _run(self, *arguments: str, endless: bool = False) -> str:
        """What VBoxManage says. It keeps our lock open, so that what it does is under the lock even if we die meanwhile; but not where it
        only looks, for the VBoxSVC that it may start would keep it, too."""
        held: tuple[int, ...] = () if arguments[0] in LOOKS else getattr(self._mine, "locks", ())
        try:
            ended = subprocess.run(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**os.environ, "LC_ALL": LOCALE},
                timeout=None if endless else self._timeout_s,
                pass_fds=held,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"VBoxManage {arguments[0]} did not end within {self._timeout_s} s") from error
        except OSError as error:
            raise Unreachable(f"{self._program} cannot be run: {error.strerror}") from error
        if ended.returncode < 0:
            raise Unreachable(f"VBoxManage {arguments[0]} was killed by signal {-ended.returncode}")
        if ended.returncode:
            raise output.refusal(ended.stderr.decode("utf-8", "replace"))
        return ended.stdout.decode("utf-8", "replace")

    # --- media -------------------------------------------------------------------------------------------

    def _listed(self) -> Sequence[Medium]:
        media = [self._settled(listed) for listed in output.media(self._run("list", "--long", "hdds"))]
        self._sizes = {medium.uuid: medium.size_mib for medium in media}
        return media

    def media(self) -> Sequence[Known]:
        return [Known(uuid=medium.uuid, location=medium.location) for medium in self._listed()]

    def look(self, uuids: Iterable[str]) -> Mapping[str, Medium]:
        wanted = set(uuids)
        if len(wanted) == 1:
            return {medium.uuid: medium for medium in self._shown(*wanted)}
        return {medium.uuid: medium for medium in self._listed() if medium.uuid in wanted} if wanted else {}

    def _shown(self, uuid_or_location: str) -> Sequence[Medium]:
        try:
            shown = output.media(self._run("showmediuminfo", "disk", uuid_or_location))
            if any(one.medium.has_heirs for one in shown):
                ids = {one.medium.uuid for one in shown}
                shown = [one for one in output.media(self._run("list", "--long", "hdds")) if one.medium.uuid in ids]
            return [self._settled(one) for one in shown]
        except Fault as fault:
            if fault.code == NOT_FOUND or (fault.code == FILE_ERROR and (fault.is_no_file or "not fully qualified" in fault.text)):
                return ()
            raise

    def _settled(self, listed: output.Listed) -> Medium:
        """Asks those of its VMs of which the list does not say whether they have the medium now."""
        having = [user.vm for user in listed.users if user.is_sure or self._has_now(user)]
        return replace(listed.medium, machines=tuple(dict.fromkeys(having)))

    def _has_now(self, user: output.User) -> bool:
        """False for a VM that went meanwhile."""
        try:
            return output.plug_of(self._said_of(user.vm), user.medium) is not None
        except Fault as fault:
            if fault.code == NOT_FOUND:
                return False
            raise

    def sizes(self, uuids: Iterable[str]) -> Mapping[str, int]:
        """As the last list showed them."""
        wanted = list(uuids)
        if any(uuid not in self._sizes for uuid in wanted):
            self._listed()
        return {uuid: self._sizes.get(uuid, 0) for uuid in wanted}

    def open(self, location: str) -> Medium | None:
        return next(iter(self._shown(location)), None) if os.path.lexists(location) else None

    def create(self, location: str, *, format: str, variant: str, size_mib: int) -> str:  # noqa: A002 - VirtualBox's word
        how = ("--size", str(size_mib), "--format", format, "--variant", variant)
        return self._made(self._run("createmedium", "disk", "--filename", location, *how, endless=True))

    def clone(self, uuid: str, location: str, *, format: str, variant: str) -> str:  # noqa: A002 - VirtualBox's word
        return self._made(self._run("clonemedium", "disk", uuid, location, "--format", format, "--variant", variant, endless=True))

    def _made(self, said: str) -> str:
        uuid = output.made(said)
        self.write_through(uuid)
        return uuid

    def resize(self, uuid: str, size_mib: int) -> None:
        self._run("modifymedium", "disk", uuid, "--resize", str(size_mib))

    def move(self, uuid: str, location: str) -> None:
        self._run("modifymedium", "disk", uuid, "--move", location)

    def write_through(self, uuid: str) -> None:
        self._run("modifymedium", "disk", uuid, "--type", WRITETHROUGH)

    def delete(self, uuid: str) -> None:
        self._close(uuid, "--delete")

    def forget(self, uuid: str) -> None:
        self._close(uuid)

    def _close(self, uuid: str, *how: str) -> None:
        try:
            self._run("closemedium", "disk", uuid, *how)
        except Fault:
            if self._shown(uuid):
                raise

    # --- VMs -----------------------------------------------------------------------------------------------

    def find_vm(self, name_or_uuid: str) -> Vm | None:
        try:
            return output.vm(self._said_of(name_or_uuid))
        except Fault as fault:
            if fault.code == NOT_FOUND:
                return None
            raise

    def _said_of(self, name_or_uuid: str) -> Mapping[str, str]:
        if name_or_uuid.startswith("-"):
            raise Fault(NOT_FOUND, "a VM whose name is an option cannot be asked for")
        return output.settings(self._run("showvminfo", name_or_uuid, "--machinereadable"))

    def vms(self) -> Sequence[Vm]:
        found = (self.find_vm(uuid) for uuid in output.vm_ids(self._run("list", "vms")))
        return [vm for vm in found if vm]

    def controllers(self, vm: Vm) -> Sequence[Controller]:
        return output.controllers(self._said_of(vm.uuid))

    def hardware(self, vm: Vm, *, cards: bool) -> frozenset[str]:
        return output.hardware(self._said_of(vm.uuid), cards=cards)

    @contextmanager
    def edit(self, vm: Vm) -> Iterator[ManageEditing]:
        """VBoxManage locks the VM itself, for each of its runs."""
        yield ManageEditing(self, vm, self._said_of(vm.uuid))

    def change(self, *arguments: str) -> None:
        """Waits for a VM that is on its way from one state to another."""
        self._patience.until_free(lambda: self._run(*arguments))

    # --- records and the lock --------------------------------------------------------------------------------

    def records(self, keys: Iterable[str]) -> Mapping[str, str]:
        wanted = set(keys)
        if len(wanted) == 1:
            (key,) = wanted
            text = output.value(self._run("getextradata", "global", key))
            return {key: text} if text else {}
        return {key: text for key, text in self._all_records().items() if key in wanted} if wanted else {}

    def _all_records(self) -> Mapping[str, str]:
        return output.values(self._run("getextradata", "global", "enumerate"))

    def record_keys(self) -> Sequence[str]:
        return list(self._all_records())

    def write_record(self, key: str, text: str) -> None:
        self._run("setextradata", "global", key, *([text] if text else []))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """An flock on a file beside the pools: VBoxManage has no lock that outlives one run."""
        fd = self._lock_file()
        before: tuple[int, ...] = getattr(self._mine, "locks", ())
        try:
            self._take(fd)
            self._mine.locks = (*before, fd)
            self._way.make_sure(self)
            yield
        finally:
            self._mine.locks = before
            fcntl.flock(fd, fcntl.LOCK_UN)  # a VBoxSVC that a run of ours has started has the file open for as long as it lives
            os.close(fd)

    def _lock_file(self) -> int:
        try:
            return os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unreachable(f"{self._root / LOCK}: {error.strerror}; is {self._root} there, and ours to write?") from error

    def _take(self, fd: int) -> None:
        def try_it() -> None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Fault(INVALID_STATE, "the lock is taken") from error

        try:
            self._patience.until_free(try_it)
        except Fault as fault:
            raise Unreachable(f"another process of Polly does not leave its lock {self._root / LOCK}") from fault

    # --- the folder --------------------------------------------------------------------------------------------

    def disk(self, folder: str) -> Disk | None:
        with suppress(OSError):
            seen, device = os.statvfs(folder), os.stat(folder).st_dev
            size_mib, free_mib = (blocks * seen.f_frsize >> 20 for blocks in (seen.f_blocks, seen.f_bavail))
            return Disk(name=f"disk {os.major(device)}:{os.minor(device)}", size_mib=size_mib, free_mib=free_mib)
        return None

    def has_folder(self, folder: str) -> bool:
        return Path(folder).is_dir()

    def close(self) -> None:
        """Nothing is open between two runs."""


class ManageEditing:
    def __init__(self, host: ManageHost, vm: Vm, settings: Mapping[str, str]) -> None:
        self._host, self._vm, self._settings = host, vm, settings

    def controllers(self) -> Sequence[Controller]:
        return output.controllers(self._settings)

    def plug_of(self, uuid: str) -> Plug | None:
        return output.plug_of(self._settings, uuid)

    def plug(self, uuid: str, plug: Plug, *, hot: bool) -> None:
        self._attach(plug, uuid, *(() if hot else ("--hotpluggable", "on")))

    def unplug(self, uuid: str, plug: Plug) -> None:
        self._attach(plug, "none")

    def _attach(self, plug: Plug, medium: str, *more: str) -> None:
        where = ("--storagectl", plug.controller, "--port", str(plug.port), "--device", str(plug.device))
        self._host.change("storageattach", self._vm.uuid, *where, "--type", "hdd", "--medium", medium, *more)
