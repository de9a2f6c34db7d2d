"""A folder on its way to its task: one that the node has already, or an export that is mounted first. A file in it names its birth."""

from __future__ import annotations

from dataclasses import replace

from storage.model import Birth, ExternalId
from storage.node import births, folders, nfs, options, places
from storage.node.attempt import Attempt
from storage.node.births import Verdict
from storage.node.probing import Contents
from storage.node.staged import Staged
from storage.platforms.base import Attachment


class FolderAttempt(Attempt):
    def refuse_early(self) -> None:
        """A folder is taken as it is."""

    def arrive(self, attachment: Attachment) -> None:
        """It is there."""

    def bring_attached(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        folder = self._folder(attachment)
        with self.steps.step("probe", folder=folder):
            contents = self._look(folder)
            verdict = births.judge(
                self.plan, contents, known=self.known, serial=attachment.serial, device=attachment.device, filesystem=folders.FOLDER
            )
        uuid = contents.uuid
        if verdict is Verdict.FORMAT or (verdict is Verdict.CLONE and not self.read_only) or not uuid:
            uuid = births.filesystem_uuid(self.plan)
            with self.steps.step("mkfs", durable=True, folder=folder, uuid=uuid):
                self._mark(folder, uuid)
        birth = self.known or Birth(serial=attachment.serial, filesystem=folders.FOLDER, filesystem_uuid=uuid)
        staged = Staged(
            plan=self.plan,
            external_id=external_id,
            size_mib=self.new_mib,
            device=attachment.device,
            birth=birth,
            path=folder,
            is_folder=not self.is_export,
            formatted=births.made_by(self.plan, birth),
            took_ms=dict(self.steps.took_ms),
        )
        self.tell_birth(staged)
        return replace(staged, took_ms=dict(self.steps.took_ms))

    def _folder(self, attachment: Attachment) -> str:
        return attachment.device

    def _look(self, folder: str) -> Contents:
        return folders.look(folder)

    def _mark(self, folder: str, uuid: str) -> None:
        folders.mark(folder, uuid, may_write=not self.read_only)


class ExportAttempt(FolderAttempt):
    is_export = True

    def refuse_early(self) -> None:
        options.check_nfs(self.plan.mount_options)
        self.need_root()

    def bring_attached(self, external_id: ExternalId, attachment: Attachment) -> Staged:
        chosen = options.check_nfs(self.plan.mount_options)
        with self.steps.step("mount", source=attachment.device, target=str(self.target)):
            places.hold(self.target, self.machine.roots.proc)
            self.was_mounted = nfs.mount(attachment.device, self.target, chosen, read_only=self.read_only, machine=self.machine)
        return super().bring_attached(external_id, attachment)

    def _folder(self, attachment: Attachment) -> str:
        return str(self.target)

    def _look(self, folder: str) -> Contents:
        return nfs.look(folder, self.machine)

    def _mark(self, folder: str, uuid: str) -> None:
        nfs.mark(folder, uuid, self.machine, may_write=not self.read_only)
