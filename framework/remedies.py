"""What a person can do about a volume whose claim, or whose delete, does not end by itself: what there is to look at, and the ways in which
Polly would believe that its holder is gone.

Knows what the broker knows, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from shlex import quote
from typing import Final, NamedTuple

from framework.mesos.asking import Demand, coexist
from framework.mesos.context import Context
from framework.mesos.instances import AppState, Phase, Task
from framework.service import Hold
from storage.errors import PollyError
from storage.lifecycle import ClaimState, VolumeState
from storage.model import Claim, NodeId, Volume

LONG_S: Final = 60.0
"""What takes seconds is asked about from here on."""


class Stuck(NamedTuple):
    """What stands in the way, and the ways out; no way out where it may well end by itself."""

    holds: tuple[Hold, ...]
    ways: tuple[str, ...]


def of_task(context: Context, task: Task, now: float) -> Stuck:
    """For a task that starts or ends, or that nobody can reach."""
    return _of([(task, claim) for claim in task.claims.values()], (), context, now)


def of_slot(context: Context, state: AppState, slot: int, now: float) -> Stuck:
    """For an instance that waits for volumes which others hold, or which are just deleted."""
    try:
        needs = {need.name: need for need in Demand(context.config, state.app).needs(slot)}
    except PollyError:
        return Stuck((), ())
    volumes = context.resolve(needs.keys())
    holders = [
        (task, claim)
        for name, volume in volumes.items()
        for task, claim in context.picture.holders(volume.volume_id)
        if volume.unborn or not coexist(volume.access_mode, needs[name].access, claim.access)
    ]
    return _of(holders, [volume for volume in volumes.values() if volume.state is VolumeState.DELETING], context, now)


def _of(holders: Iterable[tuple[Task, Claim]], doomed: Iterable[Volume], context: Context, now: float) -> Stuck:
    holds, ways = list[Hold](), list[str]()
    for task, claim in holders:
        holds.append(_hold(task, claim))
        ways += _of_claim(context, task, claim, now)
    for volume in doomed:
        holds.append(Hold(volume=volume.name, volume_id=volume.volume_id, state=volume.state, reason=volume.reason))
        ways += _of_delete(volume)
    return Stuck(tuple(holds), tuple(dict.fromkeys(ways)))


def _hold(task: Task, claim: Claim) -> Hold:
    return Hold(
        volume=task.volumes[claim.volume_id].name,
        volume_id=claim.volume_id,
        state=claim.state,
        since=claim.since,
        claim_id=claim.claim_id,
        node=task.agent_id,
        hostname=task.record.hostname,
        reason=claim.reason,
    )


def _of_claim(context: Context, task: Task, claim: Claim, now: float) -> Iterator[str]:
    if claim.state is ClaimState.STRANDED:
        yield f"bring agent {task.record.hostname} back: its task is then heard to run, or to have ended"
        yield from _dead_machine(context, task, claim)
        yield f"if it will never come back, tell the Mesos master so (MARK_AGENT_GONE): {_mark_gone(context.driver.master, task.agent_id)}"
        yield _release(task, claim)
    elif now - claim.since < LONG_S or claim.state is ClaimState.MOUNTED:
        return
    elif claim.state is ClaimState.RELEASING and task.phase is Phase.SETTLING:
        yield from _still_held(context, task, claim)
    else:
        yield from _at_work(task, claim)


def _dead_machine(context: Context, task: Task, claim: Claim) -> Iterator[str]:
    volume = task.volumes[claim.volume_id]
    platform, node = context.platforms.get(volume.platform), context.node_name(task, volume.platform)
    if platform and platform.capabilities.sees_nodes and node:
        yield f"if the machine is dead, stop or delete {node} on platform {volume.platform}: Polly looks by itself"


def _still_held(context: Context, task: Task, claim: Claim) -> Iterator[str]:
    """The task is over, and the platform sees its volume in use."""
    host, volume = task.record.hostname, task.volumes[claim.volume_id]
    finding = f"as root there: lsof, and grep -l {task.task_id} /proc/[0-9]*/mountinfo"
    yield f"end what still uses it on agent {host}, a process with a file of it open or its mount in a namespace of its own ({finding})"
    platform = context.platforms.get(volume.platform)
    is_attached = volume.external_id and not (platform and platform.capabilities.held_by_process)
    if is_attached and (node := context.node_name(task, volume.platform)):
        on = f"on platform {volume.platform}: Polly looks by itself"
        yield f"once nothing there has it mounted, detach {volume.external_id} from {node} {on}"
    yield from _dead_machine(context, task, claim)
    yield _release(task, claim)


def _at_work(task: Task, claim: Claim) -> Iterator[str]:
    """The executor is heard of, and has not come to an end with the volume."""
    host = task.record.hostname
    yield f"read what its executor says: stderr in the sandbox of task {task.task_id} on agent {host}, which Mesos' web page shows"
    yield f"see what was done so far: polly events --volume {quote(task.volumes[claim.volume_id].name)} --newest-first"
    yield f"see whether the agent has what it needs, on {host} and as root: polly doctor --config polly.toml"


def _of_delete(volume: Volume) -> Iterator[str]:
    yield f"mend what platform {volume.platform} says: Polly deletes it again by itself, at the latest after a minute"
    yield f"see what was done so far: polly events --volume {quote(volume.name)} --newest-first"


def _release(task: Task, claim: Claim) -> str:
    host = task.record.hostname
    return f'if you know that nothing on {host} writes to it any more: polly claim release {claim.claim_id} --because "how you know"'


def _mark_gone(master: str | None, agent: NodeId) -> str:
    """The command, to be copied; an agent's id is letters, digits and hyphens."""
    call = f'{{"type": "MARK_AGENT_GONE", "mark_agent_gone": {{"agent_id": {{"value": "{agent}"}}}}}}'
    return f"curl -X POST {master or 'MASTER:5050'}/api/v1 -H 'Content-Type: application/json' -d '{call}'"
