"""A block device on its way to its mount: probed, compared with its birth certificate or formatted, checked, mounted, grown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from storage.errors import Invalid, PollyError
from storage.model import AccessMode, Birth, ExternalId
from storage.node import births, devices, disks, filesystems, mapping, mountinfo, mounts, options, places, writing
from storage.node.attempt import Attempt
from storage.node.births import Verdict
from storage.node.staged import Staged
from storage.platforms.base import Attachment


class DeviceAttempt(Attempt):
    def refuse_early(self) -> None:
        least = filesystems.kind_of(self.plan.filesystem).min_mib
        if self.plan.may_format and self.plan.size_mib < least:
            raise Invalid(field="size_mib", value=self.plan.size_mib, reason=f"{self.plan.filesystem} needs {least} MiB or more")
        options.check_mount(self.plan.filesystem, self.plan.mount_options)
        options.check_mkfs(self.plan.filesystem, self.plan.mkfs_options)
        if self.plan.access_mode in (AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER):
            self.refuse(f"{self.plan.filesystem} cannot be written on one node while another has it mounted")
        self.need_root()

    @property
    def filesystem(self) -> str:
        """What the volume has, or is to get."""
        return self.known.filesystem if self.known else self.plan.filesystem

    def arrive(self, attachment: Attachment) -> None:
        self._open(attachment)
        if not self.serials:
            self.keep(attachment)  # by no more than its name it is found again

    def _open(self, attachment: Attachment) -> None:
        wait_s = min(self.steps.deadline.left_s if self.steps.deadline else 0.0, self.machine.device_wait_s)
        roots, pace = self.machine.roots, self.machine.pace
        self.device = devices.find(attachment.serial, hint=attachment.device, roots=roots, pace=pace, timeout_s=wait_s)
        self.opened.enter_context(devices.shared(self.device))
        self.serials = devices.identity(Path(self.device).name, roots)

    def bring_attached(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        try:
            return self._bring(external_id, attachment)
        except PollyError:
            if not mapping.has_come_over(self.device, self.machine.roots):
                raise
        # multipathd saw one path more than before, and took this one before it was mounted: nothing else could be done by it.
        self._open(attachment)
        return self._bring(external_id, attachment)

    def _bring(self, external_id: ExternalId, attachment: Attachment) -> Staged:
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
        self.tell_birth(staged)
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
