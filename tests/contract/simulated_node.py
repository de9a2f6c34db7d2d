"""A node whose platform shows it loop devices, as the machines of that platform would show its volumes."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.node import identities, mountinfo
from storage.node.journal import Journal
from storage.node.pace import Deadline
from storage.node.releasing import unstage
from storage.node.staged import Staged
from storage.node.staging import stage
from storage.node.steps import Machine
from storage.platforms.base import Platform
from tests.nodes import plan


@dataclass(kw_only=True)
class SimulatedNode:
    """Its `dev` and `sys` are folders of its own; what Polly does in them is what it does on a real node."""

    folder: Path
    data: Path
    """What is on the volumes, for all nodes."""
    shown: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The loop device and the name of each volume's device, by what the platform calls the volume."""

    @property
    def machine(self) -> Machine:
        raise NotImplementedError

    def attach_loop(self, key: str, backing: Path, names: list[str], *, size: int, read_only: bool = False) -> str:
        """Shows a file of `size` bytes as a device with the first of the names that is free; returns that name."""
        backing.touch()
        os.truncate(backing, size)
        options = ["--read-only"] if read_only else []
        command = ["losetup", *options, "--find", "--show", str(backing)]
        loop = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        name = next(name for name in names if not (self.folder / "dev" / name).exists())
        os.mknod(self.folder / "dev" / name, stat.S_IFBLK | 0o600, os.stat(loop).st_rdev)
        self.shown[key] = (loop, name)
        return name

    def link(self, name: str, link: str) -> None:
        path = self.folder / "dev/disk/by-id" / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(f"../../{name}")

    def hide(self, key: str) -> None:
        """Links are left behind, as udev leaves them now and then."""
        loop, name = self.shown.pop(key)
        (self.folder / "dev" / name).unlink()
        subprocess.run(["losetup", "--detach", loop], check=True)

    def called(self, platform: Platform) -> str:
        """What the platform calls this node, as the node learns it."""
        return identities.identify(platform.capabilities.identity, self.machine, hostname="?")

    def stage(self, platform: Platform, **wanted: Any) -> Staged:
        return stage(
            plan(**{"platform": platform.name, "filesystem": "ext4", **wanted}),
            platform,
            self.called(platform),
            staging_dir=self.folder / "staging",
            deadline=Deadline.of(60.0),
            journal=Journal(self.folder / "journal", clock=time.time),
            on_birth=lambda _: None,  # as stored as it ever is: the test has what is returned
            machine=self.machine,
        )

    def unstage(self, platform: Platform, staged: Staged) -> None:
        journal = Journal(self.folder / "journal", clock=time.time)
        unstage(staged.plan, platform, self.called(platform), staging_dir=self.folder / "staging", journal=journal, machine=self.machine)

    def end(self) -> None:
        for mount in mountinfo.read():
            if mount.target.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", mount.target], check=True)
        for key in list(self.shown):
            self.hide(key)
