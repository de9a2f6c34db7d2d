"""A task's volumes on this node: brought here one after the other, shown where the task looks for them, and taken away in reverse.

Imported only for a task that has volumes. What each step does is in storage/node; here is their order, and what is
reported of them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from executors.delivered import DeliveredVolume
from executors.identity import User
from executors.wire import ATTACH, BROKER, FAILED, RELEASED, Delivery, HostVolume, PlatformSettings, VolumeProgress, failure
from storage.errors import Cancelled, Invalid, NodeError, PollyError
from storage.lifecycle import ClaimState
from storage.model import ClaimId, VolumePlan
from storage.node import mounts
from storage.node.attacher import Attacher
from storage.node.folders import FOLDER
from storage.node.identities import identify
from storage.node.journal import Journal
from storage.node.marking import mark
from storage.node.mountinfo import Mount
from storage.node.pace import Deadline
from storage.node.publishing import publish, unpublish
from storage.node.releasing import sweep, unstage
from storage.node.staged import Staged, may_be_held
from storage.node.staging import stage
from storage.node.steps import Machine, Steps
from storage.node.targets import Target
from storage.platforms import registry
from storage.platforms.base import Platform

logger = logging.getLogger(__name__)

JOURNAL = "polly-journal"
"""In the sandbox: what was begun and done, for people, and gone when the agent throws the sandbox away."""

Bind = tuple[str, str, bool]
"""A folder, the absolute path where the task alone sees it, and whether it is read-only there."""


class NodeVolume:
    """One volume of the task, and how far it has come."""

    def __init__(self, plan: VolumePlan) -> None:
        self.plan = plan
        self.step: str = ClaimState.ATTACHING
        self.staged: Staged | None = None
        self.error: PollyError | None = None
        self.held = False
        """This node may hold it."""
        self.took_ms: dict[str, float] = {}
        self.wants = ""
        """ATTACH while the broker is to attach it and has not answered."""

    @property
    def tells_birth(self) -> bool:
        """Its birth certificate is new to the broker."""
        return self.staged is not None and self.plan.birth is None

    def progress(self) -> VolumeProgress:
        staged = self.staged
        return VolumeProgress(
            claim_id=self.plan.claim_id,
            epoch=self.plan.epoch,
            step=self.step,
            external_id=staged.external_id if staged else None,
            size_mib=staged.size_mib if staged else None,
            device=staged.device if staged else "",
            birth=staged.birth if staged and self.tells_birth else None,
            formatted=staged.formatted if staged else False,
            held=self.held or self.step not in (FAILED, RELEASED),
            wants=self.wants,
            took_ms={name: round(took, 1) for name, took in self.took_ms.items()},
            error=failure(self.error) if self.error else None,
        )

    def failed(self, error: PollyError, *, held: bool) -> None:
        self.step, self.error, self.held = FAILED, error, held

    @property
    def words(self) -> str:
        """What was done to bring it, for people: `data: attached /dev/loop3, formatted ext4, mounted (41 ms)`."""
        staged = self.staged
        if staged is None:
            return f"{self.plan.container_path}: not here"
        filesystem = staged.birth.filesystem
        made = "marked as born" if filesystem == FOLDER else f"formatted {filesystem}"
        done = {"create": "created", "attach": f"attached {staged.device}", "mkfs": made, "fsck": "checked"}
        steps = [words for name, words in done.items() if name in self.took_ms]
        end = () if staged.is_folder else ("mounted",)
        return f"{self.plan.container_path}: {', '.join([*steps, *end])} ({sum(self.took_ms.values()):.0f} ms)"


class Volumes:
    """The volumes of one task. `check` is called between steps and may raise to call the whole thing off."""

    def __init__(
        self,
        plans: Sequence[VolumePlan],
        host_volumes: Sequence[HostVolume],
        platforms: Mapping[str, PlatformSettings],
        *,
        overrides: Mapping[str, Mapping[str, object]],
        identities: Mapping[str, str],
        node: str,
        staging_dir: Path,
        sandbox: Path,
        machine: Machine | None = None,
    ) -> None:
        self.volumes = [NodeVolume(plan) for plan in plans]
        self._host_volumes = host_volumes
        self._settings, self._overrides = platforms, overrides
        self._node, self._known = node, identities
        self.names: dict[str, str] = {}
        """What each platform of these volumes calls this node; filled by `identify`."""
        self._staging_dir, self._sandbox = staging_dir, sandbox
        self._machine = machine or Machine()
        self._platforms: dict[str, Platform] = {}
        self._delivered: dict[ClaimId, DeliveredVolume] = {}
        self._journal: Journal | None = None
        self._published: dict[str, Mount | None] = {}
        """What was shown in the sandbox, by its path there."""
        self.binds: list[Bind] = []

    def __iter__(self) -> Iterator[NodeVolume]:
        return iter(self.volumes)

    # --- bring

    def identify(self) -> None:
        """Learns what the platforms call this node: from the node's file, or as the platform's adapter says. Raises NodeError, Invalid."""
        for volume in self.volumes:
            name = volume.plan.platform
            try:
                if name not in self.names:
                    source = self._said(name).identity
                    self.names[name] = self._known.get(name) or identify(source, self._machine, hostname=self._node)
                volume.wants = ATTACH if self._said(name).attach_by == BROKER else ""
            except PollyError as error:
                volume.failed(error, held=False)
                raise

    def bring(self, user: User, *, deadline: Deadline, check: Callable[[], None], ask: Callable[[NodeVolume], Delivery]) -> None:
        """All of them, or an error of storage.errors; what is here then is released by `release`, as it is after a success.

        `ask` waits until the broker has answered a volume's wish to be attached.
        """
        sweep(self._staging_dir, self._machine)
        for volume in self.volumes:
            check()
            if volume.wants:
                said = self._said(volume.plan.platform)
                self._delivered[volume.plan.claim_id] = DeliveredVolume(volume.plan, said, partial(ask, volume))
            self._stage(volume, deadline, check)
            self._give(volume, user)

    def _stage(self, volume: NodeVolume, deadline: Deadline, check: Callable[[], None]) -> None:
        plan = volume.plan
        try:
            volume.staged = stage(
                plan,
                self._attacher(plan),
                self.names[plan.platform],
                staging_dir=self._staging_dir,
                deadline=deadline,
                journal=self._opened_journal(),
                on_step=_once(plan, check),
                machine=self._machine,
            )
        except PollyError as error:
            held = (plan.claim_id in self._delivered or plan.platform in self._platforms) and may_be_held(error)
            if held or not isinstance(error, Cancelled):
                volume.failed(error, held=held)
            raise
        except Exception as error:
            volume.failed(NodeError(command="stage", target=plan.name, reason=f"{type(error).__name__}: {error}"), held=True)
            raise
        volume.held = True
        volume.took_ms |= volume.staged.took_ms

    def mark_births(self, *, deadline: Deadline, check: Callable[[], None]) -> None:
        """Keeps the birth certificates with the volumes: those that the broker has just confirmed, and those that it knew, for who gave
        birth may have died before it did. Raises what their platforms raise.
        """
        for volume in self.volumes:
            if volume.staged:
                plan, steps = volume.plan, self._steps(volume.plan, deadline, check)
                try:
                    mark(volume.staged, self._attacher(plan), steps)
                except PollyError as error:
                    volume.error = error
                    raise
                volume.took_ms |= steps.took_ms

    def _steps(self, plan: VolumePlan, deadline: Deadline, check: Callable[[], None]) -> Steps:
        on_step = _once(plan, check)
        return Steps(subject=plan.claim_id, journal=self._opened_journal(), on_step=on_step, pace=self._machine.pace, deadline=deadline)

    def _give(self, volume: NodeVolume, user: User) -> None:
        """A filesystem that this claim made belongs to the task's user; one that had an owner keeps it."""
        if volume.staged and volume.staged.formatted and os.geteuid() == 0:
            path = volume.staged.path
            try:
                os.chown(path, *user.owner)
            except OSError as error:  # an export that takes root for nobody
                reason = f"{error.strerror}; the platform must let this node's root give away what is on the volume"
                raise NodeError(command="chown", target=path, reason=reason) from error

    def _attacher(self, plan: VolumePlan) -> Attacher:
        return self._delivered.get(plan.claim_id) or self._platform(plan.platform)

    def _platform(self, name: str) -> Platform:
        if name not in self._platforms:
            said = self._said(name)
            self._platforms[name] = registry.build(name, said.kind, {**said.settings, **self._overrides.get(name, {})})
        return self._platforms[name]

    def _said(self, name: str) -> PlatformSettings:
        said = self._settings.get(name)
        if said is None:
            raise Invalid(field="platforms", value=name, reason="the launch does not say how to reach this platform")
        return said

    def _opened_journal(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self._sandbox / JOURNAL, clock=time.time)
        return self._journal

    # --- show

    def show(self, user: User) -> None:
        """Puts every volume where the task looks for it. Raises UnsafePath, NodeError, Invalid."""
        for volume in self.volumes:
            if volume.staged:
                self._show_volume(volume, volume.staged, user)
                volume.step = ClaimState.MOUNTED
        for host_volume in self._host_volumes:
            self._show_host_volume(host_volume, user)

    def _show_volume(self, volume: NodeVolume, staged: Staged, user: User) -> None:
        path, read_only = volume.plan.container_path, volume.plan.access == "RO"
        if os.path.isabs(path):
            self._bind(staged.path, path, read_only)
            return
        self._make_way(path, user)
        self._published[path] = None
        try:
            self._published[path] = publish(staged, self._sandbox, path, read_only=read_only, machine=self._machine).mount
        except PollyError as error:
            volume.error = error
            raise

    def _show_host_volume(self, volume: HostVolume, user: User) -> None:
        source = Path(volume.host_path)
        if not source.is_dir():
            raise Invalid(field="hostPath", value=volume.host_path, reason="this node has no such folder")
        if os.path.isabs(volume.container_path):
            self._bind(volume.host_path, volume.container_path, volume.read_only)
            return
        if not self._machine.may_mount:
            raise Invalid(field="hostPath", value=volume.host_path, reason="binding a folder needs root")
        self._make_way(volume.container_path, user)
        target = Target.below(self._sandbox, volume.container_path)
        self._published[volume.container_path] = None
        self._published[volume.container_path] = mounts.bind(source, target, read_only=volume.read_only)

    def _make_way(self, path: str, user: User) -> None:
        with Target.below(self._sandbox, path).parent(create_for=user.owner):
            pass

    def _bind(self, source: str, path: str, read_only: bool) -> None:
        """Over a path of the machine, for the task alone: init does that where no process of ours can be misled by it."""
        if not self._machine.may_mount:
            raise Invalid(field="containerPath", value=path, reason="an absolute path needs root; use one inside the sandbox")
        if not os.path.isdir(path):
            raise Invalid(field="containerPath", value=path, reason="this node has no such folder; an absolute path must exist")
        self.binds.append((source, path, read_only))

    @property
    def hide(self) -> list[str]:
        """The mounts that the task has no use for."""
        return [volume.staged.path for volume in self.volumes if volume.staged and not volume.staged.is_folder]

    def descriptors(self) -> list[int]:
        """What init must keep open, so that the volumes stay held as long as a process of the task lives."""
        found = (self._attacher(volume.plan).inheritable(volume.staged.external_id) for volume in self.volumes if volume.staged)
        return [descriptor for descriptor in found if descriptor is not None]

    # --- release

    def release(self) -> None:
        """Everything, in reverse, whatever fails; what could not be released says so in its progress. Safe at any point."""
        for path, mount in reversed(self._published.items()):
            self._hide(path, mount)
        self._published.clear()
        for volume in reversed(self.volumes):
            self._release(volume)
        for platform in self._platforms.values():
            platform.close()
        if self._journal is not None:
            self._journal.close()

    def _hide(self, path: str, mount: Mount | None) -> None:
        try:
            unpublish(self._sandbox, path, mount=mount, machine=self._machine)
        except Exception as error:
            logger.error("%s is not taken out of sight: %s", path, error)

    def _release(self, volume: NodeVolume) -> None:
        if volume.staged is None:
            volume.step = FAILED if volume.error else RELEASED
            return
        plan = volume.plan
        volume.step = ClaimState.RELEASING
        try:
            took = unstage(
                plan,
                self._attacher(plan),
                self.names[plan.platform],
                staging_dir=self._staging_dir,
                journal=self._opened_journal(),
                external_id=volume.staged.external_id,
                machine=self._machine,
            )
        except Exception as error:
            raised = error if isinstance(error, PollyError) else NodeError(command="release", target=plan.name, reason=str(error))
            logger.error("volume %s is not released: %s", plan.name, raised)
            volume.failed(raised, held=True)
            return
        logger.info("volume %s is released", plan.name)
        volume.took_ms |= took
        volume.step, volume.held = (FAILED if volume.error else RELEASED), False

    def claims_to_confirm(self) -> set[ClaimId]:
        """Claims whose birth certificate the broker must have stored before the task may write to their volumes."""
        return {volume.plan.claim_id for volume in self.volumes if volume.tells_birth}


def _once(plan: VolumePlan, check: Callable[[], None]) -> Callable[[str, float], None]:
    """Logs each step; lets `check` call it off once only, so that the steps of undoing are not called off as well."""
    called_off = False

    def on_step(step: str, took_ms: float) -> None:
        nonlocal called_off
        logger.info("volume %s: %s (%.1f ms)", plan.name, step, took_ms)
        if not called_off:
            called_off = True
            check()
            called_off = False

    return on_step
