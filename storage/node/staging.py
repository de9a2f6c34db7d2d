"""The one sequence that every way in shares: a volume comes to this node, is proved to be itself, and is mounted.

create or find by token, attach, find the device, compare it with the birth certificate or, for a new one, make the
filesystem and have its birth stored, check, mount. Whatever fails is undone in reverse; an error says by
`may_be_held(error)` whether this node may still hold the volume. All is safe to repeat, after a SIGKILL at any point too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from storage.errors import Unsupported
from storage.model import VolumePlan
from storage.node import releasing
from storage.node.attacher import Attacher
from storage.node.attempt import Attempt
from storage.node.device_attempt import DeviceAttempt
from storage.node.folder_attempt import ExportAttempt, FolderAttempt
from storage.node.journal import Journal
from storage.node.pace import Deadline
from storage.node.staged import OnBirth, Staged
from storage.node.steps import Machine, OnStep, Steps, ignore

ATTEMPTS: Final[Mapping[str, type[Attempt]]] = {"block": DeviceAttempt, "folder": FolderAttempt, "nfs": ExportAttempt}
"""By what a platform's attachments bring."""


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
    kind, machine = platform.capabilities.device, machine or Machine()
    if kind not in ATTEMPTS:
        raise Unsupported(platform=platform.name, action=f"stage volume {plan.name}", reason=f"this node does not know {kind} volumes")
    steps = Steps(subject=plan.claim_id, journal=journal, on_step=on_step, pace=machine.pace, deadline=deadline)
    staging_dir.mkdir(mode=0o700, exist_ok=True)
    attempt = ATTEMPTS[kind](plan, platform, node_name, staging_dir, steps, on_birth, machine)
    with releasing.alone(staging_dir, plan.volume_id, deadline.left_s, machine.pace):
        try:
            with attempt.opened:
                return attempt.bring()
        except BaseException as error:
            raised = attempt.back_out(error)
            if raised is error:
                raise
            raise raised from error
