"""One try to bring one volume to this node, whatever it is there: create or find by token, attach, and undo in reverse what fails."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final, NoReturn

from storage.errors import (
    Cancelled,
    DeviceInUse,
    LeaseExpired,
    NodeError,
    NotDelivered,
    PollyError,
    StaleEpoch,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
from storage.model import Access, ExternalId, VolumePlan
from storage.node import attached, places, releasing
from storage.node.attacher import Attacher, obtain
from storage.node.marking import mark
from storage.node.staged import OnBirth, Staged
from storage.node.steps import Machine, Steps, ignore
from storage.node.targets import Target
from storage.node.transports import transport_of
from storage.platforms.base import Attachment

OTHERS: Final = (VolumeInUse, StaleEpoch, UnknownVolume)
"""Refusals of attach after which the volume is surely not ours; a detach could take it from under its holder."""
NOT_DELIVERED: Final = (NotDelivered, LeaseExpired, Cancelled)
"""What ends the wait for the broker's attachment: nothing has come here, and what the broker did it undoes itself."""
BACK_OUT_S: Final = 10.0


class Attempt(ABC):
    """One try to stage one volume, and what must be undone if it fails. What it is on the node its subclass knows."""

    is_export: ClassVar = False
    """Whether it is mounted from a server, without a device."""

    def __init__(
        self, plan: VolumePlan, platform: Attacher, node: str, staging_dir: Path, steps: Steps, on_birth: OnBirth | None, machine: Machine
    ) -> None:
        self.plan, self.platform, self.node = plan, platform, node
        self.staging_dir, self.target = staging_dir, Target.below(staging_dir, plan.claim_id)
        self.steps, self.on_birth, self.machine = steps, on_birth, machine
        self.read_only = plan.access is Access.RO
        self.known = plan.birth
        self.new_mib = plan.size_mib
        """The size that a new volume has got from its platform."""
        self.attached: ExternalId | None = None
        self.attachment: Attachment | None = None
        """Set once something may be connected by it."""
        self.device = ""
        self.serials: tuple[str, ...] = ()
        """What the device said of itself when it was opened."""
        self.opened = ExitStack()
        """Keeps the device open meanwhile: the kernel drops what it has read of a device with its last descriptor."""
        self.was_mounted = False
        """An earlier attempt of the same claim had mounted it; it may be in use already."""

    def bring(self) -> Staged:
        self.refuse_early()
        external_id = self._created()
        return self.bring_attached(external_id, self._attach(external_id))

    @abstractmethod
    def refuse_early(self) -> None:
        """Raises what could not be changed by any attachment."""

    @abstractmethod
    def arrive(self, attachment: Attachment) -> None:
        """What belongs to attaching, once it is connected."""

    @abstractmethod
    def bring_attached(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        """Proves that it is the volume and mounts it."""

    def refuse(self, reason: str) -> NoReturn:
        raise Unsupported(platform=self.platform.name, action=f"stage volume {self.plan.name}", reason=reason)

    def need_root(self) -> None:
        if not self.machine.may_mount:
            self.refuse("mounting a device needs root")

    # --- to the node -------------------------------------------------------------------------------------

    def _created(self) -> ExternalId:
        if self.plan.external_id is not None and not self.plan.may_create:
            return self.plan.external_id
        with self.steps.step("create", platform=self.platform.name, token=self.plan.token):
            report = obtain(self.platform, self.plan)
        if self.known is None and report.birth is not None and report.birth.serial == report.serial:
            self.known = report.birth
        self.new_mib = report.size_mib
        if report.size_mib < self.plan.size_mib:
            reason = f"volume {report.external_id} has {report.size_mib} MiB, {self.plan.size_mib} MiB were asked for"
            raise NodeError(command="create", target=self.plan.name, reason=reason)
        return report.external_id

    def _attach(self, external_id: ExternalId) -> Attachment:
        with self.steps.step("attach", external_id=external_id, epoch=self.plan.epoch):
            self.attached = external_id
            try:
                attachment = self.platform.attach(external_id, self.node, epoch=self.plan.epoch, read_only=self.read_only)
            except (*OTHERS, *NOT_DELIVERED):
                self.attached = None
                raise
            self._connect(attachment)
            self.arrive(attachment)
        return attachment

    def _connect(self, attachment: Attachment) -> None:
        transport = transport_of(attachment)
        self.attachment = attachment
        if transport or self.is_export:
            self.keep(attachment)
        if transport:
            transport.connect(attachment, self.machine)

    def keep(self, attachment: Attachment) -> None:
        """Has the node know of it after this process: nothing else tells how to let go of it."""
        attached.keep(self.staging_dir, self.plan, attachment)

    def tell_birth(self, staged: Staged) -> None:
        """Has a birth certificate stored, and then kept with the volume, before the filesystem is mounted."""
        if self.on_birth is None:
            return
        if self.plan.birth is None:
            self.on_birth(staged)
        mark(staged, self.platform, self.steps)

    # --- back out ----------------------------------------------------------------------------------------------

    def back_out(self, error: BaseException) -> BaseException:
        """Undoes what was done, in reverse. Returns the error to raise: the same, or a NodeError around a foreign one."""
        raised = self._as_ours(error)
        problem = self._undo(error)
        if problem is not None and problem is not error:
            raised.add_note(f"and while it was undone: {problem}")
        if isinstance(raised, PollyError):
            raised.fields["held"] = problem is not None
        return raised

    def _undo(self, error: BaseException) -> BaseException | None:
        """Why the node may still hold the volume; None if it surely does not."""
        if self.attached is None:
            return None
        if self.was_mounted or isinstance(error, DeviceInUse):
            return error
        # Not told to on_step: it may be what has failed, or has called the whole thing off.
        steps = Steps(subject=self.steps.subject, journal=self.steps.journal, on_step=ignore, pace=self.steps.pace)
        release = releasing.Release(self.plan, self.platform, self.node, self.staging_dir, steps, self.machine, BACK_OUT_S)
        try:
            if self.device or self.is_export:
                release.unmount(self.device, force=False)
            device, seen = (self.device, self.serials) if self.device else release.device(self.attached, self.attachment)
            release.detach(self.attached, device, seen, self.attachment)
            places.leave(self.target)
        except Exception as problem:
            return problem
        return None

    def _as_ours(self, error: BaseException) -> BaseException:
        if isinstance(error, PollyError) or not isinstance(error, Exception):
            return error
        return NodeError(command="stage", target=self.plan.name, reason=f"{type(error).__name__}: {error}")
