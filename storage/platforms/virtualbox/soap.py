"""A VirtualBox through its web service: what the adapter asks, in calls of VirtualBox's own interface."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from storage.platforms.virtualbox.failures import FILE_ERROR, INVALID_STATE, NOT_FOUND, Fault, Stale, Unreachable
from storage.platforms.virtualbox.host import Controller, Disk, Known, Medium, Vm
from storage.platforms.virtualbox.patience import Patience
from storage.platforms.virtualbox.soapediting import SoapEditing
from storage.platforms.virtualbox.ways import OneWay
from storage.platforms.virtualbox.websession import NOTHING, WebSession

TURN_MS: Final = 1000
"""How long the service keeps one question for the end of a job."""
NETWORK_SLOTS: Final = 8
UNREADABLE: Final = frozenset({"Inaccessible", "NotCreated"})


class SoapHost:
    def __init__(self, web: WebSession, *, lock_file: str, is_kept: Callable[[str], bool], patience: Patience, way: OneWay) -> None:
        """`is_kept` tells of a file's name whether its medium will never have another."""
        self._web, self._lock_file, self._is_kept, self._patience, self._way = web, lock_file, is_kept, patience, way
        self._inside = threading.Lock()
        self._known: dict[str, Known] = {}
        self._refs: dict[str, str] = {}
        self._sizes: dict[str, int] = {}

    def version(self) -> str:
        return str(self._web.call("IVirtualBox_getVersion", self._web.box))

    # --- media -------------------------------------------------------------------------------------------

    def media(self) -> Sequence[Known]:
        """References stay the same for a session, and so does a medium's id; its place does where its name is kept."""
        refs = self._web.call("IVirtualBox_getHardDisks", self._web.box) or []
        known = {ref: found for ref in refs if (found := self._ask(ref, self._known.get(ref)))}
        self._known, self._refs = known, {found.uuid: ref for ref, found in known.items()}
        return list(known.values())

    def _ask(self, ref: str, before: Known | None) -> Known | None:
        """None for a medium that went meanwhile."""
        if before and self._is_kept(before.location):
            return before
        with suppress(Fault):
            uuid = before.uuid if before else str(self._web.call("IMedium_getId", ref))
            return Known(uuid=uuid, location=str(self._web.call("IMedium_getLocation", ref)))
        return None

    def look(self, uuids: Iterable[str]) -> Mapping[str, Medium]:
        found: dict[str, Medium] = {}
        for uuid in uuids:
            if medium := self._looked(uuid):
                found[uuid] = medium
        return found

    def _looked(self, uuid: str) -> Medium | None:
        """With the reference of the last list, if there is one of this session."""
        if (listed := self._refs.get(uuid)) and self._web.is_ours(listed):
            with suppress(Fault, _Gone):
                return self._medium(uuid, listed)
            self._refs.pop(uuid, None)
        if ref := self._opened(uuid):
            with suppress(_Gone):
                return self._medium(uuid, ref)
        return None

    def sizes(self, uuids: Iterable[str]) -> Mapping[str, int]:
        wanted = list(uuids)
        self.look(uuid for uuid in wanted if uuid not in self._sizes)
        return {uuid: self._sizes.get(uuid, 0) for uuid in wanted}

    def _medium(self, uuid: str, ref: str) -> Medium:
        call = self._web.call
        try:
            state = call("IMedium_refreshState", ref)
            size_mib, heirs = call("IMedium_getLogicalSize", ref) >> 20, call("IMedium_getChildren", ref) or ()
            self._sizes[uuid] = size_mib
            return Medium(
                uuid=uuid,
                location=str(call("IMedium_getLocation", ref)),
                size_mib=size_mib,
                kind=str(call("IMedium_getType", ref)).lower(),
                machines=tuple(dict.fromkeys(self._having(ref, heirs))),
                has_heirs=bool(heirs),
                fault=str(call("IMedium_getLastAccessError", ref) or state) if state in UNREADABLE else "",
            )
        except Fault as fault:
            if self._opened(uuid) is None:
                raise _Gone from fault
            raise

    def _having(self, ref: str, heirs: Iterable[str]) -> Iterator[str]:
        yield from (machine for machine in self._web.call("IMedium_getMachineIds", ref) or () if self._has_now(ref, machine))
        for heir in heirs:
            yield from self._having(heir, self._web.call("IMedium_getChildren", heir) or ())

    def _has_now(self, ref: str, machine: str) -> bool:
        """VirtualBox names a VM by its own id where the VM has the medium, and by its snapshots' where they had it."""
        return machine in (self._web.call("IMedium_getSnapshotIds", ref, machine) or ())

    def _opened(self, uuid_or_location: str) -> str | None:
        try:
            ref: str = self._web.call("IVirtualBox_openMedium", self._web.box, uuid_or_location, "HardDisk", "ReadWrite", False)
        except Fault as fault:
            if fault.code == NOT_FOUND or (fault.code == FILE_ERROR and fault.is_no_file):
                return None
            raise
        return ref

    def _need(self, uuid: str) -> str:
        if (ref := self._opened(uuid)) is None:
            raise Fault(NOT_FOUND, f"there is no medium {uuid}")
        return ref

    def open(self, location: str) -> Medium | None:
        if ref := self._opened(location):
            with suppress(_Gone):
                return self._medium(str(self._web.call("IMedium_getId", ref)), ref)
        return None

    def create(self, location: str, *, format: str, variant: str, size_mib: int) -> str:  # noqa: A002 - VirtualBox's word
        medium = self._planned(location, format)
        self._finish(self._web.call("IMedium_createBaseStorage", medium, size_mib << 20, [variant]))
        return self._made(medium)

    def clone(self, uuid: str, location: str, *, format: str, variant: str) -> str:  # noqa: A002 - VirtualBox's word
        origin, medium = self._need(uuid), self._planned(location, format)
        self._finish(self._web.call("IMedium_cloneTo", origin, medium, [variant], NOTHING))
        return self._made(medium)

    def _planned(self, location: str, format: str) -> str:  # noqa: A002 - VirtualBox's word
        ref: str = self._web.call("IVirtualBox_createMedium", self._web.box, format, location, "ReadWrite", "HardDisk")
        return ref

    def _made(self, medium: str) -> str:
        self._web.call("IMedium_setType", medium, "Writethrough")
        return str(self._web.call("IMedium_getId", medium))

    def resize(self, uuid: str, size_mib: int) -> None:
        self._finish(self._web.call("IMedium_resize", self._need(uuid), size_mib << 20))
        self._sizes.pop(uuid, None)

    def move(self, uuid: str, location: str) -> None:
        self._finish(self._web.call("IMedium_moveTo", self._need(uuid), location))

    def write_through(self, uuid: str) -> None:
        self._web.call("IMedium_setType", self._need(uuid), "Writethrough")

    def delete(self, uuid: str) -> None:
        if ref := self._opened(uuid):
            self._finish(self._web.call("IMedium_deleteStorage", ref))

    def forget(self, uuid: str) -> None:
        if ref := self._opened(uuid):
            self._web.call("IMedium_close", ref)

    def _finish(self, job: str) -> None:
        """Waits for the end of a job of VirtualBox, and raises its Fault."""
        try:
            while not self._web.call("IProgress_getCompleted", job):
                self._web.call("IProgress_waitForCompletion", job, TURN_MS)
            if code := self._web.call("IProgress_getResultCode", job):
                raise Fault(code, self._reason(job))
        finally:
            self._release(job)

    def _reason(self, job: str) -> str:
        info = self._web.call("IProgress_getErrorInfo", job)
        return str(self._web.call("IVirtualBoxErrorInfo_getText", info)) if info else "no reason was given"

    def _release(self, ref: str) -> None:
        with suppress(Fault, Unreachable):
            self._web.call("IManagedObjectRef_release", ref)

    # --- VMs -----------------------------------------------------------------------------------------------

    def find_vm(self, name_or_uuid: str) -> Vm | None:
        try:
            return self._vm(self._machine(name_or_uuid))
        except Fault as fault:
            if fault.code == NOT_FOUND:
                return None
            raise

    def vms(self) -> Sequence[Vm]:
        """Without those that go meanwhile."""
        found: list[Vm] = []
        for ref in self._web.call("IVirtualBox_getMachines", self._web.box) or []:
            with suppress(Fault):
                found.append(self._vm(ref))
        return found

    def _machine(self, name_or_uuid: str) -> str:
        return str(self._web.call("IVirtualBox_findMachine", self._web.box, name_or_uuid))

    def _vm(self, ref: str) -> Vm:
        uuid = str(self._web.call("IMachine_getId", ref))
        if not self._web.call("IMachine_getAccessible", ref):
            return Vm(uuid=uuid, name=uuid, state="inaccessible", accessible=False)
        state = str(self._web.call("IMachine_getState", ref)).lower()
        return Vm(uuid=uuid, name=str(self._web.call("IMachine_getName", ref)), state=state)

    def controllers(self, vm: Vm) -> Sequence[Controller]:
        return SoapEditing(self._web, self._machine(vm.uuid), reference_of=self._need).controllers()

    def hardware(self, vm: Vm, *, cards: bool) -> frozenset[str]:
        ref, call = self._machine(vm.uuid), self._web.call
        if not cards:
            return frozenset({str(call("IMachine_getHardwareUUID", ref)).lower()})
        found = [call("IMachine_getNetworkAdapter", ref, slot) for slot in range(NETWORK_SLOTS)]
        return frozenset(
            str(call("INetworkAdapter_getMACAddress", card)).lower() for card in found if call("INetworkAdapter_getEnabled", card)
        )

    @contextmanager
    def edit(self, vm: Vm) -> Iterator[SoapEditing]:
        session = str(self._web.call("IWebsessionManager_getSessionObject", self._web.box))
        try:
            self._lock_vm(vm, session)
            machine = str(self._web.call("ISession_getMachine", session))
            self._keep_what_the_dead_changed(machine)
            try:
                yield SoapEditing(self._web, machine, reference_of=self._need)
            except Unreachable:
                # What was changed without our being told is kept: given up, the medium would go on naming a VM that does not have it.
                self._surely("IMachine_saveSettings", machine)
                raise
        finally:
            self._unlock_vm(session)

    def _keep_what_the_dead_changed(self, machine: str) -> None:
        """VirtualBox shows what a client that died beside its lock had not saved as if it were, forgets it when the VM's lock ends, and
        crashes when such an attachment is detached."""
        if self._web.call("IMachine_getSettingsModified", machine):
            self._web.call("IMachine_saveSettings", machine)

    def _lock_vm(self, vm: Vm, session: str) -> None:
        """Alone where the VM does not run; beside its own process where it does.

        A client that died while it had the lock leaves it to the service for good. After the wait we therefore come in beside it,
        as VBoxManage always does: VirtualBox lets several clients change one VM's settings.
        """
        machine = self._machine(vm.uuid)
        lock = "Shared" if vm.runs else "Write"
        try:
            self._patience.until_free(lambda: self._web.call("IMachine_lockMachine", machine, session, lock))
        except Fault as fault:
            if fault.code != INVALID_STATE or vm.runs:
                raise
            self._web.call("IMachine_lockMachine", machine, session, "Shared")

    def _unlock_vm(self, session: str) -> None:
        """Also where the answer to locking was lost. Changes that were not saved are gone with it."""
        self._surely("ISession_unlockMachine", session)
        self._release(session)

    def _surely(self, operation: str, ref: str) -> None:
        """Gives something back, again where the answer is lost: what stays taken keeps everybody out."""
        for _ in range(3):
            try:
                self._web.call(operation, ref)
            except (Fault, Stale):
                return
            except Unreachable:
                continue
            return

    # --- records and the lock --------------------------------------------------------------------------------

    def records(self, keys: Iterable[str]) -> Mapping[str, str]:
        found = ((key, self._web.call("IVirtualBox_getExtraData", self._web.box, key)) for key in keys)
        return {key: text for key, text in found if text}

    def record_keys(self) -> Sequence[str]:
        return self._web.call("IVirtualBox_getExtraDataKeys", self._web.box) or []

    def write_record(self, key: str, text: str) -> None:
        self._web.call("IVirtualBox_setExtraData", self._web.box, key, text)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A write lock on a medium that is there for nothing else; VirtualBox frees it when the web session ends.

        Our own threads wait outside: one that gave up, or was not told whether it has the lock, would end the session of one inside.
        """
        if not self._inside.acquire(timeout=self._patience.bound_s):
            raise Unreachable(f"another call of this process does not leave its lock {self._lock_file}")
        try:
            with self._web.staying():
                token = self._taken(self._lock_medium())
                try:
                    self._way.make_sure(self)
                    yield
                finally:
                    self._surely("IToken_abandon", token)
        except Unreachable:
            self._web.drop()  # a lock that we may have without knowing goes with the session
            raise
        finally:
            self._inside.release()

    def _taken(self, medium: str) -> str:
        try:
            return str(self._patience.until_free(lambda: self._web.call("IMedium_lockWrite", medium)))
        except Fault as fault:
            if fault.code == INVALID_STATE:
                raise Unreachable(f"another client of Polly does not leave its lock {self._lock_file} ({fault.words})") from fault
            raise

    def _lock_medium(self) -> str:
        if ref := self._opened(self._lock_file):
            return ref
        try:
            self.create(self._lock_file, format="VDI", variant="Standard", size_mib=1)
        except Fault:
            if self._opened(self._lock_file) is None:  # it is nobody else's that was faster
                raise
        if (ref := self._opened(self._lock_file)) is None:
            raise Unreachable(f"the lock {self._lock_file} went as soon as it was made")
        return ref

    # --- the folder --------------------------------------------------------------------------------------------

    def disk(self, folder: str) -> Disk | None:
        return None

    def has_folder(self, folder: str) -> bool:
        appliance = self._web.call("IVirtualBox_createAppliance", self._web.box)
        explorer = self._web.call("IAppliance_createVFSExplorer", appliance, f"file://{folder}")
        try:
            self._finish(self._web.call("IVFSExplorer_update", explorer))
        except Fault:
            return False
        finally:
            self._release(explorer)
            self._release(appliance)
        return True

    def close(self) -> None:
        self._web.close()


class _Gone(Exception):
    """The medium went while it was looked at."""
