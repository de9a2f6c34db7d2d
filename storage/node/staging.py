"""The one sequence that every way in shares: a volume comes to this node, is proved to be itself, and is mounted.

create or find by token, attach, find the device, compare it with the birth certificate or, for a new one, make the
filesystem and have its birth stored, check, mount. Whatever fails is undone in reverse; an error says by
`may_be_held(error)` whether this node may still hold the volume. All is safe to repeat, after a SIGKILL at any point too.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from storage.errors import (
    Cancelled,
    DeviceInUse,
    Invalid,
    LeaseExpired,
    NodeError,
    NotDelivered,
    PollyError,
    StaleEpoch,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
from storage.model import Access, AccessMode, Birth, ExternalId, VolumePlan
from storage.node import (
    attached,
    births,
    devices,
    disks,
    filesystems,
    folders,
    mapping,
    mountinfo,
    mounts,
    nfs,
    options,
    places,
    releasing,
    writing,
)
from storage.node.attacher import Attacher, obtain
from storage.node.births import Verdict
from storage.node.journal import Journal
from storage.node.marking import mark
from storage.node.pace import Deadline
from storage.node.staged import OnBirth, Staged
from storage.node.steps import Machine, OnStep, Steps, ignore
from storage.node.targets import Target
from storage.node.transports import transport_of
from storage.platforms.base import Attachment

OTHERS: Final = (VolumeInUse, StaleEpoch, UnknownVolume)
"""Refusals of attach after which the volume is surely not ours; a detach could take it from under its holder."""
NOT_DELIVERED: Final = (NotDelivered, LeaseExpired, Cancelled)
"""What ends the wait for the broker's attachment: nothing has come here, and what the broker did it undoes itself."""
BACK_OUT_S: Final = 10.0


def stage(
    plan: VolumePlan,
    platform: Attacher,
    node_name: str,
    *,
    staging_dir: Path,
    deadline: Deadline,
    journal: Journal,
    on_step: OnStep = ignore,
    on_birth: OnBirth | None = None,
    machine: Machine | None = None,
) -> Staged:
    """Brings the volume to this node and mounts it at `staging_dir`/CLAIM. Staged already by this claim is fine.

    Without `on_birth` the caller has the birth certificate stored that is returned, and then calls `mark`.
    Nothing begins after `deadline`. A failure is undone and raised as the PollyError that it is, with what went wrong
    while undoing in its notes; ask may_be_held(error). Raises LeaseExpired, NotBlank, NotAsBorn, NotFormatted,
    WrongDevice, DeviceNotFound, DeviceInUse, DamagedFilesystem, UnsafePath, NodeError, and what the platform raises.
    """
    machine = machine or Machine()
    steps = Steps(subject=plan.claim_id, journal=journal, on_step=on_step, pace=machine.pace, deadline=deadline)
    staging_dir.mkdir(mode=0o700, exist_ok=True)
    attempt = _Attempt(plan, platform, node_name, staging_dir, steps, on_birth, machine)
    with releasing.alone(staging_dir, plan.volume_id, deadline.left_s, machine.pace):
        try:
            with attempt.opened:
                return attempt.bring()
        except BaseException as error:
            raised = attempt.back_out(error)
            if raised is error:
                raise
            raise raised from error


class _Attempt:
    """One try to stage one volume, and what must be undone if it fails."""

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
        self._refuse_early()
        external_id = self._created()
        attachment = self._attach(external_id)
        bring = {"folder": self._bring_folder, "nfs": self._bring_nfs}.get(self.kind, self._bring_device)
        return bring(external_id, attachment)

    @property
    def kind(self) -> str:
        """What the platform's attachments bring: block, folder or nfs."""
        return self.platform.capabilities.device

    def _refuse_early(self) -> None:
        """What no device could change."""
        action = f"stage volume {self.plan.name}"
        if self.kind not in ("block", "folder", "nfs"):
            raise Unsupported(platform=self.platform.name, action=action, reason=f"this node does not know {self.kind} volumes")
        if self.kind == "nfs":
            options.check_nfs(self.plan.mount_options)
        elif self.kind == "block":
            self._refuse_filesystem(action)
        if self.kind != "folder" and not self.machine.may_mount:
            raise Unsupported(platform=self.platform.name, action=action, reason="mounting a device needs root")

    def _refuse_filesystem(self, action: str) -> None:
        least = filesystems.kind_of(self.plan.filesystem).min_mib
        if self.plan.may_format and self.plan.size_mib < least:
            raise Invalid(field="size_mib", value=self.plan.size_mib, reason=f"{self.plan.filesystem} needs {least} MiB or more")
        options.check_mount(self.plan.filesystem, self.plan.mount_options)
        options.check_mkfs(self.plan.filesystem, self.plan.mkfs_options)
        if self.plan.access_mode in (AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER):
            reason = f"{self.plan.filesystem} cannot be written on one node while another has it mounted"
            raise Unsupported(platform=self.platform.name, action=action, reason=reason)

    @property
    def filesystem(self) -> str:
        """What the volume has, or is to get."""
        return self.known.filesystem if self.known else self.plan.filesystem

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
            if self.kind == "block":
                self._open_device(attachment)
                if not self.serials:
                    attached.keep(self.staging_dir, self.plan, attachment)  # by no more than its name it is found again
        return attachment

    def _connect(self, attachment: Attachment) -> None:
        transport = transport_of(attachment)
        self.attachment = attachment
        if transport or self.kind == "nfs":
            attached.keep(self.staging_dir, self.plan, attachment)
        if transport:
            transport.connect(attachment, self.machine)

    def _open_device(self, attachment: Attachment) -> None:
        wait_s = min(self.steps.deadline.left_s if self.steps.deadline else 0.0, self.machine.device_wait_s)
        roots, pace = self.machine.roots, self.machine.pace
        self.device = devices.find(attachment.serial, hint=attachment.device, roots=roots, pace=pace, timeout_s=wait_s)
        self.opened.enter_context(devices.shared(self.device))
        self.serials = devices.identity(Path(self.device).name, roots)

    # --- a block device ------------------------------------------------------------------------------------

    def _bring_device(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        try:
            return self._bring_by_device(external_id, attachment)
        except PollyError:
            if not mapping.has_come_over(self.device, self.machine.roots):
                raise
        # multipathd saw one path more than before, and took this one before it was mounted: nothing else could be done by it.
        self._open_device(attachment)
        return self._bring_by_device(external_id, attachment)

    def _bring_by_device(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        verdict, contents_uuid = self._probe(attachment)
        uuid = self._prepare(verdict, contents_uuid)
        birth = self.known or Birth(serial=attachment.serial, filesystem=self.plan.filesystem, filesystem_uuid=uuid)
        staged = Staged(
            plan=self.plan,
            external_id=external_id,
            size_mib=devices.size_bytes(self.device) // filesystems.MIB,
            device=self.device,
            birth=birth,
            formatted=births.made_by(self.plan, birth),
            took_ms=dict(self.steps.took_ms),
        )
        self._tell_birth(staged)
        self._check(verdict)
        self._grow(verdict, mounted=False)
        self._mount(birth.filesystem_uuid)
        self._grow(verdict, mounted=True)
        return replace(staged, path=str(self.target), took_ms=dict(self.steps.took_ms))

    def _probe(self, attachment: Attachment) -> tuple[Verdict, str]:
        with self.steps.step("probe", device=self.device):
            found = mountinfo.at(str(self.target), self.machine.roots.proc)
            self.was_mounted = found is not None and found.device == mounts.device_number(self.device)
            alone = not (self.was_mounted or self.read_only)
            disks.refuse_held(self.device, self.machine.roots, alone=alone)
            if not self.was_mounted:
                self._set_mode()
            self._see_growth()
            contents = filesystems.look(self.device, alone=alone)
            verdict = births.judge(
                self.plan,
                contents,
                known=self.known,
                serial=attachment.serial,
                device=self.device,
                filesystem=self.filesystem,
            )
            if verdict is not Verdict.FORMAT:
                filesystems.superblock(self.device, self.filesystem)
        return verdict, contents.uuid

    def _set_mode(self) -> None:
        """Whoever mounts a filesystem for reading only may still write: its journal is replayed, also while other nodes read it."""
        if self.read_only:
            writing.forbid(self.device)
        else:
            writing.allow(self.device)

    def _see_growth(self) -> None:
        if devices.size_bytes(self.device) < self.plan.size_mib * filesystems.MIB:
            disks.rescan_size(self.device, self.machine.roots)

    def _prepare(self, verdict: Verdict, uuid: str) -> str:
        """Makes the filesystem, or makes sure that one of unknown history is whole. Returns its UUID."""
        kind, run = filesystems.kind_of(self.filesystem), self.machine.run
        if verdict is Verdict.FORMAT:
            return self._format()
        if self.was_mounted or verdict is Verdict.BORN or (verdict is Verdict.CLONE and self.read_only):
            return uuid  # a reader leaves a copy as it came: its device may not even let itself be written
        with self.steps.step("fsck", device=self.device):
            if verdict is Verdict.CLONE:
                return kind.identify(self.device, births.filesystem_uuid(self.plan), self.target, run)
            kind.audit(self.device, self.target, run, read_only=self.read_only)
        return uuid

    def _format(self) -> str:
        plan, uuid = self.plan, births.filesystem_uuid(self.plan)
        with self.steps.step("mkfs", durable=True, device=self.device, filesystem=plan.filesystem, uuid=uuid):
            filesystems.make(
                self.device,
                plan.filesystem,
                uuid=uuid,
                mkfs_options=plan.mkfs_options,
                size_mib=self.new_mib,
                is_shared=plan.access_mode is AccessMode.MULTI_NODE_READER_ONLY,
                run=self.machine.run,
            )
        return uuid

    def _tell_birth(self, staged: Staged) -> None:
        """Has a birth certificate stored, and then kept with the volume, before the filesystem is mounted."""
        if self.on_birth is None:
            return
        if self.plan.birth is None:
            self.on_birth(staged)
        mark(staged, self.platform, self.steps)

    def _check(self, verdict: Verdict) -> None:
        if verdict in (Verdict.BORN, Verdict.ADOPT) and not (self.read_only or self.was_mounted):
            with self.steps.step("fsck", device=self.device):
                filesystems.kind_of(self.filesystem).check(self.device, self.machine.run)

    def _mount(self, uuid: str) -> None:
        chosen = options.check_mount(self.filesystem, self.plan.mount_options)
        # xfs takes a second device of one UUID for an accident. Readers of one volume may have one each; a copy may have its origin's.
        if self.filesystem == "xfs" and (self.read_only or births.is_borrowed(self.plan, uuid)):
            chosen = chosen.also("nouuid")
        with self.steps.step("mount", device=self.device, target=str(self.target)):
            places.hold(self.target, self.machine.roots.proc)
            mounts.mount_device(self.device, self.filesystem, self.target, chosen, read_only=self.read_only, proc=self.machine.roots.proc)

    def _grow(self, verdict: Verdict, *, mounted: bool) -> None:
        """Grows a filesystem that is smaller than its device: while it is mounted, if we may do that, else before."""
        kind, run = filesystems.kind_of(self.filesystem), self.machine.run
        before = kind.grows_unmounted and not self.machine.may_resize and not self.was_mounted
        if self.read_only or verdict is Verdict.FORMAT or before is mounted or not filesystems.needs_growth(self.device, kind.name):
            return
        with self.steps.step("grow", device=self.device):
            if mounted:
                kind.grow(self.device, str(self.target), run)
            else:
                kind.grow_unmounted(self.device, run)

    # --- a folder, its own or an export's ----------------------------------------------------------------------

    def _bring_nfs(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        chosen = options.check_nfs(self.plan.mount_options)
        with self.steps.step("mount", source=attachment.device, target=str(self.target)):
            places.hold(self.target, self.machine.roots.proc)
            self.was_mounted = nfs.mount(attachment.device, self.target, chosen, read_only=self.read_only, machine=self.machine)
        return self._bring_folder(external_id, attachment)

    def _bring_folder(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        folder = str(self.target) if self.kind == "nfs" else attachment.device
        with self.steps.step("probe", folder=folder):
            contents = nfs.look(folder, self.machine) if self.kind == "nfs" else folders.look(folder)
            verdict = births.judge(
                self.plan, contents, known=self.known, serial=attachment.serial, device=attachment.device, filesystem=folders.FOLDER
            )
        uuid = contents.uuid
        if verdict is Verdict.FORMAT or (verdict is Verdict.CLONE and not self.read_only) or not uuid:
            uuid = self._mark(folder)
        birth = self.known or Birth(serial=attachment.serial, filesystem=folders.FOLDER, filesystem_uuid=uuid)
        staged = Staged(
            plan=self.plan,
            external_id=external_id,
            size_mib=self.new_mib,
            device=attachment.device,
            birth=birth,
            path=folder,
            is_folder=self.kind == "folder",
            formatted=births.made_by(self.plan, birth),
            took_ms=dict(self.steps.took_ms),
        )
        self._tell_birth(staged)
        return replace(staged, took_ms=dict(self.steps.took_ms))

    def _mark(self, folder: str) -> str:
        uuid = births.filesystem_uuid(self.plan)
        with self.steps.step("mkfs", durable=True, folder=folder, uuid=uuid):
            if self.kind == "nfs":
                nfs.mark(folder, uuid, self.machine, may_write=not self.read_only)
            else:
                folders.mark(folder, uuid, may_write=not self.read_only)
        return uuid

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
            if self.device or self.kind == "nfs":
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
